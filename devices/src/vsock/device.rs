//! The device: its registers, its queues and its turn in the event loop.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::host::Inbox;
use super::muxer::Muxer;
use super::watch::{TIMER, WAKE, Watch};
use super::wire::{self, HEADER_LEN, Header};
use super::{RECEIVE_BUFFER, VsockBackend, VsockConnector};
use crate::virtio::worker::{Broken, Context, Parked, Ready, Service};
use crate::virtio::{Model, RunEnv, StartError, VirtioDevice, Worker, read_config_bytes};

/// The device type (section 5.10.1).
const DEVICE_ID: u32 = 19;
/// `VIRTIO_VSOCK_F_STREAM` (section 5.10.3).
const F_STREAM: u64 = 1 << 0;
/// Queues (section 5.10.2): towards the guest, from the guest, and events, of which there are none.
const RECEIVE_QUEUE: usize = 0;
const TRANSMIT_QUEUE: usize = 1;
const QUEUE_SIZES: [u16; 3] = [128, 128, 8];

/// Most bytes of one packet in either direction; no credit allows more from the guest.
const MAX_PAYLOAD: usize = RECEIVE_BUFFER as usize;

/// Context ids that a guest can have; the others are reserved (section 5.10.4).
const GUEST_CIDS: Range<u64> = 3..0xffff_ffff;

/// Why there is no socket device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VsockError {
    /// The context id is reserved; the caller's mistake.
    #[error("a guest cannot have the context id {0}: choose one from 3 to 4294967294")]
    Cid(u64),
    /// The host is out of descriptors, or its event loop cannot wait for streams (it is not Linux).
    #[error("the host cannot run a socket device")]
    Host(#[from] io::Error),
}

/// The socket device of one guest.
#[derive(Debug)]
pub struct Vsock {
    guest_cid: u64,
    inbox: Arc<Inbox>,
    service: Parked<VsockService>,
}

impl Vsock {
    /// A device for the guest with context id `guest_cid`, whose connects `backend` decides on.
    ///
    /// # Errors
    /// The context id is reserved (caller), or the host cannot run the device.
    pub fn new(guest_cid: u64, backend: Arc<dyn VsockBackend>) -> Result<Self, VsockError> {
        if !GUEST_CIDS.contains(&guest_cid) {
            return Err(VsockError::Cid(guest_cid));
        }
        let inbox = Arc::new(Inbox::new()?);
        let service = Parked::new(VsockService {
            muxer: Muxer::new(guest_cid, backend),
            inbox: Arc::clone(&inbox),
            watch: Watch::new()?,
            buffer: vec![0; MAX_PAYLOAD],
        });
        Ok(Self {
            guest_cid,
            inbox,
            service,
        })
    }

    /// The way for the host to connect to the guest; it works from now on, on any thread.
    #[must_use]
    pub fn connector(&self) -> VsockConnector {
        VsockConnector(Arc::clone(&self.inbox))
    }
}

impl VirtioDevice for Vsock {
    fn model(&self) -> Model {
        let config = wire::config(self.guest_cid);
        Model {
            id: DEVICE_ID,
            features: F_STREAM,
            queue_sizes: QUEUE_SIZES.to_vec(),
            config_len: u32::try_from(config.len()).unwrap_or(0),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&wire::config(self.guest_cid), offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.service.start("virtio-vsock", env)
    }

    fn reset(&mut self) {
        self.service.with(|service| service.muxer.clear());
    }
}

struct VsockService {
    muxer: Muxer,
    inbox: Arc<Inbox>,
    watch: Watch,
    /// The bytes of the packet at hand.
    buffer: Vec<u8>,
}

impl Service for VsockService {
    fn started(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        self.muxer.watch_anew();
        self.watch.begin(&self.inbox.wake, context.sources)?;
        self.connect();
        self.turn(context)
    }

    fn queue(&mut self, _index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        self.turn(context)
    }

    fn source(
        &mut self,
        token: u32,
        ready: Ready,
        context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        match token {
            WAKE => self.connect(),
            TIMER => self.muxer.expire(Instant::now()),
            id if ready.closed => self.muxer.hung_up(id),
            id => self.muxer.stream_ready(id, ready),
        }
        self.turn(context)
    }
}

impl VsockService {
    /// Begins the connects that the host asked for.
    fn connect(&mut self) {
        let now = Instant::now();
        self.inbox
            .take()
            .into_iter()
            .for_each(|connect| self.muxer.connect(connect, now));
    }

    /// Moves packets both ways until there are none, or no buffers for them.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        loop {
            let stopped = self.take_packets(context)?;
            self.give_packets(context)?;
            // Packets that were left because of waiting resets: there may be room for them now.
            if !(stopped && self.muxer.takes_packets()) {
                break;
            }
        }
        self.watch.update(&mut self.muxer, context.sources)?;
        Ok(())
    }

    /// Takes packets of the guest. True: there may be more, but the guest must take resets first.
    fn take_packets(&mut self, context: &mut Context<'_>) -> Result<bool, Broken> {
        let Some(queue) = context.queues.get(TRANSMIT_QUEUE) else {
            return Ok(false);
        };
        while self.muxer.takes_packets() {
            let Some(chain) = queue.pop()? else {
                return Ok(false);
            };
            let (mut reader, mut header) = (chain.reader(), [0; HEADER_LEN]);
            if reader.read_exact(&mut header).is_ok() {
                let header = Header::parse(&header);
                let len = usize::try_from(header.len).unwrap_or(usize::MAX);
                let payload = self.buffer.get_mut(..len).and_then(|bytes| {
                    reader.read_exact(bytes).ok()?;
                    Some(&*bytes)
                });
                self.muxer.receive(&header, payload);
            }
            chain.finish(0)?;
        }
        Ok(true)
    }

    /// Gives packets to the guest for as long as there are buffers for them.
    fn give_packets(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(queue) = context.queues.get(RECEIVE_QUEUE) else {
            return Ok(());
        };
        while self.muxer.has_packets() {
            let Some(chain) = queue.pop()? else {
                return Ok(());
            };
            let mut writer = chain.writer();
            // A buffer without room for a header goes back empty.
            let Some(room) = writer.available().checked_sub(HEADER_LEN) else {
                continue;
            };
            let room = room.min(self.buffer.len());
            let Some(room) = self.buffer.get_mut(..room) else {
                continue;
            };
            let Some(header) = self.muxer.next_packet(room) else {
                // A buffer for the header only never holds the bytes that wait, so it does not stay.
                if room.is_empty() {
                    chain.finish(0)?;
                } else {
                    chain.put_back();
                }
                continue;
            };
            writer.write(&header.emit());
            let len = usize::try_from(header.len).unwrap_or(0);
            writer.write(room.get(..len).unwrap_or_default());
            let written = writer.written();
            chain.finish(written)?;
        }
        Ok(())
    }
}

impl fmt::Debug for VsockService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VsockService")
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}
