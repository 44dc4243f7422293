//! The console device (virtio 1.3, section 5.3): byte streams between the guest's ttys and the host.
//!
//! Port 0 is the kernel's console (`hvc0`), further ports have names. What a guest writes goes to a
//! [`ConsoleSink`], which never blocks and keeps a bounded amount, so a guest that floods its console
//! wears out only itself. What is to be read goes into a [`ConsoleInput`].
//!
//! There is no window size, no hot-plug of ports and no emergency write. Nothing here looks at what
//! is written: who shows it on a terminal has to make escape sequences harmless.

mod control;
mod device;
mod host;
#[cfg(test)]
mod tests;
pub mod wire;

pub use device::{Console, ConsoleError, ConsolePort, MAX_PORTS};
pub use host::{ConsoleInput, ConsoleSink, INPUT_BUFFER, LogRing, LossyWriter};
