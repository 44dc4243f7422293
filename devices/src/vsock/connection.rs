//! One connection: what each packet and each event of the host's stream does to it.
//!
//! Nothing is queued towards the guest: bytes are read from the stream when the guest has a buffer
//! for them. Towards the host at most [`super::RECEIVE_BUFFER`] bytes wait, because the guest has
//! no credit for more.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::time::Instant;

use super::credit::{RECEIVE_BUFFER, ReceiveCredit, SendCredit};
use super::host::{Answer, ConnectError};
use super::stream::Stream;
use super::wire::{HOST_CID, Halves, Header, Op, STREAM};
use crate::virtio::Ready;

/// The two ports that name a connection between the host and this guest.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

impl Ports {
    /// Of a packet from the guest.
    pub(super) fn of(header: &Header) -> Self {
        Self {
            host: header.dst_port,
            guest: header.src_port,
        }
    }

    /// The header of a packet to the guest without any credit in it.
    pub(super) fn header(self, guest_cid: u64, op: Op) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: guest_cid,
            src_port: self.host,
            dst_port: self.guest,
            kind: STREAM,
            op: op.code(),
            ..Header::default()
        }
    }
}

/// What becomes of a connection after a packet or an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It goes on.
    Keep,
    /// The guest is told that it has ended.
    Reset,
    /// The guest ended it, or it has nothing left to do.
    Forget,
    /// The guest ended it after sending all, but the host has not taken all yet.
    Drain,
}

enum Phase {
    /// The host asked; the guest has until `deadline` to answer.
    Requested {
        deadline: Instant,
        answer: Answer,
    },
    Established,
    /// The guest knows nothing of it any more.
    Draining,
}

bitflags::bitflags! {
    /// Packets without bytes that the guest shall get.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    struct Pending: u8 {
        const REQUEST = 1 << 0;
        const RESPONSE = 1 << 1;
        const SHUTDOWN = 1 << 2;
        const CREDIT_REQUEST = 1 << 3;
        const CREDIT_UPDATE = 1 << 4;
    }
}

impl Pending {
    const HANDSHAKE: [(Self, Op); 2] =
        [(Self::REQUEST, Op::Request), (Self::RESPONSE, Op::Response)];
    const CONTROL: [(Self, Op); 3] = [
        (Self::SHUTDOWN, Op::Shutdown),
        (Self::CREDIT_REQUEST, Op::CreditRequest),
        (Self::CREDIT_UPDATE, Op::CreditUpdate),
    ];

    fn take(&mut self, from: &[(Self, Op)]) -> Option<Op> {
        let &(flag, op) = from.iter().find(|(flag, _)| self.contains(*flag))?;
        self.remove(flag);
        Some(op)
    }
}

/// A connection and the host's end of it.
pub(super) struct Connection {
    ports: Ports,
    guest_cid: u64,
    phase: Phase,
    pending: Pending,
    send: SendCredit,
    receive: ReceiveCredit,
    /// Bytes of the guest that the stream did not take yet.
    backlog: VecDeque<u8>,
    stream: Box<dyn Stream>,
    /// The stream may have bytes; cleared when a read finds none.
    readable: bool,
    /// The other end of the stream is gone: there is nothing to wait for any more.
    hung_up: bool,
    /// The guest was asked for credit and has not given any since.
    asked_for_credit: bool,
    guest_closed: Halves,
    host_closed: Halves,
}

impl Connection {
    /// One that the host asks for.
    pub(super) fn request(
        ports: Ports,
        guest_cid: u64,
        stream: Box<dyn Stream>,
        deadline: Instant,
        answer: Answer,
    ) -> Self {
        let phase = Phase::Requested { deadline, answer };
        Self::new(ports, guest_cid, stream, phase, Pending::REQUEST)
    }

    /// One that the guest asked for with `header` and that is granted.
    pub(super) fn grant(header: &Header, guest_cid: u64, stream: Box<dyn Stream>) -> Self {
        let ports = Ports::of(header);
        let mut new = Self::new(
            ports,
            guest_cid,
            stream,
            Phase::Established,
            Pending::RESPONSE,
        );
        // It fails for a guest that claims to have read what was never sent: it gets no credit.
        let _ = new.send.update(header.buf_alloc, header.fwd_cnt);
        new
    }

    fn new(
        ports: Ports,
        guest_cid: u64,
        stream: Box<dyn Stream>,
        phase: Phase,
        pending: Pending,
    ) -> Self {
        Self {
            ports,
            guest_cid,
            phase,
            pending,
            send: SendCredit::default(),
            receive: ReceiveCredit::default(),
            backlog: VecDeque::new(),
            stream,
            readable: true,
            hung_up: false,
            asked_for_credit: false,
            guest_closed: Halves::empty(),
            host_closed: Halves::empty(),
        }
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    pub(super) fn stream(&self) -> &dyn Stream {
        &*self.stream
    }

    /// Ends it and hands back the stream; who waits for a first answer is told `error`.
    pub(super) fn end(self, error: ConnectError) -> Box<dyn Stream> {
        if let Phase::Requested { answer, .. } = self.phase {
            answer.give(Err(error));
        }
        self.stream
    }

    /// When the guest's time for a first answer is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Requested { deadline, .. } => Some(deadline),
            _ => None,
        }
    }

    /// A packet of the guest on this connection.
    pub(super) fn receive(&mut self, header: &Header, payload: &[u8]) -> Verdict {
        let op = match Op::from_code(header.op) {
            None => return Verdict::Reset,
            Some(Op::Reset) => return self.guest_reset(),
            Some(op) => op,
        };
        if self.send.update(header.buf_alloc, header.fwd_cnt).is_err() {
            return Verdict::Reset;
        }
        self.asked_for_credit &= self.send.available() == 0;
        let verdict = match (&self.phase, op) {
            (Phase::Requested { .. }, Op::Response) => self.establish(),
            (Phase::Established, Op::ReadWrite) => self.accept(payload),
            (Phase::Established, Op::CreditUpdate) => Verdict::Keep,
            (Phase::Established, Op::CreditRequest) => self.queue(Pending::CREDIT_UPDATE),
            (Phase::Established, Op::Shutdown) => {
                self.guest_shutdown(Halves::from_bits_truncate(header.flags))
            }
            _ => Verdict::Reset,
        };
        self.ask_for_credit();
        verdict
    }

    fn guest_reset(&mut self) -> Verdict {
        if self.backlog.is_empty() || !self.guest_closed.contains(Halves::SEND) {
            return Verdict::Forget;
        }
        self.phase = Phase::Draining;
        self.pending = Pending::empty();
        Verdict::Drain
    }

    fn establish(&mut self) -> Verdict {
        if let Phase::Requested { answer, .. } =
            std::mem::replace(&mut self.phase, Phase::Established)
        {
            answer.give(Ok(()));
        }
        Verdict::Keep
    }

    fn queue(&mut self, packet: Pending) -> Verdict {
        self.pending |= packet;
        Verdict::Keep
    }

    fn guest_shutdown(&mut self, halves: Halves) -> Verdict {
        self.guest_closed |= halves;
        if halves.contains(Halves::RECEIVE) {
            self.stream.shutdown(Shutdown::Read);
        }
        self.flush()
    }

    /// Bytes of the guest: straight into the stream as far as it takes them.
    fn accept(&mut self, bytes: &[u8]) -> Verdict {
        let fits = u32::try_from(bytes.len()).is_ok_and(|len| self.receive.receive(len).is_ok());
        if !fits || self.guest_closed.contains(Halves::SEND) {
            return Verdict::Reset;
        }
        let written = if self.backlog.is_empty() {
            self.write(bytes)
        } else {
            0
        };
        self.backlog
            .extend(bytes.get(written..).unwrap_or_default());
        self.note_free_space();
        Verdict::Keep
    }

    /// Writes what the stream takes and says how much of `bytes` is done with. When nobody reads
    /// the stream any more that is all.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            if self.host_closed.contains(Halves::RECEIVE) {
                done = bytes.len();
                break;
            }
            match self.stream.write(rest) {
                Ok(0) => self.close_host(Halves::RECEIVE),
                Ok(written) => done += written.min(rest.len()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.close_host(Halves::RECEIVE),
            }
        }
        self.receive
            .forward(u32::try_from(done).unwrap_or(RECEIVE_BUFFER));
        done
    }

    /// Gives the stream what waits for it.
    fn flush(&mut self) -> Verdict {
        let mut backlog = std::mem::take(&mut self.backlog);
        let written = self.write(backlog.make_contiguous());
        backlog.drain(..written);
        self.note_free_space();
        if !backlog.is_empty() {
            self.backlog = backlog;
            return Verdict::Keep;
        }
        self.drained()
    }

    /// All that the guest sent so far has reached the host.
    fn drained(&mut self) -> Verdict {
        if matches!(self.phase, Phase::Draining) {
            return Verdict::Forget;
        }
        // The answer to a complete shutdown is a reset (section 5.10.6.6.1).
        if self.guest_closed.is_all() {
            return Verdict::Reset;
        }
        if self.guest_closed.contains(Halves::SEND) {
            self.stream.shutdown(Shutdown::Write);
        }
        Verdict::Keep
    }

    fn note_free_space(&mut self) {
        if self.receive.is_stale() && matches!(self.phase, Phase::Established) {
            self.pending |= Pending::CREDIT_UPDATE;
        }
    }

    /// The stream may have bytes for the guest, or take some.
    pub(super) fn stream_ready(&mut self, ready: Ready) -> Verdict {
        self.readable |= ready.readable;
        self.ask_for_credit();
        if ready.writable {
            self.flush()
        } else {
            Verdict::Keep
        }
    }

    /// The other end of the stream is gone; bytes that it left are still delivered.
    pub(super) fn hang_up(&mut self) -> Verdict {
        self.hung_up = true;
        self.close_host(Halves::RECEIVE);
        self.stream_ready(Ready::BOTH)
    }

    /// What to wait for at the stream; `None` when it has no more events.
    pub(super) fn interest(&self) -> Option<Ready> {
        let interest = Ready {
            readable: !self.readable && self.reads_on(),
            writable: !self.backlog.is_empty(),
            closed: false,
        };
        (!self.hung_up).then_some(interest)
    }

    fn close_host(&mut self, halves: Halves) {
        if !self.host_closed.contains(halves) {
            self.host_closed |= halves;
            self.pending |= Pending::SHUTDOWN;
        }
    }

    /// True when [`Connection::next_packet`] may have one.
    pub(super) fn wants_to_send(&self) -> bool {
        let waits = matches!(self.phase, Phase::Requested { .. });
        let handshake = Pending::REQUEST | Pending::RESPONSE;
        let control = if waits {
            self.pending & handshake
        } else {
            self.pending
        };
        !control.is_empty() || (self.may_read() && self.send.available() > 0)
    }

    /// The next packet for the guest; its bytes, of number `len`, are put at the start of `room`.
    pub(super) fn next_packet(&mut self, room: &mut [u8]) -> Option<Header> {
        if let Some(op) = self.pending.take(&Pending::HANDSHAKE) {
            return Some(self.packet(op, 0));
        }
        if matches!(self.phase, Phase::Requested { .. }) {
            return None;
        }
        if let Some(bytes) = self.read(room) {
            self.send.sent(bytes);
            self.ask_for_credit();
            return Some(self.packet(Op::ReadWrite, bytes));
        }
        let op = self.pending.take(&Pending::CONTROL)?;
        Some(self.packet(op, 0))
    }

    fn packet(&mut self, op: Op, len: u32) -> Header {
        // Every packet tells the credit, so none is needed only for that.
        self.pending.remove(Pending::CREDIT_UPDATE);
        let flags = if op == Op::Shutdown {
            self.host_closed.bits()
        } else {
            0
        };
        Header {
            len,
            flags,
            buf_alloc: RECEIVE_BUFFER,
            fwd_cnt: self.receive.tell(),
            ..self.ports.header(self.guest_cid, op)
        }
    }

    fn may_read(&self) -> bool {
        self.readable && matches!(self.phase, Phase::Established) && self.reads_on()
    }

    /// Bytes may still go from the host to the guest.
    fn reads_on(&self) -> bool {
        let open = !self.host_closed.contains(Halves::SEND);
        open && !self.guest_closed.contains(Halves::RECEIVE)
    }

    fn read(&mut self, room: &mut [u8]) -> Option<u32> {
        let credit = usize::try_from(self.send.available()).unwrap_or(usize::MAX);
        let limit = room.len().min(credit);
        let room = room
            .get_mut(..limit)
            .filter(|room| !room.is_empty() && self.may_read())?;
        match self.stream.read(room) {
            Ok(0) => self.close_host(Halves::SEND),
            Ok(bytes) => return u32::try_from(bytes.min(limit)).ok(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.close_host(Halves::SEND),
        }
        None
    }

    /// Asks once when there are bytes and no credit, in case the guest tells it only when asked.
    fn ask_for_credit(&mut self) {
        if self.may_read() && self.send.available() == 0 && !self.asked_for_credit {
            self.asked_for_credit = true;
            self.pending |= Pending::CREDIT_REQUEST;
        }
    }
}
