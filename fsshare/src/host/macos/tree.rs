//! Changes to names and attributes.

use rustix::fs::{Access, AtFlags, CWD, OFlags, RenameFlags};

use super::{AccessMode, File, Host, Kind, Node, OPEN, gone};
use crate::abi::{Name, RenameMode};
use crate::errno::Errno;
use crate::host::unix::{permissions, timestamps};
use crate::host::{NewTime, SETTABLE_MODE};

impl Host {
    /// Makes a regular file and opens it; fails with `EEXIST` if the name is taken, by whatever, in whatever spelling.
    pub(crate) fn create(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
        access: AccessMode,
    ) -> Result<(File, Node), Errno> {
        let fresh = OFlags::CREATE | OFlags::EXCL | OPEN | self.beneath;
        let flags = (access.0 | fresh).difference(OFlags::TRUNC);
        let file = File::new(rustix::fs::openat(
            parent.directory()?,
            name.as_c_str(),
            flags,
            permissions(mode),
        )?);
        self.settle(file, mode)
    }

    /// There are no files without a name here.
    #[expect(clippy::unused_self, reason = "other systems have them")]
    pub(crate) fn create_unnamed(
        &self,
        _parent: &Node,
        _mode: u32,
        _access: AccessMode,
        _exclusive: bool,
    ) -> Result<(File, Node), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Gives `node` another name.
    pub(crate) fn link(&self, node: &Node, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        // What is linked must be the node, so it is looked at before; its number leads to nothing else while it is held.
        node.attributes()?;
        let target = parent.directory()?;
        let flags = AtFlags::empty();
        let linked = rustix::fs::linkat(CWD, node.by_number(), target, name.as_c_str(), flags);
        Ok(linked.map_err(gone)?)
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
        let mut flags = RenameFlags::empty();
        flags.set(RenameFlags::NOREPLACE, mode.contains(RenameMode::NOREPLACE));
        flags.set(RenameFlags::EXCHANGE, mode.contains(RenameMode::EXCHANGE));
        Ok(rustix::fs::renameat_with(
            from.0.directory()?,
            from.1.as_c_str(),
            to.0.directory()?,
            to.1.as_c_str(),
            flags,
        )?)
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, node: &Node, text: &mut Vec<u8>) -> Result<(), Errno> {
        if node.attributes()?.kind() != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        let read = rustix::fs::readlinkat(CWD, node.by_number(), std::mem::take(text));
        *text = read.map_err(gone)?.into_bytes();
        Ok(())
    }

    /// Sets permission bits; set-user-id and set-group-id are always taken away.
    pub(crate) fn set_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        // As on Linux, a link has no mode of its own.
        if node.attributes()?.kind() == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        let mode = permissions(mode & SETTABLE_MODE);
        Ok(match &node.descriptor {
            Some(descriptor) => rustix::fs::fchmod(descriptor, mode),
            None => rustix::fs::chmodat(CWD, node.by_number(), mode, AtFlags::empty()),
        }?)
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
        let allowed = rustix::fs::accessat(CWD, node.by_number(), access, AtFlags::EACCESS);
        Ok(allowed.map_err(gone)?)
    }
}

impl Node {
    /// Sets the time stamps.
    pub(crate) fn set_times(&self, accessed: NewTime, modified: NewTime) -> Result<(), Errno> {
        let times = timestamps(accessed, modified);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(match &self.descriptor {
            Some(descriptor) => rustix::fs::futimens(descriptor, &times),
            None => rustix::fs::utimensat(CWD, self.by_number(), &times, flags),
        }?)
    }
}
