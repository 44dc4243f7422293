//! The agent protocol: what the host and the guest program say to each other.
//!
//! One definition, compiled into both ends: the `sandbox` crate has it as a module, the guest program includes the same
//! files. It is pure data code over `serde` and `postcard`: no I/O, no clock, no thread.
//!
//! * A frame is a little-endian `u32` length and a postcard body ([`encode`], [`FrameDecoder`]).
//! * The host sends [`Request`], the guest sends [`Event`]. Two types on purpose: the guest has no message by which it
//!   could ask the host to open, run, dial or map anything.
//! * Both sides open with `Hello`; its encoding never changes, so that two versions can tell that they differ.
//! * Every stream of bytes has a credit window ([`SendWindow`], [`ReceiveWindow`]): a slow reader of one stream
//!   neither blocks the others nor makes either side buffer more than [`WINDOW`].
//!
//! Order on the wire: `Hello` both ways, `Configure`, `Ready`, then anything. For one id: `Exec`, `Started`, any number
//! of `Output`, `OutputEnd` for each stream, `Exited`; nothing follows an `Exited`, and nothing that the process wrote before
//! its end is missing before it.

mod credit;
mod frame;
mod list;
mod message;

pub use credit::{CreditError, ReceiveWindow, SendWindow};
pub use frame::{EncodeError, FrameDecoder, FrameError, Message, Peer, encode};
pub use list::{MAX_STRINGS, Octets, OctetsList};
pub use message::{
    BootFacts, Configure, ConfigureFailure, ConfigureStep, Event, ExecFailure, ExecRequest,
    ExitStatus, Id, Mount, Network, Request, Stream, TerminalSize, User,
};

/// The version of this protocol. Both ends come from one build, so anything but equality is refused.
pub const VERSION: u32 = 3;

/// The vsock port of the host to which the guest connects unless its kernel command line says otherwise.
pub const PORT: u32 = 1024;

/// Bytes of length before each body.
pub const HEADER_LEN: usize = 4;

/// Largest body of a [`Request`], in bytes: room for a long command line and environment.
pub const MAX_REQUEST: usize = 256 * 1024;

/// Largest body of an [`Event`], in bytes: what a hostile guest can make the host hold for one frame.
pub const MAX_EVENT: usize = 64 * 1024;

/// Most payload bytes in one `Input` or `Output`.
pub const MAX_DATA: usize = 32 * 1024;

/// Bytes that may be under way on one stream before the receiver must grant more.
pub const WINDOW: u32 = 256 * 1024;

/// Commands that may run at once through the agent; one more is refused with [`ExecFailure::TooMany`].
pub const MAX_EXECS: usize = 1024;

/// File transfers that may be under way at once; one more fails with `EMFILE`.
pub const MAX_TRANSFERS: usize = 64;

#[cfg(test)]
mod tests;
