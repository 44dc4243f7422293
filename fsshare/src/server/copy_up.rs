//! In an overlay: what the guest is about to change becomes the overlay's own first.
//!
//! A node keeps its number when it is copied up; a file becomes another file on the host, and what the guest has open of it is opened anew.
//! Nobody else may be half-way through something with the node meanwhile, so such a request runs alone.

use std::sync::Arc;

use super::Server;
use super::inodes::{Inode, LONGEST_WAY};
use super::quota::{Added, Charge};
use crate::abi::{Name, Operation, RenameMode, Request};
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, Identity, Kind, Layer, Node};

impl Server {
    /// Whether the request may have to copy something up.
    pub(super) fn copies_up(&self, request: &Request<'_>) -> bool {
        if !self.host.is_overlay() || !request.operation.changes() {
            return false;
        }
        match request.operation {
            // Whoever may write has opened the file, which was copied up then.
            Operation::Write { .. }
            | Operation::Fallocate { .. }
            | Operation::CopyFileRange { .. }
            | Operation::Access { .. } => false,
            Operation::Open { .. } => {
                let node = self.node(request.node);
                !node.is_ok_and(|inode| inode.node.is_own())
            }
            _ => true,
        }
    }

    /// The node, to be changed: itself, or what it is after it was copied up, together with the directories that lead to it. A file comes with its
    /// content, also if that is about to go: what follows may yet be refused.
    pub(super) fn own(&self, inode: Arc<Inode>) -> Result<Arc<Inode>, Errno> {
        if inode.node.is_own() {
            return Ok(inode);
        }
        // Since the caller asked for it, it may have been copied up, as the directory of something else.
        let mut above = self.node(inode.id)?;
        let mut below = Vec::new();
        while !above.node.is_own() {
            if below.len() == LONGEST_WAY {
                return Err(Errno::ESTALE);
            }
            let (parent, name) = self.inodes.origin(above.id)?;
            below.push((above, name));
            above = self.node(parent)?;
        }
        while let Some((lower, name)) = below.pop() {
            let name = Name::new(&name).map_err(|_| Errno::ESTALE)?;
            let node = self.copy_up(&above, name, lower.identity())?;
            above = self.become_own(lower.id, node)?;
        }
        Ok(above)
    }

    /// The directory, from which `name` is about to be removed.
    pub(super) fn own_for_removal(
        &self,
        parent: Arc<Inode>,
        name: Name<'_>,
    ) -> Result<Arc<Inode>, Errno> {
        if !self.host.is_overlay() {
            return Ok(parent);
        }
        let victim = self.host.attributes_at(&parent.node, name)?;
        let parent = self.own(parent)?;
        self.record(&parent, name, &victim)?;
        Ok(parent)
    }

    /// The directories, between which something is about to be renamed, which is copied up, too.
    pub(super) fn own_for_rename(
        &self,
        from: (Arc<Inode>, Name<'_>),
        to: (Arc<Inode>, Name<'_>),
        mode: RenameMode,
    ) -> Result<(Arc<Inode>, Arc<Inode>), Errno> {
        if !self.host.is_overlay() {
            return Ok((from.0, to.0));
        }
        self.host.attributes_at(&from.0.node, from.1)?;
        let source = self.own(from.0)?;
        let target = self.own(to.0)?;
        self.own_child(&source, from.1)?;
        if mode.contains(RenameMode::EXCHANGE) {
            self.own_child(&target, to.1)?;
            return Ok((source, target));
        }
        match self.host.attributes_at(&target.node, to.1) {
            Ok(replaced) => self.record(&target, to.1, &replaced)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok((source, target))
    }

    /// Copies a file or symbolic link up, whether the guest holds it or not.
    fn own_child(&self, parent: &Inode, name: Name<'_>) -> Result<(), Errno> {
        let attributes = self.host.attributes_at(&parent.node, name)?;
        if attributes.layer != Layer::Lower || attributes.kind() == Kind::Directory {
            return Ok(());
        }
        let identity = attributes.identity;
        let node = self.copy_up(parent, name, identity)?;
        let is_here = |id: &u64| {
            let origin = self.inodes.origin(*id);
            origin.is_ok_and(|(at, known)| at == parent.id && *known == *name.as_c_str())
        };
        // Of a file with several names the others stay what they were.
        match self.inodes.id_of(identity).filter(is_here) {
            Some(id) => self.become_own(id, node).map(drop),
            None => Ok(()),
        }
    }

    fn copy_up(&self, parent: &Inode, name: Name<'_>, expected: Identity) -> Result<Node, Errno> {
        let attributes = self.host.attributes_at(&parent.node, name)?;
        let charge = self.charge_copy(&attributes)?;
        self.record(parent, name, &attributes)?;
        let node = self.host.copy_up(&parent.node, name, expected)?;
        charge.keep();
        Ok(node)
    }

    fn charge_copy(&self, attributes: &Attributes) -> Result<Charge<'_>, Errno> {
        let has_content = attributes.kind() == Kind::Regular;
        let bytes = if has_content { attributes.size } else { 0 };
        match &self.usage {
            Some(usage) => usage.charge(Added { bytes, inodes: 1 }),
            None => Ok(Charge::none()),
        }
    }

    fn become_own(&self, id: u64, node: Node) -> Result<Arc<Inode>, Errno> {
        let inode = self.inodes.replace(id, node)?;
        let node = &inode.node;
        if node.attributes()?.kind() == Kind::Directory {
            self.directories.reopen(&inode, || {
                let directory = self.host.open_directory(node)?;
                Ok(directory.resumed())
            });
        } else {
            // What is open for writing was copied up before.
            self.files.reopen(&inode, || {
                let (file, _) = self.host.open(node, AccessMode::READ)?;
                Ok(file)
            });
        }
        Ok(inode)
    }

    /// Writes down what the host has by a name that is the host's as yet.
    fn record(&self, parent: &Inode, name: Name<'_>, attributes: &Attributes) -> Result<(), Errno> {
        let Some(origins) = self.origins.as_ref() else {
            return Ok(());
        };
        if attributes.layer != Layer::Lower {
            return Ok(());
        }
        origins.record(&self.path_of(parent, name)?, attributes)
    }
}
