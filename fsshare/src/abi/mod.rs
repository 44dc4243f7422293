//! The FUSE protocol: bytes to types and back (`include/uapi/linux/fuse.h`, versions 7.31 to 7.41).
//!
//! [`parse()`] is the only way from a request's bytes to a [`Request`] (a WRITE's content need not be among them). It checks the length that the head states
//! against the bytes that are there, takes each fixed structure whole, validates each name, and refuses whatever
//! is left over. Nothing behind it looks at raw bytes again. The module does no I/O, allocates nothing while parsing, and
//! knows nothing of the host: it decides what a request *says*, never whether it is allowed.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod fault;
mod flags;
mod name;
mod opcode;
mod operation;
mod parse;
mod reply;
#[cfg(test)]
mod tests;
pub mod wire;

pub use fault::{ParseError, Refusal};
pub use flags::{
    FallocateMode, InitFlags, OpenFlags, OpenReply, RenameMode, SetAttrFlags, XattrMode,
};
pub use name::{Name, Target, XattrName};
pub use opcode::Opcode;
pub use operation::{Forgets, Operation};
pub use parse::{BEFORE_CONTENT, Request, has_content, parse, parse_without};
pub use reply::{DirEntry, Listing, OUT_HEADER_LEN, head};

/// Node id of the root of the share.
pub const ROOT_ID: u64 = 1;
/// Major version of the protocol.
pub const MAJOR: u32 = 7;
/// Newest minor version that this module knows (Linux 6.12).
pub const MINOR: u32 = 41;
/// Oldest minor version that this module serves (Linux 5.4, the first kernel with virtio-fs).
pub const OLDEST_MINOR: u32 = 31;
