//! The device: its registers and what it does with its queues.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::wire::{self, HEADER_LEN, OFFLOAD_LEN};
use crate::virtio::worker::{Broken, Context, Parked, Ready, Service, Sources};
use crate::virtio::{
    LiveQueue, Model, QueueError, Reader, RunEnv, StartError, VirtioDevice, Worker,
    read_config_bytes,
};

/// An Ethernet header and the longest IPv4 packet. Longer frames are lost.
pub const LONGEST_FRAME: usize = 14 + 65535;

/// The device type (section 5.1.1).
const DEVICE_ID: u32 = 1;
const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
/// Linux keeps a buffer of a frame's or a page's length in each place of the receive queue.
const QUEUE_SIZE: u16 = 256;
/// A frame in more buffers than this is lost: they are shorter than an Ethernet frame, which drivers may not make them.
const MOST_BUFFERS: u16 = 64;
/// The port's token among the sources.
const PORT: u32 = 0;

/// What the driver takes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Offloads {
    /// Frames whose checksum is not finished.
    pub checksum: bool,
    /// TCP segments over IPv4 that are longer than the wire's frames.
    pub segmentation: bool,
}

/// The other end of the guest's wire. Called by the device's thread, which must not wait in it.
///
/// A frame goes with the first ten bytes of its `struct virtio_net_hdr` before it. The guest wrote both.
pub trait NetPort: Send {
    /// A driver started, for the first time or again, with these offloads.
    ///
    /// # Errors
    /// The wire is cut.
    fn started(&mut self, offloads: Offloads) -> io::Result<()>;

    /// Has [`Service::source`] called with `token` when it is ready for `interest`, and for nothing else any more. `is_new`: it was in no
    /// loop before.
    ///
    /// # Errors
    /// The host's.
    fn watch(
        &self,
        sources: &mut dyn Sources,
        token: u32,
        interest: Ready,
        is_new: bool,
    ) -> io::Result<()>;

    /// Whether [`Self::send`] has room for a frame, however long.
    fn has_room(&self) -> bool;

    /// Takes a frame. Called only when there is room.
    fn send(&mut self, offload: [u8; OFFLOAD_LEN], frame: &mut Reader<'_>);

    /// Passes on what was taken. False: some is left; wait until it is writable.
    ///
    /// # Errors
    /// The wire is cut.
    fn flush(&mut self) -> io::Result<bool>;

    /// Fetches frames. False: there are none now; wait until it is readable.
    ///
    /// # Errors
    /// The wire is cut.
    fn fill(&mut self) -> io::Result<bool>;

    /// The oldest of the frames that were fetched.
    fn front(&self) -> Option<&[u8]>;

    /// Forgets it.
    fn pop(&mut self);

    /// The wire is cut, and what was on it is lost. Has [`Service::source`] called with `token` when there may be another one, and for nothing
    /// else any more. `is_new`: it was in no loop before.
    ///
    /// # Errors
    /// The host's: there will be none.
    fn cut(&mut self, sources: &mut dyn Sources, token: u32, is_new: bool) -> io::Result<()>;

    /// Takes another wire, in no loop yet. False: there is none so far.
    ///
    /// # Errors
    /// There will be none; nothing more is told.
    fn mend(&mut self, sources: &mut dyn Sources) -> io::Result<bool>;
}

/// A network device with one pair of queues.
pub struct Net {
    mac: [u8; 6],
    mtu: u16,
    /// Whether the wire is whole.
    link_up: Arc<AtomicBool>,
    service: Parked<NetService>,
}

impl Net {
    /// A device with this address, on a wire whose longest packet has `mtu` bytes.
    #[must_use]
    pub fn new(mac: [u8; 6], mtu: u16, port: Box<dyn NetPort>) -> Self {
        let link_up = Arc::new(AtomicBool::new(true));
        let service = NetService {
            port: Some(port),
            link_up: Arc::clone(&link_up),
            offloads: Offloads::default(),
            is_watched: false,
            interest: Ready::READ,
        };
        Self {
            mac,
            mtu,
            link_up,
            service: Parked::new(service),
        }
    }

    fn config(&self) -> [u8; wire::CONFIG_LEN] {
        wire::config(self.mac, self.mtu, self.link_up.load(Ordering::Acquire))
    }
}

impl VirtioDevice for Net {
    fn model(&self) -> Model {
        Model {
            id: DEVICE_ID,
            features: wire::F_CSUM
                | wire::F_GUEST_CSUM
                | wire::F_MTU
                | wire::F_MAC
                | wire::F_GUEST_TSO4
                | wire::F_HOST_TSO4
                | wire::F_MRG_RXBUF
                | wire::F_STATUS,
            queue_sizes: vec![QUEUE_SIZE; 2],
            config_len: u32::try_from(wire::CONFIG_LEN).unwrap_or(0),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config(), offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.service.start("virtio-net", env)
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

struct NetService {
    /// `None` once there will be no wire any more.
    port: Option<Box<dyn NetPort>>,
    link_up: Arc<AtomicBool>,
    /// What the driver takes.
    offloads: Offloads,
    /// Whether the wire is in the loop, and what that waits for.
    is_watched: bool,
    interest: Ready,
}

impl Service for NetService {
    fn started(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let has = |features: u64| context.features & features == features;
        self.offloads = Offloads {
            checksum: has(wire::F_GUEST_CSUM),
            segmentation: has(wire::F_GUEST_CSUM | wire::F_GUEST_TSO4),
        };
        // The loop is a new one.
        self.is_watched = false;
        if self.is_up() {
            return self.with_port(context, Self::begin);
        }
        self.await_another(context);
        discard(context)
    }

    fn queue(&mut self, _: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        if self.is_up() {
            self.with_port(context, Self::turn)
        } else {
            discard(context)
        }
    }

    fn source(&mut self, _: u32, ready: Ready, context: &mut Context<'_>) -> Result<(), Broken> {
        if !self.is_up() {
            return self.mend(context);
        }
        self.with_port(context, |service, port, context| {
            service.turn(port, context)?;
            // It is told of whatever is waited for: a turn that has no use for it would be asked for again at once, for ever.
            if ready.closed {
                return Err(Trouble::Cut);
            }
            Ok(())
        })
    }
}

/// What ends a turn early.
enum Trouble {
    Broken(Broken),
    /// The wire is cut: the guest has no network, and the device goes on without.
    Cut,
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Cut
    }
}

impl From<QueueError> for Trouble {
    fn from(error: QueueError) -> Self {
        Self::Broken(error.into())
    }
}

impl NetService {
    fn is_up(&self) -> bool {
        self.link_up.load(Ordering::Acquire)
    }

    fn set_up(&self, is_up: bool, context: &Context<'_>) {
        self.link_up.store(is_up, Ordering::Release);
        context.interrupt.config_changed();
    }

    fn with_port(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Self, &mut dyn NetPort, &mut Context<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Broken> {
        let Some(mut port) = self.port.take() else {
            return discard(context);
        };
        let done = work(self, &mut *port, context);
        self.port = Some(port);
        match done {
            Ok(()) => Ok(()),
            Err(Trouble::Broken(broken)) => Err(broken),
            Err(Trouble::Cut) => {
                self.await_another(context);
                self.set_up(false, context);
                // The driver tells of new frames only once those that it told of were taken.
                discard(context)
            }
        }
    }

    /// Begins on a wire that is in no loop yet.
    fn begin(&mut self, port: &mut dyn NetPort, context: &mut Context<'_>) -> Result<(), Trouble> {
        self.interest = Ready::BOTH;
        port.started(self.offloads)?;
        port.watch(context.sources, PORT, Ready::BOTH, true)?;
        self.is_watched = true;
        self.turn(port, context)
    }

    /// Waits for another wire than the one that is cut.
    fn await_another(&mut self, context: &mut Context<'_>) {
        let (port, is_new) = (self.port.as_mut(), !self.is_watched);
        if port.is_some_and(|port| port.cut(context.sources, PORT, is_new).is_err()) {
            self.port = None;
        }
    }

    /// Goes on with another wire, if there is one.
    fn mend(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let port = self.port.as_mut();
        match port.map_or(Ok(false), |port| port.mend(context.sources)) {
            Ok(false) => discard(context),
            Ok(true) => {
                self.is_watched = false;
                self.set_up(true, context);
                self.with_port(context, Self::begin)
            }
            Err(_) => {
                self.port = None;
                discard(context)
            }
        }
    }

    /// Carries what there is, both ways, and says what is to be waited for.
    fn turn(&mut self, port: &mut dyn NetPort, context: &mut Context<'_>) -> Result<(), Trouble> {
        let wants_frames = receive(port, context)?;
        let is_flushed = transmit(port, context)?;
        let interest = Ready {
            readable: wants_frames,
            writable: !is_flushed,
            closed: false,
        };
        if interest != self.interest {
            port.watch(context.sources, PORT, interest, false)?;
            self.interest = interest;
        }
        Ok(())
    }
}

/// Gives the guest the frames that are there. False: it has no room for more.
fn receive(port: &mut dyn NetPort, context: &mut Context<'_>) -> Result<bool, Trouble> {
    let mergeable = context.features & wire::F_MRG_RXBUF != 0;
    let Some(queue) = context.queues.get(RECEIVE) else {
        return Ok(false);
    };
    loop {
        while let Some(frame) = port.front() {
            if !give(queue, frame, mergeable)? {
                return Ok(false);
            }
            port.pop();
        }
        if !port.fill()? {
            return Ok(true);
        }
    }
}

/// Gives the guest a frame. False: there is no room for it now.
fn give(queue: &mut LiveQueue, frame: &[u8], mergeable: bool) -> Result<bool, Trouble> {
    let Some((offload, frame)) = frame.split_first_chunk::<OFFLOAD_LEN>() else {
        return Ok(true);
    };
    let len = u32::try_from(HEADER_LEN + frame.len()).unwrap_or(u32::MAX);
    let most = if mergeable { MOST_BUFFERS } else { 1 };
    let Some(count) = queue.chains_for(len, most)? else {
        return Ok(false);
    };
    let header = wire::header(*offload, count);
    let (mut header, mut rest) = (header.as_slice(), frame);
    for left in (0..count).rev() {
        // It was there a moment ago, and nobody else takes any; but none is given once the device is to stop.
        let Some(chain) = queue.pop()? else { break };
        let mut writer = chain.writer();
        let done = writer.write(header);
        header = header.get(done..).unwrap_or_default();
        let done = writer.write(rest);
        rest = rest.get(done..).unwrap_or_default();
        let written = writer.written();
        if left == 0 {
            chain.finish(written)?;
        } else {
            chain.finish_with_next(written)?;
        }
    }
    Ok(true)
}

/// Takes the guest's frames. False: some of them are not passed on yet.
fn transmit(port: &mut dyn NetPort, context: &mut Context<'_>) -> Result<bool, Trouble> {
    let Some(queue) = context.queues.get(TRANSMIT) else {
        return Ok(port.flush()?);
    };
    loop {
        if !port.has_room() && !port.flush()? {
            return Ok(false);
        }
        let Some(chain) = queue.pop()? else { break };
        take(port, &mut chain.reader());
        chain.finish(0)?;
    }
    Ok(port.flush()?)
}

/// Takes a frame of the guest's. One that is shorter than its header or too long is lost.
fn take(port: &mut dyn NetPort, frame: &mut Reader<'_>) {
    let mut header = [0; HEADER_LEN];
    if frame.read_exact(&mut header).is_err() || frame.remaining() > LONGEST_FRAME {
        return;
    }
    let (offload, _) = header.split_at(OFFLOAD_LEN);
    if let Ok(offload) = offload.try_into() {
        port.send(offload, frame);
    }
}

/// Takes the guest's frames for nobody.
fn discard(context: &mut Context<'_>) -> Result<(), Broken> {
    if let Some(queue) = context.queues.get(TRANSMIT) {
        while let Some(chain) = queue.pop()? {
            chain.finish(0)?;
        }
    }
    Ok(())
}
