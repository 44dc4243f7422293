//! The few devices of a PC that a guest cannot do without before, or beside, virtio.
//!
//! * [`Serial`]: a 16550 UART for output from the kernel's first instruction on. It takes no input.
//! * [`Rtc`]: the time of day in CMOS. No alarm, no periodic interrupt, no stored bytes.
//! * [`PowerControl`] and [`ResetLine`]: power-off and reset.
//!
//! All are called on vCPU threads, so nothing here blocks; what a guest writes can cost time in
//! proportion to the number of its accesses and no memory at all.

mod power;
mod rtc;
mod serial;

pub use power::{PowerControl, PowerSwitch, ResetLine};
pub use rtc::{Clock, Rtc};
pub use serial::Serial;

#[cfg(test)]
mod tests;
