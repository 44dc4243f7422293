//! The network device through the mock driver, with a port that keeps what it gets.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hv_core::Event;

use super::wire::{HEADER_LEN, OFFLOAD_LEN};
use super::*;
use crate::testkit::Driver;
use crate::virtio::{Reader, Ready, Sources, VirtioDevice as _};

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What the two ends of a port share.
#[derive(Default)]
struct Wire {
    sent: Vec<Vec<u8>>,
    flushed: usize,
    incoming: VecDeque<Vec<u8>>,
    started: Vec<Offloads>,
    /// Frames that it takes before it is flushed, and whether flushing works.
    room: usize,
    stuck: bool,
    cut: bool,
    /// There will be no other.
    gone: bool,
}

#[derive(Clone)]
struct Port {
    wire: Arc<Mutex<Wire>>,
    fetched: VecDeque<Vec<u8>>,
    wake: Event,
    /// Waited for, too, where there is one.
    #[cfg(target_os = "linux")]
    socket: Option<Arc<std::os::unix::net::UnixStream>>,
}

impl Port {
    fn new() -> Self {
        let wire = Wire {
            room: 4,
            ..Wire::default()
        };
        Self {
            wire: Arc::new(Mutex::new(wire)),
            fetched: VecDeque::new(),
            wake: Event::new().unwrap(),
            #[cfg(target_os = "linux")]
            socket: None,
        }
    }

    fn change<R>(&self, change: impl FnOnce(&mut Wire) -> R) -> R {
        let result = change(&mut self.wire.lock().unwrap());
        self.wake.signal();
        result
    }

    fn whole(&self) -> io::Result<()> {
        if self.wire.lock().unwrap().cut {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl NetPort for Port {
    fn started(&mut self, offloads: Offloads) -> io::Result<()> {
        self.wire.lock().unwrap().started.push(offloads);
        self.whole()
    }

    fn watch(
        &self,
        sources: &mut dyn Sources,
        token: u32,
        interest: Ready,
        is_new: bool,
    ) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(socket) = &self.socket {
            use std::os::fd::AsFd as _;
            return if is_new {
                sources.add_fd(token, socket.as_fd(), interest)
            } else {
                sources.modify_fd(token, socket.as_fd(), interest)
            };
        }
        let _ = interest;
        if is_new {
            sources.add_event(token, &self.wake)?;
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let wire = self.wire.lock().unwrap();
        wire.sent.len() - wire.flushed < wire.room
    }

    fn send(&mut self, offload: [u8; OFFLOAD_LEN], frame: &mut Reader<'_>) {
        let mut bytes = offload.to_vec();
        bytes.resize(OFFLOAD_LEN + frame.remaining(), 0);
        assert_eq!(
            frame.read(&mut bytes[OFFLOAD_LEN..]),
            bytes.len() - OFFLOAD_LEN
        );
        self.wire.lock().unwrap().sent.push(bytes);
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.whole()?;
        let mut wire = self.wire.lock().unwrap();
        if !wire.stuck {
            wire.flushed = wire.sent.len();
        }
        Ok(!wire.stuck)
    }

    fn fill(&mut self) -> io::Result<bool> {
        self.whole()?;
        let frame = self.wire.lock().unwrap().incoming.pop_front();
        self.fetched.extend(frame);
        Ok(!self.fetched.is_empty())
    }

    fn front(&self) -> Option<&[u8]> {
        self.fetched.front().map(Vec::as_slice)
    }

    fn pop(&mut self) {
        self.fetched.pop_front();
    }

    fn cut(&mut self, sources: &mut dyn Sources, token: u32, is_new: bool) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.socket.take() {
            use std::os::fd::AsFd as _;
            sources.remove_fd(socket.as_fd())?;
            return sources.add_event(token, &self.wake);
        }
        if is_new {
            sources.add_event(token, &self.wake)?;
        }
        self.fetched.clear();
        Ok(())
    }

    fn mend(&mut self, sources: &mut dyn Sources) -> io::Result<bool> {
        let mut wire = self.wire.lock().unwrap();
        if wire.gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !wire.cut {
            wire.flushed = wire.sent.len();
            sources.remove_event(0)?;
        }
        Ok(!wire.cut)
    }
}

fn device(port: &Port) -> Net {
    Net::new(MAC, 1500, Box::new(port.clone()))
}

fn frame(len: usize) -> Vec<u8> {
    (0..OFFLOAD_LEN + len)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

/// Whether the configuration says that the wire is whole.
fn is_up(driver: &Driver) -> bool {
    driver.read(0x100 + 4) >> 16 & 1 == 1
}

/// Waits until `see` holds.
fn until(see: impl Fn() -> bool) {
    let begin = Instant::now();
    while !see() {
        assert!(begin.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_micros(200));
    }
}

crate::device_contract_tests!(|| device(&Port::new()));

#[test]
fn the_configuration_says_what_the_wire_is() {
    let port = Port::new();
    let mut config = [0xaa; 14];
    device(&port).read_config(0, &mut config);
    assert_eq!(config, [2, 0, 0, 0, 0, 2, 1, 0, 1, 0, 0xdc, 5, 0, 0]);
}

#[test]
fn the_port_learns_what_the_driver_takes() {
    for (features, checksum, segmentation) in [
        (0, false, false),
        (wire::F_GUEST_CSUM, true, false),
        (wire::F_GUEST_TSO4, false, false),
        (wire::F_GUEST_CSUM | wire::F_GUEST_TSO4, true, true),
    ] {
        let port = Port::new();
        let mut driver = Driver::new(Box::new(device(&port)));
        driver.init(features | crate::virtio::features::VERSION_1);
        driver.settle();
        let started = port.change(|wire| wire.started.clone());
        assert_eq!(
            started.first(),
            Some(&Offloads {
                checksum,
                segmentation
            })
        );
    }
}

#[test]
fn frames_go_out_with_their_header_and_without_its_count() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 9, 9];
    driver.request(TRANSMIT, &[&header, b"frame", b"'s rest"], &[]);
    driver.request(TRANSMIT, &[&[&header[..], b"in one"].concat()], &[]);
    let sent = port.change(|wire| wire.sent.clone());
    assert_eq!(
        sent,
        [
            [&header[..10], b"frame's rest"].concat(),
            [&header[..10], b"in one"].concat()
        ]
    );
}

#[test]
fn frames_that_are_none_are_lost_alone() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    for bad in [
        vec![],
        vec![0; HEADER_LEN - 1],
        vec![0; HEADER_LEN + LONGEST_FRAME + 1],
    ] {
        assert_eq!(driver.request(TRANSMIT, &[&bad], &[]).written, 0);
    }
    let longest = vec![7; HEADER_LEN + LONGEST_FRAME];
    driver.request(TRANSMIT, &[&longest], &[]);
    let sent = port.change(|wire| wire.sent.clone());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].len(), OFFLOAD_LEN + LONGEST_FRAME);
}

#[test]
fn a_full_wire_holds_the_guest_up_and_loses_nothing() {
    let port = Port::new();
    port.change(|wire| wire.stuck = true);
    let mut driver = Driver::running(Box::new(device(&port)));
    for first in 0..10_u16 {
        let data =
            driver.readable(&[vec![0; HEADER_LEN], vec![u8::try_from(first).unwrap()]].concat());
        driver.push(TRANSMIT, first, &[data]);
    }
    driver.kick(TRANSMIT);
    driver.settle();
    assert_eq!(port.change(|wire| wire.sent.len()), 4);
    port.change(|wire| wire.stuck = false);
    until(|| port.change(|wire| wire.flushed) == 10);
    let order: Vec<u8> =
        port.change(|wire| wire.sent.iter().map(|frame| frame[OFFLOAD_LEN]).collect());
    assert_eq!(order, (0..10).collect::<Vec<u8>>());
}

#[test]
fn a_frame_comes_in_one_buffer_or_in_several() {
    for (len, buffers, count) in [
        (60, 2048, 1),
        (1500, 1512, 1),
        (1501, 1512, 2),
        (60_000, 4096, 15),
    ] {
        let port = Port::new();
        let mut driver = Driver::running(Box::new(device(&port)));
        let rooms: Vec<_> = (0..count + 1)
            .map(|first| {
                let room = driver.writable(buffers);
                driver.push(RECEIVE, first, &[room]);
                room
            })
            .collect();
        port.change(|wire| wire.incoming.push_back(frame(len)));
        let mut got: Vec<u8> = Vec::new();
        for room in rooms.iter().take(usize::from(count)) {
            let used = driver.wait_used(RECEIVE);
            got.extend(&driver.bytes(*room)[..usize::try_from(used.len).unwrap()]);
        }
        let sent = frame(len);
        assert_eq!(got[..OFFLOAD_LEN], sent[..OFFLOAD_LEN]);
        assert_eq!(got[OFFLOAD_LEN..HEADER_LEN], count.to_le_bytes());
        assert!(
            got[HEADER_LEN..] == sent[OFFLOAD_LEN..],
            "{len} bytes in buffers of {buffers}"
        );
    }
}

#[test]
fn a_frame_waits_until_all_of_it_has_room() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    // With its header a byte more than two buffers take.
    port.change(|wire| wire.incoming.push_back(frame(2 * 1512 - HEADER_LEN + 1)));
    for first in 0..2 {
        let room = driver.writable(1512);
        driver.push(RECEIVE, first, &[room]);
        driver.kick(RECEIVE);
        driver.settle();
        assert_eq!(driver.rings[RECEIVE].used_index(), 0);
    }
    let room = driver.writable(1512);
    driver.push(RECEIVE, 2, &[room]);
    driver.kick(RECEIVE);
    until(|| driver.rings[RECEIVE].used_index() == 3);
}

#[test]
fn without_merging_a_frame_needs_one_buffer() {
    let port = Port::new();
    let mut driver = Driver::new(Box::new(device(&port)));
    driver.init(!wire::F_MRG_RXBUF);
    for first in 0..2 {
        let room = driver.writable(1512);
        driver.push(RECEIVE, first, &[room]);
    }
    // The first is too long for a buffer, and lost.
    port.change(|wire| wire.incoming.extend([frame(3000), frame(60)]));
    let used = driver.wait_used(RECEIVE);
    assert_eq!((used.id, used.len), (0, 72));
}

#[test]
fn a_cut_wire_is_told_and_the_driver_goes_on() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    assert!(is_up(&driver));
    port.change(|wire| wire.cut = true);
    until(|| !is_up(&driver));
    // What is sent goes nowhere, and comes back.
    driver.request(TRANSMIT, &[&[0; 100]], &[]);
    assert_eq!(port.change(|wire| wire.sent.len()), 0);
    assert!(!driver.needs_reset());
}

#[test]
fn another_wire_takes_over() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    for _ in 0..3 {
        port.change(|wire| wire.cut = true);
        until(|| !is_up(&driver));
        driver.request(TRANSMIT, &[&[0; 100]], &[]);
        let before = port.change(|wire| {
            wire.cut = false;
            wire.started.len()
        });
        until(|| is_up(&driver));
        until(|| port.change(|wire| wire.started.len()) == before + 1);
        let sent = port.change(|wire| wire.sent.len());
        driver.request(TRANSMIT, &[&[0; 100]], &[]);
        assert_eq!(port.change(|wire| wire.sent.len()), sent + 1);
        let told = port.change(|wire| wire.started.clone());
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
    }
}

#[test]
fn a_wire_that_was_cut_before_it_began_gives_way_to_another() {
    let port = Port::new();
    port.change(|wire| wire.cut = true);
    let mut driver = Driver::running(Box::new(device(&port)));
    until(|| !is_up(&driver));
    port.change(|wire| wire.cut = false);
    until(|| is_up(&driver));
    driver.request(TRANSMIT, &[&[0; 100]], &[]);
    until(|| port.change(|wire| wire.sent.len()) == 1);
}

#[test]
fn a_driver_that_starts_without_a_wire_gets_one_later() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    port.change(|wire| wire.cut = true);
    until(|| !is_up(&driver));
    driver.init(u64::MAX);
    assert!(!is_up(&driver));
    driver.request(TRANSMIT, &[&[0; 100]], &[]);
    port.change(|wire| wire.cut = false);
    until(|| is_up(&driver));
    driver.request(TRANSMIT, &[&[0; 100]], &[]);
    until(|| port.change(|wire| wire.sent.len()) == 1);
}

#[test]
fn without_another_wire_to_come_the_driver_goes_on() {
    let port = Port::new();
    let mut driver = Driver::running(Box::new(device(&port)));
    port.change(|wire| wire.cut = true);
    until(|| !is_up(&driver));
    port.change(|wire| wire.gone = true);
    driver.settle();
    port.change(|wire| (wire.cut, wire.gone) = (false, false));
    driver.request(TRANSMIT, &[&[0; 100]], &[]);
    assert!(!is_up(&driver) && !driver.needs_reset());
}

#[test]
fn what_waits_when_the_wire_is_cut_comes_back() {
    let port = Port::new();
    port.change(|wire| wire.stuck = true);
    let mut driver = Driver::running(Box::new(device(&port)));
    for head in 0..10 {
        let data = driver.readable(&[0; 100]);
        driver.push(TRANSMIT, head, &[data]);
    }
    driver.kick(TRANSMIT);
    driver.settle();
    assert_eq!(driver.rings[TRANSMIT].used_index(), 4);
    // The driver does not tell of its frames again.
    port.change(|wire| wire.cut = true);
    until(|| driver.rings[TRANSMIT].used_index() == 10);
}

#[cfg(target_os = "linux")]
#[test]
fn the_end_of_the_wire_is_seen_without_room_for_its_frames() {
    let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    let port = Port {
        socket: Some(Arc::new(near)),
        ..Port::new()
    };
    port.change(|wire| {
        wire.incoming.push_back(frame(60));
        wire.gone = true;
    });
    // It gives no buffer to receive in.
    let driver = Driver::running(Box::new(device(&port)));
    assert!(is_up(&driver));
    drop(far);
    until(|| !is_up(&driver));
}
