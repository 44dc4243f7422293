//! Operations on names in directories.

use super::Server;
use super::guard::End;
use super::inodes::Inode;
use super::scratch::{Answer, Scratch};
use crate::abi::{Name, RenameMode, Target, wire};
use crate::errno::Errno;
use crate::host::{AccessMode, Kind, Node};
use crate::rules::State;

use super::budget::Place;

impl Server {
    /// LOOKUP.
    pub(super) fn lookup(&self, parent: u64, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        self.find(&*self.inodes.get(parent)?, name)
    }

    /// Looks a name up.
    pub(super) fn find(&self, parent: &Inode, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        let judged = self.judge(parent, name);
        if judged.is_hidden() {
            return Err(Errno::ENOENT);
        }
        let node = self.host.lookup(&parent.node, name)?;
        let attributes = node.attributes()?;
        let state = judged.state(attributes.kind() == Kind::Directory);
        let inode = self.inodes.adopt(node, &attributes, state, None)?;
        Ok(self.entry_out(&inode, &attributes))
    }

    /// Gives the guest a node that was made for it.
    fn enter(&self, node: Node, state: State, place: Place) -> Result<wire::EntryOut, Errno> {
        let attributes = node.attributes()?;
        let inode = self.inodes.adopt(node, &attributes, state, Some(place))?;
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
        let state = self.may_make(&parent, name, false)?;
        let place = self.inodes.reserve()?;
        let (_, node) = self
            .host
            .create(&parent.node, name, mode, AccessMode::WRITE)?;
        self.enter(node, state, place)
    }

    /// MKDIR.
    pub(super) fn make_directory(
        &self,
        parent: u64,
        name: Name<'_>,
        mode: u32,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.inodes.get(parent)?;
        let state = self.may_make(&parent, name, true)?;
        let place = self.inodes.reserve()?;
        let node = self.host.make_directory(&parent.node, name, mode)?;
        self.enter(node, state, place)
    }

    /// SYMLINK.
    pub(super) fn make_symlink(
        &self,
        parent: u64,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.inodes.get(parent)?;
        let state = self.may_link(&parent, name)?;
        let place = self.inodes.reserve()?;
        let node = self.host.make_symlink(&parent.node, name, target)?;
        self.enter(node, state, place)
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
        let (inode, parent) = (
            self.inodes.get(node)?.changeable()?,
            self.inodes.get(parent)?,
        );
        if inode.node.attributes()?.kind() == Kind::Symlink {
            self.may_link(&parent, name)?;
        } else {
            self.may_make(&parent, name, false)?;
        }
        self.host.link(&inode.node, &parent.node, name)?;
        let attributes = inode.node.attributes()?;
        // The guest counts a lookup for the reply. The new name may already be someone else's; the node is not.
        let same = self.inodes.look_up_again(&inode)?;
        Ok(self.entry_out(&same, &attributes))
    }

    /// UNLINK.
    pub(super) fn unlink(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        let parent = self.inodes.get(parent)?;
        self.may_remove(&parent, name, false)?;
        self.host.unlink(&parent.node, name)
    }

    /// RMDIR.
    pub(super) fn remove_directory(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        let parent = self.inodes.get(parent)?;
        self.may_remove(&parent, name, true)?;
        self.host.remove_directory(&parent.node, name)
    }

    /// RENAME and RENAME2.
    pub(super) fn rename(
        &self,
        from: (u64, Name<'_>),
        to: (u64, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let (source, target) = (self.inodes.get(from.0)?, self.inodes.get(to.0)?);
        let end = |parent, name| End { parent, name };
        let checked = self.may_rename(end(&source, from.1), end(&target, to.1), mode)?;
        self.host
            .rename((&source.node, from.1), (&target.node, to.1), mode)?;
        checked.map_or(Ok(()), |node| self.freeze(&node))
    }
}
