//! What can go wrong beyond an error that the guest is told of.

use std::io;

use thiserror::Error;

use super::config::Limits;
use crate::abi::ParseError;

/// Who has to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest broke the protocol.
    Guest,
    /// The host lacks something or failed.
    Host,
    /// The program that embeds the server.
    Caller,
}

/// Why there is no server, or no reply.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The root cannot be used.
    #[error(
        "the host does not open the share's root as a confined directory; give a directory that this user may read, on Linux 5.8 or later, or on macOS on a volume that finds files by their numbers (APFS, HFS+)"
    )]
    Root(#[source] io::Error),
    /// The directory for what the guest changes cannot be used.
    #[error(
        "the host does not keep a share's changes in the directory that it was given for them; give a directory that this user may write, on ext4, XFS, Btrfs or tmpfs"
    )]
    Overlay(#[source] io::Error),
    /// What the guest changes cannot be written down.
    #[error("the host does not keep a journal of a share's changes; do without one")]
    Journal(#[source] io::Error),
    /// `/proc/self/fd` cannot be used.
    #[error(
        "the host's /proc/self/fd is not to be had; mount /proc, and make the server before confining the process"
    )]
    Proc(#[source] io::Error),
    /// Too few descriptors.
    #[error(
        "the host lets this process have {limit} descriptors, of which {} are reserved, and each of its {shares} shares needs {}; raise RLIMIT_NOFILE",
        Limits::RESERVED_DESCRIPTORS,
        Limits::FEWEST_DESCRIPTORS
    )]
    Descriptors {
        /// The limit.
        limit: u64,
        /// How many shares divide what is not reserved.
        shares: usize,
    },
    /// No share at all, or more than one session has numbers for.
    #[error("the caller gave {0} shares for one session; give 1 to 255")]
    Shares(usize),
    /// `max_write` is out of range.
    #[error("the caller asked for writes of {0} bytes; choose a multiple of 4096 up to 1 MiB")]
    MaxWrite(u32),
    /// The request is none, and there is nobody to tell so. Complete it with 0 bytes.
    #[error("a request was dropped")]
    Request(#[from] ParseError),
    /// The guest left too little room for any reply. Complete the request with 0 bytes.
    #[error("the guest left {available} bytes for a reply, which takes at least 16")]
    NoRoom {
        /// Room that was there, bytes.
        available: usize,
    },
    /// The transport failed to move bytes. Complete the request with 0 bytes.
    #[error("the transport did not move the bytes of a request or reply")]
    Transfer(#[source] io::Error),
}

impl Error {
    /// Whose fault it was.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Root(_)
            | Self::Overlay(_)
            | Self::Journal(_)
            | Self::Shares(_)
            | Self::MaxWrite(_)
            | Self::Transfer(_) => Fault::Caller,
            Self::Proc(_) | Self::Descriptors { .. } => Fault::Host,
            Self::Request(_) | Self::NoRoom { .. } => Fault::Guest,
        }
    }
}
