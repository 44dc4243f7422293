//! A guest's network without a machine or a socket: frames go in and come out of the egress worker's loop in one thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use netproxy::egress::{self, EgressError, Gate, GuestNetwork, Link};
use netproxy::gateway::Network;
use netproxy::link::{self, Record, VnetHeader};
use tokio::sync::Notify;

/// Turns of the worker's tasks in which whatever can be done without a clock is done.
const TURNS: usize = 8;

/// Both directions of the link.
#[derive(Default)]
struct Wires {
    to_worker: RefCell<Vec<u8>>,
    to_guest: RefCell<Vec<u8>>,
    is_closed: Cell<bool>,
    changed: Notify,
}

/// The worker's end.
struct Near(Rc<Wires>);

impl Link for Near {
    async fn readable(&self) -> io::Result<()> {
        while self.0.to_worker.borrow().is_empty() && !self.0.is_closed.get() {
            self.0.changed.notified().await;
        }
        Ok(())
    }

    async fn writable(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut waiting = self.0.to_worker.borrow_mut();
        if waiting.is_empty() && !self.0.is_closed.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = into.len().min(waiting.len());
        into[..len].copy_from_slice(&waiting[..len]);
        waiting.drain(..len);
        Ok(len)
    }

    fn try_write(&self, from: &[u8]) -> io::Result<usize> {
        self.0.to_guest.borrow_mut().extend_from_slice(from);
        Ok(from.len())
    }
}

/// The guest's end.
pub struct Far(Rc<Wires>);

impl Far {
    /// Sends a frame as it is.
    pub fn send(&self, frame: &[u8]) {
        let mut wire = self.0.to_worker.borrow_mut();
        link::push(&mut wire, VnetHeader::default(), frame.len()).copy_from_slice(frame);
        drop(wire);
        self.0.changed.notify_one();
    }

    /// Sends bytes that need be no record.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.0.to_worker.borrow_mut().extend_from_slice(bytes);
        self.0.changed.notify_one();
    }

    /// Lets the worker do what it can, and takes the frames that came. What the worker sends is whole records.
    pub async fn frames(&self) -> Vec<Vec<u8>> {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let bytes = std::mem::take(&mut *self.0.to_guest.borrow_mut());
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (record, behind) = link::split(rest).expect("a record").expect("a whole one");
            let Record::Frame(frame) = record else {
                panic!("the worker started a driver")
            };
            check(frame);
            frames.push(frame.to_vec());
            rest = behind;
        }
        frames
    }
}

/// Serves what `guest` does with its end, by `gate`, until it returns.
pub fn run<G, A>(gate: Rc<G>, guest: impl FnOnce(Far) -> A) -> Result<(), EgressError>
where
    G: Gate + 'static,
    A: Future<Output = ()>,
{
    let wires = Rc::new(Wires::default());
    let far = Far(Rc::clone(&wires));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let network = GuestNetwork::new(Network::default());
        let served = egress::serve(Near(Rc::clone(&wires)), &network, gate);
        let scripted = async {
            guest(far).await;
            wires.is_closed.set(true);
            wires.changed.notify_one();
        };
        tokio::join!(served, scripted).0
    })
}

/// What every frame to the guest is: from the gateway, to the guest, ARP or IPv4 without options, as long as it says, and with good sums.
fn check(frame: &[u8]) {
    let network = Network::default();
    assert_eq!(frame[..6], network.guest_hardware.0);
    assert_eq!(frame[6..12], network.gateway_hardware.0);
    match frame[12..14] {
        [8, 6] => assert_eq!(frame.len(), 14 + 28),
        [8, 0] => check_ip(&frame[14..]),
        _ => panic!("a frame of kind {:?}", &frame[12..14]),
    }
}

fn check_ip(packet: &[u8]) {
    let network = Network::default();
    assert_eq!(packet[0], 0x45);
    assert_eq!(
        usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        packet.len()
    );
    assert!(packet.len() <= network.mtu.get().into());
    assert_eq!(sum(0, &packet[..20]), 0xffff);
    let content = &packet[20..];
    let len = u32::try_from(content.len()).expect("a packet's length");
    let pseudo = sum(u32::from(packet[9]) + len, &packet[12..20]);
    match packet[9] {
        1 => {
            assert_eq!(packet[12..16], network.gateway.octets());
            assert_eq!(sum(0, content), 0xffff);
        }
        17 => {
            assert_eq!(packet[12..16], network.gateway.octets());
            assert_eq!(sum(pseudo, content), 0xffff);
        }
        6 => {
            assert_eq!(packet[16..20], network.guest.octets());
            assert_eq!(sum(pseudo, content), 0xffff);
        }
        other => panic!("a packet of protocol {other}"),
    }
}

/// The Internet's sum (RFC 1071), which is all ones over what has its own within.
fn sum(begin: u32, bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)));
    let mut sum = begin + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

/// A frame of the guest's to the gateway.
pub fn frame(kind: u16, content: &[u8]) -> Vec<u8> {
    let network = Network::default();
    let addresses = [network.gateway_hardware.0, network.guest_hardware.0].concat();
    [&addresses, &kind.to_be_bytes()[..], content].concat()
}

/// An IPv4 packet of the guest's; its sum, which nobody checks, is not right.
pub fn ipv4(to: [u8; 4], protocol: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + content.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    packet.extend(Network::default().guest.octets());
    packet.extend(to);
    packet.extend(content);
    packet
}

/// A datagram.
pub fn udp(from: u16, to: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + content.len()).unwrap_or(u16::MAX);
    let header = [from, to, len, 0].map(u16::to_be_bytes).concat();
    [&header, content].concat()
}

/// A segment of TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Segment<'a> {
    /// Ports.
    pub from: u16,
    /// The other side's.
    pub to: u16,
    /// Of its first byte.
    pub sequence: u32,
    /// What came from the other side.
    pub acknowledged: u32,
    /// As in the header.
    pub flags: u8,
    /// As in the header.
    pub window: u16,
    /// As in the header.
    pub urgent: u16,
    /// A multiple of four bytes.
    pub options: &'a [u8],
    /// What it carries.
    pub content: &'a [u8],
}

impl Segment<'_> {
    /// The segment, without its sum.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.from, self.to].map(u16::to_be_bytes).concat();
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        let words = u8::try_from(5 + self.options.len() / 4).unwrap_or(15);
        bytes.extend([words << 4, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(self.options);
        bytes.extend(self.content);
        bytes
    }
}
