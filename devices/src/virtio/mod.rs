//! Virtio 1.3 devices over memory-mapped registers, with split queues.
//!
//! ```text
//! guest registers -> transport::mmio -> transport::core --DRIVER_OK--> VirtioDevice::start
//! kick -> doorbell event -> worker thread -> Service::queue -> LiveQueue::pop -> Chain::finish -> irq
//! ```
//!
//! A device is a [`VirtioDevice`] (what the registers show, how to start) and a
//! [`worker::Service`] (what the device thread does with queues). Legacy drivers, packed rings and
//! PCI are refused by not being offered.

mod device;
mod interrupt;
pub mod queue;
pub mod transport;
pub mod worker;

pub use device::{Model, QueueSeat, RunEnv, StartError, VirtioDevice, Worker, read_config_bytes};
pub use interrupt::{Interrupt, IrqLine};
pub use queue::{Chain, LiveQueue, QueueError, QueueState, Reader, ShortBuffer, Writer};
pub use transport::{MmioTransport, VirtioMmio};
pub use worker::{Broken, Context, Parked, Queues, Ready, Service, Sources};

/// Device-independent feature bits (virtio 1.3 section 6), as masks.
pub mod features {
    use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
    use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

    /// Descriptors may refer to a table of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << VIRTIO_RING_F_INDIRECT_DESC;
    /// Notifications are asked for by ring index.
    pub const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
    /// The driver follows virtio 1.0 or later; mandatory here.
    pub const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
    /// What the transport offers for every device.
    pub const RING: u64 = INDIRECT_DESC | EVENT_IDX | VERSION_1;
}
