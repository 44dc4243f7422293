//! Table and handles together: what is done to both under one lock.

use std::ffi::CString;
use std::sync::Arc;

use super::held::{Evicted, Held, HeldAt};
use super::table::{Origin, ROOT, Table};
use super::{Found, Inode, LONGEST_WAY};
use crate::errno::Errno;
use crate::host::{Attributes, Identity, Kind, Layer, Node};
use crate::rules::State;
use crate::server::budget::{Budget, Place};
use crate::server::config::HardLinkPolicy;
use crate::server::number::ShareNumber;
use crate::server::quota::Usage;

/// All that is remembered, for one thread at a time that changes it.
#[derive(Debug)]
pub(super) struct Nodes {
    pub(super) table: Table,
    held: Held,
    /// How many have a place of the budget.
    remembered: usize,
    hard_links: HardLinkPolicy,
    usage: Option<Arc<Usage>>,
}

/// What it takes to get hold of a node.
pub(super) struct Way {
    /// The nearest that is held.
    pub(super) from: Arc<Inode>,
    /// Those below it, the node that is asked for first.
    pub(super) steps: Vec<Step>,
}

pub(super) struct Step {
    pub(super) slot: u32,
    pub(super) id: u64,
    pub(super) name: CString,
}

impl Nodes {
    pub(super) fn of(
        root: &Arc<Inode>,
        attributes: &Attributes,
        most_held: usize,
        hard_links: HardLinkPolicy,
        usage: Option<Arc<Usage>>,
    ) -> Result<Self, Errno> {
        let mut nodes = Self {
            table: Table::new(ShareNumber::of(root.id)),
            held: Held::new(most_held),
            remembered: 0,
            hard_links,
            usage,
        };
        nodes.table.insert(attributes, root.state(), None)?;
        let (at, _) = nodes.held.insert(ROOT, Arc::clone(root), |_| false)?;
        nodes.table.set_held(ROOT, at);
        Ok(nodes)
    }

    /// Forgets everything but the root; gives what is to be closed.
    pub(super) fn clear(&mut self, root: &Arc<Inode>, budget: &Budget) -> Held {
        self.table.remove_all_but_root();
        budget.give_back(std::mem::take(&mut self.remembered));
        let old = self.held.take();
        // The first place of all is always free.
        let at = self.held.insert(ROOT, Arc::clone(root), |_| false);
        self.table
            .set_held(ROOT, at.map(|(at, _)| at).unwrap_or_default());
        old
    }

    pub(super) fn held(&self, slot: u32) -> Option<&Arc<Inode>> {
        self.held.get(self.table.held(slot))
    }

    /// From the nearest held directory down to the node.
    pub(super) fn way_to(&self, id: u64) -> Result<Way, Errno> {
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
    pub(super) fn is_as_it_was(&self, way: &Way) -> bool {
        way.steps.iter().all(|step| {
            let origin = self.table.origin(step.slot);
            self.table.id(step.slot) == step.id
                && origin.is_some_and(|origin| origin.name == step.name.to_bytes())
        })
    }

    /// Takes hold of a node that was looked up again.
    pub(super) fn hold(
        &mut self,
        step: &Step,
        node: Node,
        attributes: &Attributes,
    ) -> Result<(Arc<Inode>, Option<Evicted>), Errno> {
        if self.table.id(step.slot) != step.id || !self.table.is_same(step.slot, attributes) {
            return Err(Errno::ESTALE);
        }
        if self.usage.is_some() && attributes.links == 0 {
            return Err(Errno::ESTALE);
        }
        // Another thread may have been here between the two locks.
        if let Some(held) = self.held(step.slot) {
            return Ok((Arc::clone(held), None));
        }
        self.take_hold(step.slot, node, attributes)
    }

    pub(super) fn take_hold(
        &mut self,
        slot: u32,
        node: Node,
        attributes: &Attributes,
    ) -> Result<(Arc<Inode>, Option<Evicted>), Errno> {
        let Self {
            table, held, usage, ..
        } = self;
        let (id, state) = (table.id(slot), table.state(slot));
        // What the guest did not add does not count, whatever becomes of it.
        let usage = usage.clone().filter(|_| node.is_own());
        let was_named = attributes.links > 0;
        let inode = Inode::new(
            id,
            node,
            attributes.identity,
            state,
            usage.clone(),
            was_named,
        );
        // Between its being found and this, another thread may have removed the file, and what it took may have been given back.
        if usage.is_some() && was_named && inode.node.attributes()?.links == 0 {
            return Err(Errno::ENOENT);
        }
        let inode = Arc::new(inode);
        let (at, evicted) =
            held.insert(slot, Arc::clone(&inode), |other| table.can_be_found(other))?;
        table.set_held(slot, at);
        if let Some(evicted) = &evicted {
            table.set_held(evicted.slot, HeldAt::default());
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
    pub(super) fn found_without_handle(&self, id: u64) -> Result<Option<(u64, CString)>, Errno> {
        let slot = self.table.place_of(id)?;
        if self.held(slot).is_some() || !self.table.can_be_found(slot) {
            return Ok(None);
        }
        Ok(self.table.origin(slot).and_then(|origin| {
            let name = CString::new(origin.name).ok()?;
            Some((self.table.id(origin.parent), name))
        }))
    }

    pub(super) fn is(&self, id: u64, attributes: &Attributes) -> bool {
        let place = self.table.place_of(id);
        place.is_ok_and(|slot| self.table.is_same(slot, attributes))
    }

    /// The place of what was found, if the guest holds it.
    pub(super) fn place_of(&self, attributes: &Attributes) -> Option<u32> {
        let slot = self.table.find(attributes.identity)?;
        // While a handle is held, no other file gets its number.
        let is_it = self.held(slot).is_some() || self.table.is_same(slot, attributes);
        is_it.then_some(slot)
    }

    /// Whether what was found by a name had lost it when it was looked at. What it took is given back by whoever took the name, or was already.
    pub(super) fn is_gone(&self, found: &Found<'_>) -> bool {
        self.usage.is_some() && found.at.is_some() && found.attributes.links == 0
    }

    /// Counts one lookup, if all that was found is known already.
    pub(super) fn look_up_again(&self, found: &Found<'_>, brings_handle: bool) -> Option<u64> {
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

    /// Whether each name of the file may become a file of its own: a guest that writes to it copies up the one name by which it came.
    pub(super) fn goes_by_its_last_name(&self, found: &Attributes) -> bool {
        self.hard_links == HardLinkPolicy::Writable
            && found.layer == Layer::Lower
            && found.has_several_names()
    }

    /// The origin that a node is to have, if it has another or none. Of a file with several names the first is as good as the last, unless it
    /// is about to lose the others.
    pub(super) fn new_origin<'a>(&self, slot: u32, found: &Found<'a>) -> Option<Origin<'a>> {
        let (parent, name) = found.at?;
        let parent = self.table.place_of(parent.id).ok()?;
        let name = name.as_c_str().to_bytes();
        let origin = Origin { parent, name };
        match self.table.origin(slot) {
            Some(known) if known == origin => None,
            Some(_) if found.attributes.has_several_names() => self
                .goes_by_its_last_name(found.attributes)
                .then_some(origin),
            _ => Some(origin),
        }
    }

    /// The state that a node is to have, if it has another. A file of several names is protected if one of them is.
    pub(super) fn new_state(&self, slot: u32, found: &Found<'_>) -> Option<State> {
        let state = self
            .held(slot)
            .map_or_else(|| self.table.state(slot), |held| held.state());
        let new = if found.attributes.has_several_names() {
            State::of_bits(state.bits() | found.state.bits())
        } else {
            found.state
        };
        (new != state).then_some(new)
    }

    pub(super) fn enter(
        &mut self,
        node: Option<Node>,
        found: &Found<'_>,
        place: Place,
        budget: &Budget,
    ) -> Result<(u64, Option<Evicted>), Errno> {
        let slot = match self.place_of(found.attributes) {
            Some(slot) => self.renew(slot, found)?,
            None => self.insert(found, place)?,
        };
        let evicted = match node {
            Some(node) if self.held(slot).is_none() => {
                match self.take_hold(slot, node, found.attributes) {
                    Ok((_, evicted)) => evicted,
                    Err(_) if self.table.can_be_found(slot) => None,
                    Err(errno) => {
                        if self.table.give_back(slot, 1) {
                            self.remove(slot, self.table.id(slot), budget);
                        }
                        return Err(errno);
                    }
                }
            }
            _ => None,
        };
        Ok((self.table.id(slot), evicted))
    }

    pub(super) fn renew(&mut self, slot: u32, found: &Found<'_>) -> Result<u32, Errno> {
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

    pub(super) fn insert(&mut self, found: &Found<'_>, place: Place) -> Result<u32, Errno> {
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
    pub(super) fn at_first_sight(&self, found: &Found<'_>) -> State {
        let may_be_outside = found.attributes.kind() == Kind::Regular
            && found.attributes.has_several_names()
            && found.attributes.layer != Layer::Upper;
        if may_be_outside && self.hard_links == HardLinkPolicy::ReadOnly {
            found.state.linked()
        } else {
            found.state
        }
    }

    /// The node was copied up: it is another file from now on, with the same number.
    pub(super) fn replace(
        &mut self,
        id: u64,
        node: Node,
        attributes: &Attributes,
    ) -> Result<Arc<Inode>, Errno> {
        let slot = self.table.place_of(id)?;
        let state = self
            .held(slot)
            .map_or_else(|| self.table.state(slot), |held| held.state());
        self.table.become_other(slot, attributes)?;
        self.table.set_state(slot, state)?;
        let old = self.held.remove(self.table.held(slot));
        self.table.set_held(slot, HeldAt::default());
        // It left a place, or takes one as any other.
        let (inode, _evicted) = self.take_hold(slot, node, attributes)?;
        drop(old);
        Ok(inode)
    }

    pub(super) fn freeze(&mut self, identity: Identity) {
        let Some(slot) = self.table.find(identity) else {
            return;
        };
        let state = self.table.state(slot).frozen();
        if self.table.set_state(slot, state).is_err() {
            // Then it must not be found without it.
            self.table.set_origin_none(slot);
            self.table.disown(slot);
        }
        if let Some(held) = self.held(slot) {
            held.arrive(held.state().frozen());
        }
    }

    /// Removes the node if the guest has forgotten it.
    pub(super) fn remove(&mut self, slot: u32, id: u64, budget: &Budget) -> Option<Arc<Inode>> {
        if self.table.id(slot) != id || !self.table.is_forgotten(slot) {
            return None;
        }
        let inode = self.held.remove(self.table.held(slot));
        self.table.remove(slot);
        self.remembered = self.remembered.saturating_sub(1);
        budget.give_back(1);
        inode
    }
}
