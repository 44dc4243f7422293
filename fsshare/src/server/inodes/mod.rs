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
mod table;

use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::held::{Evicted, Held};
use self::table::{Origin, ROOT, Table};
use super::budget::{Budget, Place};
use super::config::{HardLinkPolicy, Limits};
use super::locks::LockOwners;
use super::quota::Usage;
use crate::abi::{Name, ROOT_ID};
use crate::errno::Errno;
use crate::host::{Attributes, Host, Identity, Kind, Node};
use crate::rules::State;

/// Directories without a handle on the way to a node: more are not opened for one request.
const LONGEST_WAY: usize = 4096;
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
    /// Held by whoever changes the file's size, where that is counted.
    pub(super) size: Mutex<()>,
    /// Where its end is counted.
    usage: Option<Arc<Usage>>,
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

/// All of them.
#[derive(Debug)]
pub(super) struct Inodes {
    nodes: RwLock<Nodes>,
    root: Arc<Inode>,
    budget: Budget,
}

#[derive(Debug)]
struct Nodes {
    table: Table,
    held: Held,
    /// How many have a place of the budget.
    remembered: usize,
    hard_links: HardLinkPolicy,
    usage: Option<Arc<Usage>>,
}

/// What it takes to get hold of a node.
struct Way {
    /// The nearest that is held.
    from: Arc<Inode>,
    /// Those below it, the node that is asked for first.
    steps: Vec<Step>,
}

struct Step {
    slot: u32,
    id: u64,
    name: CString,
}

impl Inodes {
    pub(super) fn new(
        root: Node,
        limits: &Limits,
        hard_links: HardLinkPolicy,
        usage: Option<Arc<Usage>>,
    ) -> Result<Self, Errno> {
        let attributes = root.attributes()?;
        let root = Inode::new(ROOT_ID, root, attributes.identity, State::TOP, None);
        let root = Arc::new(root);
        Ok(Self {
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

    /// The node with this number.
    pub(super) fn get(&self, host: &Host, id: u64) -> Result<Arc<Inode>, Errno> {
        if id == ROOT_ID {
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
        if let Some(id) = self.read().look_up_again(found, node.is_some()) {
            return Ok(id);
        }
        let place = place.map_or_else(|| self.budget.take(), Ok)?;
        let (id, _evicted) = self.write().enter(node, found, place)?;
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
        self.get(host, id)
    }

    /// The node that this is, if the guest holds it.
    pub(super) fn known(&self, host: &Host, identity: Identity) -> Option<Arc<Inode>> {
        let id = {
            let nodes = self.read();
            nodes.table.find(identity).map(|slot| nodes.table.id(slot))
        };
        self.get(host, id?).ok()
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
        let nodes = self.read();
        let mut names = Vec::new();
        let mut slot = nodes.table.place_of(id).ok();
        while let Some(origin) = slot.and_then(|slot| nodes.table.origin(slot)) {
            names.push(origin.name);
            slot = (names.len() < LONGEST_WAY).then_some(origin.parent);
        }
        let parts = names.iter().rev().flat_map(|name| [b"/".as_slice(), name]);
        parts.collect::<Vec<_>>().concat()
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

impl Nodes {
    fn of(
        root: &Arc<Inode>,
        attributes: &Attributes,
        most_held: usize,
        hard_links: HardLinkPolicy,
        usage: Option<Arc<Usage>>,
    ) -> Result<Self, Errno> {
        let mut nodes = Self {
            table: Table::new(),
            held: Held::new(most_held),
            remembered: 0,
            hard_links,
            usage,
        };
        nodes.table.insert(attributes, State::TOP, None)?;
        let (at, _) = nodes.held.insert(ROOT, Arc::clone(root), |_| false)?;
        nodes.table.set_held(ROOT, at);
        Ok(nodes)
    }

    /// Forgets everything but the root; gives what is to be closed.
    fn clear(&mut self, root: &Arc<Inode>, budget: &Budget) -> Held {
        self.table.remove_all_but_root();
        budget.give_back(std::mem::take(&mut self.remembered));
        let old = self.held.take();
        // The first place of all is always free.
        let at = self.held.insert(ROOT, Arc::clone(root), |_| false);
        self.table
            .set_held(ROOT, at.map(|(at, _)| at).unwrap_or_default());
        old
    }

    fn held(&self, slot: u32) -> Option<&Arc<Inode>> {
        self.held.get(self.table.held(slot))
    }

    /// From the nearest held directory down to the node.
    fn way_to(&self, id: u64) -> Result<Way, Errno> {
        let mut slot = self.table.place_of(id)?;
        let mut steps = Vec::new();
        loop {
            if let Some(from) = self.held(slot) {
                let from = Arc::clone(from);
                return Ok(Way { from, steps });
            }
            // A guest that forgets what it needs can make the way long, or a circle.
            if steps.len() == LONGEST_WAY || !self.table.can_be_found(slot) {
                return Err(Errno::ESTALE);
            }
            let origin = self.table.origin(slot).ok_or(Errno::ESTALE)?;
            steps.push(Step {
                slot,
                id: self.table.id(slot),
                name: CString::new(origin.name).map_err(|_| Errno::ESTALE)?,
            });
            slot = origin.parent;
        }
    }

    /// Whether the way to the node would be the same now.
    fn is_as_it_was(&self, way: &Way) -> bool {
        way.steps.iter().all(|step| {
            let origin = self.table.origin(step.slot);
            self.table.id(step.slot) == step.id
                && origin.is_some_and(|origin| origin.name == step.name.to_bytes())
        })
    }

    /// Takes hold of a node that was looked up again.
    fn hold(
        &mut self,
        step: &Step,
        node: Node,
        attributes: &Attributes,
    ) -> Result<(Arc<Inode>, Option<Evicted>), Errno> {
        if self.table.id(step.slot) != step.id || !self.table.is_same(step.slot, attributes) {
            return Err(Errno::ESTALE);
        }
        // Another thread may have been here between the two locks.
        if let Some(held) = self.held(step.slot) {
            return Ok((Arc::clone(held), None));
        }
        self.take_hold(step.slot, node, attributes.identity)
    }

    fn take_hold(
        &mut self,
        slot: u32,
        node: Node,
        identity: Identity,
    ) -> Result<(Arc<Inode>, Option<Evicted>), Errno> {
        let Self {
            table, held, usage, ..
        } = self;
        let (id, state) = (table.id(slot), table.state(slot));
        let inode = Arc::new(Inode::new(id, node, identity, state, usage.clone()));
        let (at, evicted) =
            held.insert(slot, Arc::clone(&inode), |other| table.can_be_found(other))?;
        table.set_held(slot, at);
        if let Some(evicted) = &evicted {
            table.set_held(evicted.slot, held::HeldAt::default());
            let keeps_state = table.set_state(evicted.slot, evicted.inode.state()).is_ok();
            // What the rules say of it must not be lost, and its number must not stand for another file.
            if !(keeps_state && table.can_be_found(evicted.slot)) {
                table.set_origin_none(evicted.slot);
                table.disown(evicted.slot);
            }
        }
        Ok((inode, evicted))
    }

    /// The directory and the name of a node of which no handle is held.
    fn found_without_handle(&self, id: u64) -> Result<Option<(u64, CString)>, Errno> {
        let slot = self.table.place_of(id)?;
        if self.held(slot).is_some() || !self.table.can_be_found(slot) {
            return Ok(None);
        }
        Ok(self.table.origin(slot).and_then(|origin| {
            let name = CString::new(origin.name).ok()?;
            Some((self.table.id(origin.parent), name))
        }))
    }

    fn is(&self, id: u64, attributes: &Attributes) -> bool {
        let place = self.table.place_of(id);
        place.is_ok_and(|slot| self.table.is_same(slot, attributes))
    }

    /// The place of what was found, if the guest holds it.
    fn place_of(&self, attributes: &Attributes) -> Option<u32> {
        let slot = self.table.find(attributes.identity)?;
        // While a handle is held, no other file gets its number.
        let is_it = self.held(slot).is_some() || self.table.is_same(slot, attributes);
        is_it.then_some(slot)
    }

    /// Counts one lookup, if all that was found is known already.
    fn look_up_again(&self, found: &Found<'_>, brings_handle: bool) -> Option<u64> {
        let slot = self.place_of(found.attributes)?;
        let held = self.held(slot);
        let is_known = slot == ROOT
            || (held.is_some() || !brings_handle)
                && self.new_origin(slot, found).is_none()
                && self.new_state(slot, found).is_none();
        is_known.then(|| {
            self.table.count_lookup(slot);
            self.table.id(slot)
        })
    }

    /// The origin that a node is to have, if it has another or none. Of a file with several names the first is as good as the last.
    fn new_origin<'a>(&self, slot: u32, found: &Found<'a>) -> Option<Origin<'a>> {
        let (parent, name) = found.at?;
        let parent = self.table.place_of(parent.id).ok()?;
        let name = name.as_c_str().to_bytes();
        let origin = Origin { parent, name };
        match self.table.origin(slot) {
            Some(known) if known == origin || found.has_several_names() => None,
            _ => Some(origin),
        }
    }

    /// The state that a node is to have, if it has another. A file of several names is protected if one of them is.
    fn new_state(&self, slot: u32, found: &Found<'_>) -> Option<State> {
        let state = self
            .held(slot)
            .map_or_else(|| self.table.state(slot), |held| held.state());
        let new = if found.has_several_names() {
            State::of_bits(state.bits() | found.state.bits())
        } else {
            found.state
        };
        (new != state).then_some(new)
    }

    fn enter(
        &mut self,
        node: Option<Node>,
        found: &Found<'_>,
        place: Place,
    ) -> Result<(u64, Option<Evicted>), Errno> {
        let slot = match self.place_of(found.attributes) {
            Some(slot) => self.renew(slot, found)?,
            None => self.insert(found, place)?,
        };
        let evicted = match node {
            Some(node) if self.held(slot).is_none() => {
                match self.take_hold(slot, node, found.attributes.identity) {
                    Ok((_, evicted)) => evicted,
                    Err(_) if self.table.can_be_found(slot) => None,
                    Err(errno) => {
                        self.table.give_back(slot, 1);
                        return Err(errno);
                    }
                }
            }
            _ => None,
        };
        Ok((self.table.id(slot), evicted))
    }

    fn renew(&mut self, slot: u32, found: &Found<'_>) -> Result<u32, Errno> {
        if slot != ROOT {
            if let Some(origin) = self.new_origin(slot, found) {
                self.table.set_origin(slot, origin)?;
            }
            if let Some(state) = self.new_state(slot, found) {
                self.table.set_state(slot, state)?;
                if let Some(held) = self.held(slot) {
                    held.arrive(state);
                }
            }
        }
        self.table.count_lookup(slot);
        Ok(slot)
    }

    fn insert(&mut self, found: &Found<'_>, place: Place) -> Result<u32, Errno> {
        let attributes = found.attributes;
        // A file that is gone had this number.
        if let Some(old) = self.table.find(attributes.identity) {
            self.table.disown(old);
        }
        let origin = found.at.and_then(|(parent, name)| {
            let parent = self.table.place_of(parent.id).ok()?;
            let name = name.as_c_str().to_bytes();
            Some(Origin { parent, name })
        });
        let slot = self
            .table
            .insert(attributes, self.at_first_sight(found), origin)?;
        self.remembered += 1;
        place.keep();
        Ok(slot)
    }

    /// The state of a node that the guest has not seen before.
    fn at_first_sight(&self, found: &Found<'_>) -> State {
        let may_be_outside = found.attributes.kind() == Kind::Regular && found.has_several_names();
        if may_be_outside && self.hard_links == HardLinkPolicy::ReadOnly {
            found.state.linked()
        } else {
            found.state
        }
    }

    /// Removes the node if the guest has forgotten it.
    fn remove(&mut self, slot: u32, id: u64, budget: &Budget) -> Option<Arc<Inode>> {
        if self.table.id(slot) != id || !self.table.is_forgotten(slot) {
            return None;
        }
        let inode = self.held.remove(self.table.held(slot));
        self.table.remove(slot);
        self.remembered -= 1;
        budget.give_back(1);
        inode
    }
}

impl Found<'_> {
    fn has_several_names(&self) -> bool {
        self.attributes.kind() != Kind::Directory && self.attributes.links > 1
    }
}

impl Inode {
    fn new(
        id: u64,
        node: Node,
        identity: Identity,
        state: State,
        usage: Option<Arc<Usage>>,
    ) -> Self {
        if let Some(usage) = &usage {
            usage.begins(identity);
        }
        Self {
            id,
            node,
            locks: Mutex::default(),
            state: AtomicU64::new(state.bits()),
            identity,
            size: Mutex::default(),
            usage,
        }
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn state(&self) -> State {
        State::of_bits(self.state.load(Ordering::SeqCst))
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

impl Drop for Inode {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.ends(self.identity, self.node.attributes().ok().as_ref());
        }
    }
}
