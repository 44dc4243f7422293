//! The nodes that the guest holds: number to handle.
//!
//! A number is given out once and never again, so one that was forgotten leads nowhere. A node stays for as long as the guest has
//! looked it up more often than it has forgotten it; the root stays always.
//!
//! Of as many nodes as the cap allows a handle is held: those that the guest asked for by name or uses. Of the others the server knows
//! the directory and the name in it, and which file it was. When one is needed, the name is looked up again there, confined
//! as ever, and it must lead to the same file; if it does not, the answer is `ESTALE`, and the guest's kernel looks the path up
//! again. So no handle leads elsewhere than the guest was told, and millions of nodes need no descriptors.

mod held;
mod names;
mod nodes;
mod table;

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::nodes::{Nodes, Way};
use self::table::{Origin, ROOT};
use super::budget::{Budget, Place};
use super::config::{HardLinkPolicy, Limits};
use super::locks::LockOwners;
use super::number::ShareNumber;
use super::quota::{SizeLock, Usage};
use crate::abi::Name;
use crate::errno::Errno;
use crate::host::{Attributes, Host, Identity, Node};
use crate::rules::State;

/// Directories without a handle on the way to a node: more are not opened for one request.
pub(super) const LONGEST_WAY: usize = 4096;
/// How often a node is looked for whose name changes meanwhile.
const ATTEMPTS: usize = 3;

/// One node of which a handle is held.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) id: u64,
    pub(super) node: Node,
    /// Who holds record locks on it, where those are the host's.
    pub(super) locks: Mutex<LockOwners>,
    /// What the rules say of it and of what is below it; bits of a [`State`].
    state: AtomicU64,
    identity: Identity,
    /// Whether changes in the directory are told of.
    is_watched: AtomicBool,
    /// Where its end is counted, and the lock on its size.
    usage: Option<(Arc<Usage>, SizeLock)>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) attributes: &'a Attributes,
    /// What the rules say of it.
    pub(super) state: State,
    /// The directory and the name, unless it has none.
    pub(super) at: Option<(&'a Inode, Name<'a>)>,
}

/// What the top of the tree is to what is above it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Top {
    pub(super) state: State,
    /// It is, or lies in, a `.git` folder.
    pub(super) is_gits: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Inodes {
    top_is_gits: bool,
    nodes: RwLock<Nodes>,
    root: Arc<Inode>,
    budget: Budget,
}

impl Inodes {
    pub(super) fn new(
        share: ShareNumber,
        (root, top): (Node, Top),
        limits: &Limits,
        hard_links: HardLinkPolicy,
        usage: Option<Arc<Usage>>,
    ) -> Result<Self, Errno> {
        let attributes = root.attributes()?;
        let root = Inode::new(
            share.root(),
            root,
            attributes.identity,
            top.state,
            None,
            true,
        );
        let root = Arc::new(root);
        Ok(Self {
            top_is_gits: top.is_gits,
            nodes: RwLock::new(Nodes::of(
                &root,
                &attributes,
                limits.max_held,
                hard_links,
                usage,
            )?),
            root,
            budget: Budget::new(limits.max_inodes),
        })
    }

    /// The top's number.
    pub(super) fn root_id(&self) -> u64 {
        self.root.id
    }

    /// The node with this number.
    pub(super) fn get(&self, host: &Host, id: u64) -> Result<Arc<Inode>, Errno> {
        if id == self.root.id {
            return Ok(Arc::clone(&self.root));
        }
        for _ in 0..ATTEMPTS {
            let way = self.read().way_to(id)?;
            let outcome = self.walk(host, &way);
            match outcome {
                Ok(inode) => return Ok(inode),
                Err(Errno::ESTALE | Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => return Err(errno),
            }
            if self.read().is_as_it_was(&way) {
                break;
            }
        }
        Err(Errno::ESTALE)
    }

    /// Gets hold of one node after the other.
    fn walk(&self, host: &Host, way: &Way) -> Result<Arc<Inode>, Errno> {
        let mut at = Arc::clone(&way.from);
        for step in way.steps.iter().rev() {
            let name = Name::new(&step.name).map_err(|_| Errno::ESTALE)?;
            let node = host.lookup(&at.node, name)?;
            let attributes = node.attributes()?;
            let (next, _evicted) = self.write().hold(step, node, &attributes)?;
            at = next;
        }
        Ok(at)
    }

    /// The node's attributes, for which no handle is needed.
    pub(super) fn attributes(&self, host: &Host, id: u64) -> Result<Attributes, Errno> {
        let origin = self.read().found_without_handle(id)?;
        if let Some((parent, name)) = origin {
            let parent = self.get(host, parent)?;
            let name = Name::new(&name).map_err(|_| Errno::ESTALE)?;
            if let Ok(attributes) = host.attributes_at(&parent.node, name)
                && self.read().is(id, &attributes)
            {
                return Ok(attributes);
            }
        }
        self.get(host, id)?.node.attributes()
    }

    /// Takes a place for a node that is about to be made, so that it is not made in vain.
    pub(super) fn reserve(&self) -> Result<Place, Errno> {
        self.budget.take()
    }

    /// Whether the guest has to come by a name each time, for the server to know by which.
    pub(super) fn goes_by_its_last_name(&self, found: &Attributes) -> bool {
        found.has_several_names() && self.read().goes_by_its_last_name(found)
    }

    /// Whether nodes that the guest did not ask for by name should be left out.
    pub(super) fn is_crowded(&self) -> bool {
        self.budget.is_scarce()
    }

    /// Counts one lookup of a node, which gets a number unless it has one. A handle that is given is held.
    pub(super) fn enter(
        &self,
        node: Option<Node>,
        found: &Found<'_>,
        place: Option<Place>,
    ) -> Result<u64, Errno> {
        {
            let nodes = self.read();
            if nodes.is_gone(found) {
                return Err(Errno::ENOENT);
            }
            if let Some(id) = nodes.look_up_again(found, node.is_some()) {
                return Ok(id);
            }
        }
        let place = place.map_or_else(|| self.budget.take(), Ok)?;
        let (id, _evicted) = self.write().enter(node, found, place, &self.budget)?;
        Ok(id)
    }

    /// As [`Self::enter`], for a node that is used right away.
    pub(super) fn adopt(
        &self,
        host: &Host,
        node: Node,
        found: &Found<'_>,
        place: Place,
    ) -> Result<Arc<Inode>, Errno> {
        let id = self.enter(Some(node), found, Some(place))?;
        // The guest does not learn of a node that it gets no reply for.
        self.get(host, id).inspect_err(|_| self.forget(id, 1))
    }

    /// The node that this is, if the guest holds it.
    pub(super) fn known(&self, host: &Host, identity: Identity) -> Option<Arc<Inode>> {
        self.get(host, self.id_of(identity)?).ok()
    }

    /// Counts one more lookup of a node that the guest holds, or held until a moment ago.
    pub(super) fn look_up_again(&self, inode: &Inode) -> Result<(), Errno> {
        let nodes = self.read();
        let slot = nodes.table.place_of(inode.id)?;
        nodes.table.count_lookup(slot);
        Ok(())
    }

    /// The node has this name now, by the guest's doing.
    pub(super) fn named(&self, identity: Identity, parent: &Inode, name: Name<'_>) {
        let mut nodes = self.write();
        let table = &mut nodes.table;
        if let (Some(slot), Ok(parent)) = (table.find(identity), table.place_of(parent.id)) {
            let name = name.as_c_str().to_bytes();
            // A name that cannot be kept is one under which the node is not found again.
            if table.set_origin(slot, Origin { parent, name }).is_err() {
                table.set_origin_none(slot);
            }
        }
    }

    /// Whether the directory is a `.git`, or below one, and not its objects'.
    pub(super) fn is_gits(&self, id: u64) -> bool {
        let nodes = self.read();
        let mut slot = nodes.table.place_of(id).ok();
        let mut below: &[u8] = b"";
        for _ in 0..LONGEST_WAY {
            if self.top_is_gits && slot == Some(ROOT) {
                return below != b"objects";
            }
            let Some(origin) = slot.and_then(|slot| nodes.table.origin(slot)) else {
                return false;
            };
            if origin.name == b".git" {
                return below != b"objects";
            }
            below = origin.name;
            slot = Some(origin.parent);
        }
        false
    }

    /// The directory and the name of a node, if it still has one.
    pub(super) fn origin(&self, id: u64) -> Result<(u64, CString), Errno> {
        let nodes = self.read();
        let slot = nodes.table.place_of(id)?;
        let origin = nodes.table.origin(slot).ok_or(Errno::ESTALE)?;
        let name = CString::new(origin.name).map_err(|_| Errno::ESTALE)?;
        Ok((nodes.table.id(origin.parent), name))
    }

    /// The node was copied up, and is this one from now on. The request that calls this runs alone.
    pub(super) fn replace(&self, id: u64, node: Node) -> Result<Arc<Inode>, Errno> {
        let attributes = node.attributes()?;
        self.write().replace(id, node, &attributes)
    }

    /// The number of the node that this is, if the guest holds it.
    pub(super) fn id_of(&self, identity: Identity) -> Option<u64> {
        let nodes = self.read();
        nodes.table.find(identity).map(|slot| nodes.table.id(slot))
    }

    /// Nothing changes the content of the node any more. It needs no handle, so nothing that a guest does can keep it from being done.
    pub(super) fn freeze(&self, identity: Identity) {
        self.write().freeze(identity);
    }

    /// The node has lost a name, by the guest's doing.
    pub(super) fn unnamed(&self, identity: Identity) {
        let mut nodes = self.write();
        if let Some(slot) = nodes.table.find(identity) {
            nodes.table.set_origin_none(slot);
            if nodes.table.held(slot).is_nowhere() {
                // Its number is free for another file.
                nodes.table.disown(slot);
            }
        }
    }

    /// The names that lead to a node from the root, each after a slash; from where they are known on.
    pub(super) fn path(&self, id: u64) -> Vec<u8> {
        self.names_to(id).0
    }

    /// As [`Self::path`], if all of them are known.
    pub(super) fn whole_path(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let (path, is_whole) = self.names_to(id);
        is_whole.then_some(path).ok_or(Errno::ESTALE)
    }

    fn names_to(&self, id: u64) -> (Vec<u8>, bool) {
        let nodes = self.read();
        let mut names = Vec::new();
        let mut slot = nodes.table.place_of(id).ok();
        while let Some(origin) = slot.and_then(|slot| nodes.table.origin(slot)) {
            names.push(origin.name);
            slot = (names.len() < LONGEST_WAY).then_some(origin.parent);
        }
        let parts = names.iter().rev().flat_map(|name| [b"/".as_slice(), name]);
        let path = parts.collect::<Vec<_>>().concat();
        (path, slot == Some(ROOT))
    }

    /// Gives back `lookups` of a node. More than there were, or of an unknown node, does no harm.
    pub(super) fn forget(&self, id: u64, lookups: u64) {
        let forgotten = {
            let nodes = self.read();
            let place = nodes.table.place_of(id).ok();
            place.filter(|slot| nodes.table.give_back(*slot, lookups))
        };
        if let Some(slot) = forgotten {
            let forgotten = self.write().remove(slot, id, &self.budget);
            // Closing the handle may take time; it happens here, after the table is free again.
            drop(forgotten);
        }
    }

    /// Forgets everything but the root.
    pub(super) fn clear(&self) {
        let old = self.write().clear(&self.root, &self.budget);
        drop(old);
        self.root.lock_owners().clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, Nodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inode {
    fn new(
        id: u64,
        node: Node,
        identity: Identity,
        state: State,
        usage: Option<Arc<Usage>>,
        was_named: bool,
    ) -> Self {
        let usage = usage.map(|usage| {
            // What never had a name was made this moment.
            let is_gone = || was_named && node.attributes().is_ok_and(|now| now.links == 0);
            let size = usage.begins(identity, is_gone);
            (usage, size)
        });
        Self {
            id,
            node,
            locks: Mutex::default(),
            state: AtomicU64::new(state.bits()),
            identity,
            is_watched: AtomicBool::new(false),
            usage,
        }
    }

    /// Whether it is the top of the tree.
    pub(super) fn is_top(&self) -> bool {
        ShareNumber::of(self.id).root() == self.id
    }

    /// Whether nobody has asked this before.
    pub(super) fn begins_to_be_watched(&self) -> bool {
        !self.is_watched.load(Ordering::Relaxed) && !self.is_watched.swap(true, Ordering::Relaxed)
    }

    /// Held by whoever changes the file's size, where that is counted.
    pub(super) fn size_lock(&self) -> Option<MutexGuard<'_, ()>> {
        let (_, size) = self.usage.as_ref()?;
        Some(size.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn state(&self) -> State {
        State::of_bits(self.state.load(Ordering::SeqCst))
    }

    /// It has this state from now on.
    pub(super) fn arrive(&self, state: State) {
        if !self.is_top() {
            self.state.store(state.bits(), Ordering::SeqCst);
        }
    }

    /// The owners of record locks, for the caller alone.
    pub(super) fn lock_owners(&self) -> MutexGuard<'_, LockOwners> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inode {
    fn drop(&mut self) {
        if let Some((usage, _)) = &self.usage {
            usage.ends(self.identity, || self.node.attributes().ok());
        }
    }
}
