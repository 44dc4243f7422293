//! The host's file system: the only layer that calls it.
//!
//! The server above works with a [`Host`] and three kinds of handle: a [`Node`] (some object in the tree, not open for
//! I/O), a [`File`] and a [`Directory`]. A node is found by one [`Name`](crate::abi::Name) relative to another node and never by a path; a
//! file is opened from its node and never by a name.
//!
//! [`layers`] makes one tree of what the guest changed and what the host has; below it are the host's own calls. Each system's module offers
//! the same types and methods. What in them needs no system is in modules of its own that are compiled for their tests everywhere.

mod layers;
#[cfg(target_os = "linux")]
pub(crate) mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod listing;
#[cfg(target_os = "macos")]
pub(crate) mod macos;
#[cfg(not(target_os = "linux"))]
mod no_marks;
#[cfg(any(windows, test))]
mod reparse;
#[cfg(unix)]
mod unix;
#[cfg(any(not(target_os = "linux"), test))]
mod unsigned_watch;
#[cfg(windows)]
pub(crate) mod windows;
#[cfg(any(windows, test))]
mod windows_info;
#[cfg(any(windows, test))]
mod windows_names;

#[cfg(target_os = "linux")]
pub(crate) use linux as os;
#[cfg(target_os = "macos")]
pub(crate) use macos as os;
#[cfg(windows)]
pub(crate) use windows as os;

pub(crate) use layers::{Directory, Host, Node, Over, upper_number};
#[cfg(target_os = "linux")]
pub(crate) use layers::{copy_xattrs, user_xattrs};
#[cfg(target_os = "linux")]
pub(crate) use linux::Watch;
#[cfg(unix)]
pub(crate) use unix::{AccessMode, File};
#[cfg(not(target_os = "linux"))]
pub(crate) use unsigned_watch::Watch;
#[cfg(windows)]
pub(crate) use windows::{AccessMode, File};

/// Type bits of a mode.
const TYPE_MASK: u32 = 0o170_000;
/// Longest value of an extended attribute, bytes (`XATTR_SIZE_MAX`); a list of them is not longer.
pub(crate) const LONGEST_XATTR: usize = 64 << 10;
/// Permission bits that a guest may set: no set-user-id, no set-group-id.
pub(crate) const SETTABLE_MODE: u32 = 0o1777;
/// Set-user-id and set-group-id.
const PRIVILEGE_BITS: u32 = 0o6000;
/// Set-user-id of a directory, which means nothing to the host: the directory hides what is below it, see [`layers`].
const OPAQUE: u32 = 0o4000;

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
    /// A directory for changes, whose file system keeps FIFOs and a directory's set-user-id, and says of what type an entry is.
    Changes,
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

/// Which tree a node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// There is no other: the guest changes the host's tree.
    Only,
    /// The one that takes what the guest changes.
    Upper,
    /// The host's, below an upper one, which the guest does not change.
    Lower,
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
    pub(crate) layer: Layer,
}

impl Attributes {
    pub(crate) fn kind(&self) -> Kind {
        Kind::of_mode(self.mode)
    }

    /// Whether it is a directory of an upper tree of which nothing is in the lower one, whatever that has by its name.
    pub(crate) fn is_opaque(&self) -> bool {
        self.kind() == Kind::Directory && self.mode & OPAQUE != 0
    }

    /// Whether it is what says, in an upper tree, that there is nothing of its name.
    fn is_whiteout(&self) -> bool {
        self.kind() == Kind::Special
    }

    /// Whether it is something that can have several names, and has.
    pub(crate) fn has_several_names(&self) -> bool {
        self.kind() != Kind::Directory && self.links > 1
    }

    /// As of a node in that layer.
    fn in_layer(mut self, layer: Layer) -> Self {
        if self.kind() == Kind::Directory {
            self.mode &= !OPAQUE;
        }
        self.layer = layer;
        self
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
