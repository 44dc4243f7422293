//! The near end of one connection of the guest's: TCP over smoltcp, without I/O of its own.
//!
//! Each connection is an interface of its own with one socket: a segment is taken to its connection by a hash table instead of by
//! asking every socket, and no connection sees another's sequence numbers, timers or buffers.

mod wire;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::task::Waker;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{RecvError, SendError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::frame::Segment;
use crate::gateway::Outbox;
use crate::link::Offloads;
use wire::Wire;

pub(crate) use wire::MAX_WAITING;

/// A guest that does not acknowledge for so long is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// How often a guest that sends no more is asked whether it still is there.
const ASKED: Duration = Duration::from_secs(30);

/// The near end of a connection with the guest.
pub(crate) struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    /// Neither accepted nor refused: the guest hears nothing.
    is_held: bool,
    /// Since when the guest sends no more, as long as it was not asked about it.
    finished: Option<Instant>,
}

impl Connection {
    /// Takes the segment that opens a connection. The guest hears nothing of it until [`Self::accept`] or [`Self::abort`].
    ///
    /// At most `room` bytes wait for the guest, and as many for the other side. `seed` makes the first sequence number; it must not be guessable (RFC 6528).
    pub(crate) fn open(
        to: SocketAddrV4,
        offloads: Offloads,
        room: usize,
        seed: u64,
        now: Instant,
        outbox: &mut Outbox<'_>,
    ) -> Self {
        let mut connection = Self::new(*to.ip(), offloads, room, seed, now, outbox);
        connection.is_held = true;
        let socket = connection.socket();
        socket.pause_synack(true);
        // Refused are only the port 0, which no segment that gets here has, and sockets in use.
        let _ = socket.listen((*to.ip(), to.port()));
        connection
    }

    /// Begins a connection from `from`, which is the gateway's, to a port of the guest's that is not 0. The rest as in [`Self::open`].
    pub(crate) fn connect(
        from: SocketAddrV4,
        port: u16,
        offloads: Offloads,
        room: usize,
        seed: u64,
        now: Instant,
        outbox: &mut Outbox<'_>,
    ) -> Self {
        let guest = outbox.network.guest;
        let mut connection = Self::new(*from.ip(), offloads, room, seed, now, outbox);
        let Self {
            interface,
            sockets,
            socket,
            ..
        } = &mut connection;
        let socket: &mut Socket<'_> = sockets.get_mut(*socket);
        // Refused are only the port 0 and sockets in use.
        let _ = socket.connect(interface.context(), (guest, port), from.port());
        connection
    }

    fn new(
        near: Ipv4Addr,
        offloads: Offloads,
        room: usize,
        seed: u64,
        now: Instant,
        outbox: &mut Outbox<'_>,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire::new(None, offloads, outbox);
        let mut interface = Interface::new(config, &mut wire, now);
        interface.update_ip_addrs(|addresses| {
            // The first of two places: the list is new.
            let _ = addresses.push(IpCidr::new(near.into(), 0));
        });
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; room]),
            SocketBuffer::new(vec![0; room]),
        );
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Self {
            interface,
            sockets,
            socket,
            is_held: false,
            finished: None,
        }
    }

    /// Takes a segment of the guest's.
    pub(crate) fn receive(
        &mut self,
        segment: &Segment<'_>,
        offloads: Offloads,
        now: Instant,
        outbox: &mut Outbox<'_>,
    ) {
        let mut wire = Wire::new(Some(segment.ip), offloads, outbox);
        self.interface
            .poll_ingress_single(now, &mut wire, &mut self.sockets);
        if self.peek().state() == State::CloseWait && self.peek().keep_alive().is_none() {
            self.finished.get_or_insert(now);
        }
    }

    /// Sends what is to be sent, as far as there is room.
    pub(crate) fn send_due(&mut self, offloads: Offloads, now: Instant, outbox: &mut Outbox<'_>) {
        if self.finished.is_some_and(|since| now >= since + ASKED) {
            self.finished = None;
            self.socket().set_keep_alive(Some(ASKED));
        }
        self.set_timeout();
        let mut wire = Wire::new(None, offloads, outbox);
        self.interface
            .poll_egress(now, &mut wire, &mut self.sockets);
    }

    /// When there is something to send again if nothing happens before. `None`: not by itself.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<Instant> {
        // The library would say `now` for as long as it is held.
        if self.is_held {
            return None;
        }
        self.set_timeout();
        let asked = self.finished.map(|since| since + ASKED);
        let next = self.interface.poll_at(now, &self.sockets);
        next.into_iter().chain(asked).min()
    }

    /// The library would take a guest for gone that has nothing to acknowledge, and says nothing for so long.
    fn set_timeout(&mut self) {
        let socket = self.socket();
        let is_waited_for =
            is_beginning(socket) || socket.send_queue() > 0 || socket.keep_alive().is_some();
        socket.set_timeout(is_waited_for.then_some(UNACKNOWLEDGED));
    }

    /// Tells the guest that the connection stands.
    pub(crate) fn accept(&mut self) {
        self.is_held = false;
        self.socket().pause_synack(false);
    }

    /// Tells the guest that the connection is refused, or broken.
    pub(crate) fn abort(&mut self) {
        self.is_held = false;
        let socket = self.socket();
        socket.pause_synack(false);
        socket.abort();
    }

    /// Tells the guest that nothing more comes.
    pub(crate) fn close(&mut self) {
        self.socket().close();
    }

    /// Whether nothing is left to do: neither side will say anything, and all that was said is acknowledged.
    pub(crate) fn is_over(&self) -> bool {
        matches!(
            self.peek().state(),
            State::Closed | State::TimeWait | State::Listen
        )
    }

    /// Whether this side has said its last: what is left is the guest's to acknowledge.
    pub(crate) fn is_closing(&self) -> bool {
        use State::{Closed, Closing, FinWait1, FinWait2, LastAck, TimeWait};
        let state = self.peek().state();
        matches!(
            state,
            Closed | TimeWait | LastAck | Closing | FinWait1 | FinWait2
        )
    }

    /// Whether the guest may send more than is there already, and has room to.
    pub(crate) fn may_take_more(&self) -> bool {
        let socket = self.peek();
        socket.may_recv()
            && socket.recv_queue() < socket.recv_capacity()
            && socket.state() != State::CloseWait
    }

    /// Whether the guest has taken a connection to it; `None` before it has said.
    pub(crate) fn is_taken(&self) -> Option<bool> {
        let socket = self.peek();
        (!is_beginning(socket)).then(|| socket.state() != State::Closed)
    }

    /// Lets `take` have bytes that the guest sent; it says how many it took. `None`: there are none now. `Some(Err)`: none will come
    /// any more, because the guest said so (`Finished`) or because the connection broke.
    pub(crate) fn take<R>(
        &mut self,
        take: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<Result<R, RecvError>> {
        let socket = self.socket();
        if is_beginning(socket) || !socket.can_recv() && socket.may_recv() {
            return None;
        }
        Some(socket.recv(take))
    }

    /// Lets `give` fill room for bytes to the guest; it says how many it gave. `None`: there is no room now.
    pub(crate) fn give<R>(
        &mut self,
        give: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Option<Result<R, SendError>> {
        let socket = self.socket();
        if !socket.can_send() && (socket.may_send() || is_beginning(socket)) {
            return None;
        }
        Some(socket.send(give))
    }

    /// Wakes `waker` once when the guest sent something, or will not any more.
    pub(crate) fn wake_to_take(&mut self, waker: &Waker) {
        self.socket().register_recv_waker(waker);
    }

    /// Wakes `waker` once when there is room for more to the guest, or never will be.
    pub(crate) fn wake_to_give(&mut self, waker: &Waker) {
        self.socket().register_send_waker(waker);
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    fn peek(&self) -> &Socket<'static> {
        self.sockets.get(self.socket)
    }
}

/// Whether one side waits for the other to say that the connection stands.
fn is_beginning(socket: &Socket<'_>) -> bool {
    matches!(socket.state(), State::SynSent | State::SynReceived)
}

/// Refuses a segment of no connection.
pub(crate) fn refuse(segment: &Segment<'_>, now: Instant, outbox: &mut Outbox<'_>) {
    let offloads = Offloads::default();
    let mut wire = Wire::new(Some(segment.ip), offloads, outbox);
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, now);
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new((*segment.to.ip()).into(), 0));
    });
    interface.poll_ingress_single(now, &mut wire, &mut SocketSet::new(Vec::new()));
}
