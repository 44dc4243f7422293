//! The server behind the queues of a virtio-fs device in another process (virtio 1.3 section 5.11; vhost-user as QEMU documents it).
//!
//! Frames of the protocol, guest memory and rings are the rust-vmm crates'; what a request means is the server's.

#[cfg(test)]
mod tests;

use std::io::{self, Read as _, Write as _};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::anyhow;
use fsshare::Server;
use fsshare::transfer::{Reader, Writer};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringRwLock, VringT as _};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{DescriptorChain, QueueT as _, Reader as Readable, Writer as Writable};
use vm_memory::{GuestAddressSpace as _, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// Linux makes no request longer than a queue.
const QUEUE_SIZE: usize = 1024;

/// Serves one machine, which connects to `socket`, with so many request queues, until it is gone.
///
/// # Errors
///
/// The host has no room for threads, or there can be no such socket.
pub(crate) fn serve(server: Server, request_queues: usize, socket: &Path) -> anyhow::Result<()> {
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let backend = Arc::new(Backend {
        server,
        memory: memory.clone(),
        request_queues,
        event_idx: AtomicBool::new(false),
    });
    let daemon = VhostUserDaemon::new("share".into(), backend, memory);
    daemon
        .and_then(|mut daemon| daemon.serve(socket))
        .map_err(|error| anyhow!("cannot serve at {}: {error}", socket.display()))
}

/// A share's server as the crates ask for it.
pub(crate) struct Backend {
    server: Server,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    request_queues: usize,
    event_idx: AtomicBool,
}

impl VhostUserBackend for Backend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        // The first is that of urgent requests.
        1 + self.request_queues
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_RING_F_INDIRECT_DESC
            | 1 << VIRTIO_RING_F_EVENT_IDX
            | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::Relaxed);
    }

    fn update_memory(&self, _: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        // It is the one that we have a handle on.
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        let others = (1..self.request_queues).map(|queue| 1 << (queue + 1));
        [0b11].into_iter().chain(others).collect()
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).ok()
    }

    fn handle_event(
        &self,
        queue: u16,
        _: EventSet,
        vrings: &[VringRwLock],
        _: usize,
    ) -> io::Result<()> {
        let Some(vring) = vrings.get(usize::from(queue)) else {
            return Ok(());
        };
        if !self.event_idx.load(Ordering::Relaxed) {
            return self.serve(vring);
        }
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.serve(vring)?;
            // True: more came before the driver could see that it is to tell of it.
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

impl Backend {
    /// Answers what is in the ring.
    fn serve(&self, vring: &VringRwLock) -> io::Result<()> {
        loop {
            let memory = self.memory.memory();
            let next = vring
                .get_mut()
                .get_queue_mut()
                .pop_descriptor_chain(memory.clone());
            let Some(chain) = next else { return Ok(()) };
            let head = chain.head_index();
            let len = self.answer(&memory, &chain);
            vring.add_used(head, len).map_err(io::Error::other)?;
            if vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
        }
    }

    /// Bytes of the reply; none to what no driver sends.
    fn answer<M: Deref<Target = GuestMemoryMmap> + Clone>(
        &self,
        memory: &GuestMemoryMmap,
        chain: &DescriptorChain<M>,
    ) -> u32 {
        let (Ok(request), Ok(reply)) = (
            Readable::new(memory, chain.clone()),
            Writable::new(memory, chain.clone()),
        ) else {
            return 0;
        };
        let served = self.server.handle(&mut In(request), &mut Out(reply));
        u32::try_from(served.unwrap_or(0)).unwrap_or(0)
    }
}

struct In<'a>(Readable<'a>);

impl Reader for In<'_> {
    fn remaining(&self) -> usize {
        self.0.available_bytes()
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(buffer)
    }
}

struct Out<'a>(Writable<'a>);

impl Writer for Out<'_> {
    fn available(&self) -> usize {
        self.0.available_bytes()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }
}
