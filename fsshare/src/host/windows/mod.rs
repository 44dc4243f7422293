//! Windows: nodes are handles for attributes only, and everything is opened relative to a handle.
//!
//! * A name is one component below a held directory (`NtCreateFile` with `RootDirectory`). Reparse points are opened themselves and never
//!   followed; junctions and mounted volumes, which lead elsewhere, are refused. Names that mean more to Windows than to a guest are refused
//!   before, see [`windows_names`](super::windows_names); one that may be a short form (`GIT~1`) must be what the directory itself lists
//!   under that very name.
//! * A node is opened for I/O by an empty name below its own handle, which is the same file whatever its name is now. That it is is checked: a
//!   file system in a network may take the handle for the name that it was opened by.
//! * A file's number is NTFS's, which carries how often it was used, and the volume's serial number.
//!
//! What Windows has not is refused: extended attributes, files without names, exchange of names, reserving and freeing of ranges, advisory
//! locks. Of permissions there is one, "read-only"; files have the guest owner's. Windows does not rename a directory while a handle on
//! something in it is held, be it this server's.
//!
//! The calls are those of Windows 10 and before; where a later one does better (removing a name at once, though the file is open), the older is
//! there for when it is unknown.

mod directory;
mod file;
mod sys;
#[cfg(test)]
mod tests;
mod tree;

use std::os::windows::io::{AsHandle as _, BorrowedHandle, OwnedHandle};

use windows_sys::Wdk::Storage::FileSystem as nt;
use windows_sys::Win32::Foundation::{STATUS_DIRECTORY_IS_A_REPARSE_POINT, STATUS_NOT_SUPPORTED};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_APPEND_DATA, FILE_LIST_DIRECTORY, FILE_READ_ATTRIBUTES, FILE_READ_DATA, FILE_WRITE_DATA,
};
use zerocopy::IntoBytes as _;

pub(crate) use directory::Directory;
pub(crate) use file::File;

use self::sys::{How, Status};
use super::windows_info::{self as info, All, FullSize, Tag, Volume};
use super::{Attributes, Kind, Requirement, Space, windows_names};
use crate::abi::{Name, OpenFlags};
use crate::errno::Errno;

/// Longest answer about one file, words: the structures that are asked for are shorter, names behind them are cut.
const ANSWER: usize = 32;

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    handle: OwnedHandle,
    kind: Kind,
    /// Its number in the volume.
    index: u64,
    /// Serial number of its volume.
    volume: u32,
}

/// How a file is to be opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccessMode {
    reads: bool,
    writes: bool,
    appends: bool,
    truncates: bool,
    syncs: bool,
}

impl AccessMode {
    /// For reading only.
    pub(crate) const READ: Self = Self {
        reads: true,
        writes: false,
        appends: false,
        truncates: false,
        syncs: false,
    };
    /// For writing only.
    pub(crate) const WRITE: Self = Self {
        reads: false,
        writes: true,
        ..Self::READ
    };
    /// For both.
    pub(crate) const BOTH: Self = Self {
        writes: true,
        ..Self::READ
    };

    /// What the guest asked for; see the same method for Linux.
    pub(crate) fn from_guest(flags: OpenFlags, client_caches_writes: bool) -> Self {
        let writes = flags.writes();
        Self {
            reads: !flags.contains(OpenFlags::WRONLY) || client_caches_writes,
            writes,
            appends: writes && flags.contains(OpenFlags::APPEND) && !client_caches_writes,
            truncates: flags.contains(OpenFlags::TRUNC),
            syncs: flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC),
        }
    }

    /// Whether what is opened so may be changed, or is by the open itself.
    pub(crate) fn changes(self) -> bool {
        self.writes || self.truncates
    }

    /// A file to which nothing may be written but at its end is kept so by the kernel.
    fn rights(self) -> u32 {
        let reads = if self.reads { FILE_READ_DATA } else { 0 };
        let writes = match (self.writes, self.appends) {
            (false, _) => 0,
            (true, true) => FILE_APPEND_DATA,
            (true, false) => FILE_WRITE_DATA | FILE_APPEND_DATA,
        };
        reads | writes | FILE_READ_ATTRIBUTES
    }

    fn options(self) -> u32 {
        let syncs = if self.syncs {
            nt::FILE_WRITE_THROUGH
        } else {
            0
        };
        nt::FILE_NON_DIRECTORY_FILE | syncs
    }
}

/// The calls that need more than a node. Windows needs nothing for them.
#[derive(Debug)]
pub(crate) struct Host(());

impl Host {
    /// Takes hold of the tree below `root`. Also returns the root as a node.
    ///
    /// That the tree is read-only makes no difference here: times of access are the volume's business.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what is opened below takes the place of `root`, which is closed"
    )]
    pub(crate) fn new(
        root: OwnedHandle,
        _read_only: bool,
    ) -> Result<(Self, Node), (Requirement, Status)> {
        let needs = |status| (Requirement::Confinement, status);
        let how = how(FILE_READ_ATTRIBUTES, nt::FILE_DIRECTORY_FILE);
        let handle = sys::open(root.as_handle(), &[], how).map_err(needs)?;
        let volume = serial(handle.as_handle()).map_err(needs)?;
        match Node::new(handle, volume) {
            Ok(node) if node.kind == Kind::Directory => Ok((Self(()), node)),
            _ => Err(needs(Status(STATUS_DIRECTORY_IS_A_REPARSE_POINT))),
        }
    }

    /// The user and group whose files are the guest owner's: all are.
    pub(crate) const fn owner() -> (u32, u32) {
        (0, 0)
    }

    /// How many handles this process may have: more than any share holds.
    pub(crate) const fn descriptor_limit() -> Option<u64> {
        None
    }

    /// Finds `name` in the directory `parent`. A symbolic link is found, not followed.
    #[expect(clippy::unused_self, reason = "other systems need the host for it")]
    pub(crate) fn lookup(&self, parent: &Node, name: Name<'_>) -> Result<Node, Errno> {
        find(parent, &known(name)?, FILE_READ_ATTRIBUTES)
    }

    /// The attributes of what [`Self::lookup`] would find.
    pub(crate) fn attributes_at(&self, parent: &Node, name: Name<'_>) -> Result<Attributes, Errno> {
        self.lookup(parent, name)?.attributes()
    }

    /// Opens a regular file for I/O. Anything else is refused.
    ///
    /// Also returns the attributes from before the open.
    #[expect(clippy::unused_self, reason = "other systems need the host for it")]
    pub(crate) fn open(&self, node: &Node, mode: AccessMode) -> Result<(File, Attributes), Errno> {
        match node.kind {
            Kind::Regular => {}
            Kind::Directory => return Err(Errno::EISDIR),
            Kind::Symlink => return Err(Errno::ELOOP),
            Kind::Special => return Err(Errno::EPERM),
        }
        let attributes = node.attributes()?;
        let handle = node.reopen(mode.rights(), mode.options())?;
        if mode.truncates {
            // What is opened may be for reading only, or for appending.
            let whole = node.reopen(FILE_WRITE_DATA, nt::FILE_NON_DIRECTORY_FILE)?;
            File::new(whole, true, false).set_size(0)?;
        }
        Ok((File::new(handle, mode.writes, mode.appends), attributes))
    }

    /// Opens a directory for listing.
    #[expect(clippy::unused_self, reason = "other systems need the host for it")]
    pub(crate) fn open_directory(&self, node: &Node) -> Result<Directory, Errno> {
        node.directory()?;
        Ok(Directory::new(
            node.reopen(FILE_LIST_DIRECTORY, nt::FILE_DIRECTORY_FILE)?,
        ))
    }

    /// Only an administrator may do that to a volume.
    #[expect(clippy::unused_self, reason = "other systems need the host for it")]
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

/// How to open what is there.
fn how(access: u32, options: u32) -> How {
    How {
        access,
        disposition: nt::FILE_OPEN,
        options,
        attributes: 0,
    }
}

/// The name of something that may be there. What Windows takes for something else is not.
fn known(name: Name<'_>) -> Result<Vec<u16>, Errno> {
    windows_names::to_host(name.as_c_str().to_bytes()).ok_or(Errno::ENOENT)
}

/// The name of something that is to be.
fn new(name: Name<'_>) -> Result<Vec<u16>, Errno> {
    windows_names::to_host(name.as_c_str().to_bytes()).ok_or(Errno::EINVAL)
}

/// Opens what has this name of its own in the directory.
fn find(parent: &Node, name: &[u16], access: u32) -> Result<Node, Errno> {
    let access = access | FILE_READ_ATTRIBUTES;
    let handle = sys::open(parent.directory()?, name, how(access, 0))?;
    let node = Node::new(handle, parent.volume)?;
    if windows_names::may_be_short(name) && !is_listed(parent, name, node.index)? {
        return Err(Errno::ENOENT);
    }
    Ok(node)
}

/// Whether the directory itself lists that file under that very name, and not another one of which the name is the short form.
fn is_listed(parent: &Node, name: &[u16], index: u64) -> Result<bool, Errno> {
    let directory = parent.reopen(FILE_LIST_DIRECTORY, nt::FILE_DIRECTORY_FILE)?;
    let mut answer = [0; 128];
    sys::list(directory.as_handle(), &mut answer, Some(name), true)?;
    let found = info::entry(answer.as_bytes())?;
    Ok(found.name == name && found.index == index)
}

fn kind_of(handle: BorrowedHandle<'_>) -> Result<Kind, Errno> {
    let mut answer = [0; ANSWER];
    sys::query(handle, nt::FileAttributeTagInformation, &mut answer)?;
    info::read::<Tag>(answer.as_bytes())?.kind()
}

fn serial(handle: BorrowedHandle<'_>) -> Result<u32, Status> {
    let mut answer = [0; ANSWER];
    sys::query_volume(handle, nt::FileFsVolumeInformation, &mut answer)?;
    let volume: Result<Volume, _> = info::read(answer.as_bytes());
    volume
        .map(|volume| volume.serial)
        .map_err(|_| Status(STATUS_NOT_SUPPORTED))
}

/// Three questions, because the one for all would also ask for the name, which a removed file has not.
fn all(handle: BorrowedHandle<'_>) -> Result<All, Errno> {
    let mut answer = [0_u64; size_of::<All>() / size_of::<u64>()];
    let mut rest = answer.as_mut_slice();
    let classes = [
        nt::FileBasicInformation,
        nt::FileStandardInformation,
        nt::FileInternalInformation,
    ];
    for (class, len) in classes.into_iter().zip(info::PARTS) {
        let (part, others) = rest.split_at_mut_checked(len).ok_or(Errno::EIO)?;
        sys::query(handle, class, part)?;
        rest = others;
    }
    info::read(answer.as_bytes())
}

/// The file's number in its volume.
fn index(handle: BorrowedHandle<'_>) -> Result<u64, Errno> {
    let mut answer = [0];
    sys::query(handle, nt::FileInternalInformation, &mut answer)?;
    let [index] = answer;
    Ok(index)
}

/// What has `handle` open, the file with that number, by another handle.
fn reopen(
    handle: BorrowedHandle<'_>,
    number: u64,
    access: u32,
    options: u32,
) -> Result<OwnedHandle, Errno> {
    let how = how(access | FILE_READ_ATTRIBUTES, options);
    let again = sys::open(handle, &[], how)?;
    if index(again.as_handle())? == number {
        Ok(again)
    } else {
        Err(Errno::ESTALE)
    }
}

impl Node {
    fn new(handle: OwnedHandle, volume: u32) -> Result<Self, Errno> {
        let kind = kind_of(handle.as_handle())?;
        let index = index(handle.as_handle())?;
        Ok(Self {
            handle,
            kind,
            index,
            volume,
        })
    }

    /// The node as the directory that names are looked up in.
    fn directory(&self) -> Result<BorrowedHandle<'_>, Errno> {
        if self.kind == Kind::Directory {
            Ok(self.handle.as_handle())
        } else {
            Err(Errno::ENOTDIR)
        }
    }

    /// The same file by another handle.
    fn reopen(&self, access: u32, options: u32) -> Result<OwnedHandle, Errno> {
        reopen(self.handle.as_handle(), self.index, access, options)
    }

    /// The node's attributes now.
    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        let all = all(self.handle.as_handle())?;
        let mut attributes = all.attributes(self.kind, self.volume);
        if self.kind == Kind::Symlink {
            // A file system has programs look there for the length of its text.
            attributes.size = tree::link_len(self)?;
        }
        Ok(attributes)
    }

    /// Sizes of the file system that holds the node.
    pub(crate) fn space(&self) -> Result<Space, Errno> {
        let mut answer = [0; ANSWER];
        let handle = self.handle.as_handle();
        sys::query_volume(handle, nt::FileFsFullSizeInformation, &mut answer)?;
        Ok(info::read::<FullSize>(answer.as_bytes())?.space())
    }
}
