//! The host's end of the agent protocol: commands and files in the guest, as an async API.
//!
//! [`AgentClient::connect`] takes any byte stream to the guest program and spawns one task that owns it. Handles talk to that task
//! through a queue; a stream of a process is a buffer with a credit window, so a reader that does not read stops the process
//! that writes, and nothing else. Everything is cancel-safe: a future that is dropped has either done its work or undoes it.
//!
//! What comes from the guest is not trusted. Every event is checked against what was asked: an id that was never given, more bytes than
//! granted, an answer to no question end the connection with [`AgentError::Protocol`]. No event makes the host open,
//! run, dial or map anything, and what a hostile guest can make it buffer is bounded by the windows of the streams
//! that the caller opened.

mod client;
mod error;
mod input;
mod mux;
mod output;
mod process;
mod spec;

pub use crate::protocol::{
    BootFacts, Configure, ExecFailure, ExitStatus, Mount, TerminalSize, User,
};
pub use client::AgentClient;
pub use error::{AgentError, GuestFault};
pub use input::InputWriter;
pub use output::OutputReader;
pub use process::{MAX_COLLECTED, Output, Process};
pub use spec::ExecSpec;

#[cfg(test)]
mod tests;
