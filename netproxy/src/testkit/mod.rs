//! A guest without a machine: a TCP stack of its own at the other end of the link, for tests and benchmarks.

mod dns;

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{IpAddress, IpCidr};

use crate::gateway::Network;
use crate::link::{self, Offloads, Record, VnetHeader};

/// How long a call waits for what it is to see.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER_LEN: usize = 256 << 10;

/// A guest whose link `serve` serves on a thread of its own, and that thread.
///
/// # Errors
///
/// The host has no socket or thread left.
pub fn guest<F, S, R>(serve: F) -> io::Result<(Guest, JoinHandle<R>)>
where
    F: FnOnce(tokio::net::UnixStream) -> S + Send + 'static,
    S: Future<Output = R>,
    R: Send + 'static,
{
    guest_on(Network::default(), serve)
}

/// The same where the guest has other settings for its network.
///
/// # Errors
///
/// The host has no socket or thread left.
pub fn guest_on<F, S, R>(network: Network, serve: F) -> io::Result<(Guest, JoinHandle<R>)>
where
    F: FnOnce(tokio::net::UnixStream) -> S + Send + 'static,
    S: Future<Output = R>,
    R: Send + 'static,
{
    let (near, far) = UnixStream::pair()?;
    far.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let link = {
        let _within = runtime.enter();
        tokio::net::UnixStream::from_std(far)?
    };
    let thread = std::thread::Builder::new().spawn(move || runtime.block_on(serve(link)))?;
    Ok((Guest::new(near, network)?, thread))
}

/// A guest at its end of the link.
pub struct Guest {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    network: Network,
    next_port: u16,
}

/// One of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection(SocketHandle);

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other side said that it was done.
    Finished,
    /// It was reset.
    Reset,
}

impl Guest {
    /// A guest whose driver takes no offloads: checksums on both sides are whole.
    ///
    /// # Errors
    ///
    /// The socket's.
    pub fn new(link: UnixStream, network: Network) -> io::Result<Self> {
        link.set_nonblocking(true)?;
        let mut wire = Wire::new(link, network.mtu.get().into());
        wire.out.extend_from_slice(&Offloads::default().emit());
        let hardware = network.guest_hardware.into();
        let mut interface = Interface::new(Config::new(hardware), &mut wire, StackInstant::now());
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(network.guest.into(), network.prefix_len));
        });
        // The first of two places.
        let _ = interface
            .routes_mut()
            .add_default_ipv4_route(network.gateway);
        Ok(Self {
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            network,
            next_port: 40_000,
        })
    }

    /// The guest's network.
    #[must_use]
    pub const fn network(&self) -> &Network {
        &self.network
    }

    /// Begins a connection.
    pub fn connect(&mut self, to: SocketAddrV4) -> Connection {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_LEN]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        let from = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(40_000);
        // Refused are only ports and addresses of zero and sockets in use.
        let _ = socket.connect(self.interface.context(), (*to.ip(), to.port()), from);
        Connection(self.sockets.add(socket))
    }

    /// Waits for one connection to a port of its own, which [`Self::is_connected`] waits for.
    pub fn listen(&mut self, port: u16) -> Connection {
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER_LEN]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Refused is only the port 0.
        let _ = socket.listen(port);
        Connection(self.sockets.add(socket))
    }

    /// Whom a connection is with.
    pub fn peer(&mut self, connection: Connection) -> Option<Ipv4Addr> {
        match self.socket(connection).remote_endpoint()?.addr {
            IpAddress::Ipv4(address) => Some(address),
            IpAddress::Ipv6(_) => None,
        }
    }

    /// Sends a frame as it is, behind an empty header.
    pub fn send_frame(&mut self, frame: &[u8]) {
        link::push(&mut self.wire.out, VnetHeader::default(), frame.len()).copy_from_slice(frame);
    }

    /// Sends bytes that need be no record, at once and without a look at what came. False: the link is closed.
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        self.wire.out.extend_from_slice(bytes);
        self.wire.flush()
    }

    /// The frames that came and that its own stack did not see because of [`Self::keep_frames`].
    pub fn frames(&mut self) -> Vec<Vec<u8>> {
        self.wire.frames.drain(..).collect()
    }

    /// Asks the gateway for a name's address. `None`: there is none, or no answer.
    pub fn resolve(&mut self, name: &str) -> Option<Ipv4Addr> {
        const ANSWER_PORT: u16 = 20_000;
        let query = dns::query(name);
        self.send_frame(&dns::datagram(&self.network, ANSWER_PORT, 53, &query));
        let kept = std::mem::replace(&mut self.wire.keeps, true);
        let answer = self.until(|guest| {
            let frames = guest.wire.frames.iter();
            let at = frames
                .clone()
                .position(|frame| dns::is_answer(frame, ANSWER_PORT))?;
            guest.wire.frames.remove(at)
        });
        self.wire.keeps = kept;
        dns::address(&answer?)
    }

    /// Waits until `see` sees something. `None`: it did not in ten seconds, or the link is closed.
    pub fn until<R>(&mut self, mut see: impl FnMut(&mut Self) -> Option<R>) -> Option<R> {
        let end = Instant::now() + PATIENCE;
        loop {
            let is_open = self.turn();
            if let Some(seen) = see(self) {
                return Some(seen);
            }
            if !is_open || Instant::now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until the connection stands. False: it was refused, or did not in time.
    pub fn is_connected(&mut self, connection: Connection) -> bool {
        let stands = self.until(|guest| match guest.socket(connection).state() {
            tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Listen => None,
            state => Some(state == tcp::State::Established || state == tcp::State::CloseWait),
        });
        stands == Some(true)
    }

    /// Sends all of `bytes`. False: the connection broke, or did not take them in time.
    pub fn send(&mut self, connection: Connection, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let sent = self.until(|guest| {
            let socket = guest.socket(connection);
            match socket.send_slice(rest) {
                Ok(len) => {
                    rest = rest.get(len..).unwrap_or_default();
                    rest.is_empty().then_some(true)
                }
                Err(_) => (socket.state() != tcp::State::SynSent).then_some(false),
            }
        });
        self.turn();
        sent == Some(true)
    }

    /// Says that it sends no more.
    pub fn finish(&mut self, connection: Connection) {
        self.socket(connection).close();
        self.turn();
    }

    /// Breaks it off.
    pub fn abort(&mut self, connection: Connection) {
        self.socket(connection).abort();
        self.turn();
    }

    /// What comes until `len` bytes are there, or the other side ends.
    pub fn receive(&mut self, connection: Connection, len: usize) -> Vec<u8> {
        let mut all = Vec::new();
        self.until(|guest| {
            let socket = guest.socket(connection);
            while socket.can_recv() {
                let _ = socket.recv(|bytes| {
                    all.extend_from_slice(bytes);
                    (bytes.len(), ())
                });
            }
            let is_over = !socket.may_recv() && socket.state() != tcp::State::SynSent;
            (all.len() >= len || is_over).then_some(())
        });
        all
    }

    /// What comes until the other side ends, and how it does. `None`: it did not in time.
    pub fn receive_all(&mut self, connection: Connection) -> (Vec<u8>, Option<End>) {
        let all = self.receive(connection, usize::MAX);
        let end = match self.socket(connection).state() {
            tcp::State::Closed => Some(End::Reset),
            _ if !self.socket(connection).may_recv() => Some(End::Finished),
            _ => None,
        };
        (all, end)
    }

    /// One turn of its stack. False: the link is closed.
    pub fn turn(&mut self) -> bool {
        let is_open = self.wire.fill();
        self.interface
            .poll(StackInstant::now(), &mut self.wire, &mut self.sockets);
        self.wire.flush() && is_open
    }

    /// Whether frames are kept for [`Self::frames`] from now on, instead of being taken by the guest's stack.
    pub fn keep_frames(&mut self, keeps: bool) {
        self.wire.keeps = keeps;
    }

    /// The driver starts again, as when the guest's kernel does: its connections are forgotten.
    pub fn restart_driver(&mut self) {
        self.sockets = SocketSet::new(Vec::new());
        self.wire.out.extend_from_slice(&Offloads::default().emit());
        self.turn();
    }

    fn socket(&mut self, connection: Connection) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(connection.0)
    }
}

struct Wire {
    link: UnixStream,
    buffer: Vec<u8>,
    frames: VecDeque<Vec<u8>>,
    out: Vec<u8>,
    mtu: usize,
    keeps: bool,
}

impl Wire {
    fn new(link: UnixStream, mtu: usize) -> Self {
        Self {
            link,
            buffer: Vec::new(),
            frames: VecDeque::new(),
            out: Vec::new(),
            mtu,
            keeps: false,
        }
    }

    /// Takes what came. False: the link is closed.
    fn fill(&mut self) -> bool {
        let mut piece = vec![0; BUFFER_LEN];
        let is_open = match self.link.read(&mut piece) {
            Ok(0) => false,
            Ok(len) => {
                self.buffer
                    .extend_from_slice(piece.get(..len).unwrap_or_default());
                true
            }
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        let mut taken = 0;
        while let Ok(Some((record, rest))) =
            link::split(self.buffer.get(taken..).unwrap_or_default())
        {
            if let Record::Frame(frame) = record {
                self.frames.push_back(frame.to_vec());
            }
            taken = self.buffer.len() - rest.len();
        }
        self.buffer.drain(..taken);
        is_open
    }

    fn flush(&mut self) -> bool {
        while !self.out.is_empty() {
            match self.link.write(&self.out) {
                Ok(len) => drop(self.out.drain(..len)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: StackInstant) -> Option<(Frame, Room<'_>)> {
        if self.keeps {
            return None;
        }
        let frame = self.frames.pop_front()?;
        Some((Frame(frame), Room(&mut self.out)))
    }

    fn transmit(&mut self, _: StackInstant) -> Option<Room<'_>> {
        (self.out.len() < BUFFER_LEN).then_some(Room(&mut self.out))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities.checksum.tcp = Checksum::Both;
        capabilities
    }
}

/// A frame that came.
#[derive(Debug)]
struct Frame(Vec<u8>);

impl phy::RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

/// Room for a frame that goes.
#[derive(Debug)]
struct Room<'a>(&'a mut Vec<u8>);

impl phy::TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        fill(link::push(self.0, VnetHeader::default(), len))
    }
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
