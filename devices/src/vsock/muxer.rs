//! All connections of one guest: packets and events in, packets and changes of what to watch out.
//!
//! Pure but for the streams, which it reads and writes without blocking. Whatever the guest sends,
//! there are at most [`MAX_CONNECTIONS`] connections, and resets that wait for a buffer of the
//! guest stop further packets of it from being taken ([`Muxer::takes_packets`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, Ports, Verdict};
use super::host::{Connect, ConnectError, VsockBackend};
use super::stream::Stream;
use super::wire::{HOST_CID, Header, Op, STREAM};
use crate::virtio::Ready;

/// Most connections of one guest at a time.
pub const MAX_CONNECTIONS: usize = 1024;

/// How long a guest may take to answer a connect of the host.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Resets waiting for a buffer of the guest beyond which no more of its packets are taken.
const MAX_RESETS: usize = 256;

/// The first port that the host's own connects come from; below are ports that guests connect to.
const FIRST_HOST_PORT: u32 = 1 << 30;

/// Names a connection for the event loop.
pub(super) type Id = u32;

/// The first [`Id`]; smaller numbers are free for other uses.
pub(super) const FIRST_ID: Id = 16;
/// Ids begin again here.
const END_OF_IDS: Id = 1 << 30;

/// What the event loop has to do for a connection.
pub(super) enum Change {
    /// What to wait for may have changed; see [`Muxer::interest`].
    Interest(Id),
    /// Stop watching this stream, then drop it.
    Closed(Id, Box<dyn Stream>),
}

struct Slot {
    connection: Connection,
    /// It is in `Muxer::ready`.
    queued: bool,
    /// It is in `Muxer::changes`.
    changed: bool,
}

pub(super) struct Muxer {
    guest_cid: u64,
    backend: Arc<dyn VsockBackend>,
    slots: HashMap<Id, Slot>,
    /// Connections that the guest knows of.
    by_ports: HashMap<Ports, Id>,
    /// Connections that may have a packet for the guest, each once, served in turn.
    ready: VecDeque<Id>,
    resets: VecDeque<Header>,
    changes: Vec<Change>,
    next_id: Id,
    next_port: u32,
}

impl Muxer {
    pub(super) fn new(guest_cid: u64, backend: Arc<dyn VsockBackend>) -> Self {
        Self {
            guest_cid,
            backend,
            slots: HashMap::new(),
            by_ports: HashMap::new(),
            ready: VecDeque::new(),
            resets: VecDeque::new(),
            changes: Vec::new(),
            next_id: FIRST_ID,
            next_port: FIRST_HOST_PORT,
        }
    }

    /// False while the guest has to take packets before more of its own are looked at.
    pub(super) fn takes_packets(&self) -> bool {
        self.resets.len() < MAX_RESETS
    }

    /// A packet of the guest; `payload` is all of the `len` bytes that its header announces, and
    /// `None` when the guest did not lay them out or they are more than any credit allows.
    pub(super) fn receive(&mut self, header: &Header, payload: Option<&[u8]>) {
        if header.src_cid != self.guest_cid {
            return;
        }
        if header.dst_cid != HOST_CID || header.kind != STREAM {
            return self.refuse(header);
        }
        let ports = Ports::of(header);
        let known = self.by_ports.get(&ports).copied();
        match known.and_then(|id| Some((id, self.slots.get_mut(&id)?))) {
            Some((id, slot)) => {
                let verdict = match payload {
                    Some(payload) => slot.connection.receive(header, payload),
                    None => Verdict::Reset,
                };
                self.settle(id, verdict, ConnectError::Refused);
            }
            None if header.op == Op::Request.code() => self.accept(header),
            None => self.refuse(header),
        }
    }

    /// Answers a packet that belongs to no connection.
    fn refuse(&mut self, header: &Header) {
        // A reset is never answered, else two correct ends could go on for ever.
        if header.op != Op::Reset.code() {
            self.resets.push_back(header.reset());
        }
    }

    fn accept(&mut self, header: &Header) {
        if self.slots.len() >= MAX_CONNECTIONS {
            return self.refuse(header);
        }
        match self.backend.accept(header.dst_port) {
            Some(stream) => self.insert(Connection::grant(header, self.guest_cid, stream)),
            None => self.refuse(header),
        }
    }

    /// Begins a connect of the host.
    pub(super) fn connect(&mut self, connect: Connect, now: Instant) {
        let Connect {
            port,
            stream,
            answer,
        } = connect;
        if self.slots.len() >= MAX_CONNECTIONS {
            return answer.give(Err(ConnectError::TooMany));
        }
        let ports = Ports {
            host: self.free_port(port),
            guest: port,
        };
        let deadline = now + CONNECT_TIMEOUT;
        self.insert(Connection::request(
            ports,
            self.guest_cid,
            stream,
            deadline,
            answer,
        ));
    }

    /// A port of the host that has no connection with this port of the guest yet. There is one,
    /// since there are fewer connections than ports.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    fn insert(&mut self, connection: Connection) {
        let id = self.free_id();
        self.by_ports.insert(connection.ports(), id);
        self.slots.insert(
            id,
            Slot {
                connection,
                queued: false,
                changed: false,
            },
        );
        self.update(id);
    }

    /// The id that was not in use for longest, so that a late event cannot hit another connection.
    fn free_id(&mut self) -> Id {
        loop {
            let id = self.next_id;
            self.next_id = if id + 1 < END_OF_IDS {
                id + 1
            } else {
                FIRST_ID
            };
            if !self.slots.contains_key(&id) {
                return id;
            }
        }
    }

    /// The stream of a connection and what to wait for at it, `None` when nothing.
    pub(super) fn interest(&self, id: Id) -> Option<(&dyn Stream, Option<Ready>)> {
        let connection = &self.slots.get(&id)?.connection;
        Some((connection.stream(), connection.interest()))
    }

    /// The stream of a connection may have bytes, or take some.
    pub(super) fn stream_ready(&mut self, id: Id, ready: Ready) {
        self.with(id, |connection| connection.stream_ready(ready));
    }

    /// The other end of a connection's stream is gone.
    pub(super) fn hung_up(&mut self, id: Id) {
        self.with(id, Connection::hang_up);
    }

    fn with(&mut self, id: Id, event: impl FnOnce(&mut Connection) -> Verdict) {
        if let Some(slot) = self.slots.get_mut(&id) {
            let verdict = event(&mut slot.connection);
            self.settle(id, verdict, ConnectError::Refused);
        }
    }

    fn settle(&mut self, id: Id, verdict: Verdict, error: ConnectError) {
        match verdict {
            Verdict::Keep => self.update(id),
            Verdict::Reset => self.remove(id, true, error),
            Verdict::Forget => self.remove(id, false, error),
            Verdict::Drain => {
                if let Some(slot) = self.slots.get(&id) {
                    self.by_ports.remove(&slot.connection.ports());
                }
                self.update(id);
            }
        }
    }

    /// Notes what follows from a change of a connection.
    fn update(&mut self, id: Id) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if !slot.queued && slot.connection.wants_to_send() {
            slot.queued = true;
            self.ready.push_back(id);
        }
        if !slot.changed {
            slot.changed = true;
            self.changes.push(Change::Interest(id));
        }
    }

    fn remove(&mut self, id: Id, tell_guest: bool, error: ConnectError) {
        let Some(Slot {
            connection, queued, ..
        }) = self.slots.remove(&id)
        else {
            return;
        };
        let ports = connection.ports();
        // The ports of a draining connection may belong to a younger one.
        if self.by_ports.get(&ports) == Some(&id) {
            self.by_ports.remove(&ports);
        }
        if queued {
            self.ready.retain(|ready| *ready != id);
        }
        if tell_guest {
            self.resets
                .push_back(ports.header(self.guest_cid, Op::Reset));
        }
        self.changes.push(Change::Closed(id, connection.end(error)));
    }

    /// True when [`Muxer::next_packet`] may have one.
    pub(super) fn has_packets(&self) -> bool {
        !self.resets.is_empty() || !self.ready.is_empty()
    }

    /// The next packet for the guest; its bytes, of number `len`, are put at the start of `room`.
    pub(super) fn next_packet(&mut self, room: &mut [u8]) -> Option<Header> {
        if let Some(reset) = self.resets.pop_front() {
            return Some(reset);
        }
        for _ in 0..self.ready.len() {
            let id = self.ready.pop_front()?;
            let Some(slot) = self.slots.get_mut(&id) else {
                continue;
            };
            slot.queued = false;
            let packet = slot.connection.next_packet(room);
            self.update(id);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// When [`Muxer::expire`] next has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .values()
            .filter_map(|slot| slot.connection.deadline())
            .min()
    }

    /// Gives up connects of the host that the guest did not answer in time.
    pub(super) fn expire(&mut self, now: Instant) {
        let late: Vec<Id> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.connection.deadline().is_some_and(|end| end <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.settle(id, Verdict::Reset, ConnectError::TimedOut);
        }
    }

    /// What the event loop has to do since it last asked.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            if let Change::Interest(id) = change
                && let Some(slot) = self.slots.get_mut(id)
            {
                slot.changed = false;
            }
        }
        changes
    }

    /// Forgets all connections; their streams are closed.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.by_ports.clear();
        self.ready.clear();
        self.resets.clear();
        self.changes.clear();
    }

    /// Makes the event loop look at every connection, because it begins anew.
    pub(super) fn watch_anew(&mut self) {
        let ids: Vec<Id> = self.slots.keys().copied().collect();
        ids.into_iter().for_each(|id| self.update(id));
    }

    /// Ends a connection whose stream cannot be watched.
    pub(super) fn abort(&mut self, id: Id) {
        self.settle(id, Verdict::Reset, ConnectError::Refused);
    }
}

#[cfg(test)]
mod tests;
