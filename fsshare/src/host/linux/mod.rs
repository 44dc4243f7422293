//! Linux: nodes are `O_PATH` descriptors, names are resolved by `openat2`.
//!
//! Every resolution is one component, beneath its directory, without symbolic links, magic links or mount points. A node
//! is opened for I/O through the held directory of the process's own descriptors, which leads to exactly the object that
//! the descriptor stands for, whatever happened to its name since.

mod directory;
mod file;
mod tree;
mod watch;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Statx, StatxFlags};
use rustix::path::DecInt;

pub(crate) use directory::Directory;
pub(crate) use watch::Watch;

use super::unix::{AccessMode, File};
use super::{Attributes, Identity, Kind, Layer, Requirement, Space, Time};
use crate::abi::Name;
use crate::errno::Errno;

/// No way out of the directory, and no way through anything but directories.
const CONFINED: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV)
    .union(ResolveFlags::NO_SYMLINKS);

/// Flags of every node handle.
const HANDLE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Flags of every open for I/O. `NONBLOCK` means nothing for regular files, except that an open does not wait for a lease.
const OPEN: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// A node of the tree: a handle that neither reads nor writes and that no rename can redirect.
#[derive(Debug)]
pub(crate) struct Node(OwnedFd);

impl AsFd for Node {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The calls that need more than a node.
#[derive(Debug)]
pub(crate) struct Host {
    /// `/proc/self/fd`, held because the path may not lead there any more once the process is confined.
    descriptors: OwnedFd,
    /// The root, open for reading: `syncfs` takes no `O_PATH` handle.
    root: OwnedFd,
    /// Added to every open for I/O where this process may: `NOATIME` for a tree that must not change.
    quiet: OFlags,
    /// The mount that the tree is in.
    mount: u64,
}

impl Host {
    /// Takes hold of the tree below `root`, and of what is needed to work in it. Also returns the root as a node.
    ///
    /// With `read_only`, reading leaves no time of access behind on files and directories that belong to this process's user. Those of
    /// others, and symbolic links, keep one as the host's mount options say: the kernel offers no way around that.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is opened below takes the place of `root`, which is closed"
    )]
    pub(crate) fn new(
        root: OwnedFd,
        read_only: bool,
    ) -> Result<(Self, Node), (Requirement, rustix::io::Errno)> {
        let needs = |requirement| move |error| (requirement, error);
        let descriptors = own_descriptors().map_err(needs(Requirement::Proc))?;
        let confined = |flags| {
            rustix::fs::openat2(
                &root,
                c".",
                flags | OFlags::DIRECTORY,
                Mode::empty(),
                CONFINED,
            )
        };
        let node = confined(HANDLE).map_err(needs(Requirement::Confinement))?;
        let root = confined(OFlags::RDONLY | OPEN).map_err(needs(Requirement::Confinement))?;
        let quiet = if read_only {
            OFlags::NOATIME
        } else {
            OFlags::empty()
        };
        let mount = mount_of(&node).map_err(needs(Requirement::Confinement))?;
        let host = Self {
            descriptors,
            root,
            quiet,
            mount,
        };
        Ok((host, Node(node)))
    }

    /// Finds `name` in the directory `parent`. A symbolic link is found, not followed.
    pub(crate) fn lookup(&self, parent: &Node, name: Name<'_>) -> Result<Node, Errno> {
        Ok(Node(rustix::fs::openat2(
            parent,
            name.as_c_str(),
            HANDLE,
            Mode::empty(),
            CONFINED,
        )?))
    }

    /// The attributes of what [`Self::lookup`] would find, without a handle on it.
    pub(crate) fn attributes_at(&self, parent: &Node, name: Name<'_>) -> Result<Attributes, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let stat = rustix::fs::statx(parent, name.as_c_str(), flags, wanted)?;
        // One name, and no link followed: the only way out is through a mount point.
        if stat.stx_mnt_id == self.mount {
            Ok(Attributes::of(&stat))
        } else {
            Err(Errno::EXDEV)
        }
    }

    /// Another handle on what `file` has open.
    pub(crate) fn node_of(&self, file: &File) -> Result<Node, Errno> {
        let name = DecInt::from_fd(file);
        Ok(Node(rustix::fs::openat(
            &self.descriptors,
            name,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Opens a regular file for I/O. Anything else is refused: opening a FIFO blocks, opening a device acts.
    ///
    /// Also returns the attributes from before the open.
    pub(crate) fn open(&self, node: &Node, mode: AccessMode) -> Result<(File, Attributes), Errno> {
        let attributes = node.attributes()?;
        match attributes.kind() {
            Kind::Regular => Ok((File::new(self.reopen(node, mode.0)?), attributes)),
            Kind::Directory => Err(Errno::EISDIR),
            Kind::Symlink => Err(Errno::ELOOP),
            Kind::Special => Err(Errno::EPERM),
        }
    }

    /// Opens a directory for listing.
    pub(crate) fn open_directory(&self, node: &Node) -> Result<Directory, Errno> {
        if node.attributes()?.kind() != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(Directory::new(
            self.reopen(node, OFlags::RDONLY | OFlags::DIRECTORY)?,
        ))
    }

    /// Whoever calls this has seen that `node` is a regular file or a directory; a node never changes its type.
    pub(super) fn reopen(&self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        let open = |flags| {
            rustix::fs::openat(
                &self.descriptors,
                DecInt::from_fd(node),
                flags | OPEN,
                Mode::empty(),
            )
        };
        match open(flags | self.quiet) {
            // Only the owner of a file may read it unrecorded.
            Err(rustix::io::Errno::PERM) if !self.quiet.is_empty() => Ok(open(flags)?),
            outcome => Ok(outcome?),
        }
    }

    /// Makes the file system that holds the tree durable.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

/// Which mount the node is in.
fn mount_of(node: &OwnedFd) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statx(node, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let is_told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::MNT_ID);
    is_told
        .then_some(stat.stx_mnt_id)
        .ok_or(rustix::io::Errno::NOSYS)
}

fn own_descriptors() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let descriptors = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty())?;
    if rustix::fs::fstatfs(&descriptors)?.f_type == PROC_SUPER_MAGIC {
        Ok(descriptors)
    } else {
        Err(rustix::io::Errno::NODEV)
    }
}

impl Node {
    /// The node's attributes now.
    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let stat = rustix::fs::statx(&self.0, c"", AtFlags::EMPTY_PATH, wanted)?;
        Ok(Attributes::of(&stat))
    }

    /// The node as the directory that calls by name begin at.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "elsewhere a directory may not be open"
    )]
    pub(super) fn directory(&self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.as_fd())
    }

    /// Sizes of the file system that holds the node.
    pub(crate) fn space(&self) -> Result<Space, Errno> {
        Ok(Space::of(&rustix::fs::fstatvfs(&self.0)?))
    }
}

impl Attributes {
    fn of(stat: &Statx) -> Self {
        let time = |stamp: rustix::fs::StatxTimestamp| Time {
            seconds: stamp.tv_sec,
            nanos: stamp.tv_nsec,
        };
        let has_birth = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
        Self {
            identity: Identity {
                device: (stat.stx_dev_major, stat.stx_dev_minor),
                inode: stat.stx_ino,
            },
            mode: u32::from(stat.stx_mode),
            links: stat.stx_nlink,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            io_size: stat.stx_blksize,
            accessed: time(stat.stx_atime),
            modified: time(stat.stx_mtime),
            changed: time(stat.stx_ctime),
            born: has_birth.then(|| time(stat.stx_btime)),
            layer: Layer::Only,
        }
    }
}
