//! What Linux and macOS do alike.

mod file;
mod tree;
mod xattr;

use rustix::fs::{OFlags, StatVfs};

use super::Space;
use super::os::Host;
use crate::abi::OpenFlags;

pub(crate) use file::File;
pub(super) use tree::{permissions, timestamps};

/// How a file is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessMode(pub(in crate::host) OFlags);

impl AccessMode {
    /// For reading only.
    pub(crate) const READ: Self = Self(OFlags::RDONLY);
    /// For writing only.
    pub(crate) const WRITE: Self = Self(OFlags::WRONLY);
    /// For both.
    pub(crate) const BOTH: Self = Self(OFlags::RDWR);

    /// What the guest asked for.
    ///
    /// A client that caches writes reads the rest of a page before it writes one, and knows the end of the file better
    /// than the host: for it, writing implies reading, and appending is its own business.
    pub(crate) fn from_guest(flags: OpenFlags, client_caches_writes: bool) -> Self {
        let mut host =
            if flags.contains(OpenFlags::RDWR) || (flags.writes() && client_caches_writes) {
                OFlags::RDWR
            } else if flags.writes() {
                OFlags::WRONLY
            } else {
                OFlags::RDONLY
            };
        host.set(
            OFlags::APPEND,
            flags.contains(OpenFlags::APPEND) && !client_caches_writes,
        );
        host.set(OFlags::TRUNC, flags.contains(OpenFlags::TRUNC));
        host.set(OFlags::SYNC, flags.contains(OpenFlags::SYNC));
        host.set(OFlags::DSYNC, flags.contains(OpenFlags::DSYNC));
        Self(host)
    }

    /// Whether what is opened so may be changed, or is by the open itself.
    pub(crate) fn changes(self) -> bool {
        self.0
            .intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC)
    }
}

impl Host {
    /// The user and group whose files are the guest owner's.
    pub(crate) fn owner() -> (u32, u32) {
        (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        )
    }

    /// How many descriptors this process may have, or `None` for no limit.
    pub(crate) fn descriptor_limit() -> Option<u64> {
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current
    }
}

impl Space {
    pub(super) fn of(stat: &StatVfs) -> Self {
        Self {
            blocks: stat.f_blocks,
            free: stat.f_bfree,
            available: stat.f_bavail,
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
            io_size: stat.f_bsize,
            block_size: stat.f_frsize,
            longest_name: stat.f_namemax,
        }
    }
}
