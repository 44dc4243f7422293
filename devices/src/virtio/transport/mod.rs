//! Between a guest's register accesses and a device: `core` is the state machine, `mmio` maps
//! offsets onto it, [`connect()`] ties a device to a VM.

mod connect;
pub(crate) mod core;
pub(crate) mod mmio;
#[cfg(test)]
mod tests;

pub use self::connect::{ConnectError, VirtioMmio, connect};
pub use self::mmio::{MmioTransport, WINDOW_SIZE};
