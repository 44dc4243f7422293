//! What the host's user is told of: that the guest was kept from a file, and by what.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Server;
use super::inodes::Inode;
use crate::abi::{Name, Operation, Request};
use crate::errno::Errno;

/// Different refusals that are told of. More would be a guest's way to fill someone's memory.
const MOST: usize = 256;
/// Bytes of a path that are told.
const LONGEST_PATH: usize = 4096;

/// Why the guest was kept from a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Its name is hidden: the guest asked for it and was told that there is none.
    Hidden,
    /// Its name is protected: the guest tried to change it or what is in it.
    Protected,
    /// It had more than one name when the guest first saw it, so it may be a file outside, too: the guest tried to change what is in it.
    HardLink,
}

/// A file that the guest was kept from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The path below the share's root, as the guest has it now, the last 4 KiB of it. The guest chose these bytes: make them safe before they are printed.
    pub path: String,
}

/// Who wants to know. It is called on the thread that serves the guest, once for each different refusal, 256 times at most.
pub trait Observer: fmt::Debug + Send + Sync {
    /// The guest was kept from a file. The server calls this while it holds locks: it must neither wait for anything nor call the server.
    fn refused(&self, refusal: &Refusal);
}

/// Who is told, and what was told already.
#[derive(Debug)]
pub(super) struct Refusals {
    observer: Option<Arc<dyn Observer>>,
    told: Mutex<HashSet<Refusal>>,
}

impl Refusals {
    pub(super) fn to(observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            observer,
            told: Mutex::default(),
        }
    }

    fn is_awaited(&self) -> bool {
        self.observer.is_some()
    }

    fn tell(&self, refusal: Refusal) {
        let Some(observer) = &self.observer else {
            return;
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < MOST && !told.contains(&refusal) {
            observer.refused(&refusal);
            told.insert(refusal);
        }
    }
}

impl Server {
    /// A request was refused: tells of it, if the rules are why.
    pub(super) fn tell_refused(&self, request: &Request<'_>, errno: Errno) {
        if !self.refusals.is_awaited() || errno != Errno::EPERM {
            return;
        }
        let node = request.node;
        match request.operation {
            Operation::Create { name, .. }
            | Operation::MkNod { name, .. }
            | Operation::MkDir { name, .. }
            | Operation::Symlink { name, .. }
            | Operation::Unlink { name }
            | Operation::RmDir { name } => self.tell_name(node, name),
            Operation::Link { node: old, name } => {
                self.tell_name(node, name);
                self.tell_node(old);
            }
            Operation::Rename {
                name,
                new_parent,
                new_name,
                ..
            } => {
                self.tell_name(node, name);
                self.tell_name(new_parent, new_name);
            }
            Operation::CopyFileRange { copy } => self.tell_node(copy.nodeid_out),
            _ => self.tell_node(node),
        }
    }

    fn tell_name(&self, parent: u64, name: Name<'_>) {
        let Ok(parent) = self.node(parent) else {
            return;
        };
        let judged = self.judge(&parent, name);
        if judged.is_hidden() {
            self.tell(Reason::Hidden, &parent, Some(name));
        } else if !judged.is_free() || judged.is_on_the_way() {
            self.tell(Reason::Protected, &parent, Some(name));
        }
    }

    fn tell_node(&self, node: u64) {
        let Ok(inode) = self.node(node) else {
            return;
        };
        let state = inode.state();
        if state.is_linked() {
            self.tell(Reason::HardLink, &inode, None);
        } else if state.is_frozen() {
            self.tell(Reason::Protected, &inode, None);
        }
    }

    /// A name is hidden: tells of it, if there is something.
    pub(super) fn tell_hidden(&self, parent: &Inode, name: Name<'_>) {
        if self.refusals.is_awaited() && self.host.attributes_at(&parent.node, name).is_ok() {
            self.tell(Reason::Hidden, parent, Some(name));
        }
    }

    fn tell(&self, reason: Reason, at: &Inode, name: Option<Name<'_>>) {
        let mut path = self.inodes.path(at.id);
        if let Some(name) = name {
            path.extend_from_slice(b"/");
            path.extend_from_slice(name.as_c_str().to_bytes());
        }
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        // Of a longer one the end says more.
        let end = path.split_at(path.len().saturating_sub(LONGEST_PATH)).1;
        self.refusals.tell(Refusal {
            reason,
            path: String::from_utf8_lossy(end).into_owned(),
        });
    }
}
