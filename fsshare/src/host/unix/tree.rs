//! Changes to names and attributes that both systems make by the same calls.

use rustix::fs::{AtFlags, Mode, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::File;
use crate::abi::{Name, Target};
use crate::errno::Errno;
use crate::host::os::{Host, Node};
use crate::host::{Kind, NewTime, SETTABLE_MODE};

impl Host {
    /// The node of a file that was made.
    pub(in crate::host) fn settle(&self, file: File, mode: u32) -> Result<(File, Node), Errno> {
        let node = self.node_of(&file)?;
        self.grant(&node, mode)?;
        Ok((file, node))
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
    ) -> Result<Node, Errno> {
        rustix::fs::mkdirat(parent.directory()?, name.as_c_str(), permissions(mode))?;
        let node = self.lookup(parent, name)?;
        // Someone on the host may have put something else there meanwhile; its mode is not ours to set.
        if node.attributes()?.kind() == Kind::Directory {
            self.grant(&node, mode)?;
        }
        Ok(node)
    }

    /// Gives a new node the bits that the guest asked for and that this process's `umask` took away.
    fn grant(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        let wanted = mode & 0o777;
        if node.attributes()?.mode & 0o777 == wanted {
            Ok(())
        } else {
            self.set_mode(node, mode)
        }
    }

    /// Makes a symbolic link. Nothing here ever follows it.
    pub(crate) fn make_symlink(
        &self,
        parent: &Node,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<Node, Errno> {
        rustix::fs::symlinkat(target.as_c_str(), parent.directory()?, name.as_c_str())?;
        self.lookup(parent, name)
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        Ok(rustix::fs::unlinkat(
            parent.directory()?,
            name.as_c_str(),
            AtFlags::empty(),
        )?)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        Ok(rustix::fs::unlinkat(
            parent.directory()?,
            name.as_c_str(),
            AtFlags::REMOVEDIR,
        )?)
    }

    /// Takes set-user-id and set-group-id away from a regular file that has them.
    pub(crate) fn drop_privilege_bits(&self, node: &Node) -> Result<(), Errno> {
        let attributes = node.attributes()?;
        if attributes.has_privilege_bits() {
            self.set_mode(node, attributes.mode)
        } else {
            Ok(())
        }
    }
}

pub(in crate::host) fn timestamps(accessed: NewTime, modified: NewTime) -> Timestamps {
    Timestamps {
        last_access: timespec(accessed),
        last_modification: timespec(modified),
    }
}

fn timespec(time: NewTime) -> Timespec {
    let (tv_sec, tv_nsec) = match time {
        NewTime::Keep => (0, UTIME_OMIT),
        NewTime::Now => (0, UTIME_NOW),
        NewTime::At(at) => (at.seconds, at.nanos.into()),
    };
    Timespec { tv_sec, tv_nsec }
}

#[cfg_attr(
    target_os = "linux",
    expect(clippy::useless_conversion, reason = "macOS has 16 bits of mode")
)]
pub(in crate::host) fn permissions(mode: u32) -> Mode {
    Mode::from_bits_truncate((mode & SETTABLE_MODE).try_into().unwrap_or(0))
}
