//! Operations on names in directories.

use super::Server;
use super::scratch::{Answer, Scratch};
use crate::abi::{Name, RenameMode, Target, wire};
use crate::errno::Errno;
use crate::host::{AccessMode, Kind, Node};

use super::budget::Place;

impl Server {
    /// LOOKUP.
    pub(super) fn lookup(&self, parent: u64, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        let node = self.host.lookup(&self.inodes.get(parent)?.node, name)?;
        self.enter(node, None)
    }

    /// Gives the guest a node. `place` was taken beforehand if the node was made for it.
    pub(super) fn enter(&self, node: Node, place: Option<Place>) -> Result<wire::EntryOut, Errno> {
        let attributes = node.attributes()?;
        let inode = self.inodes.adopt(node, &attributes, place)?;
        Ok(self.entry_out(&inode, &attributes))
    }

    /// MKNOD: regular files only. Devices, FIFOs and sockets would be doors into the host.
    pub(super) fn make_node(
        &self,
        parent: u64,
        name: Name<'_>,
        mode: u32,
    ) -> Result<wire::EntryOut, Errno> {
        if Kind::of_mode(mode) != Kind::Regular {
            return Err(Errno::EPERM);
        }
        let parent = self.inodes.get(parent)?;
        let place = self.inodes.reserve()?;
        let (_, node) = self
            .host
            .create(&parent.node, name, mode, AccessMode::WRITE)?;
        self.enter(node, Some(place))
    }

    /// MKDIR.
    pub(super) fn make_directory(
        &self,
        parent: u64,
        name: Name<'_>,
        mode: u32,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.inodes.get(parent)?;
        let place = self.inodes.reserve()?;
        self.enter(
            self.host.make_directory(&parent.node, name, mode)?,
            Some(place),
        )
    }

    /// SYMLINK.
    pub(super) fn make_symlink(
        &self,
        parent: u64,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.inodes.get(parent)?;
        let place = self.inodes.reserve()?;
        self.enter(
            self.host.make_symlink(&parent.node, name, target)?,
            Some(place),
        )
    }

    /// READLINK.
    pub(super) fn read_link(&self, node: u64, scratch: &mut Scratch) -> Result<Answer, Errno> {
        self.host
            .read_link(&self.inodes.get(node)?.node, &mut scratch.structures)?;
        Ok(Answer::Structures)
    }

    /// LINK. Both ends are nodes of this share, so no name outside can come in.
    pub(super) fn link(
        &self,
        node: u64,
        parent: u64,
        name: Name<'_>,
    ) -> Result<wire::EntryOut, Errno> {
        let (inode, parent) = (self.inodes.get(node)?, self.inodes.get(parent)?);
        self.host.link(&inode.node, &parent.node, name)?;
        let attributes = inode.node.attributes()?;
        // The guest counts a lookup for the reply. The new name may already be someone else's; the node is not.
        let same = self.inodes.look_up_again(&inode)?;
        Ok(self.entry_out(&same, &attributes))
    }

    /// UNLINK.
    pub(super) fn unlink(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        self.host.unlink(&self.inodes.get(parent)?.node, name)
    }

    /// RMDIR.
    pub(super) fn remove_directory(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        self.host
            .remove_directory(&self.inodes.get(parent)?.node, name)
    }

    /// RENAME and RENAME2.
    pub(super) fn rename(
        &self,
        from: (u64, Name<'_>),
        to: (u64, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let (source, target) = (self.inodes.get(from.0)?, self.inodes.get(to.0)?);
        self.host
            .rename((&source.node, from.1), (&target.node, to.1), mode)
    }
}
