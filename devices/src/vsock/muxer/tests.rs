//! The muxer against a hostile guest (tables) and a correct one (properties).

use std::io;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;

use super::super::RECEIVE_BUFFER;
use super::super::host::{Arranged, Inbox, VsockConnector};
use super::super::wire::Halves;
use super::*;

const GUEST: u64 = 3;
const AGENT: u32 = 1024;
const GUEST_PORT: u32 = 5000;

/// The host application's view of a stream that the device reads and writes.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<PipeState>>);

#[derive(Default)]
struct PipeState {
    to_guest: VecDeque<u8>,
    from_guest: Vec<u8>,
    /// Bytes that a write may still take.
    room: usize,
    /// Nothing follows `to_guest`.
    ended: bool,
    /// Writes fail.
    broken: bool,
    shut: Vec<Shutdown>,
}

impl Pipe {
    fn with_room(room: usize) -> Self {
        let pipe = Self::default();
        pipe.state().room = room;
        pipe
    }

    fn state(&self) -> MutexGuard<'_, PipeState> {
        self.0.lock().unwrap()
    }
}

impl Stream for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state();
        let len = buffer.len().min(state.to_guest.len());
        if len == 0 && !state.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer
            .iter_mut()
            .zip(state.to_guest.drain(..len))
            .for_each(|(to, from)| *to = from);
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.state();
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(state.room);
        if len == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.room -= len;
        state.from_guest.extend(&bytes[..len]);
        Ok(len)
    }

    fn shutdown(&mut self, how: Shutdown) {
        self.state().shut.push(how);
    }

    #[cfg(unix)]
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        unreachable!("nothing waits in these tests")
    }
}

/// A muxer with one stream for the agent's port.
fn muxer(pipe: &Pipe) -> Muxer {
    let stream: Box<dyn Stream> = Box::new(pipe.clone());
    Muxer::new(GUEST, Arc::new(Arranged::new([(AGENT, stream)])))
}

fn packet(op: Op) -> Header {
    Header {
        src_cid: GUEST,
        dst_cid: HOST_CID,
        src_port: GUEST_PORT,
        dst_port: AGENT,
        kind: STREAM,
        op: op.code(),
        buf_alloc: 4096,
        ..Header::default()
    }
}

fn data(bytes: &[u8]) -> (Header, Vec<u8>) {
    let len = u32::try_from(bytes.len()).unwrap();
    (
        Header {
            len,
            ..packet(Op::ReadWrite)
        },
        bytes.to_vec(),
    )
}

fn send(muxer: &mut Muxer, header: Header) {
    muxer.receive(&header, Some(&[]));
}

fn send_data(muxer: &mut Muxer, bytes: &[u8]) {
    let (header, bytes) = data(bytes);
    muxer.receive(&header, Some(&bytes));
}

/// All packets that the guest would get, with room for `room` bytes in each.
fn take(muxer: &mut Muxer, room: usize) -> Vec<(Op, Vec<u8>, Header)> {
    let mut packets = Vec::new();
    let mut buffer = vec![0; room];
    while let Some(header) = muxer.next_packet(&mut buffer) {
        let len = usize::try_from(header.len).unwrap();
        packets.push((
            Op::from_code(header.op).unwrap(),
            buffer[..len].to_vec(),
            header,
        ));
    }
    packets
}

fn ops(muxer: &mut Muxer) -> Vec<Op> {
    take(muxer, 4096).into_iter().map(|(op, ..)| op).collect()
}

fn connected(pipe: &Pipe) -> Muxer {
    let mut muxer = muxer(pipe);
    send(&mut muxer, packet(Op::Request));
    assert_eq!(ops(&mut muxer), [Op::Response]);
    muxer
}

fn is_open(muxer: &Muxer) -> bool {
    !muxer.slots.is_empty()
}

#[test]
fn a_guest_reaches_what_was_arranged_and_only_once() {
    let pipe = Pipe::with_room(100);
    let mut muxer = connected(&pipe);
    send_data(&mut muxer, b"hello");
    assert_eq!(pipe.state().from_guest, b"hello");
    pipe.state().to_guest.extend(b"answer");
    muxer.stream_ready(FIRST_ID, Ready::READ);
    let packets = take(&mut muxer, 4);
    let bytes: Vec<_> = packets
        .iter()
        .map(|(op, bytes, _)| (*op, bytes.as_slice()))
        .collect();
    assert_eq!(
        bytes,
        [(Op::ReadWrite, &b"answ"[..]), (Op::ReadWrite, b"er")]
    );
    assert!(packets.iter().all(|(.., header)| header.fwd_cnt == 5));

    send(
        &mut muxer,
        Header {
            src_port: 1,
            ..packet(Op::Request)
        },
    );
    assert_eq!(ops(&mut muxer), [Op::Reset], "the stream is taken");
}

#[test]
fn every_other_port_and_every_other_address_is_refused() {
    let pipe = Pipe::default();
    let mut muxer = muxer(&pipe);
    for port in (0..AGENT).chain(AGENT + 1..=65_535).chain([u32::MAX]) {
        send(
            &mut muxer,
            Header {
                dst_port: port,
                ..packet(Op::Request)
            },
        );
        let packets = take(&mut muxer, 0);
        assert_eq!(packets.len(), 1, "port {port}");
        let (op, _, header) = &packets[0];
        assert_eq!(
            (*op, header.src_port, header.dst_port),
            (Op::Reset, port, GUEST_PORT)
        );
    }
    for cid in [0, 1, GUEST, 4, u64::from(u32::MAX), u64::MAX] {
        send(
            &mut muxer,
            Header {
                dst_cid: cid,
                ..packet(Op::Request)
            },
        );
        let packets = take(&mut muxer, 0);
        assert_eq!(packets.len(), 1, "cid {cid}");
        assert_eq!((packets[0].2.src_cid, packets[0].2.dst_cid), (cid, GUEST));
    }
    for kind in [0, 2, 3, u16::MAX] {
        send(
            &mut muxer,
            Header {
                kind,
                ..packet(Op::Request)
            },
        );
        assert_eq!(ops(&mut muxer), [Op::Reset], "type {kind}");
    }
    assert!(!is_open(&muxer));
}

#[test]
fn a_forged_sender_is_ignored() {
    let pipe = Pipe::with_room(100);
    let mut muxer = connected(&pipe);
    for src_cid in [0, 1, HOST_CID, GUEST + 1, GUEST | 1 << 32, u64::MAX] {
        for op in 0..=8 {
            let (header, bytes) = data(b"forged");
            muxer.receive(
                &Header {
                    src_cid,
                    op,
                    ..header
                },
                Some(&bytes),
            );
        }
    }
    assert!(ops(&mut muxer).is_empty() && is_open(&muxer));
    assert!(pipe.state().from_guest.is_empty());
}

#[test]
fn packets_without_a_connection_are_reset_but_resets_are_not() {
    let mut muxer = muxer(&Pipe::default());
    for op in 0..=u16::MAX {
        if op == Op::Request.code() {
            continue;
        }
        send(
            &mut muxer,
            Header {
                op,
                ..packet(Op::ReadWrite)
            },
        );
        let expected: &[Op] = if op == Op::Reset.code() {
            &[]
        } else {
            &[Op::Reset]
        };
        assert_eq!(ops(&mut muxer), expected, "op {op}");
    }
    assert!(!is_open(&muxer));
}

#[test]
fn what_breaks_the_rules_ends_the_connection() {
    let full = vec![0; usize::try_from(RECEIVE_BUFFER).unwrap() + 1];
    let (too_much, bytes) = data(&full);
    for (what, header, payload) in [
        (
            "an unknown operation",
            Header {
                op: 0,
                ..packet(Op::Request)
            },
            Some(&[][..]),
        ),
        (
            "another unknown operation",
            Header {
                op: 8,
                ..packet(Op::Request)
            },
            Some(&[]),
        ),
        ("a second request", packet(Op::Request), Some(&[])),
        ("a response to nothing", packet(Op::Response), Some(&[])),
        ("more than the credit", too_much, Some(&bytes)),
        (
            "a length beyond the packet",
            Header {
                len: 9,
                ..packet(Op::ReadWrite)
            },
            None,
        ),
        (
            "read bytes never sent",
            Header {
                fwd_cnt: 1,
                ..packet(Op::CreditUpdate)
            },
            Some(&[]),
        ),
    ] {
        let pipe = Pipe::default();
        let mut muxer = connected(&pipe);
        muxer.receive(&header, payload);
        assert_eq!(ops(&mut muxer), [Op::Reset], "{what}");
        assert!(!is_open(&muxer), "{what}");
        assert!(matches!(
            muxer.take_changes()[..],
            [Change::Interest(_), Change::Closed(..)]
        ));
    }
}

#[test]
fn bytes_before_a_connection_or_after_a_shutdown_are_refused() {
    let pipe = Pipe::with_room(100);
    let mut early = muxer(&pipe);
    send_data(&mut early, b"early");
    assert_eq!(ops(&mut early), [Op::Reset]);

    let mut late = connected(&pipe);
    send(
        &mut late,
        Header {
            flags: Halves::SEND.bits(),
            ..packet(Op::Shutdown)
        },
    );
    assert!(is_open(&late));
    send_data(&mut late, b"late");
    assert_eq!(ops(&mut late), [Op::Reset]);
    assert!(pipe.state().from_guest.is_empty());
}

#[test]
fn a_connect_of_the_host_waits_for_its_answer() {
    for (answer, expected) in [
        (Op::Response, Ok(())),
        (Op::Reset, Err(ConnectError::Refused)),
        (Op::ReadWrite, Err(ConnectError::Refused)),
        (Op::Shutdown, Err(ConnectError::Refused)),
    ] {
        let pipe = Pipe::with_room(100);
        let (mut muxer, results, request) = connecting(&pipe);
        assert_eq!(request.dst_port, 80);
        assert!(request.src_port >= FIRST_HOST_PORT);
        assert!(results.try_recv().is_err(), "no answer yet");
        let ports = Header {
            src_port: 80,
            dst_port: request.src_port,
            ..packet(answer)
        };
        send(&mut muxer, ports);
        assert_eq!(results.try_recv(), Ok(expected), "{answer:?}");
        assert_eq!(is_open(&muxer), expected.is_ok());
    }
}

/// A muxer that asked the guest for a connection with `pipe`, where the answer comes, and the
/// request.
fn connecting(pipe: &Pipe) -> (Muxer, Receiver<Result<(), ConnectError>>, Header) {
    let mut muxer = Muxer::new(GUEST, Arc::new(Arranged::default()));
    let connector = VsockConnector(Arc::new(Inbox::new().unwrap()));
    let (sender, results) = channel();
    connector.connect(80, Box::new(pipe.clone()), move |result| {
        sender.send(result).unwrap();
    });
    for connect in connector.0.take() {
        muxer.connect(connect, Instant::now());
    }
    let packets = take(&mut muxer, 4096);
    assert_eq!(packets.len(), 1);
    assert_eq!(packets[0].0, Op::Request);
    (muxer, results, packets[0].2)
}

#[test]
fn a_connect_that_is_not_answered_times_out() {
    let pipe = Pipe::default();
    pipe.state().to_guest.extend(b"waits");
    let (mut muxer, results, _) = connecting(&pipe);
    let deadline = muxer.next_deadline().unwrap();
    muxer.expire(deadline - Duration::from_millis(1));
    assert!(results.try_recv().is_err());
    muxer.expire(deadline);
    assert_eq!(results.try_recv(), Ok(Err(ConnectError::TimedOut)));
    assert_eq!(ops(&mut muxer), [Op::Reset], "a late answer finds nothing");
    assert_eq!(muxer.next_deadline(), None);
}

#[test]
fn a_reset_device_tells_who_waits() {
    let (mut muxer, results, _) = connecting(&Pipe::default());
    muxer.clear();
    assert_eq!(results.try_recv(), Ok(Err(ConnectError::DeviceReset)));
    assert!(!muxer.has_packets() && muxer.take_changes().is_empty());
}

#[test]
fn connections_and_waiting_connects_are_capped() {
    let mut muxer = Muxer::new(GUEST, Arc::new(Endless));
    for port in 0..5000 {
        while !muxer.takes_packets() {
            take(&mut muxer, 0);
        }
        send(
            &mut muxer,
            Header {
                src_port: port,
                ..packet(Op::Request)
            },
        );
    }
    assert_eq!(muxer.slots.len(), MAX_CONNECTIONS);
    assert_eq!(muxer.by_ports.len(), MAX_CONNECTIONS);
    assert!(muxer.ready.len() <= MAX_CONNECTIONS);
    let connector = VsockConnector(Arc::new(Inbox::new().unwrap()));
    let (sender, results) = channel();
    for _ in 0..1000 {
        let sender = sender.clone();
        let pipe = Box::new(Pipe::default());
        connector.connect(1, pipe, move |result| sender.send(result).unwrap());
    }
    assert_eq!(results.try_iter().count(), 1000 - 64);
    for connect in connector.0.take() {
        muxer.connect(connect, Instant::now());
    }
    assert!(
        results
            .try_iter()
            .all(|result| result == Err(ConnectError::TooMany))
    );
}

/// A backend that accepts everything, to reach the caps.
struct Endless;

impl VsockBackend for Endless {
    fn accept(&self, _port: u32) -> Option<Box<dyn Stream>> {
        Some(Box::new(Pipe::default()))
    }
}

#[test]
fn a_guest_that_takes_no_resets_is_not_listened_to() {
    let mut muxer = muxer(&Pipe::default());
    let mut sent = 0;
    while muxer.takes_packets() {
        send(
            &mut muxer,
            Header {
                src_port: sent,
                dst_port: 7,
                ..packet(Op::Request)
            },
        );
        sent += 1;
    }
    assert_eq!(usize::try_from(sent).unwrap(), MAX_RESETS);
    assert!(muxer.next_packet(&mut []).is_some());
    assert!(muxer.takes_packets());
}

#[test]
fn a_full_shutdown_is_answered_when_the_host_has_everything() {
    let pipe = Pipe::with_room(3);
    let mut muxer = connected(&pipe);
    send_data(&mut muxer, b"goodbye");
    send(
        &mut muxer,
        Header {
            flags: Halves::all().bits(),
            ..packet(Op::Shutdown)
        },
    );
    assert!(
        ops(&mut muxer).is_empty(),
        "the host has yet to take four bytes"
    );
    pipe.state().room = 100;
    muxer.stream_ready(FIRST_ID, Ready::WRITE);
    assert_eq!(pipe.state().from_guest, b"goodbye");
    assert_eq!(ops(&mut muxer), [Op::Reset]);
    assert!(!is_open(&muxer));
}

#[test]
fn bytes_survive_a_reset_that_follows_a_shutdown() {
    let pipe = Pipe::with_room(3);
    let mut muxer = connected(&pipe);
    send_data(&mut muxer, b"goodbye");
    send(
        &mut muxer,
        Header {
            flags: Halves::all().bits(),
            ..packet(Op::Shutdown)
        },
    );
    send(&mut muxer, packet(Op::Reset));
    assert!(is_open(&muxer));
    send_data(&mut muxer, b"ghost");
    assert_eq!(ops(&mut muxer), [Op::Reset], "the guest's end is gone");
    pipe.state().room = 100;
    muxer.stream_ready(FIRST_ID, Ready::WRITE);
    assert_eq!(pipe.state().from_guest, b"goodbye");
    assert!(!is_open(&muxer) && ops(&mut muxer).is_empty());
}

#[test]
fn half_closed_connections_carry_the_other_half() {
    let pipe = Pipe::with_room(100);
    let mut muxer = connected(&pipe);
    send(
        &mut muxer,
        Header {
            flags: Halves::SEND.bits(),
            ..packet(Op::Shutdown)
        },
    );
    assert_eq!(pipe.state().shut, [Shutdown::Write]);
    pipe.state().to_guest.extend(b"still here");
    pipe.state().ended = true;
    muxer.stream_ready(FIRST_ID, Ready::READ);
    let packets = take(&mut muxer, 4096);
    assert_eq!(packets[0].1, b"still here");
    assert_eq!(
        (packets[1].0, packets[1].2.flags),
        (Op::Shutdown, Halves::SEND.bits())
    );
    send(
        &mut muxer,
        Header {
            flags: Halves::RECEIVE.bits(),
            ..packet(Op::Shutdown)
        },
    );
    assert_eq!(ops(&mut muxer), [Op::Reset]);
}

#[test]
fn a_host_that_is_gone_is_told_and_costs_no_memory() {
    let pipe = Pipe::default();
    let mut muxer = connected(&pipe);
    pipe.state().broken = true;
    for _ in 0..8 {
        send_data(&mut muxer, &[0; 60_000]);
        let packets = take(&mut muxer, 4096);
        assert!(
            packets
                .iter()
                .all(|(op, ..)| *op == Op::Shutdown || *op == Op::CreditUpdate)
        );
    }
    assert!(is_open(&muxer));
    pipe.state().ended = true;
    muxer.hung_up(FIRST_ID);
    let packets = take(&mut muxer, 4096);
    assert_eq!(
        (packets[0].0, packets[0].2.flags),
        (Op::Shutdown, Halves::all().bits())
    );
    assert!(
        muxer.interest(FIRST_ID).unwrap().1.is_none(),
        "a dead stream is not watched"
    );
}

#[test]
fn credit_is_asked_for_once_and_given_when_asked() {
    let pipe = Pipe::with_room(100);
    pipe.state().to_guest.extend([7; 10_000]);
    let mut muxer = muxer(&pipe);
    send(&mut muxer, packet(Op::Request));
    let packets = take(&mut muxer, 65_536);
    let lens: Vec<_> = packets
        .iter()
        .map(|(op, bytes, _)| (*op, bytes.len()))
        .collect();
    assert_eq!(
        lens,
        [
            (Op::Response, 0),
            (Op::ReadWrite, 4096),
            (Op::CreditRequest, 0)
        ]
    );
    send(&mut muxer, packet(Op::CreditUpdate));
    assert!(
        ops(&mut muxer).is_empty(),
        "the guest has read nothing yet: asking again is no use"
    );
    send(
        &mut muxer,
        Header {
            fwd_cnt: 4000,
            ..packet(Op::CreditUpdate)
        },
    );
    assert_eq!(take(&mut muxer, 65_536)[0].1.len(), 4000);
    send(
        &mut muxer,
        Header {
            fwd_cnt: 8096,
            ..packet(Op::CreditRequest)
        },
    );
    let packets = take(&mut muxer, 65_536);
    let lens: Vec<_> = packets
        .iter()
        .map(|(op, bytes, _)| (*op, bytes.len()))
        .collect();
    assert_eq!(
        lens,
        [(Op::ReadWrite, 1904)],
        "which tells our credit as well"
    );
}

/// The `index`-th byte of a stream, so that a lost or moved byte is seen.
fn pattern(index: usize) -> u8 {
    u8::try_from(index % 251).unwrap()
}

/// A correct guest with one connection, which checks all that it gets.
struct Guest {
    muxer: Muxer,
    pipe: Pipe,
    alloc: u32,
    received: usize,
    read: usize,
    sent: usize,
    /// What the host told of its buffer.
    host_alloc: u32,
    host_forwarded: u32,
    host_wrote: usize,
    credit_asked: bool,
}

impl Guest {
    fn new(alloc: u32) -> Self {
        let pipe = Pipe::default();
        let mut muxer = muxer(&pipe);
        send(
            &mut muxer,
            Header {
                buf_alloc: alloc,
                ..packet(Op::Request)
            },
        );
        Self {
            muxer,
            pipe,
            alloc,
            received: 0,
            read: 0,
            sent: 0,
            host_alloc: 0,
            host_forwarded: 0,
            host_wrote: 0,
            credit_asked: false,
        }
    }

    fn header(&self, op: Op) -> Header {
        let fwd_cnt = u32::try_from(self.read).unwrap();
        Header {
            buf_alloc: self.alloc,
            fwd_cnt,
            ..packet(op)
        }
    }

    fn host_writes(&mut self, len: usize) {
        let bytes = (self.host_wrote..self.host_wrote + len).map(pattern);
        self.pipe.state().to_guest.extend(bytes);
        self.host_wrote += len;
    }

    fn sends(&mut self, wanted: usize) {
        let under_way = u32::try_from(self.sent).unwrap() - self.host_forwarded;
        let credit = usize::try_from(self.host_alloc - under_way).unwrap();
        let bytes: Vec<_> = (self.sent..self.sent + wanted.min(credit))
            .map(pattern)
            .collect();
        let len = u32::try_from(bytes.len()).unwrap();
        let header = Header {
            len,
            ..self.header(Op::ReadWrite)
        };
        self.muxer.receive(&header, Some(&bytes));
        self.sent += bytes.len();
    }

    fn reads(&mut self, wanted: usize) {
        self.read = self.received.min(self.read + wanted);
        let header = self.header(Op::CreditUpdate);
        send(&mut self.muxer, header);
    }

    /// Offers a buffer with room for `room` bytes; false when nothing came.
    fn offers(&mut self, room: usize) -> bool {
        let mut buffer = vec![0; room];
        let Some(header) = self.muxer.next_packet(&mut buffer) else {
            return false;
        };
        (self.host_alloc, self.host_forwarded) = (header.buf_alloc, header.fwd_cnt);
        match Op::from_code(header.op).unwrap() {
            Op::ReadWrite => self.gets(&buffer[..usize::try_from(header.len).unwrap()]),
            Op::CreditRequest => self.credit_asked = true,
            Op::Response | Op::CreditUpdate => {}
            other => panic!("{other:?}"),
        }
        true
    }

    fn gets(&mut self, bytes: &[u8]) {
        for byte in bytes {
            assert_eq!(*byte, pattern(self.received), "byte {}", self.received);
            self.received += 1;
        }
        let held = u32::try_from(self.received - self.read).unwrap();
        assert!(held <= self.alloc, "the device ignores the guest's credit");
    }

    /// Does what an event loop would: reports what it was asked to wait for.
    fn events(&mut self) {
        self.muxer.take_changes();
        let (_, interest) = self.muxer.interest(FIRST_ID).unwrap();
        let interest = interest.unwrap();
        let (readable, writable) = {
            let state = self.pipe.state();
            (!state.to_guest.is_empty(), state.room > 0)
        };
        let ready = Ready {
            readable: interest.readable && readable,
            writable: interest.writable && writable,
            closed: false,
        };
        if ready != Ready::default() {
            self.muxer.stream_ready(FIRST_ID, ready);
        }
    }

    fn finish(&mut self) {
        self.pipe.state().room = usize::MAX;
        for _ in 0..2 {
            self.events();
            self.reads(usize::MAX / 2);
            while self.offers(4096) {
                self.events();
                self.reads(usize::MAX / 2);
            }
        }
        let state = self.pipe.state();
        assert_eq!(
            self.received, self.host_wrote,
            "bytes to the guest were lost"
        );
        assert_eq!(
            state.from_guest.len(),
            self.sent,
            "bytes to the host were lost"
        );
        let expected = (0..self.sent).map(pattern);
        assert!(
            state.from_guest.iter().copied().eq(expected),
            "bytes changed"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    HostWrites(usize),
    HostTakes(usize),
    GuestSends(usize),
    GuestReads(usize),
    Buffer(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..30_000_usize).prop_map(Step::HostWrites),
        (1..30_000_usize).prop_map(Step::HostTakes),
        (0..70_000_usize).prop_map(Step::GuestSends),
        (0..30_000_usize).prop_map(Step::GuestReads),
        (0..5_000_usize).prop_map(Step::Buffer),
        (0..5_000_usize).prop_map(Step::Buffer),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of things, no byte is lost, changed or moved, no credit is exceeded by
    /// either side, what waits for the host fits its buffer, and everything arrives in the end.
    #[test]
    fn a_correct_guest_gets_and_loses_nothing(steps in steps(), alloc in 1..40_000_u32) {
        let mut guest = Guest::new(alloc);
        for step in steps {
            match step {
                Step::HostWrites(len) => guest.host_writes(len),
                Step::HostTakes(len) => guest.pipe.state().room += len,
                Step::GuestSends(len) => guest.sends(len),
                Step::GuestReads(len) => guest.reads(len),
                Step::Buffer(room) => drop(guest.offers(room)),
            }
            guest.events();
            let taken = guest.pipe.state().from_guest.len();
            prop_assert!(guest.sent - taken <= usize::try_from(RECEIVE_BUFFER).unwrap());
        }
        guest.finish();
    }

    /// Any packets at all: nothing panics and every bound holds.
    #[test]
    fn arbitrary_packets_keep_the_bounds(
        packets in proptest::collection::vec(
            (0..3_u64, 0..4_u32, 0..3_u32, 0..2_u16, 0..9_u16, 0..4_u32, any::<[u32; 2]>(), 0..70_000_usize),
            0..200,
        ),
    ) {
        let pipe = Pipe::with_room(1000);
        pipe.state().to_guest.extend([1; 100_000]);
        let mut muxer = muxer(&pipe);
        let payload = vec![9; 70_000];
        for (cid, src_port, dst_port, kind, op, flags, [buf_alloc, fwd_cnt], len) in packets {
            let header = Header {
                src_cid: GUEST - cid / 2,
                dst_cid: HOST_CID + cid % 2,
                src_port,
                dst_port: AGENT + dst_port,
                len: u32::try_from(len).unwrap(),
                kind: 1 - kind,
                op,
                flags,
                buf_alloc,
                fwd_cnt: fwd_cnt % 5000,
            };
            if muxer.takes_packets() {
                muxer.receive(&header, payload.get(..len));
            }
            let mut buffer = vec![0; len.min(4096)];
            if let Some(header) = muxer.next_packet(&mut buffer) {
                prop_assert!(usize::try_from(header.len).unwrap() <= buffer.len());
            }
            prop_assert!(muxer.slots.len() <= 1 && muxer.resets.len() <= MAX_RESETS + 1);
            prop_assert!(muxer.ready.len() <= muxer.slots.len());
            muxer.take_changes();
        }
    }
}
