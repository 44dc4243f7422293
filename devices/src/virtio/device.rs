//! The contract between a transport and a device.
//!
//! ```text
//!             start(RunEnv)
//!   idle  ------------------->  running (a Worker, with threads of its own)
//!         <-------------------
//!             Worker::stop() -> Vec<QueueState>
//! ```
//!
//! `stop` is the only way out of *running*, for reset, pause, snapshot and shutdown alike. What it
//! returns is what `start` needs to go on where the device was.

use std::io;

use hv_core::{Event, GuestRam};

use super::{Interrupt, QueueError, QueueState};

/// What a device is: everything that its discovery registers answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Model {
    /// Device type (virtio 1.3 section 5).
    pub id: u32,
    /// Feature bits of this device type that it offers; the transport adds the ring's own
    /// ([`super::features::RING`]).
    pub features: u64,
    /// The largest size of each queue: powers of two up to 32768.
    pub queue_sizes: Vec<u16>,
    /// Bytes of the device's configuration space.
    pub config_len: u32,
}

/// A queue as a device gets it.
#[derive(Clone, Debug)]
pub struct QueueSeat {
    /// Its registers and its position; a queue that the driver left out has `ready` unset.
    pub state: QueueState,
    /// Signalled when the driver notifies the queue.
    pub doorbell: Event,
}

/// All that a device needs to run.
#[derive(Clone, Debug)]
pub struct RunEnv {
    /// The guest's RAM.
    pub memory: GuestRam,
    /// Every queue of the [`Model`], in order.
    pub queues: Vec<QueueSeat>,
    /// The negotiated feature bits.
    pub features: u64,
    /// The way to the driver.
    pub interrupt: Interrupt,
}

/// Why a device does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The guest's driver set a queue up wrongly.
    #[error("the guest's driver set queue {index} up wrongly")]
    Queue {
        /// Which queue.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: QueueError,
    },
    /// The device runs already, or its thread was lost (caller).
    #[error("the device is running already")]
    Running,
    /// The host has no thread or descriptor left.
    #[error("the host cannot start the device's thread")]
    Host(#[from] io::Error),
}

/// A virtio device, as its transport sees it. Register accesses come from vCPU threads, one at a
/// time, and must not block. The exception is a driver's reset: its write returns when the worker has
/// stopped, which waits for the host call that the device is in (section 2.4: nothing of the old
/// session may reach the driver after it), so a slow host call stops that vCPU as long.
pub trait VirtioDevice: Send {
    /// What it is. Never changes.
    fn model(&self) -> Model;

    /// Reads its configuration space at `offset`, any width; zeros past the end.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes its configuration space at `offset`. Most devices have nothing that is writable.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Starts the device.
    ///
    /// # Errors
    /// A queue is set up wrongly (guest), it runs already (caller), or the host has no thread left.
    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError>;

    /// The driver reset the device: forget what belongs to the old session (connections, half-done
    /// messages). Called while it is stopped; not called for pause and resume.
    fn reset(&mut self) {}
}

/// A running device.
pub trait Worker: Send {
    /// Has it take nothing more, and does not wait: a device with several threads then waits for the slowest and not for one after the
    /// other. [`Self::stop`] does it too.
    fn begin_stop(&self) {}

    /// Stops it and returns every queue of the [`Model`], in order, as it is now. No descriptor is
    /// in flight afterwards. Waits for the host call that the device is in; what it did not take
    /// stays in the rings.
    fn stop(self: Box<Self>) -> Vec<QueueState>;
}

/// Answers a read of any width at any offset of a configuration space whose bytes are `config`;
/// zeros past the end.
pub fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|at| config.get(at..));
    for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_reads_give_zeros_past_the_end() {
        let config = [1, 2, 3, 4, 5];
        for (offset, width, expected) in [
            (0, 4, vec![1, 2, 3, 4]),
            (3, 4, vec![4, 5, 0, 0]),
            (5, 2, vec![0, 0]),
            (u64::MAX, 1, vec![0]),
        ] {
            let mut data = vec![0xaa; width];
            read_config_bytes(&config, offset, &mut data);
            assert_eq!(data, expected, "{width} bytes at {offset}");
        }
    }
}
