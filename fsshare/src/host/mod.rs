//! The host's file system: the only layer that calls it.
//!
//! The server above works with a [`Host`] and three kinds of handle: a [`Node`] (some object in the tree, not open for
//! I/O), a [`File`] and a [`Directory`]. A node is found by one [`Name`](crate::abi::Name) relative to another node and never by a path; a
//! file is opened from its node and never by a name. Each system's module offers the same types and methods. What in them
//! needs no system is in modules of its own that are compiled for their tests everywhere.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod listing;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(windows, test))]
mod reparse;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;
#[cfg(any(windows, test))]
mod windows_info;
#[cfg(any(windows, test))]
mod windows_names;

#[cfg(target_os = "linux")]
use linux as os;
#[cfg(target_os = "macos")]
use macos as os;
#[cfg(windows)]
use windows as os;

pub(crate) use os::{Directory, Host, Node};
#[cfg(unix)]
pub(crate) use unix::{AccessMode, File};
#[cfg(windows)]
pub(crate) use windows::{AccessMode, File};

/// Type bits of a mode.
const TYPE_MASK: u32 = 0o170_000;
/// Permission bits that a guest may set: no set-user-id, no set-group-id.
#[cfg(unix)]
pub(crate) const SETTABLE_MODE: u32 = 0o1777;
/// Set-user-id and set-group-id.
const PRIVILEGE_BITS: u32 = 0o6000;

/// What is asked of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockRequest {
    Shared,
    Exclusive,
    Release,
}

/// Whether a listing wants more entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    More,
    Enough,
}

/// Something that a host layer needs of the machine and that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirement {
    /// `/proc` of this process.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux opens a file by way of it")
    )]
    Proc,
    /// The calls that keep to a directory, or a root that is one.
    Confinement,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    Directory,
    Symlink,
    /// FIFO, socket or device: it can be seen, renamed and removed, never opened.
    Special,
}

impl Kind {
    pub(crate) fn of_mode(mode: u32) -> Self {
        match mode & TYPE_MASK {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            _ => Self::Special,
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Time {
    /// Seconds since 1970.
    pub(crate) seconds: i64,
    /// Nanoseconds, below 10^9.
    pub(crate) nanos: u32,
}

/// What one time stamp is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewTime {
    Keep,
    Now,
    At(Time),
}

/// Which object a node is, for as long as a handle on it is held (the host cannot reuse the number before).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
}

/// Attributes of a node as the host tells them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes {
    pub(crate) identity: Identity,
    /// Type and permission bits.
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Units of 512 bytes.
    pub(crate) blocks: u64,
    /// Preferred size of I/O, bytes.
    pub(crate) io_size: u32,
    pub(crate) accessed: Time,
    pub(crate) modified: Time,
    pub(crate) changed: Time,
    /// Creation, where the host's file system records it.
    pub(crate) born: Option<Time>,
}

impl Attributes {
    pub(crate) fn kind(&self) -> Kind {
        Kind::of_mode(self.mode)
    }

    pub(crate) fn has_privilege_bits(&self) -> bool {
        self.kind() == Kind::Regular && self.mode & PRIVILEGE_BITS != 0
    }
}

/// Sizes of the file system that holds the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) blocks: u64,
    pub(crate) free: u64,
    pub(crate) available: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    /// Preferred size of I/O, bytes.
    pub(crate) io_size: u64,
    /// Unit of `blocks`, `free` and `available`, bytes.
    pub(crate) block_size: u64,
    /// Longest name, bytes.
    pub(crate) longest_name: u64,
}
