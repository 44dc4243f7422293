//! The network device (virtio 1.3, section 5.1): one pair of queues, frames to and from a [`NetPort`].
//!
//! The device carries frames whole; it neither looks into them nor computes checksums. It offers what spares both sides work: checksums that are
//! not finished, TCP segments longer than the wire's frames, and frames in several buffers. Not offered: a control queue, several pairs of queues,
//! and offloads for UDP and IPv6, of which there is none.

mod device;
#[cfg(test)]
mod tests;
pub mod wire;

pub use device::{LONGEST_FRAME, Net, NetPort, Offloads};
