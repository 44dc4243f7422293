//! macOS: nodes are descriptors for events only, and files are opened by their numbers.
//!
//! There is nothing like `O_PATH`, nor a way from one descriptor to another for the same file. So:
//!
//! * A name is one component below a held directory. What it is is asked first, by a call that does not open it; of a regular file, a directory
//!   or a symbolic link a descriptor for events (`O_EVTONLY`, with `O_SYMLINK` for not following) is then held, and never read from. It must be
//!   what was seen. Special files, and what this user may not read, are not opened: such a node is its number alone. A guest cannot make a
//!   special file; if the host's user puts one there in that very moment, it is opened for events, without waiting, and closed.
//! * A file is opened for I/O as `/.vol/DEVICE/INODE`, which finds it by number whatever its name is, and must be the node. While the node's
//!   descriptor is held nothing else gets that number, and APFS never gives one twice. A file without a name is not found so: what is open
//!   remains open, and opening it anew is `ESTALE`.
//! * Another device number is another volume, and refused. Firm links between the system's own volumes are refused alike.
//! * The kernel is told to stay beneath the directory where it knows how (macOS 15.4), on top of all that.
//!
//! APFS and HFS+ find a name by any of its spellings (case, Unicode form), so one file may be known to the guest by several. The rules fold names
//! in the same way and more, so no spelling escapes them. Reading leaves times of access behind, also in a read-only share.

mod directory;
mod file;
mod tree;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use rustix::io;

pub(crate) use directory::Directory;

use super::unix::{AccessMode, File};
use super::{Attributes, Identity, Kind, Layer, Requirement, Space, Time};
use crate::abi::Name;
use crate::errno::Errno;

/// Flags of every node's descriptor. It does not follow a link, does not wait, and makes no terminal this process's own.
const HANDLE: OFlags = OFlags::from_bits_retain(0x8000) // O_EVTONLY
    .union(OFlags::SYMLINK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY);

/// Flags of every open for I/O.
const OPEN: OFlags = OFlags::CLOEXEC
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::NOFOLLOW);

/// `O_RESOLVE_BENEATH`.
const BENEATH: OFlags = OFlags::from_bits_retain(0x1000);
/// `ENOTCAPABLE`: what it says of a way out.
const NOT_CAPABLE: io::Errno = io::Errno::from_raw_os_error(107);

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    identity: Identity,
    /// Keeps the number from becoming another file's. Not of what may not be opened.
    descriptor: Option<OwnedFd>,
}

/// The calls that need more than a node.
#[derive(Debug)]
pub(crate) struct Host {
    /// The root, open for reading.
    root: OwnedFd,
    /// [`BENEATH`], where the kernel knows it.
    beneath: OFlags,
}

impl Host {
    /// Takes hold of the tree below `root`. Also returns the root as a node.
    ///
    /// That the tree is read-only makes no difference: macOS cannot be told to leave times of access alone.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is opened below takes the place of `root`, which is closed"
    )]
    pub(crate) fn new(
        root: OwnedFd,
        _read_only: bool,
    ) -> Result<(Self, Node), (Requirement, io::Errno)> {
        let needs = |error| (Requirement::Confinement, error);
        let node = root_node(&root).map_err(needs)?;
        // By its number, so that a volume without such a way is refused now.
        let root = node
            .open_again(OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(needs)?;
        let beneath = beneath(&root);
        Ok((Self { root, beneath }, node))
    }

    /// Finds `name` in the directory `parent`. A symbolic link is found, not followed.
    pub(crate) fn lookup(&self, parent: &Node, name: Name<'_>) -> Result<Node, Errno> {
        let seen = self.attributes_at(parent, name)?;
        let mut node = Node {
            identity: seen.identity,
            descriptor: None,
        };
        let flags = match seen.kind() {
            Kind::Special => return Ok(node),
            Kind::Directory => HANDLE | OFlags::DIRECTORY,
            Kind::Regular | Kind::Symlink => HANDLE,
        };
        let flags = flags | self.beneath;
        match rustix::fs::openat(parent.directory()?, name.as_c_str(), flags, Mode::empty()) {
            Ok(descriptor) => {
                let opened = Attributes::of(&rustix::fs::fstat(&descriptor)?);
                if (opened.identity, opened.kind()) != (seen.identity, seen.kind()) {
                    return Err(Errno::ESTALE);
                }
                node.descriptor = Some(descriptor);
                Ok(node)
            }
            Err(io::Errno::ACCESS | io::Errno::PERM) => Ok(node),
            Err(error) => Err(error.into()),
        }
    }

    /// The attributes of what [`Self::lookup`] would find, without a handle on it.
    pub(crate) fn attributes_at(&self, parent: &Node, name: Name<'_>) -> Result<Attributes, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(parent.directory()?, name.as_c_str(), flags)?;
        let attributes = Attributes::of(&stat);
        // One name, and no link followed: the only way out is through a mount point.
        if attributes.identity.device == parent.identity.device {
            Ok(attributes)
        } else {
            Err(Errno::EXDEV)
        }
    }

    /// Another handle on what `file` has open.
    pub(crate) fn node_of(&self, file: &File) -> Result<Node, Errno> {
        let mut node = Node {
            identity: Attributes::of(&rustix::fs::fstat(file)?).identity,
            descriptor: None,
        };
        // Not a copy of the file's descriptor: with that the file's `flock` would live on.
        match node.open_again(HANDLE) {
            Ok(descriptor) => node.descriptor = Some(descriptor),
            Err(io::Errno::ACCESS | io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(node)
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
        Directory::new(self.reopen(node, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// Whoever calls this has seen that `node` is a regular file or a directory; a node never changes its type.
    #[expect(clippy::unused_self, reason = "other systems need the host for it")]
    pub(super) fn reopen(&self, node: &Node, flags: OFlags) -> Result<OwnedFd, Errno> {
        Ok(node.open_again(flags | OPEN)?)
    }

    /// Makes all file systems durable: there is no call for one. The first begins it, the second waits for the drive.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        rustix::fs::sync();
        file::sync(self.root.as_fd())
    }
}

/// The directory that `root` is, by a descriptor of the right sort.
fn root_node(root: &OwnedFd) -> io::Result<Node> {
    let flags = HANDLE | OFlags::DIRECTORY;
    let descriptor = rustix::fs::openat(root, c".", flags, Mode::empty())?;
    Ok(Node {
        identity: Attributes::of(&rustix::fs::fstat(&descriptor)?).identity,
        descriptor: Some(descriptor),
    })
}

/// An older kernel takes the flag for nothing and opens what is above the root, for a moment.
fn beneath(root: &OwnedFd) -> OFlags {
    match rustix::fs::openat(root, c"..", HANDLE | BENEATH, Mode::empty()) {
        Err(NOT_CAPABLE) => BENEATH,
        _ => OFlags::empty(),
    }
}

impl Node {
    /// The node as the directory that calls by name begin at.
    pub(super) fn directory(&self) -> Result<BorrowedFd<'_>, Errno> {
        let descriptor = self.descriptor.as_ref().ok_or(Errno::EACCES)?;
        Ok(descriptor.as_fd())
    }

    /// Where the kernel finds the node by its number. Made for one call and forgotten.
    fn by_number(&self) -> String {
        let device = self.identity.device.1.cast_signed();
        format!("/.vol/{device}/{}", self.identity.inode)
    }

    fn open_again(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let opened = rustix::fs::openat(CWD, self.by_number(), flags, Mode::empty());
        let descriptor = opened.map_err(gone)?;
        let found = Attributes::of(&rustix::fs::fstat(&descriptor)?);
        if found.identity == self.identity {
            Ok(descriptor)
        } else {
            Err(io::Errno::STALE)
        }
    }

    /// The node's attributes now.
    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        if let Some(descriptor) = &self.descriptor {
            return Ok(Attributes::of(&rustix::fs::fstat(descriptor)?));
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let stat = rustix::fs::statat(CWD, self.by_number(), flags).map_err(gone)?;
        let found = Attributes::of(&stat);
        if found.identity == self.identity {
            Ok(found)
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// Sizes of the file system that holds the node.
    pub(crate) fn space(&self) -> Result<Space, Errno> {
        let stat = match &self.descriptor {
            Some(descriptor) => rustix::fs::fstatvfs(descriptor)?,
            None => rustix::fs::statvfs(self.by_number())?,
        };
        Ok(Space::of(&stat))
    }
}

/// What has no number any more is not the guest's idea of a missing name.
fn gone(error: io::Errno) -> io::Errno {
    match error {
        io::Errno::NOENT => io::Errno::STALE,
        other => other,
    }
}

impl Attributes {
    fn of(stat: &Stat) -> Self {
        let time = |seconds, nanos| Time {
            seconds,
            nanos: u32::try_from(nanos).unwrap_or(0),
        };
        Self {
            identity: Identity {
                device: (0, stat.st_dev.cast_unsigned()),
                inode: stat.st_ino,
            },
            mode: stat.st_mode.into(),
            links: stat.st_nlink.into(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            io_size: u32::try_from(stat.st_blksize).unwrap_or(0),
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
            born: Some(time(stat.st_birthtime, stat.st_birthtime_nsec)),
            layer: Layer::Only,
        }
    }
}
