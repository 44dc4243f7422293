//! Changes to names and attributes.

use std::os::windows::io::{AsHandle as _, BorrowedHandle};
use std::time::SystemTime;

use windows_sys::Wdk::Storage::FileSystem as nt;
use windows_sys::Win32::Foundation::{
    STATUS_INVALID_DEVICE_REQUEST, STATUS_INVALID_INFO_CLASS, STATUS_INVALID_PARAMETER,
    STATUS_NOT_IMPLEMENTED, STATUS_NOT_SUPPORTED,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_EXECUTE, FILE_READ_ATTRIBUTES, FILE_READ_DATA, FILE_WRITE_ATTRIBUTES,
    FILE_WRITE_DATA,
};
use zerocopy::IntoBytes as _;

use super::sys::{self, How, Status};
use super::{AccessMode, File, Host, Kind, Node, find, known, new};
use crate::abi::{Name, RenameMode, Target, XattrMode, XattrName};
use crate::errno::Errno;
use crate::host::windows_info::{self as info, Basic, Tag};
use crate::host::{NewTime, reparse, windows_names};

/// `FSCTL_GET_REPARSE_POINT`.
const GET_REPARSE_POINT: u32 = 0x0009_00A8;
/// `FSCTL_SET_REPARSE_POINT`.
const SET_REPARSE_POINT: u32 = 0x0009_00A4;
/// Longest data, bytes (`MAXIMUM_REPARSE_DATA_BUFFER_SIZE`).
const LONGEST_REPARSE_POINT: usize = 16 << 10;

/// Bits of `access`.
const MAY_EXECUTE: u32 = 1;
pub(super) const MAY_WRITE: u32 = 2;
pub(super) const MAY_READ: u32 = 4;

/// A removed name goes at once, though the file may be open, and also that of a read-only file, as it does on Linux.
const REMOVE: u32 = nt::FILE_DISPOSITION_DELETE
    | nt::FILE_DISPOSITION_POSIX_SEMANTICS
    | nt::FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE;
/// The same of a name that is replaced.
const REPLACE: u32 = nt::FILE_RENAME_REPLACE_IF_EXISTS
    | nt::FILE_RENAME_POSIX_SEMANTICS
    | nt::FILE_RENAME_IGNORE_READONLY_ATTRIBUTE;

#[expect(clippy::unused_self, reason = "other systems need the host for it")]
impl Host {
    /// Makes a regular file and opens it; fails with `EEXIST` if the name is taken, by whatever, in whatever spelling.
    pub(crate) fn create(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
        access: AccessMode,
    ) -> Result<(File, Node), Errno> {
        let how = How {
            access: access.rights(),
            disposition: nt::FILE_CREATE,
            options: access.options(),
            attributes: info::new_attributes(mode),
        };
        let handle = sys::open(parent.directory()?, &new(name)?, how)?;
        let file = handle.as_handle();
        let again = super::reopen(file, super::index(file)?, FILE_READ_ATTRIBUTES, 0)?;
        let node = Node::new(again, parent.volume)?;
        Ok((File::new(handle, access.writes, access.appends), node))
    }

    /// There are no files without a name here.
    pub(crate) fn create_unnamed(
        &self,
        _parent: &Node,
        _mode: u32,
        _access: AccessMode,
        _exclusive: bool,
    ) -> Result<(File, Node), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        parent: &Node,
        name: Name<'_>,
        _mode: u32,
    ) -> Result<Node, Errno> {
        let how = How {
            access: FILE_READ_ATTRIBUTES,
            disposition: nt::FILE_CREATE,
            options: nt::FILE_DIRECTORY_FILE,
            attributes: 0,
        };
        let handle = sys::open(parent.directory()?, &new(name)?, how)?;
        Node::new(handle, parent.volume)
    }

    /// Makes a symbolic link, of the sort that programs of the host do not follow. Nothing here ever follows it either.
    pub(crate) fn make_symlink(
        &self,
        parent: &Node,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<Node, Errno> {
        let name = new(name)?;
        let data = reparse::new_link(target.as_c_str().to_bytes()).ok_or(Errno::ENAMETOOLONG)?;
        let how = How {
            access: FILE_WRITE_DATA | FILE_WRITE_ATTRIBUTES | DELETE,
            disposition: nt::FILE_CREATE,
            options: nt::FILE_NON_DIRECTORY_FILE,
            attributes: 0,
        };
        let link = sys::open(parent.directory()?, &name, how)?;
        if let Err(status) = sys::control(link.as_handle(), SET_REPARSE_POINT, &data, &mut []) {
            // Half a link would be a file.
            remove(link.as_handle())?;
            return Err(status.into());
        }
        find(parent, &name, FILE_READ_ATTRIBUTES)
    }

    /// Gives `node` another name.
    pub(crate) fn link(&self, node: &Node, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        if node.kind == Kind::Directory {
            return Err(Errno::EPERM);
        }
        let file = node.reopen(FILE_WRITE_ATTRIBUTES, 0)?;
        let (directory, name) = (parent.directory()?, new(name)?);
        let class = nt::FileLinkInformation;
        Ok(sys::set_name(file.as_handle(), class, 0, directory, &name)?)
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let node = find(parent, &known(name)?, DELETE)?;
        if node.kind == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        remove(node.handle.as_handle())
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let node = find(parent, &known(name)?, DELETE)?;
        node.directory()?;
        remove(node.handle.as_handle())
    }

    /// Moves a name. Exchanging two is nothing that Windows does.
    pub(crate) fn rename(
        &self,
        from: (&Node, Name<'_>),
        to: (&Node, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        if !(mode - RenameMode::NOREPLACE).is_empty() {
            return Err(Errno::EINVAL);
        }
        let replaces = !mode.contains(RenameMode::NOREPLACE);
        let source = find(from.0, &known(from.1)?, DELETE)?;
        let name = new(to.1)?;
        if replaces {
            self.may_replace(&source, to.0, &name)?;
        }
        move_to(&source, to.0, &name, replaces)
    }

    /// Whether what has that name may make room for `source`. An empty directory does so here: Windows does not replace one.
    fn may_replace(&self, source: &Node, parent: &Node, name: &[u16]) -> Result<(), Errno> {
        // What only a short form leads to is not what the guest means, and would be replaced.
        let present = match find(parent, name, DELETE) {
            Ok(present) => present,
            Err(Errno::ENOENT) if windows_names::may_be_short(name) => {
                return match sys::open(
                    parent.directory()?,
                    name,
                    super::how(FILE_READ_ATTRIBUTES, 0),
                ) {
                    Ok(_) => Err(Errno::EEXIST),
                    Err(_) => Ok(()),
                };
            }
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        let is_same = source.attributes()?.identity == present.attributes()?.identity;
        match (source.kind, present.kind) {
            _ if is_same => Ok(()),
            (Kind::Directory, Kind::Directory) => remove(present.handle.as_handle()),
            (Kind::Directory, _) => Err(Errno::ENOTDIR),
            (_, Kind::Directory) => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, node: &Node, text: &mut Vec<u8>) -> Result<(), Errno> {
        if node.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        *text = link_text(node)?;
        Ok(())
    }

    /// Makes a regular file read-only or not. Of other permissions Windows knows nothing.
    pub(crate) fn set_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        match node.kind {
            Kind::Symlink => return Err(Errno::EOPNOTSUPP),
            Kind::Directory | Kind::Special => return Ok(()),
            Kind::Regular => {}
        }
        let basic = Basic::of_permissions(attributes(node)?, mode);
        set_basic(node, &basic)
    }

    /// There are no such bits.
    pub(crate) fn drop_privilege_bits(&self, _node: &Node) -> Result<(), Errno> {
        Ok(())
    }

    /// Whether this process may access the node so; `mask` as in `access`.
    pub(crate) fn may_access(&self, node: &Node, mask: u32) -> Result<(), Errno> {
        if mask & !(MAY_EXECUTE | MAY_WRITE | MAY_READ) != 0 {
            return Err(Errno::EINVAL);
        }
        if node.kind == Kind::Symlink {
            return Ok(());
        }
        let is_read_only = attributes(node)? & info::READ_ONLY != 0;
        if mask & MAY_WRITE != 0 && node.kind == Kind::Regular && is_read_only {
            return Err(Errno::EACCES);
        }
        let right = |bit, right| if mask & bit != 0 { right } else { 0 };
        let rights = right(MAY_READ, FILE_READ_DATA)
            | right(MAY_WRITE, FILE_WRITE_DATA)
            | right(MAY_EXECUTE, FILE_EXECUTE);
        node.reopen(rights, 0).map(drop)
    }

    /// Windows has others, which no program of a guest means. The guest's kernel does not ask again.
    pub(crate) fn get_xattr(
        &self,
        _node: &Node,
        _name: XattrName<'_>,
        _buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// As [`Self::get_xattr`].
    pub(crate) fn list_xattrs(&self, _node: &Node, _buffer: &mut [u8]) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }

    /// As [`Self::get_xattr`].
    pub(crate) fn set_xattr(
        &self,
        _node: &Node,
        _name: XattrName<'_>,
        _value: &[u8],
        _mode: XattrMode,
    ) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// As [`Self::get_xattr`].
    pub(crate) fn remove_xattr(&self, _node: &Node, _name: XattrName<'_>) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

impl Node {
    /// Sets the time stamps.
    pub(crate) fn set_times(&self, accessed: NewTime, modified: NewTime) -> Result<(), Errno> {
        let basic = Basic::of_times(accessed, modified, SystemTime::now())?;
        set_basic(self, &basic)
    }
}

fn set_basic(node: &Node, basic: &Basic) -> Result<(), Errno> {
    let file = node.reopen(FILE_WRITE_ATTRIBUTES, 0)?;
    let mut value = [0_u64; size_of::<Basic>() / size_of::<u64>()];
    value.as_mut_bytes().copy_from_slice(basic.as_bytes());
    Ok(sys::set(
        file.as_handle(),
        nt::FileBasicInformation,
        &value,
    )?)
}

fn attributes(node: &Node) -> Result<u32, Errno> {
    let mut answer = [0; 1];
    let class = nt::FileAttributeTagInformation;
    sys::query(node.handle.as_handle(), class, &mut answer)?;
    Ok(info::read::<Tag>(answer.as_bytes())?.attributes)
}

/// The file system, or this Windows, knows no such thing.
fn is_unknown(status: Status) -> bool {
    matches!(
        status.0,
        STATUS_INVALID_INFO_CLASS
            | STATUS_INVALID_PARAMETER
            | STATUS_NOT_SUPPORTED
            | STATUS_NOT_IMPLEMENTED
            | STATUS_INVALID_DEVICE_REQUEST
    )
}

/// Removes the name by which the file was opened.
fn remove(file: BorrowedHandle<'_>) -> Result<(), Errno> {
    match sys::set(file, nt::FileDispositionInformationEx, &[REMOVE.into()]) {
        Err(status) if is_unknown(status) => {
            Ok(sys::set(file, nt::FileDispositionInformation, &[1])?)
        }
        done => Ok(done?),
    }
}

fn move_to(source: &Node, parent: &Node, name: &[u16], replaces: bool) -> Result<(), Errno> {
    let (file, directory) = (source.handle.as_handle(), parent.directory()?);
    let flags = if replaces { REPLACE } else { 0 };
    match sys::set_name(file, nt::FileRenameInformationEx, flags, directory, name) {
        Err(status) if is_unknown(status) => {
            let class = nt::FileRenameInformation;
            Ok(sys::set_name(
                file,
                class,
                replaces.into(),
                directory,
                name,
            )?)
        }
        done => Ok(done?),
    }
}

/// The length of a symbolic link's text, bytes.
pub(super) fn link_len(node: &Node) -> Result<u64, Errno> {
    Ok(link_text(node)?.len() as u64)
}

fn link_text(node: &Node) -> Result<Vec<u8>, Errno> {
    let mut answer = vec![0_u64; LONGEST_REPARSE_POINT / size_of::<u64>()];
    let len = sys::control(node.handle.as_handle(), GET_REPARSE_POINT, &[], &mut answer)?;
    let data = answer.as_bytes().get(..len).ok_or(Errno::EIO)?;
    reparse::link_text(data).ok_or(Errno::EIO)
}
