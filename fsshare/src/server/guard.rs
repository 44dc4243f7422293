//! What the rules make of a request.
//!
//! Requests run side by side, but for two kinds that run alone. One is a rename between names of which a rule has something to say: what it moves
//! is looked at first, and until it is done nobody may give the old name to something else, or write through a handle that is open. The
//! other is whatever may have to copy a node up ([`copy_up`](super::copy_up)).

use std::sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use super::Server;
use super::inodes::Inode;
use crate::abi::{Name, Operation, RenameMode, Request};
use crate::errno::Errno;
use crate::host::{AccessMode, Kind, Node};
use crate::rules::{Guard, Judgement, State, git_config};

/// Held while a request is carried out.
#[derive(Debug)]
pub(super) enum Turn<'a> {
    /// Beside others.
    Shared { _guard: RwLockReadGuard<'a, ()> },
    /// Alone.
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

/// One end of a rename.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) parent: &'a Inode,
    pub(super) name: Name<'a>,
}

impl<'a> End<'a> {
    pub(super) fn new(parent: &'a Inode, name: Name<'a>) -> Self {
        Self { parent, name }
    }
}

impl Server {
    /// Waits for the request's turn.
    pub(super) fn turn(&self, request: &Request<'_>) -> Turn<'_> {
        if self.is_checked_rename(request) || self.copies_up(request) {
            let guard = self.turns.write();
            Turn::Alone {
                _guard: guard.unwrap_or_else(PoisonError::into_inner),
            }
        } else {
            let guard = self.turns.read();
            Turn::Shared {
                _guard: guard.unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn is_checked_rename(&self, request: &Request<'_>) -> bool {
        let Operation::Rename {
            name,
            new_parent,
            new_name,
            ..
        } = request.operation
        else {
            return false;
        };
        match (self.node(request.node), self.node(new_parent)) {
            // Nobody may be about to note a path that is another's when it is noted.
            _ if self.journal.is_some() => true,
            (Ok(from), Ok(to)) => {
                let (source, target) = (self.judge(&from, name), self.judge(&to, new_name));
                !(source.is_free() && source == target)
            }
            // By the time it runs they may be known.
            _ => true,
        }
    }

    /// What the rules say of a name.
    pub(super) fn judge(&self, parent: &Inode, name: Name<'_>) -> Judgement {
        self.rules.judge(parent.state(), name.as_c_str().to_bytes())
    }

    /// Whether the guest may make something of that name. Gives the state of what is made.
    pub(super) fn may_make(
        &self,
        parent: &Inode,
        name: Name<'_>,
        is_directory: bool,
    ) -> Result<State, Errno> {
        let judged = self.judge(parent, name);
        match judged.guard(is_directory) {
            None => Ok(judged.state(is_directory)),
            Some(_) => Err(Errno::EPERM),
        }
    }

    /// Whether the guest may make a symbolic link of that name, or give a link that name.
    pub(super) fn may_link(&self, parent: &Inode, name: Name<'_>) -> Result<State, Errno> {
        if self.judge(parent, name).is_on_the_way() {
            return Err(Errno::EPERM);
        }
        self.may_make(parent, name, false)
    }

    /// Whether the guest may remove that name.
    pub(super) fn may_remove(
        &self,
        parent: &Inode,
        name: Name<'_>,
        is_directory: bool,
    ) -> Result<(), Errno> {
        let judged = self.judge(parent, name);
        match judged.guard(is_directory) {
            None => Ok(()),
            // What the present file forbids must not go with it.
            Some(Guard::GitConfig) => {
                let present = self.host.lookup(&parent.node, name)?;
                git_config::admit(b"", &self.content(&present)?)
            }
            Some(Guard::Hidden) => Err(Errno::ENOENT),
            Some(Guard::Protected) => Err(Errno::EPERM),
        }
    }

    /// Whether the guest may rename so; gives the node whose content was checked for its new name.
    pub(super) fn may_rename(
        &self,
        from: End<'_>,
        to: End<'_>,
        mode: RenameMode,
    ) -> Result<Option<Node>, Errno> {
        let (source, target) = (
            self.judge(from.parent, from.name),
            self.judge(to.parent, to.name),
        );
        if source.is_free() && source == target {
            return Ok(None);
        }
        let exchanges = mode.contains(RenameMode::EXCHANGE);
        if source.is_hidden() || (exchanges && target.is_hidden()) {
            return Err(Errno::ENOENT);
        }
        let node = self.host.lookup(&from.parent.node, from.name)?;
        let kind = node.attributes()?.kind();
        if exchanges {
            let other = self.host.lookup(&to.parent.node, to.name)?;
            may_move(target, source, other.attributes()?.kind())?;
            return may_move(source, target, kind).map(|()| None);
        }
        let takes_config = target.guard(kind == Kind::Directory) == Some(Guard::GitConfig);
        if takes_config && source.guard(kind == Kind::Directory).is_none() {
            let present = self.host.lookup(&to.parent.node, to.name);
            self.check_config(&node, present)?;
            return Ok(Some(node));
        }
        may_move(source, target, kind).map(|()| None)
    }

    fn check_config(&self, new: &Node, present: Result<Node, Errno>) -> Result<(), Errno> {
        let attributes = new.attributes()?;
        // Another name would be another way to it.
        if attributes.links != 1 {
            return Err(Errno::EPERM);
        }
        // What the kernel writes itself cannot be stopped any more.
        let known = self.inodes.id_of(attributes.identity);
        let open = self.files.inodes_of(attributes.identity);
        let mut ids = known.into_iter().chain(open.iter().map(|inode| inode.id));
        if ids.any(|id| self.passthrough.is_used(id)) {
            return Err(Errno::EBUSY);
        }
        let present = match present {
            Ok(node) => self.content(&node)?,
            Err(Errno::ENOENT) => Vec::new(),
            Err(errno) => return Err(errno),
        };
        git_config::admit(&self.content(new)?, &present)
    }

    /// The content of a small regular file.
    fn content(&self, node: &Node) -> Result<Vec<u8>, Errno> {
        let (file, attributes) = self.host.open(node, AccessMode::READ)?;
        let size = usize::try_from(attributes.size).unwrap_or(usize::MAX);
        if attributes.kind() != Kind::Regular || size > git_config::LONGEST {
            return Err(Errno::EPERM);
        }
        // One more than there should be, so that a file that grows is noticed.
        let mut content = vec![0; size + 1];
        let read = file.read_at(&mut content, 0)?;
        if read > size {
            return Err(Errno::EPERM);
        }
        content.truncate(read);
        Ok(content)
    }

    /// Protects a file's content from all that the guest holds of it. The request that calls this runs alone.
    pub(super) fn freeze(&self, node: &Node) -> Result<(), Errno> {
        let identity = node.attributes()?.identity;
        self.inodes.freeze(identity);
        // Also those that the guest has forgotten, and has open.
        for inode in self.files.inodes_of(identity) {
            inode.arrive(inode.state().frozen());
        }
        Ok(())
    }
}

/// Whether something may leave one name for another. A directory keeps what the rules say of the names below it, and a link does not come to
/// stand for such a directory.
fn may_move(from: Judgement, to: Judgement, kind: Kind) -> Result<(), Errno> {
    let is_directory = kind == Kind::Directory;
    let guarded = from.guard(is_directory).or(to.guard(is_directory));
    let keeps = match kind {
        Kind::Directory => from.state(true) == to.state(true),
        Kind::Symlink => !to.is_on_the_way(),
        _ => true,
    };
    if guarded.is_none() && keeps {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

impl Inode {
    /// Whether the guest may change what is in it.
    pub(super) fn may_change(&self) -> Result<(), Errno> {
        if self.state().is_frozen() {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }

    /// Whether the guest may change what is said of it.
    pub(super) fn may_change_attributes(&self) -> Result<(), Errno> {
        let state = self.state();
        if state.is_protected() || state.is_linked() {
            Err(Errno::EPERM)
        } else {
            Ok(())
        }
    }

    /// As [`Self::may_change`], for a node found by number.
    pub(super) fn changeable(self: Arc<Self>) -> Result<Arc<Self>, Errno> {
        self.may_change()?;
        Ok(self)
    }
}
