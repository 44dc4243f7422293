//! The nodes that the guest holds: number to handle.
//!
//! A number is given out once and never again, so one that was forgotten leads nowhere. A node stays for as long as the guest has
//! looked it up more often than it has forgotten it; the root stays always.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::budget::{Budget, Place};
use super::locks::LockOwners;
use crate::abi::ROOT_ID;
use crate::errno::Errno;
use crate::host::{Attributes, Identity, Kind, Node};
use crate::rules::State;

/// One node that the guest holds.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) id: u64,
    pub(super) node: Node,
    /// Who holds record locks on it, where those are the host's.
    pub(super) locks: Mutex<LockOwners>,
    /// What the rules say of it and of what is below it; bits of a [`State`].
    state: AtomicU64,
    identity: Identity,
    lookups: AtomicU64,
    _place: Option<Place>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Inodes {
    table: RwLock<Table>,
    root: Arc<Inode>,
    budget: Budget,
}

#[derive(Debug)]
struct Table {
    by_id: HashMap<u64, Arc<Inode>>,
    by_identity: HashMap<Identity, Arc<Inode>>,
    next_id: u64,
}

impl Inodes {
    pub(super) fn new(root: Node, most: usize) -> Result<Self, Errno> {
        let identity = root.attributes()?.identity;
        let root = Arc::new(Inode::new(ROOT_ID, root, (identity, State::TOP), None));
        let by_identity = HashMap::from([(identity, Arc::clone(&root))]);
        let table = Table {
            by_id: HashMap::new(),
            by_identity,
            next_id: ROOT_ID + 1,
        };
        Ok(Self {
            table: RwLock::new(table),
            root,
            budget: Budget::new(most),
        })
    }

    /// The node with this number.
    pub(super) fn get(&self, id: u64) -> Result<Arc<Inode>, Errno> {
        if id == ROOT_ID {
            return Ok(Arc::clone(&self.root));
        }
        self.read().by_id.get(&id).cloned().ok_or(Errno::ESTALE)
    }

    /// Takes a place for a node that is about to be made, so that it is not made in vain.
    pub(super) fn reserve(&self) -> Result<Place, Errno> {
        self.budget.take()
    }

    /// Whether nodes that the guest did not ask for by name should be left out.
    pub(super) fn is_crowded(&self) -> bool {
        self.budget.is_scarce()
    }

    /// Counts one lookup of `node`, which gets a number unless it has one, under a name that has this state.
    pub(super) fn adopt(
        &self,
        node: Node,
        attributes: &Attributes,
        state: State,
        place: Option<Place>,
    ) -> Result<Arc<Inode>, Errno> {
        let identity = attributes.identity;
        // A file of several names is protected if one of them is.
        let is_shared = attributes.kind() != Kind::Directory && attributes.links > 1;
        if let Some(known) = self.read().count_lookup(identity) {
            known.arrive_by(state, is_shared);
            return Ok(known);
        }
        let place = place.map_or_else(|| self.budget.take(), Ok)?;
        let mut table = self.write();
        // Another thread may have been here between the two locks.
        if let Some(known) = table.count_lookup(identity) {
            known.arrive_by(state, is_shared);
            return Ok(known);
        }
        Ok(table.insert(node, (identity, state), place))
    }

    /// The node that this is, if the guest holds it.
    pub(super) fn known(&self, identity: Identity) -> Option<Arc<Inode>> {
        self.read().by_identity.get(&identity).cloned()
    }

    /// Counts one more lookup of a node that the guest holds, or held until a moment ago.
    pub(super) fn look_up_again(&self, inode: &Arc<Inode>) -> Result<Arc<Inode>, Errno> {
        self.read()
            .count_lookup(inode.identity)
            .ok_or(Errno::ESTALE)
    }

    /// Gives back `lookups` of a node. More than there were, or of an unknown node, does no harm.
    pub(super) fn forget(&self, id: u64, lookups: u64) {
        let forgotten = self.write().forget(id, lookups);
        // Closing the handle may take time; it happens here, after the table is free again.
        drop(forgotten);
    }

    /// Forgets everything but the root.
    pub(super) fn clear(&self) {
        let mut table = self.write();
        table.by_id.clear();
        table.by_identity.retain(|_, inode| inode.id == ROOT_ID);
        self.root.lock_owners().clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Needs the read lock at least: forgetting happens under the write lock, so a counted node stays.
    fn count_lookup(&self, identity: Identity) -> Option<Arc<Inode>> {
        let known = self.by_identity.get(&identity)?;
        known.lookups.fetch_add(1, Ordering::Relaxed);
        Some(Arc::clone(known))
    }

    fn insert(&mut self, node: Node, what: (Identity, State), place: Place) -> Arc<Inode> {
        let identity = what.0;
        let inode = Arc::new(Inode::new(self.next_id, node, what, Some(place)));
        self.next_id += 1;
        self.by_id.insert(inode.id, Arc::clone(&inode));
        self.by_identity.insert(identity, Arc::clone(&inode));
        inode
    }

    fn forget(&mut self, id: u64, lookups: u64) -> Option<Arc<Inode>> {
        let inode = self.by_id.get(&id)?;
        let left = inode
            .lookups
            .load(Ordering::Relaxed)
            .saturating_sub(lookups);
        inode.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return None;
        }
        let gone = self.by_id.remove(&id)?;
        self.by_identity.remove(&gone.identity);
        Some(gone)
    }
}

impl Inode {
    fn new(id: u64, node: Node, what: (Identity, State), place: Option<Place>) -> Self {
        let (identity, state) = what;
        Self {
            id,
            node,
            locks: Mutex::default(),
            state: AtomicU64::new(state.bits()),
            identity,
            lookups: AtomicU64::new(1),
            _place: place,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn state(&self) -> State {
        State::of_bits(self.state.load(Ordering::SeqCst))
    }

    /// It was found under a name that has this state, one of several if it `is_shared`.
    fn arrive_by(&self, state: State, is_shared: bool) {
        if is_shared {
            self.state.fetch_or(state.bits(), Ordering::SeqCst);
        } else {
            self.arrive(state);
        }
    }

    /// It has this state from now on.
    pub(super) fn arrive(&self, state: State) {
        if self.id != ROOT_ID {
            self.state.store(state.bits(), Ordering::SeqCst);
        }
    }

    /// The owners of record locks, for the caller alone.
    pub(super) fn lock_owners(&self) -> std::sync::MutexGuard<'_, LockOwners> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
