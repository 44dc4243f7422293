//! The device through the mock driver, with real streams.

#![cfg(target_os = "linux")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::wire::{HEADER_LEN, HOST_CID, Halves, Header, Op, STREAM};
use super::*;
use crate::testkit::{Descriptor, Driver};

const GUEST: u64 = 3;
const AGENT: u32 = 1024;
const GUEST_PORT: u32 = 5000;
const TO_GUEST: usize = 0;
const FROM_GUEST: usize = 1;
/// Bytes of a buffer towards the guest, as Linux has them.
const ROOM: usize = 4096;

crate::device_contract_tests!(|| Vsock::new(GUEST, Arc::new(Arranged::default())).unwrap());

/// A guest whose connect to [`AGENT`] reaches the other end of the stream.
fn arranged() -> (Guest, UnixStream) {
    let (ours, theirs) = pair();
    let backend = Arranged::new([(AGENT, theirs)]);
    (
        Guest::new(Vsock::new(GUEST, Arc::new(backend)).unwrap()),
        ours,
    )
}

fn pair() -> (UnixStream, Box<dyn Stream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    (ours, unix_stream(theirs).unwrap())
}

/// A driver with buffers for packets, in order.
struct Guest {
    driver: Driver,
    buffers: Vec<Descriptor>,
    next_sent: u16,
}

impl Guest {
    fn new(device: Vsock) -> Self {
        let mut guest = Self {
            driver: Driver::running(Box::new(device)),
            buffers: Vec::new(),
            next_sent: 0,
        };
        guest.offer_all();
        guest
    }

    fn offer_all(&mut self) {
        self.buffers = (0..64).map(|_| self.driver.writable(ROOM)).collect();
        for (index, buffer) in (0..).zip(self.buffers.clone()) {
            self.driver.push(TO_GUEST, index, &[buffer]);
        }
        self.driver.kick(TO_GUEST);
    }

    fn send(&mut self, header: Header, payload: &[u8]) {
        let free = self.driver.alloc(0);
        let chain = [
            self.driver.readable(&header.emit()),
            self.driver.readable(payload),
        ];
        let index = self.next_sent % 64;
        self.next_sent += 2;
        self.driver.push(FROM_GUEST, index, &chain);
        self.driver.kick(FROM_GUEST);
        self.driver.wait_used(FROM_GUEST);
        self.driver.rewind(free);
    }

    /// The next packet; its buffer is offered again.
    fn receive(&mut self) -> (Op, Header, Vec<u8>) {
        let used = self.driver.wait_used(TO_GUEST);
        let index = u16::try_from(used.id).unwrap();
        let buffer = self.buffers[usize::from(index)];
        let bytes = self.driver.bytes(buffer);
        let header = Header::parse(bytes[..HEADER_LEN].try_into().unwrap());
        let payload = bytes[HEADER_LEN..usize::try_from(used.len).unwrap()].to_vec();
        assert_eq!(payload.len(), usize::try_from(header.len).unwrap());
        assert_eq!(
            (header.src_cid, header.dst_cid, header.kind),
            (HOST_CID, GUEST, STREAM)
        );
        self.driver.push(TO_GUEST, index, &[buffer]);
        self.driver.kick(TO_GUEST);
        (Op::from_code(header.op).unwrap(), header, payload)
    }

    fn connect(&mut self) {
        self.send(packet(Op::Request), &[]);
        assert_eq!(self.receive().0, Op::Response);
    }
}

fn packet(op: Op) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: AGENT,
        kind: STREAM,
        op: op.code(),
        buf_alloc: 256 * 1024,
        ..Header::default()
    }
}

fn data(bytes: &[u8]) -> Header {
    Header {
        len: u32::try_from(bytes.len()).unwrap(),
        ..packet(Op::ReadWrite)
    }
}

#[test]
fn reserved_context_ids_are_refused() {
    for cid in [0, 1, HOST_CID, 0xffff_ffff, 0x1_0000_0003, u64::MAX] {
        let refused = Vsock::new(cid, Arc::new(Arranged::default()));
        assert!(matches!(refused, Err(VsockError::Cid(id)) if id == cid));
    }
}

#[test]
fn bytes_go_both_ways() {
    let (mut guest, mut host) = arranged();
    guest.connect();
    guest.send(data(b"from the guest"), b"from the guest");
    let mut bytes = [0; 14];
    host.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"from the guest");
    host.write_all(b"from the host").unwrap();
    let (op, header, payload) = guest.receive();
    assert_eq!(
        (op, payload.as_slice()),
        (Op::ReadWrite, &b"from the host"[..])
    );
    assert_eq!(
        (header.src_port, header.dst_port, header.fwd_cnt),
        (AGENT, GUEST_PORT, 14)
    );
}

#[test]
fn a_host_that_reads_slowly_gets_everything() {
    let (mut guest, mut host) = arranged();
    guest.connect();
    let piece: Vec<u8> = (0..=255).cycle().take(16_384).collect();
    // More than the host's socket buffer holds: the device has to keep some and say so.
    let total = 2_000_000_usize.next_multiple_of(piece.len());
    let reader = std::thread::spawn(move || {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 10_000]);
        while let Ok(len @ 1..) = host.read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..len]);
        }
        bytes
    });
    let (mut sent, mut forwarded) = (0_u32, 0_u32);
    while usize::try_from(sent).unwrap() < total {
        let len = u32::try_from(piece.len()).unwrap();
        if RECEIVE_BUFFER - (sent - forwarded) >= len {
            guest.send(data(&piece), &piece);
            sent += len;
        } else {
            let (op, header, _) = guest.receive();
            assert_eq!(op, Op::CreditUpdate);
            forwarded = header.fwd_cnt;
        }
    }
    guest.send(
        Header {
            flags: Halves::all().bits(),
            ..packet(Op::Shutdown)
        },
        &[],
    );
    while guest.receive().0 != Op::Reset {}
    let bytes = reader.join().unwrap();
    assert_eq!(bytes.len(), total);
    assert!(bytes.chunks(piece.len()).all(|chunk| chunk == piece));
}

#[test]
fn a_guest_that_reads_slowly_gets_everything() {
    let (mut guest, mut host) = arranged();
    let total = 1_000_000_usize;
    let writer = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..=250).cycle().take(total).collect();
        host.write_all(&bytes).unwrap();
        bytes
    });
    let alloc = 10_000;
    guest.send(
        Header {
            buf_alloc: alloc,
            ..packet(Op::Request)
        },
        &[],
    );
    let mut received = Vec::new();
    let mut read = 0;
    loop {
        match guest.receive() {
            (Op::ReadWrite, _, payload) => received.extend(payload),
            (Op::Response | Op::CreditRequest, ..) => {}
            (Op::Shutdown, header, _) => {
                if Halves::from_bits_truncate(header.flags).contains(Halves::SEND) {
                    break;
                }
            }
            (op, ..) => panic!("{op:?}"),
        }
        let held = u32::try_from(received.len()).unwrap() - read;
        assert!(held <= alloc, "more than the guest has room for");
        if held == alloc {
            read += held;
            let update = Header {
                buf_alloc: alloc,
                fwd_cnt: read,
                ..packet(Op::CreditUpdate)
            };
            guest.send(update, &[]);
        }
    }
    assert!(received == writer.join().unwrap());
}

#[test]
fn the_host_connects_to_the_guest() {
    let device = Vsock::new(GUEST, Arc::new(Arranged::default())).unwrap();
    let connector = device.connector();
    let (mut host, theirs) = pair();
    let (sender, result) = channel();
    connector.connect(80, theirs, move |answer| sender.send(answer).unwrap());
    // The device starts only now: the connect waited.
    let mut guest = Guest::new(device);
    let (op, request, _) = guest.receive();
    assert_eq!((op, request.dst_port), (Op::Request, 80));
    let answer = Header {
        src_port: 80,
        dst_port: request.src_port,
        ..packet(Op::Response)
    };
    guest.send(answer, &[]);
    assert_eq!(result.recv(), Ok(Ok(())));
    host.write_all(b"GET /").unwrap();
    assert_eq!(guest.receive().2, b"GET /");

    let (_kept, theirs) = pair();
    let (sender, result) = channel();
    connector.connect(81, theirs, move |answer| sender.send(answer).unwrap());
    let request = guest.receive().1;
    let answer = Header {
        src_port: 81,
        dst_port: request.src_port,
        ..packet(Op::Reset)
    };
    guest.send(answer, &[]);
    assert_eq!(result.recv(), Ok(Err(ConnectError::Refused)));
}

#[test]
fn an_unanswered_connect_ends_by_the_timer() {
    let device = Vsock::new(GUEST, Arc::new(Arranged::default())).unwrap();
    let connector = device.connector();
    let mut guest = Guest::new(device);
    let (mut host, theirs) = pair();
    let (sender, result) = channel();
    connector.connect(80, theirs, move |answer| sender.send(answer).unwrap());
    assert_eq!(guest.receive().0, Op::Request);
    assert_eq!(result.recv(), Ok(Err(ConnectError::TimedOut)));
    assert_eq!(guest.receive().0, Op::Reset);
    assert_eq!(host.read(&mut [0]).unwrap(), 0, "the stream is closed");
}

#[test]
fn a_host_that_closes_its_stream_is_noticed() {
    let (mut guest, host) = arranged();
    guest.connect();
    drop(host);
    let mut closed = Halves::empty();
    while !closed.is_all() {
        let (op, header, _) = guest.receive();
        assert_eq!(op, Op::Shutdown);
        closed |= Halves::from_bits_truncate(header.flags);
    }
    guest.send(
        Header {
            flags: Halves::all().bits(),
            ..packet(Op::Shutdown)
        },
        &[],
    );
    assert_eq!(guest.receive().0, Op::Reset);
}

#[test]
fn connections_survive_a_pause_but_not_a_reset() {
    let (mut guest, mut host) = arranged();
    guest.connect();
    guest.driver.settle();
    host.write_all(b"after the pause").unwrap();
    assert_eq!(guest.receive().2, b"after the pause");
    guest.driver.reset();
    assert_eq!(host.read(&mut [0]).unwrap(), 0, "the stream is closed");
    guest.driver.init(u64::MAX);
    guest.offer_all();
    guest.send(packet(Op::Request), &[]);
    assert_eq!(
        guest.receive().0,
        Op::Reset,
        "a stream serves one connection"
    );
}

#[test]
fn malformed_packets_cost_the_connection_at_most() {
    let (mut guest, _host) = arranged();
    for bytes in [&[][..], &[1], &[0xff; HEADER_LEN - 1]] {
        guest.driver.request(FROM_GUEST, &[bytes], &[]);
    }
    // A chain of buffers to write to has no header at all.
    guest.driver.request(FROM_GUEST, &[], &[HEADER_LEN]);
    guest.connect();
    guest.send(
        Header {
            len: 9,
            ..packet(Op::ReadWrite)
        },
        b"8 bytes!",
    );
    assert_eq!(guest.receive().0, Op::Reset);
    guest.send(
        Header {
            len: u32::MAX,
            ..packet(Op::ReadWrite)
        },
        b"",
    );
    assert_eq!(guest.receive().0, Op::Reset);
}

#[test]
fn buffers_too_small_for_a_header_go_back_empty() {
    let device = Vsock::new(GUEST, Arc::new(Arranged::default())).unwrap();
    let mut driver = Driver::running(Box::new(device));
    driver.request(FROM_GUEST, &[&packet(Op::Request).emit()], &[]);
    assert_eq!(driver.request(TO_GUEST, &[], &[HEADER_LEN - 1]).written, 0);
    let answer = driver.request(TO_GUEST, &[], &[20, 24]);
    assert_eq!(answer.written, 44);
    let header = Header::parse(answer.data.as_slice().try_into().unwrap());
    assert_eq!(header.op, Op::Reset.code());
}

/// Such a buffer can never hold the bytes that wait; nor may it keep the device busy for ever.
#[test]
fn buffers_for_a_header_only_go_back_empty_while_bytes_wait() {
    let (ours, theirs) = pair();
    let mut ours = ours;
    let backend = Arranged::new([(AGENT, theirs)]);
    let device = Vsock::new(GUEST, Arc::new(backend)).unwrap();
    let mut driver = Driver::running(Box::new(device));
    driver.request(FROM_GUEST, &[&packet(Op::Request).emit()], &[]);
    assert_eq!(driver.request(TO_GUEST, &[], &[HEADER_LEN]).written, 44);
    ours.write_all(b"bytes").unwrap();
    for _ in 0..3 {
        assert_eq!(driver.request(TO_GUEST, &[], &[HEADER_LEN]).written, 0);
    }
    let answer = driver.request(TO_GUEST, &[], &[HEADER_LEN, 8]);
    assert_eq!(answer.written, 44 + 5);
    assert_eq!(&answer.data[HEADER_LEN..][..5], b"bytes");
}

/// A flood of packets without buffers for the answers: the device stops listening, keeps a bounded
/// number of answers, and goes on when the guest does.
#[test]
fn a_flood_of_connects_is_answered_as_the_guest_takes_answers() {
    let device = Vsock::new(GUEST, Arc::new(Arranged::default())).unwrap();
    let mut driver = Driver::running(Box::new(device));
    let size = driver.rings[FROM_GUEST].size;
    let request = driver.readable(&packet(Op::Request).emit());
    let mut answered = 0_u32;
    for index in 0..3 * size {
        driver.push(FROM_GUEST, index % size, &[request]);
        if index % size == size - 1 {
            driver.kick(FROM_GUEST);
            driver.settle();
            while driver.rings[FROM_GUEST].pop_used().is_some() {
                answered += 1;
            }
        }
    }
    assert!(
        answered <= 256,
        "it listens although nobody takes its answers"
    );
    for _ in 0..3 * size {
        assert_eq!(driver.request(TO_GUEST, &[], &[HEADER_LEN]).written, 44);
    }
    while driver.rings[FROM_GUEST].pop_used().is_some() {
        answered += 1;
    }
    assert_eq!(answered, u32::from(3 * size));
}
