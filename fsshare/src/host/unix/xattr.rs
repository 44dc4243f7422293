//! Extended attributes. The calls need an open file, so a node is opened for each.

use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, XattrFlags};

use crate::abi::{XattrMode, XattrName};
use crate::errno::Errno;
use crate::host::Kind;
use crate::host::os::{Host, Node};

impl Host {
    /// Reads an attribute into `buffer`; returns its length.
    pub(crate) fn get_xattr(
        &self,
        node: &Node,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        let file = self.carrier(node)?.ok_or(Errno::ENODATA)?;
        Ok(rustix::fs::fgetxattr(&file, name.as_c_str(), buffer)?)
    }

    /// Reads the names of all attributes, each with a NUL behind it, into `buffer`; returns their length.
    pub(crate) fn list_xattrs(&self, node: &Node, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self.carrier(node)? {
            Some(file) => Ok(rustix::fs::flistxattr(&file, buffer)?),
            None => Ok(0),
        }
    }

    /// Sets an attribute.
    pub(crate) fn set_xattr(
        &self,
        node: &Node,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        let file = self.carrier(node)?.ok_or(Errno::EPERM)?;
        let mut flags = XattrFlags::empty();
        flags.set(XattrFlags::CREATE, mode.contains(XattrMode::CREATE));
        flags.set(XattrFlags::REPLACE, mode.contains(XattrMode::REPLACE));
        Ok(rustix::fs::fsetxattr(&file, name.as_c_str(), value, flags)?)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&self, node: &Node, name: XattrName<'_>) -> Result<(), Errno> {
        let file = self.carrier(node)?.ok_or(Errno::EPERM)?;
        Ok(rustix::fs::fremovexattr(&file, name.as_c_str())?)
    }

    /// The node, opened, if it is of a type that has attributes of users: a regular file or a directory.
    fn carrier(&self, node: &Node) -> Result<Option<OwnedFd>, Errno> {
        let kind = node.attributes()?.kind();
        if matches!(kind, Kind::Symlink | Kind::Special) {
            return Ok(None);
        }
        match self.reopen(node, OFlags::RDONLY) {
            // A file that may be written but not read still takes attributes.
            Err(Errno::EACCES) if kind == Kind::Regular => {
                self.reopen(node, OFlags::WRONLY).map(Some)
            }
            opened => opened.map(Some),
        }
    }
}
