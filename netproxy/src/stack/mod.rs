//! The guest's side: frames in, answers and connections out, without I/O of its own.

mod schedule;
mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;
use std::rc::Rc;

use smoltcp::time::{Duration, Instant};
use tokio::sync::Notify;

use crate::frame::{self, DroppedFrame, Packet, Segment};
use crate::gateway::{self, Network, Outbox};
use crate::link::Offloads;
use crate::tcp::{self, Connection};
use schedule::Schedule;

pub use stream::GuestStream;

/// Most connections of a guest at a time, those to it among them.
pub const MAX_CONNECTIONS: usize = 1024;
/// Most of them that wait for their other side. Beyond that a guest's attempts are not answered; it repeats them.
pub const MAX_OPENING: usize = 256;

/// Bytes that wait on a connection, each way: as many as one flow needs for its full speed, for so many connections, and fewer for others. With
/// the buffers of all connections full it is 608 MiB; the pages of those that say nothing are not touched.
const WIDE: usize = 1 << 20;
const MAX_WIDE: usize = 64;
const NARROW: usize = 256 << 10;

/// Ports of the gateway's from which connections to the guest are: what Linux takes for that, too.
const NEAR_PORTS: RangeInclusive<u16> = 32_768..=60_999;
const NEAR_PORTS_LEN: u64 = 60_999 - 32_768 + 1;

/// How long a guest may take to end a connection whose other side has ended.
const ORPHAN_LIMIT: Duration = Duration::from_secs(60);

/// When a connection is asked again that says it has something to send, and sends nothing.
const IDLE_TURN: Duration = Duration::from_millis(10);

/// Which connection: the guest's port and what it is connected to. Their order means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    from: u16,
    to: SocketAddrV4,
}

impl Key {
    const fn of(segment: &Segment<'_>) -> Self {
        Self {
            from: segment.from,
            to: segment.to,
        }
    }
}

/// What a frame asks of someone else.
#[derive(Debug)]
pub(crate) enum Request {
    /// A connection, which is to be accepted or refused.
    Connection(GuestStream),
    /// An answer by [`Stack::answer_dns`] to this port.
    Dns { from: u16, query: Vec<u8> },
}

/// The guest's side. A handle; all of them are the same.
#[derive(Clone)]
pub(crate) struct Stack {
    inner: Rc<RefCell<Inner>>,
    /// Told when a connection has something to send.
    due: Rc<Notify>,
}

struct Inner {
    network: Network,
    offloads: Offloads,
    /// Records for the guest.
    out: Vec<u8>,
    connections: HashMap<Key, Slot>,
    /// Held by each stream that is not accepted yet, whatever has become of its connection: somebody works for it.
    opening: Rc<()>,
    /// Held by each of the wide connections.
    wide: Rc<()>,
    next_id: u64,
    schedule: Schedule,
}

struct Slot {
    id: u64,
    connection: Connection,
    _wide: Option<Rc<()>>,
    /// Since when nobody holds its stream any more.
    orphaned: Option<Instant>,
}

impl Stack {
    pub(crate) fn new(network: Network) -> Self {
        let inner = Inner {
            network,
            offloads: Offloads::default(),
            out: Vec::new(),
            connections: HashMap::new(),
            opening: Rc::default(),
            wide: Rc::default(),
            next_id: 0,
            schedule: Schedule::default(),
        };
        Self {
            inner: Rc::new(RefCell::new(inner)),
            due: Rc::default(),
        }
    }

    /// The address of the network's other machine.
    pub(crate) fn gateway(&self) -> Ipv4Addr {
        self.inner.borrow().network.gateway
    }

    /// Begins anew with another driver: the connections of the one before are gone.
    pub(crate) fn start(&self, offloads: Offloads) {
        let mut inner = self.inner.borrow_mut();
        inner.offloads = offloads;
        // Their holders learn it when they ask next.
        let connections = std::mem::take(&mut inner.connections);
        inner.schedule = Schedule::default();
        // What waits for the guest stays: a record that is sent in part must be sent whole, and the new driver does not know what the others are about.
        drop(inner);
        for (_, mut slot) in connections {
            slot.connection.abort();
        }
    }

    /// Takes a frame of the guest's.
    ///
    /// # Errors
    ///
    /// It goes nowhere.
    pub(crate) fn receive(
        &self,
        frame: &[u8],
        now: Instant,
    ) -> Result<Option<Request>, DroppedFrame> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let mut outbox = Outbox {
            network: &inner.network,
            out: &mut inner.out,
        };
        match frame::parse(frame, outbox.network)? {
            Packet::WhoIsGateway => outbox.arp_reply(),
            Packet::Dhcp(message) => gateway::answer_dhcp(message, &mut outbox),
            Packet::Echo(request) => outbox.echo_reply(request),
            Packet::Dns { from, query } => {
                return Ok(Some(Request::Dns {
                    from,
                    query: query.to_vec(),
                }));
            }
            Packet::Tcp(segment) => return Ok(self.receive_segment(inner, &segment, now)),
        }
        Ok(None)
    }

    fn receive_segment(
        &self,
        inner: &mut Inner,
        segment: &Segment<'_>,
        now: Instant,
    ) -> Option<Request> {
        let key = Key::of(segment);
        if segment.opens
            && inner
                .connections
                .get(&key)
                .is_some_and(|slot| slot.connection.is_over())
        {
            inner.remove(key);
        }
        if inner.connections.contains_key(&key) {
            inner.with(key, |slot, offloads, outbox| {
                slot.connection.receive(segment, offloads, now, outbox);
            });
            self.make_due(inner, key);
            return None;
        }
        if !segment.opens || inner.connections.len() >= MAX_CONNECTIONS {
            let mut outbox = Outbox {
                network: &inner.network,
                out: &mut inner.out,
            };
            tcp::refuse(segment, now, &mut outbox);
            return None;
        }
        if Rc::strong_count(&inner.opening) > MAX_OPENING {
            return None;
        }
        let id = inner.open(segment, now);
        let opening = Some(Rc::clone(&inner.opening));
        let guest = GuestStream::new(self.clone(), key, id, opening);
        Some(Request::Connection(guest))
    }

    /// Begins a connection from the gateway to a port of the guest's. `None`: there are as many connections as there may be.
    pub(crate) fn connect(&self, port: u16, now: Instant) -> Option<GuestStream> {
        let mut inner = self.inner.borrow_mut();
        let (key, id) = inner.connect(port, now)?;
        self.make_due(&mut inner, key);
        Some(GuestStream::new(self.clone(), key, id, None))
    }

    /// Sends a DNS answer to one of the guest's ports.
    pub(crate) fn answer_dns(&self, to: u16, answer: &[u8]) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let guest = inner.network.guest;
        Outbox {
            network: &inner.network,
            out: &mut inner.out,
        }
        .udp(53, guest, to, answer);
    }

    /// Lets every connection send that has something to send at `now`. Says when the next one will have.
    pub(crate) fn send_due(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.inner.borrow_mut();
        while let Some(key) = inner.schedule.next_due(now) {
            if !inner.send(key, now) {
                break;
            }
        }
        inner.schedule.next()
    }

    /// Whether a connection has something to send, and there is room for it.
    pub(crate) fn can_send(&self) -> bool {
        let inner = self.inner.borrow();
        inner.schedule.is_due() && inner.out.len() < tcp::MAX_WAITING
    }

    /// Resolves when a connection has something to send.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// Lets `send` send records for the guest; it says how many bytes it sent.
    pub(crate) fn flush<E>(&self, send: impl FnOnce(&[u8]) -> Result<usize, E>) -> Result<(), E> {
        let mut inner = self.inner.borrow_mut();
        let sent = send(&inner.out)?;
        inner.out.drain(..sent);
        Ok(())
    }

    /// Bytes that wait to be sent to the guest.
    pub(crate) fn waiting(&self) -> usize {
        self.inner.borrow().out.len()
    }

    fn make_due(&self, inner: &mut Inner, key: Key) {
        if inner.schedule.add_now(key) {
            self.due.notify_one();
        }
    }
}

impl Inner {
    fn open(&mut self, segment: &Segment<'_>, now: Instant) -> u64 {
        self.add(Key::of(segment), |room, offloads, outbox| {
            let mut connection = Connection::open(segment.to, offloads, room, seed(), now, outbox);
            connection.receive(segment, offloads, now, outbox);
            connection
        })
    }

    fn connect(&mut self, port: u16, now: Instant) -> Option<(Key, u64)> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        let gateway = self.network.gateway;
        // More ports than there are connections, so one is free.
        let ports = NEAR_PORTS.cycle();
        let begin = usize::try_from(seed() % NEAR_PORTS_LEN).unwrap_or(0);
        let key = ports.skip(begin).take(MAX_CONNECTIONS + 1).map(|near| Key {
            from: port,
            to: SocketAddrV4::new(gateway, near),
        });
        let mut free = key.filter(|key| !self.connections.contains_key(key));
        let key = free.next()?;
        let id = self.add(key, |room, offloads, outbox| {
            Connection::connect(key.to, port, offloads, room, seed(), now, outbox)
        });
        Some((key, id))
    }

    fn add(
        &mut self,
        key: Key,
        make: impl FnOnce(usize, Offloads, &mut Outbox<'_>) -> Connection,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut outbox = Outbox {
            network: &self.network,
            out: &mut self.out,
        };
        let is_wide = Rc::strong_count(&self.wide) <= MAX_WIDE;
        let room = if is_wide { WIDE } else { NARROW };
        let slot = Slot {
            id,
            connection: make(room, self.offloads, &mut outbox),
            _wide: is_wide.then(|| Rc::clone(&self.wide)),
            orphaned: None,
        };
        self.connections.insert(key, slot);
        id
    }

    /// Sends what a connection has to send. False: there is no more room, and it keeps its turn.
    fn send(&mut self, key: Key, now: Instant) -> bool {
        let before = self.out.len();
        let Some((next, is_over)) = self.with(key, |slot, offloads, outbox| {
            if slot
                .orphaned
                .is_some_and(|since| now >= since + ORPHAN_LIMIT)
            {
                slot.connection.abort();
            }
            slot.connection.send_due(offloads, now, outbox);
            let end = slot.orphaned.map(|since| since + ORPHAN_LIMIT);
            let next = slot.connection.next_due(now).into_iter().chain(end).min();
            (next, slot.connection.is_over() && slot.orphaned.is_some())
        }) else {
            return true;
        };
        if is_over {
            self.remove(key);
            return true;
        }
        match next {
            Some(at) if at <= now && self.out.len() >= tcp::MAX_WAITING => {
                self.schedule.add_now(key);
                return false;
            }
            Some(at) if at <= now && self.out.len() > before => {
                self.schedule.add_now(key);
            }
            // Whatever a guest brings a connection to, it does not keep the worker from all others.
            Some(at) if at <= now => self.schedule.add(key, now + IDLE_TURN),
            Some(at) => self.schedule.add(key, at),
            None => {}
        }
        true
    }

    fn with<R>(
        &mut self,
        key: Key,
        act: impl FnOnce(&mut Slot, Offloads, &mut Outbox<'_>) -> R,
    ) -> Option<R> {
        let slot = self.connections.get_mut(&key)?;
        let mut outbox = Outbox {
            network: &self.network,
            out: &mut self.out,
        };
        Some(act(slot, self.offloads, &mut outbox))
    }

    /// The slot of the connection with this number, if it still is there.
    fn slot(&mut self, key: Key, id: u64) -> Option<&mut Slot> {
        self.connections.get_mut(&key).filter(|slot| slot.id == id)
    }

    fn remove(&mut self, key: Key) {
        self.schedule.forget(key);
        self.connections.remove(&key);
    }
}

/// Unpredictable, so that nobody guesses sequence numbers.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy the process's own table seeds are still keyed by the system's.
    if getrandom::fill(&mut bytes).is_err() {
        use std::hash::{BuildHasher as _, RandomState};
        return RandomState::new().hash_one(0);
    }
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
