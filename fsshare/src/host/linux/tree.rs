//! Changes to names and attributes.

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags};
use rustix::path::DecInt;

use super::{AccessMode, CONFINED, File, Host, Kind, Node, OPEN};
use crate::abi::{Name, RenameMode};
use crate::errno::Errno;
use crate::host::unix::{permissions, timestamps};
use crate::host::{NewTime, OPAQUE, SETTABLE_MODE};

/// What a new file may not have: an old content, an old type, or an open that waits.
const FRESH: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW);

impl Host {
    /// Makes a regular file and opens it; fails with `EEXIST` if the name is taken, by whatever.
    pub(crate) fn create(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
        access: AccessMode,
    ) -> Result<(File, Node), Errno> {
        let flags = (access.0 | FRESH | OPEN).difference(OFlags::TRUNC);
        let file = File::new(rustix::fs::openat2(
            parent,
            name.as_c_str(),
            flags,
            permissions(mode),
            CONFINED,
        )?);
        self.settle(file, mode)
    }

    /// Makes a regular file without a name. It can get one by [`Host::link`] unless `exclusive`.
    pub(crate) fn create_unnamed(
        &self,
        parent: &Node,
        mode: u32,
        access: AccessMode,
        exclusive: bool,
    ) -> Result<(File, Node), Errno> {
        let mut flags = (access.0 | OFlags::TMPFILE | OPEN).difference(OFlags::TRUNC);
        flags.set(OFlags::EXCL, exclusive);
        let file = File::new(rustix::fs::openat2(
            parent,
            c".",
            flags,
            permissions(mode),
            CONFINED,
        )?);
        self.settle(file, mode)
    }

    /// Makes a FIFO, which stands for something and is never opened.
    pub(crate) fn make_fifo(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let mode = Mode::RUSR;
        Ok(rustix::fs::mknodat(
            parent,
            name.as_c_str(),
            FileType::Fifo,
            mode,
            0,
        )?)
    }

    /// Gives `node` another name.
    pub(crate) fn link(&self, node: &Node, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        // By way of the descriptor's own link: an empty path would need a capability.
        let source = DecInt::from_fd(node);
        Ok(rustix::fs::linkat(
            &self.descriptors,
            source,
            parent,
            name.as_c_str(),
            AtFlags::SYMLINK_FOLLOW,
        )?)
    }

    /// Moves or exchanges names. Whiteouts are device nodes, so they are refused.
    pub(crate) fn rename(
        &self,
        from: (&Node, Name<'_>),
        to: (&Node, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        if mode.contains(RenameMode::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let flags = rustix::fs::RenameFlags::from_bits_truncate(mode.bits());
        Ok(rustix::fs::renameat_with(
            from.0,
            from.1.as_c_str(),
            to.0,
            to.1.as_c_str(),
            flags,
        )?)
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, node: &Node, text: &mut Vec<u8>) -> Result<(), Errno> {
        if node.attributes()?.kind() != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        let read = rustix::fs::readlinkat(node, c"", std::mem::take(text))?;
        *text = read.into_bytes();
        Ok(())
    }

    /// Sets permission bits; set-user-id and set-group-id are always taken away.
    pub(crate) fn set_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        // A link has no mode of its own; whether the host lets one be set depends on its version.
        if node.attributes()?.kind() == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        self.change_mode(node, mode & SETTABLE_MODE)
    }

    /// Sets the permission bits of a directory that is to be [opaque](super::Attributes::is_opaque).
    pub(crate) fn set_opaque_mode(&self, directory: &Node, mode: u32) -> Result<(), Errno> {
        if directory.attributes()?.kind() != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        self.change_mode(directory, mode & SETTABLE_MODE | OPAQUE)
    }

    fn change_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_bits_truncate(mode);
        Ok(rustix::fs::chmodat(
            &self.descriptors,
            DecInt::from_fd(node),
            mode,
            AtFlags::empty(),
        )?)
    }

    /// Whether this process may access the node so; `mask` as in `access`.
    pub(crate) fn may_access(&self, node: &Node, mask: u32) -> Result<(), Errno> {
        if node.attributes()?.kind() == Kind::Symlink {
            return Ok(());
        }
        let access = u8::try_from(mask)
            .ok()
            .and_then(|bits| Access::from_bits(bits.into()))
            .ok_or(Errno::EINVAL)?;
        Ok(rustix::fs::accessat(
            &self.descriptors,
            DecInt::from_fd(node),
            access,
            AtFlags::EACCESS,
        )?)
    }
}

impl Node {
    /// Sets the time stamps.
    pub(crate) fn set_times(&self, accessed: NewTime, modified: NewTime) -> Result<(), Errno> {
        Ok(rustix::fs::utimensat(
            self,
            c"",
            &timestamps(accessed, modified),
            AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}
