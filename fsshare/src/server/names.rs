//! Operations on names in directories.

use std::sync::Arc;

use super::Server;
use super::guard::End;
use super::inodes::{Found, Inode};
use super::scratch::{Answer, Scratch};
use crate::abi::{Name, RenameMode, Target, wire};
use crate::errno::Errno;
use crate::host::{AccessMode, Kind, Node};
use crate::rules::{Judgement, State};

use super::budget::Place;

impl Server {
    /// LOOKUP.
    pub(super) fn lookup(&self, parent: u64, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        let parent = self.node(parent)?;
        self.watch(&parent);
        match self.find(&parent, name) {
            Err(Errno::ENOENT) if !self.cache.absence.is_zero() => Ok(self.absent()),
            found => found,
        }
    }

    /// Has the directory watched, unless it is.
    pub(super) fn watch(&self, directory: &Inode) {
        if let Some(watch) = &self.watch
            && directory.begins_to_be_watched()
        {
            self.host.watch(&directory.node, watch);
        }
    }

    /// Looks a name up.
    pub(super) fn find(&self, parent: &Inode, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        let judged = self.judge(parent, name);
        if judged.is_hidden() {
            self.tell_hidden(parent, name);
            return Err(Errno::ENOENT);
        }
        let node = self.host.lookup(&parent.node, name)?;
        let attributes = node.attributes()?;
        let found = Found {
            attributes: &attributes,
            state: judged.state(attributes.kind() == Kind::Directory),
            at: Some((parent, name)),
        };
        let id = self.inodes.enter(Some(node), &found, None)?;
        Ok(self.entry_out(id, &attributes, Some(parent)))
    }

    /// As [`Self::find`], for a name that is known not to be hidden and of which the guest may never make use: no handle is held.
    pub(super) fn find_in_passing(
        &self,
        parent: &Inode,
        name: Name<'_>,
        judged: Judgement,
    ) -> Result<wire::EntryOut, Errno> {
        let attributes = self.host.attributes_at(&parent.node, name)?;
        if attributes.born.is_none() {
            // Without a handle nobody could tell it from another file that gets its number.
            return self.find(parent, name);
        }
        let found = Found {
            attributes: &attributes,
            state: judged.state(attributes.kind() == Kind::Directory),
            at: Some((parent, name)),
        };
        let id = self.inodes.enter(None, &found, None)?;
        Ok(self.entry_out(id, &attributes, Some(parent)))
    }

    /// Gives the guest a node that was made for it.
    fn enter(
        &self,
        node: Node,
        at: (&Inode, Name<'_>),
        state: State,
        place: Place,
    ) -> Result<wire::EntryOut, Errno> {
        let attributes = node.attributes()?;
        let found = Found {
            attributes: &attributes,
            state,
            at: Some(at),
        };
        let id = self.inodes.enter(Some(node), &found, Some(place))?;
        Ok(self.entry_out(id, &attributes, Some(at.0)))
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
        let parent = self.node(parent)?;
        let state = self.may_make(&parent, name, false)?;
        let parent = self.own(parent)?;
        let place = self.inodes.reserve()?;
        let charge = self.charge_inode()?;
        self.note_name(&parent, name);
        let (_, node) = self
            .host
            .create(&parent.node, name, mode, AccessMode::WRITE)?;
        charge.keep();
        self.enter(node, (&parent, name), state, place)
    }

    /// MKDIR.
    pub(super) fn make_directory(
        &self,
        parent: u64,
        name: Name<'_>,
        mode: u32,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.node(parent)?;
        let state = self.may_make(&parent, name, true)?;
        let parent = self.own(parent)?;
        let place = self.inodes.reserve()?;
        let charge = self.charge_inode()?;
        self.note_name(&parent, name);
        let node = self.host.make_directory(&parent.node, name, mode)?;
        charge.keep();
        self.enter(node, (&parent, name), state, place)
    }

    /// SYMLINK.
    pub(super) fn make_symlink(
        &self,
        parent: u64,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<wire::EntryOut, Errno> {
        let parent = self.node(parent)?;
        let state = self.may_link(&parent, name)?;
        let parent = self.own(parent)?;
        let place = self.inodes.reserve()?;
        let charge = self.charge_inode()?;
        self.note_name(&parent, name);
        let node = self.host.make_symlink(&parent.node, name, target)?;
        charge.keep();
        self.enter(node, (&parent, name), state, place)
    }

    /// READLINK.
    pub(super) fn read_link(&self, node: u64, scratch: &mut Scratch) -> Result<Answer, Errno> {
        self.host
            .read_link(&self.node(node)?.node, &mut scratch.structures)?;
        Ok(Answer::Structures)
    }

    /// LINK. Both ends are nodes of this share, so no name outside can come in.
    pub(super) fn link(
        &self,
        node: u64,
        parent: u64,
        name: Name<'_>,
    ) -> Result<wire::EntryOut, Errno> {
        let (inode, parent) = (self.node(node)?, self.node(parent)?);
        // Under another name a rule would not know it.
        if inode.state().is_guarded() {
            return Err(Errno::EPERM);
        }
        if inode.node.attributes()?.kind() == Kind::Symlink {
            self.may_link(&parent, name)?;
        } else {
            self.may_make(&parent, name, false)?;
        }
        // What is written by the new name from now on is written by the old one, too.
        self.note_node(&inode);
        let (inode, parent) = (self.own(inode)?, self.own(parent)?);
        self.note_name(&parent, name);
        self.host.link(&inode.node, &parent.node, name)?;
        let attributes = inode.node.attributes()?;
        // The guest counts a lookup for the reply. The new name may already be someone else's; the node is not.
        self.inodes.look_up_again(&inode)?;
        self.inodes.named(inode.identity(), &parent, name);
        Ok(self.entry_out(inode.id, &attributes, Some(&parent)))
    }

    /// UNLINK.
    pub(super) fn unlink(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        let parent = self.node(parent)?;
        self.may_remove(&parent, name, false)?;
        let parent = self.own_for_removal(parent, name)?;
        self.note_name(&parent, name);
        let victim = self.hold(&parent, name);
        // By another of its names, if it has one, the file may be changed still.
        if let Some(victim) = &victim {
            self.note_node(victim);
        }
        self.host.unlink(&parent.node, name)?;
        self.lost(victim);
        Ok(())
    }

    /// RMDIR.
    pub(super) fn remove_directory(&self, parent: u64, name: Name<'_>) -> Result<(), Errno> {
        let parent = self.node(parent)?;
        self.may_remove(&parent, name, true)?;
        let parent = self.own_for_removal(parent, name)?;
        self.note_removal(&parent, name);
        let victim = self.hold(&parent, name);
        self.host.remove_directory(&parent.node, name)?;
        self.lost(victim);
        Ok(())
    }

    /// What is there now, if the guest holds it. While it is held, nothing else gets its number.
    fn hold(&self, parent: &Inode, name: Name<'_>) -> Option<Arc<Inode>> {
        let attributes = self.host.attributes_at(&parent.node, name).ok()?;
        let known = self.inodes.known(&self.host, attributes.identity);
        if known.is_some() || self.usage.is_none() {
            return known;
        }
        // What it takes is given back by its node's end, so there must be one. By now the name may be another file's.
        let node = self.host.lookup(&parent.node, name).ok()?;
        let attributes = node.attributes().ok()?;
        let is_directory = attributes.kind() == Kind::Directory;
        let found = Found {
            attributes: &attributes,
            state: self.judge(parent, name).state(is_directory),
            at: Some((parent, name)),
        };
        let id = self.inodes.enter(Some(node), &found, None).ok()?;
        let held = self.inodes.get(&self.host, id).ok();
        self.inodes.forget(id, 1);
        held
    }

    fn lost(&self, victim: Option<Arc<Inode>>) {
        if let Some(victim) = victim {
            self.inodes.unnamed(victim.identity());
        }
    }

    /// RENAME and RENAME2.
    pub(super) fn rename(
        &self,
        from: (u64, Name<'_>),
        to: (u64, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let (source, target) = (self.node(from.0)?, self.node(to.0)?);
        if self.host.is_overlay() {
            // Nothing is copied, nor told by what a copy takes, that the rules keep where it is.
            self.may_rename(End::new(&source, from.1), End::new(&target, to.1), mode)?;
        }
        let (source, target) = self.own_for_rename((source, from.1), (target, to.1), mode)?;
        let ends = (End::new(&source, from.1), End::new(&target, to.1));
        let checked = self.may_rename(ends.0, ends.1, mode)?;
        self.note_name(&source, from.1);
        self.note_name(&target, to.1);
        // What is moved is found by its new name from now on, also if it could not be held.
        let moved = self.host.attributes_at(&source.node, from.1).ok();
        let (_held, replaced) = (self.hold(&source, from.1), self.hold(&target, to.1));
        if let Some(replaced) = &replaced {
            self.note_node(replaced);
        }
        self.host
            .rename((&source.node, from.1), (&target.node, to.1), mode)?;
        let is_exchange = mode.contains(RenameMode::EXCHANGE);
        if is_exchange || moved.is_some_and(|moved| moved.kind() == Kind::Directory) {
            self.note_moved((&source, from.1), (&target, to.1), is_exchange);
        }
        match replaced {
            Some(other) if is_exchange => {
                self.inodes.named(other.identity(), &source, from.1);
            }
            other => self.lost(other),
        }
        if let Some(moved) = moved {
            self.inodes.named(moved.identity, &target, to.1);
        }
        checked.map_or(Ok(()), |node| self.freeze(&node))
    }
}
