//! What is written down of the guest's changes to the host's own tree.

use super::Server;
use super::inodes::Inode;
use crate::abi::Name;
use crate::errno::Errno;

impl Server {
    /// The guest is about to change the node.
    pub(super) fn note_node(&self, inode: &Inode) {
        if let Some(journal) = &self.journal
            && let Ok(path) = self.inodes.whole_path(inode.id)
            && let Ok(present) = inode.node.attributes()
        {
            journal.note(path.strip_prefix(b"/").unwrap_or(&path), Some(&present));
        }
    }

    /// The guest is about to make something of that name, to take it away, or to give it to something else. Only the first note of a name counts,
    /// and another thread may ask about it at any time: after the deed it would be too late.
    pub(super) fn note_name(&self, parent: &Inode, name: Name<'_>) {
        if let Some(journal) = &self.journal
            && let Ok(path) = self.path_of(parent, name)
        {
            let present = self.host.attributes_at(&parent.node, name);
            journal.note(&path, present.ok().as_ref());
        }
    }

    /// The guest is about to remove a directory.
    pub(super) fn note_removal(&self, parent: &Inode, name: Name<'_>) {
        self.note_name(parent, name);
        if let Some(journal) = &self.journal
            && let Ok(path) = self.path_of(parent, name)
        {
            journal.note_emptied(&path);
        }
    }

    /// The guest has moved a directory, or exchanged one for something.
    pub(super) fn note_moved(
        &self,
        from: (&Inode, Name<'_>),
        to: (&Inode, Name<'_>),
        is_exchange: bool,
    ) {
        if let Some(journal) = &self.journal
            && let Ok(from) = self.path_of(from.0, from.1)
            && let Ok(to) = self.path_of(to.0, to.1)
        {
            journal.note_moved(&from, &to, is_exchange);
        }
    }

    /// The path of a name below the root, if all of it is known.
    pub(super) fn path_of(&self, parent: &Inode, name: Name<'_>) -> Result<Vec<u8>, Errno> {
        let mut path = self.inodes.whole_path(parent.id)?;
        path.extend_from_slice(b"/");
        path.extend_from_slice(name.as_c_str().to_bytes());
        path.remove(0);
        Ok(path)
    }
}
