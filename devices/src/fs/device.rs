//! The device: its registers, and a thread for each request queue.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::wire;
use crate::virtio::worker::{Broken, Context, Parked, Service};
use crate::virtio::{
    LiveQueue, Model, QueueState, Reader, RunEnv, StartError, VirtioDevice, Worker, Writer,
    read_config_bytes,
};

/// Most request queues, hence threads, of a device.
pub const MAX_REQUEST_QUEUES: u32 = 8;

/// The device type (section 5.11.1).
const DEVICE_ID: u32 = 26;
/// The queue for requests that must not wait behind others (section 5.11.2): FORGET and INTERRUPT.
const HIGH_PRIORITY_QUEUE_SIZE: u16 = 64;
/// A request takes a descriptor for each page of its data unless it has an indirect table, and Linux makes it no longer than the queue
/// even then: 1 MiB must fit, with the headers.
const REQUEST_QUEUE_SIZE: u16 = 1024;

/// A server of FUSE requests. Called by the device's threads, by several at once.
pub trait FsBackend: Send + Sync {
    /// Serves one request: `request` is all that the driver wrote, `reply` all that it wants filled.
    /// Returns the bytes of the reply, which begins where `reply` does; 0 when there is none, as for
    /// FORGET. May wait for the host's files.
    fn handle(&self, request: &mut Reader<'_>, reply: &mut Writer<'_>) -> usize;

    /// The driver was reset: what it had open it will not close any more. No request is under way.
    fn reset(&self);
}

/// What a file system device cannot be made with; the caller's mistake.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// The tag does not fit the configuration space.
    #[error("a file system's tag has 1 to 36 bytes and no NUL: {0:?}")]
    Tag(String),
    /// No request queue, or more than [`MAX_REQUEST_QUEUES`].
    #[error("a file system has 1 to {MAX_REQUEST_QUEUES} request queues, not {0}")]
    RequestQueues(u32),
}

/// A shared file system.
pub struct Fs {
    config: [u8; wire::CONFIG_LEN],
    backend: Arc<dyn FsBackend>,
    /// One a request queue; the first also serves the high-priority queue.
    services: Vec<Parked<FsService>>,
}

impl Fs {
    /// A file system that a guest mounts by `tag`, with this many request queues. Drivers use one
    /// queue a processor, so there is no point in more of them than vCPUs.
    ///
    /// # Errors
    /// The tag or the number of queues is out of bounds (caller).
    pub fn new(
        tag: &str,
        request_queues: u32,
        backend: Arc<dyn FsBackend>,
    ) -> Result<Self, FsError> {
        if !(1..=MAX_REQUEST_QUEUES).contains(&request_queues) {
            return Err(FsError::RequestQueues(request_queues));
        }
        let config = wire::config(tag, request_queues);
        let config = config.ok_or_else(|| FsError::Tag(tag.to_owned()))?;
        let service = |_| {
            Parked::new(FsService {
                backend: Arc::clone(&backend),
            })
        };
        let services = (0..request_queues).map(service).collect();
        Ok(Self {
            config,
            backend,
            services,
        })
    }
}

impl VirtioDevice for Fs {
    fn model(&self) -> Model {
        let mut queue_sizes = vec![REQUEST_QUEUE_SIZE; self.services.len() + 1];
        if let Some(first) = queue_sizes.first_mut() {
            *first = HIGH_PRIORITY_QUEUE_SIZE;
        }
        Model {
            id: DEVICE_ID,
            features: 0,
            queue_sizes,
            config_len: u32::try_from(self.config.len()).unwrap_or(0),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        let start = |(index, service): (usize, &Parked<FsService>)| {
            let queues = share(index);
            let part = RunEnv {
                queues: env.queues.get(queues.clone()).unwrap_or_default().to_vec(),
                ..env.clone()
            };
            service
                .start(&format!("virtio-fs-{index}"), part)
                .map_err(|error| match error {
                    StartError::Queue { index, source } => StartError::Queue {
                        index: index + queues.start,
                        source,
                    },
                    other => other,
                })
        };
        // A thread that was started before another could not be is ended by being dropped.
        let threads = self
            .services
            .iter()
            .enumerate()
            .map(start)
            .collect::<Result<_, _>>()?;
        Ok(Box::new(Threads(threads)))
    }

    fn reset(&mut self) {
        self.backend.reset();
    }
}

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs")
            .field("request_queues", &self.services.len())
            .finish_non_exhaustive()
    }
}

/// The queues of a thread.
const fn share(thread: usize) -> Range<usize> {
    if thread == 0 {
        0..2
    } else {
        thread + 1..thread + 2
    }
}

/// The threads of a running device, in the order of their queues.
struct Threads(Vec<Box<dyn Worker>>);

impl Worker for Threads {
    fn begin_stop(&self) {
        for thread in &self.0 {
            thread.begin_stop();
        }
    }

    fn stop(self: Box<Self>) -> Vec<QueueState> {
        self.begin_stop();
        self.0.into_iter().flat_map(Worker::stop).collect()
    }
}

struct FsService {
    backend: Arc<dyn FsBackend>,
}

impl FsService {
    /// Serves the next request; false when there is none.
    fn serve(&self, queue: &mut LiveQueue) -> Result<bool, Broken> {
        let Some(chain) = queue.pop()? else {
            return Ok(false);
        };
        let (mut request, mut reply) = (chain.reader(), chain.writer());
        let len = self.backend.handle(&mut request, &mut reply);
        let written = u32::try_from(len).unwrap_or(u32::MAX).min(reply.written());
        chain.finish(written)?;
        Ok(true)
    }
}

impl Service for FsService {
    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(queue) = context.queues.get(index) else {
            return Ok(());
        };
        while self.serve(queue)? {
            // A request can take long: who waits for this reply should not wait for the next.
            queue.signal()?;
        }
        Ok(())
    }
}
