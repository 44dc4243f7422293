//! What the guest has open: number to file or directory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::budget::Place;
use super::inodes::Inode;
use crate::errno::Errno;
use crate::host::{Directory, File, Host, Identity};

/// Something open, and the node that it is.
#[derive(Debug)]
pub(super) struct Open<T> {
    pub(super) inode: Arc<Inode>,
    pub(super) object: T,
    /// Whether what is written goes to the file's end, wherever it is asked to go.
    pub(super) appends: bool,
    /// Whether the file had set-user-id or set-group-id when it was opened, and nothing was written yet.
    privileged: AtomicBool,
}

/// How a file was opened; a directory in no special manner.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// It has set-user-id or set-group-id, and may be written.
    pub(super) privileged: bool,
    /// What is written goes to its end.
    pub(super) appends: bool,
}

pub(super) type OpenFile = Open<File>;

impl<T> Open<T> {
    pub(super) fn new(inode: Arc<Inode>, object: T, manner: Manner) -> Self {
        Self {
            inode,
            object,
            appends: manner.appends,
            privileged: AtomicBool::new(manner.privileged),
        }
    }
}

impl OpenFile {
    /// Before content changes: a privileged program must not become another one and stay privileged. The host's kernel sees to
    /// that only if this process lacks a certain capability.
    pub(super) fn before_change(&self, host: &Host) -> Result<(), Errno> {
        self.inode.may_change()?;
        if self.privileged.load(Ordering::Relaxed) {
            host.drop_privilege_bits(&self.inode.node)?;
            self.privileged.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// What a number stands for.
#[derive(Debug)]
struct Handle<T> {
    open: Arc<Open<T>>,
    _place: Place,
}

/// All open files, or all open directories.
#[derive(Debug)]
pub(super) struct Handles<T> {
    table: RwLock<HashMap<u64, Handle<T>>>,
    next: AtomicU64,
}

pub(super) type Files = Handles<File>;
pub(super) type Directories = Handles<Directory>;

impl<T> Handles<T> {
    pub(super) fn new() -> Self {
        Self {
            table: RwLock::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Gives `open` a number, which is never given again.
    pub(super) fn insert(&self, open: Open<T>, place: Place) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        let handle = Handle {
            open: Arc::new(open),
            _place: place,
        };
        self.write().insert(fh, handle);
        fh
    }

    /// What is open under the number, if it is the node that the guest says it is.
    pub(super) fn get(&self, fh: u64, node: u64) -> Result<Arc<Open<T>>, Errno> {
        let table = self.read();
        table
            .get(&fh)
            .filter(|handle| handle.open.inode.id == node)
            .map(|handle| Arc::clone(&handle.open))
            .ok_or(Errno::EBADF)
    }

    /// Closes it, once no other request works with it.
    pub(super) fn remove(&self, fh: u64, node: u64) -> Result<(), Errno> {
        self.get(fh, node)?;
        let closed = self.write().remove(&fh);
        drop(closed);
        Ok(())
    }

    /// The nodes that are open and are this object, also those whose number the guest has forgotten meanwhile.
    pub(super) fn inodes_of(&self, identity: Identity) -> Vec<Arc<Inode>> {
        let table = self.read();
        let inodes = table.values().map(|handle| &handle.open.inode);
        let same = inodes.filter(|inode| inode.identity() == identity);
        same.cloned().collect()
    }

    /// What is open of a node that has become `inode` is opened anew. What cannot be stays as it was opened.
    pub(super) fn reopen(&self, inode: &Arc<Inode>, open: impl Fn() -> Result<T, Errno>) {
        let mut table = self.write();
        let handles = table.values_mut();
        for handle in handles.filter(|handle| handle.open.inode.id == inode.id) {
            if let Ok(object) = open() {
                let manner = Manner {
                    privileged: false,
                    appends: handle.open.appends,
                };
                handle.open = Arc::new(Open::new(Arc::clone(inode), object, manner));
            }
        }
    }

    pub(super) fn clear(&self) {
        self.write().clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<u64, Handle<T>>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<u64, Handle<T>>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
