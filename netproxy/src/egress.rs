//! The loop of the egress worker: the link to the machine, and a task for each connection.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use smoltcp::time::Instant;
use tokio::task::LocalSet;

use crate::dns_stream::{self, MAX_DNS_STREAMS};
use crate::frame::DroppedFrame;
use crate::gateway::Network;
use crate::link::{self, BrokenLink, LENGTH_LEN, LONGEST_RECORD, Record};
use crate::proxy::PROXY_PORT;
use crate::stack::{GuestStream, Request, Stack};
use crate::tcp::MAX_WAITING;

/// Room for what the machine sent: several of the longest records, so that one call takes many.
const BUFFER_LEN: usize = 4 * (LENGTH_LEN + LONGEST_RECORD);
/// How long it is looked out for the guest before the process sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// Where names are asked for at the gateway.
const DNS_PORT: u16 = 53;
/// How long a guest may take to answer a connection to it.
const GUEST_LIMIT: Duration = Duration::from_secs(10);
/// With this much waiting for the guest, nothing more is taken from it: its segments are answered.
const MAX_ANSWERS: usize = 2 * MAX_WAITING;

/// The stream to the machine, as tokio offers it: what is not ready says `WouldBlock`.
pub trait Link {
    /// Resolves when there may be something to read.
    fn readable(&self) -> impl Future<Output = io::Result<()>>;

    /// Resolves when there may be room to write.
    fn writable(&self) -> impl Future<Output = io::Result<()>>;

    /// Reads what is there.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or the stream's.
    fn try_read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes as far as there is room.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or the stream's.
    fn try_write(&self, from: &[u8]) -> io::Result<usize>;
}

macro_rules! link {
    ($stream:ty) => {
        impl Link for $stream {
            fn readable(&self) -> impl Future<Output = io::Result<()>> {
                <$stream>::readable(self)
            }

            fn writable(&self) -> impl Future<Output = io::Result<()>> {
                <$stream>::writable(self)
            }

            fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
                <$stream>::try_read(self, into)
            }

            fn try_write(&self, from: &[u8]) -> io::Result<usize> {
                <$stream>::try_write(self, from)
            }
        }
    };
}

#[cfg(unix)]
link!(tokio::net::UnixStream);
#[cfg(windows)]
link!(tokio::net::windows::named_pipe::NamedPipeServer);

/// Who decides what becomes of what the guest asks.
pub trait Gate {
    /// Takes care of a connection that the guest wants, from its first segment to its end.
    fn connection(self: Rc<Self>, guest: GuestStream) -> impl Future<Output = ()>;

    /// Takes care of a connection to the proxy at the gateway ([`PROXY_PORT`]). Unless implemented, there is none.
    fn proxied(self: Rc<Self>, guest: GuestStream) -> impl Future<Output = ()>
    where
        Self: Sized,
    {
        async { drop(guest) }
    }

    /// The answer to a DNS query, if there is one.
    fn dns(&self, query: &[u8]) -> Option<Vec<u8>>;

    /// A frame went nowhere.
    fn dropped(&self, why: DroppedFrame);
}

/// Why the guest has no network any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EgressError {
    /// The socket to the machine failed.
    #[error("the link to the machine failed")]
    Link(#[from] io::Error),
    /// What came over it is not what a network device sends.
    #[error(transparent)]
    Broken(#[from] BrokenLink),
}

/// A guest's network: handles on it are the same one.
#[derive(Clone)]
pub struct GuestNetwork(Stack);

impl GuestNetwork {
    /// One that nobody serves yet.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self(Stack::new(network))
    }

    /// Opens a connection to a port on which the guest listens, at its address on the network.
    ///
    /// # Errors
    ///
    /// The guest refuses it, or does not answer in time; there are as many connections as there may be.
    pub async fn connect(&self, port: u16) -> io::Result<GuestStream> {
        let guest = self.0.connect(port, Instant::now());
        let guest = guest.ok_or_else(|| io::Error::other("too many connections"))?;
        tokio::time::timeout(GUEST_LIMIT, guest.taken()).await??;
        Ok(guest)
    }
}

impl fmt::Debug for GuestNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GuestNetwork").finish_non_exhaustive()
    }
}

/// Serves a guest's network over `link` until the machine closes it.
///
/// # Errors
///
/// The link failed. The guest has no network then.
pub async fn serve<L: Link, G: Gate + 'static>(
    link: L,
    network: &GuestNetwork,
    gate: Rc<G>,
) -> Result<(), EgressError> {
    let tasks = LocalSet::new();
    let mut session = Session {
        link,
        stack: network.0.clone(),
        gate,
        dns_streams: Rc::default(),
        buffer: vec![0; BUFFER_LEN],
        filled: 0,
    };
    tasks.run_until(session.run()).await
}

struct Session<L, G> {
    link: L,
    stack: Stack,
    gate: Rc<G>,
    /// Held by each connection that asks for names.
    dns_streams: Rc<()>,
    buffer: Vec<u8>,
    filled: usize,
}

impl<L: Link, G: Gate + 'static> Session<L, G> {
    async fn run(&mut self) -> Result<(), EgressError> {
        loop {
            let next = self.stack.send_due(Instant::now());
            self.flush()?;
            // What had to wait for room may go on when all was sent: nobody else tells of it.
            if self.stack.can_send() {
                tokio::task::yield_now().await;
            } else if self.look_out().await? {
                if !self.read()? {
                    return Ok(());
                }
            } else if !self.wait(next).await? {
                return Ok(());
            }
        }
    }

    /// Looks out for what the machine sends next, for a moment: who asks one thing after the other would otherwise wait for a processor to wake
    /// up, each time.
    async fn look_out(&self) -> io::Result<bool> {
        let begin = std::time::Instant::now();
        while begin.elapsed() < PATIENCE && self.stack.waiting() == 0 && !self.stack.can_send() {
            tokio::select! {
                biased;
                ready = self.link.readable() => return ready.map(|()| true),
                () = tokio::task::yield_now() => {}
            }
        }
        Ok(false)
    }

    /// Waits until there is something to do, and takes what the machine sent. False: it sends no more.
    async fn wait(&mut self, next: Option<Instant>) -> Result<bool, EgressError> {
        let waiting = self.stack.waiting();
        let timer = async {
            match next {
                Some(at) => tokio::time::sleep((at - Instant::now()).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ready = self.link.readable(), if waiting < MAX_ANSWERS => {
                ready?;
                return self.read();
            }
            ready = self.link.writable(), if waiting > 0 => ready?,
            () = self.stack.due() => {}
            () = timer => {}
        }
        Ok(true)
    }

    fn flush(&self) -> io::Result<()> {
        if self.stack.waiting() == 0 {
            return Ok(());
        }
        match self.stack.flush(|records| self.link.try_write(records)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            done => done,
        }
    }

    fn read(&mut self) -> Result<bool, EgressError> {
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        match self.link.try_read(room) {
            Ok(0) => return Ok(false),
            Ok(len) => self.filled += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let left = self.take_records()?;
        self.buffer.copy_within(left..self.filled, 0);
        self.filled -= left;
        Ok(true)
    }

    /// Takes every whole record off the buffer; says how many bytes they were.
    fn take_records(&self) -> Result<usize, BrokenLink> {
        let now = Instant::now();
        let filled = self.buffer.get(..self.filled).unwrap_or_default();
        let mut rest = filled;
        while let Some((record, behind)) = link::split(rest)? {
            match record {
                Record::Started(offloads) => self.stack.start(offloads),
                Record::Frame(frame) => self.take_frame(frame, now),
            }
            rest = behind;
        }
        Ok(filled.len() - rest.len())
    }

    fn connect(&self, guest: GuestStream) {
        let gate = Rc::clone(&self.gate);
        let to = guest.destination();
        match to.port() {
            _ if *to.ip() != self.stack.gateway() => {
                tokio::task::spawn_local(gate.connection(guest));
            }
            DNS_PORT if Rc::strong_count(&self.dns_streams) <= MAX_DNS_STREAMS => {
                let held = Rc::clone(&self.dns_streams);
                tokio::task::spawn_local(async move {
                    dns_stream::serve(gate, guest).await;
                    drop(held);
                });
            }
            PROXY_PORT => {
                tokio::task::spawn_local(gate.proxied(guest));
            }
            _ => {
                tokio::task::spawn_local(gate.connection(guest));
            }
        }
    }

    fn take_frame(&self, frame: &[u8], now: Instant) {
        match self.stack.receive(frame, now) {
            Ok(None) => {}
            Ok(Some(Request::Connection(guest))) => self.connect(guest),
            Ok(Some(Request::Dns { from, query })) => {
                if let Some(answer) = self.gate.dns(&query) {
                    self.stack.answer_dns(from, &answer);
                }
            }
            Err(why) => self.gate.dropped(why),
        }
    }
}

#[cfg(all(test, unix))]
mod tests;
