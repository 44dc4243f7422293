//! Socket packets of a guest and events of the host's ends, through the device's queues.
#![no_main]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cofferdam_fuzz::{Input, driver::Driver, rings};
use devices::vsock::wire::Header;
use devices::vsock::{Stream, Vsock, VsockBackend, unix_stream};
use libfuzzer_sys::fuzz_target;

const CID: u64 = 3;
const RECEIVE: u64 = 0;
const TRANSMIT: u64 = 1;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let ends = Arc::new(Ends::default());
    let (mut asked, answered) = (0, Arc::new(AtomicUsize::new(0)));
    let vsock = Vsock::new(CID, Arc::clone(&ends) as Arc<dyn VsockBackend>).expect("descriptors");
    let connector = vsock.connector();
    let mut driver = Driver::new(Box::new(vsock));
    driver.start(1, 3);
    // Each step may cost descriptors and a thread.
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        match input.below(8) {
            0 => {
                let answered = Arc::clone(&answered);
                connector.connect(u32::from(input.u8() & 3), ends.pair(), move |_| {
                    answered.fetch_add(1, Ordering::Relaxed);
                });
                asked += 1;
            }
            1 => ends.touch(&mut input),
            2 => {
                driver.offer(input.choose(&[RECEIVE, TRANSMIT, 2]), &mut input);
                rings::put(&driver.ram, rings::DATA, input.blob());
            }
            3 if input.below(4) == 0 => driver.start(u64::from(input.u32()), 3),
            4 => driver.request(
                RECEIVE,
                &vec![(&[][..], 0x400 >> input.below(6)); input.below(8)],
            ),
            _ => {
                let packets: Vec<_> = (0..=input.below(4)).map(|_| packet(&mut input)).collect();
                let chains: Vec<_> = packets
                    .iter()
                    .map(|packet| (packet.as_slice(), 0))
                    .collect();
                driver.request(TRANSMIT, &chains);
            }
        }
        driver.turn();
    }
    drop((driver, connector));
    assert_eq!(
        answered.load(Ordering::Relaxed),
        asked,
        "each connect is answered once"
    );
});

fn packet(input: &mut Input<'_>) -> Vec<u8> {
    let wild = input.u8();
    let payload = if wild & 1 == 0 { &[][..] } else { input.blob() };
    let header = Header {
        src_cid: if wild & 0xe0 == 0xe0 {
            input.u64()
        } else {
            CID
        },
        dst_cid: if wild & 0x1e == 0x1e { input.u64() } else { 2 },
        src_port: u32::from(input.u8() & 3),
        dst_port: if wild & 2 == 0 {
            u32::from(input.u8() & 3)
        } else {
            (1 << 30) + u32::from(input.u8() & 3)
        },
        len: if wild & 0xc == 0xc {
            input.u32()
        } else {
            u32::try_from(payload.len()).unwrap_or(0)
        },
        kind: if wild & 0x30 == 0x30 { input.u16() } else { 1 },
        op: u16::from(input.u8() % 9),
        flags: u32::from(input.u8() & 3),
        buf_alloc: if wild & 4 == 0 { 1 << 16 } else { input.u32() },
        fwd_cnt: if wild & 8 == 0 {
            0
        } else {
            u32::from(input.u16())
        },
    };
    [&header.emit()[..], payload].concat()
}

/// The host's programs at the other ends of all streams.
#[derive(Default)]
struct Ends(Mutex<Vec<UnixStream>>);

impl Ends {
    fn pair(&self) -> Box<dyn Stream> {
        let (device, program) = UnixStream::pair().expect("descriptors");
        program.set_nonblocking(true).expect("a socket");
        self.0.lock().expect("no panic before").push(program);
        unix_stream(device).expect("a socket")
    }

    /// A program writes, reads or goes away.
    fn touch(&self, input: &mut Input<'_>) {
        let mut ends = self.0.lock().expect("no panic before");
        if ends.is_empty() {
            return;
        }
        let index = input.below(ends.len());
        match input.below(4) {
            0 => drop(ends.swap_remove(index)),
            1 => drop(Read::read(&mut ends[index], &mut [0; 512])),
            2 => drop(ends[index].shutdown(std::net::Shutdown::Write)),
            _ => drop(Write::write(&mut ends[index], input.blob())),
        }
    }
}

impl VsockBackend for Ends {
    fn accept(&self, port: u32) -> Option<Box<dyn Stream>> {
        (port & 1 == 0).then(|| self.pair())
    }
}
