//! What is remembered of every node that the guest holds, in as few bytes as possible: there may be millions, and a hostile guest
//! gives none back.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use super::held::HeldAt;
use super::names::{NameAt, Names};
use crate::abi::ROOT_ID;
use crate::errno::Errno;
use crate::host::{Attributes, Identity, Time};
use crate::rules::State;
use crate::server::number::ShareNumber;

/// The place of the root.
pub(super) const ROOT: u32 = 1;
/// The last time that a place is given away: a node's number has three bytes for that, beside the share's one.
const LAST_GENERATION: u32 = (1 << 24) - 1;

/// What is remembered of a node.
#[derive(Debug)]
struct Slot {
    inode: u64,
    /// The guest's lookups, less what it forgot. At the highest number it stays: nobody knows then how many there were.
    lookups: AtomicU32,
    /// How often this place was given away: part of the node's number.
    generation: u32,
    /// Place of the directory in which the node was found.
    parent: u32,
    /// That directory's generation: another that gets its place is none of this node's.
    parent_generation: u32,
    /// Its name there, if it still has one.
    name: NameAt,
    birth: Birth,
    held: HeldAt,
    /// Which of [`Table::states`].
    state: u16,
    /// Which of [`Table::devices`].
    device: u16,
}

/// When a node was made, shortened: tells a file from a later one that got its number. 0 where the host does not record it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Birth(u32);

/// Where a node was found: the directory's place, and the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin<'a> {
    pub(super) parent: u32,
    pub(super) name: &'a [u8],
}

/// All of them.
#[derive(Debug)]
pub(super) struct Table {
    share: ShareNumber,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_identity: HashTable<u32>,
    hasher: RandomState,
    names: Names,
    devices: Vec<(u32, u32)>,
    states: Vec<State>,
}

impl Table {
    pub(super) fn new(share: ShareNumber) -> Self {
        Self {
            share,
            // Place 0 is nobody's.
            slots: vec![Slot::unused()],
            free: Vec::new(),
            by_identity: HashTable::new(),
            hasher: RandomState::new(),
            names: Names::new(),
            devices: Vec::new(),
            states: Vec::new(),
        }
    }

    /// The place of the node with this number.
    pub(super) fn place_of(&self, id: u64) -> Result<u32, Errno> {
        let (slot, generation) = (low(id), low(id >> 32) & LAST_GENERATION);
        let is_ours = ShareNumber::of(id) == self.share;
        let known = self.slots.get(slot as usize).filter(|_| is_ours);
        known
            .filter(|known| known.generation == generation && !known.is_unused())
            .map(|_| slot)
            .ok_or(Errno::ESTALE)
    }

    /// The number of the node at this place.
    pub(super) fn id(&self, slot: u32) -> u64 {
        let generation = self.generation(slot) & LAST_GENERATION;
        self.share
            .mark(u64::from(generation) << 32 | u64::from(slot))
    }

    fn generation(&self, slot: u32) -> u32 {
        self.at(slot).map_or(0, |known| known.generation)
    }

    /// The place of the node that this is, or was.
    pub(super) fn find(&self, identity: Identity) -> Option<u32> {
        let device = self.device(identity)?;
        let is_same = |slot: &u32| {
            let known = self.at(*slot);
            known.is_some_and(|known| known.inode == identity.inode && known.device == device)
        };
        self.by_identity
            .find(self.hash(identity.inode), is_same)
            .copied()
    }

    /// Gives a node a place, with one lookup.
    pub(super) fn insert(
        &mut self,
        attributes: &Attributes,
        state: State,
        origin: Option<Origin<'_>>,
    ) -> Result<u32, Errno> {
        let identity = attributes.identity;
        let node = Slot {
            inode: identity.inode,
            lookups: AtomicU32::new(1),
            generation: 0,
            parent: origin.map_or(0, |origin| origin.parent),
            parent_generation: origin.map_or(0, |origin| self.generation(origin.parent)),
            name: NameAt::default(),
            birth: Birth::of(attributes.born),
            held: HeldAt::default(),
            state: self.intern_state(state)?,
            device: self.intern_device(identity.device)?,
        };
        let slot = self.take_place()?;
        // Last of what can fail, so that nothing is left behind.
        let name = match origin.map(|origin| self.names.put(origin.name)) {
            Some(Err(errno)) => {
                self.free.push(slot);
                return Err(errno);
            }
            Some(Ok(name)) => name,
            None => NameAt::default(),
        };
        if let Some(place) = self.at_mut(slot) {
            let generation = place.generation;
            *place = Slot {
                generation,
                name,
                ..node
            };
        }
        self.index(slot, identity.inode);
        Ok(slot)
    }

    fn index(&mut self, slot: u32, inode: u64) {
        let Self {
            slots,
            by_identity,
            hasher,
            ..
        } = self;
        let rehash = |slot: &u32| {
            let known = slots.get(*slot as usize);
            hasher.hash_one(known.map_or(0, |known| known.inode))
        };
        by_identity.insert_unique(hasher.hash_one(inode), slot, rehash);
    }

    /// The node at this place is another file from now on.
    pub(super) fn become_other(&mut self, slot: u32, attributes: &Attributes) -> Result<(), Errno> {
        let identity = attributes.identity;
        let device = self.intern_device(identity.device)?;
        // A file that is gone had this number.
        if let Some(old) = self.find(identity) {
            self.disown(old);
        }
        self.disown(slot);
        if let Some(known) = self.at_mut(slot) {
            known.inode = identity.inode;
            known.device = device;
            known.birth = Birth::of(attributes.born);
        }
        self.index(slot, identity.inode);
        Ok(())
    }

    /// Nobody finds the node by its identity any more: its file is gone, and another may get the number.
    pub(super) fn disown(&mut self, slot: u32) {
        let Some(inode) = self.at(slot).map(|known| known.inode) else {
            return;
        };
        let hash = self.hash(inode);
        if let Ok(entry) = self.by_identity.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
    }

    /// Takes the place away. The number is never given again.
    pub(super) fn remove(&mut self, slot: u32) {
        self.disown(slot);
        self.set_origin_none(slot);
        let Some(known) = self.at_mut(slot) else {
            return;
        };
        let generation = known.generation.saturating_add(1);
        *known = Slot::unused();
        known.generation = generation;
        // A place whose numbers are used up stays empty.
        if generation <= LAST_GENERATION {
            self.free.push(slot);
        }
    }

    /// Takes all places away but the root's.
    pub(super) fn remove_all_but_root(&mut self) {
        for slot in (ROOT + 1..).take(self.slots.len().saturating_sub(2)) {
            // Also one that is forgotten and about to be removed; an empty one is in the list of the free.
            if self.at(slot).is_some_and(|known| known.inode != 0) {
                self.remove(slot);
            }
        }
    }

    fn take_place(&mut self) -> Result<u32, Errno> {
        if let Some(slot) = self.free.pop() {
            return Ok(slot);
        }
        let slot = u32::try_from(self.slots.len()).map_err(|_| Errno::ENFILE)?;
        self.slots.push(Slot::unused());
        Ok(slot)
    }

    /// Counts one lookup.
    pub(super) fn count_lookup(&self, slot: u32) {
        if let Some(known) = self.at(slot) {
            // The counter guards nothing but itself.
            let more = |lookups: u32| Some(lookups.saturating_add(1));
            let _ = known
                .lookups
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// Gives lookups back; whether none is left.
    pub(super) fn give_back(&self, slot: u32, lookups: u64) -> bool {
        let Some(known) = self.at(slot).filter(|_| slot != ROOT) else {
            return false;
        };
        let less = u32::try_from(lookups).unwrap_or(u32::MAX - 1);
        let fewer = |held: u32| (held != u32::MAX).then(|| held.saturating_sub(less));
        known
            .lookups
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer)
            .is_ok_and(|held| held <= less)
    }

    /// Whether no lookup is left.
    pub(super) fn is_forgotten(&self, slot: u32) -> bool {
        self.at(slot).is_none_or(Slot::is_unused)
    }

    /// Where the node was found, if it still has that name.
    pub(super) fn origin(&self, slot: u32) -> Option<Origin<'_>> {
        let known = self.at(slot)?;
        let name = self.names.get(known.name)?;
        if self.generation(known.parent) != known.parent_generation {
            return None;
        }
        Some(Origin {
            parent: known.parent,
            name,
        })
    }

    /// The node has another name now.
    pub(super) fn set_origin(&mut self, slot: u32, origin: Origin<'_>) -> Result<(), Errno> {
        // First, since it may move all names.
        self.set_origin_none(slot);
        let name = self.names.put(origin.name)?;
        let parent_generation = self.generation(origin.parent);
        if let Some(known) = self.at_mut(slot) {
            known.name = name;
            known.parent = origin.parent;
            known.parent_generation = parent_generation;
        }
        Ok(())
    }

    /// The node has no name any more that anyone knows.
    pub(super) fn set_origin_none(&mut self, slot: u32) {
        let name = self
            .at_mut(slot)
            .map(|known| std::mem::take(&mut known.name));
        self.names.discard(name.unwrap_or_default());
        if self.names.is_sparse() {
            self.names
                .pack(self.slots.iter_mut().map(|known| &mut known.name));
        }
    }

    /// Whether a file with these attributes is the node at this place, of which no handle is held.
    pub(super) fn is_same(&self, slot: u32, attributes: &Attributes) -> bool {
        let identity = attributes.identity;
        self.at(slot).is_some_and(|known| {
            known.inode == identity.inode
                && Some(known.device) == self.device(identity)
                && known.birth.is_known()
                && known.birth == Birth::of(attributes.born)
        })
    }

    /// Whether the node can be found again without a handle.
    pub(super) fn can_be_found(&self, slot: u32) -> bool {
        let is_known = self.at(slot).is_some_and(|known| known.birth.is_known());
        is_known && self.origin(slot).is_some()
    }

    pub(super) fn held(&self, slot: u32) -> HeldAt {
        self.at(slot).map(|known| known.held).unwrap_or_default()
    }

    pub(super) fn set_held(&mut self, slot: u32, held: HeldAt) {
        if let Some(known) = self.at_mut(slot) {
            known.held = held;
        }
    }

    pub(super) fn state(&self, slot: u32) -> State {
        let which = self.at(slot).map_or(0, |known| known.state);
        self.states
            .get(usize::from(which))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn set_state(&mut self, slot: u32, state: State) -> Result<(), Errno> {
        let state = self.intern_state(state)?;
        if let Some(known) = self.at_mut(slot).filter(|_| slot != ROOT) {
            known.state = state;
        }
        Ok(())
    }

    /// There are few different states: the rules that an embedder gives make them.
    fn intern_state(&mut self, state: State) -> Result<u16, Errno> {
        intern(&mut self.states, state)
    }

    fn intern_device(&mut self, device: (u32, u32)) -> Result<u16, Errno> {
        intern(&mut self.devices, device)
    }

    fn device(&self, identity: Identity) -> Option<u16> {
        let at = self
            .devices
            .iter()
            .position(|known| *known == identity.device)?;
        u16::try_from(at).ok()
    }

    fn hash(&self, inode: u64) -> u64 {
        self.hasher.hash_one(inode)
    }

    fn at(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)
    }
}

/// The number of `value` among `known`, which it joins. `ENFILE` when there are 65536.
fn intern<T: PartialEq>(known: &mut Vec<T>, value: T) -> Result<u16, Errno> {
    let at = known.iter().position(|other| *other == value);
    let number = u16::try_from(at.unwrap_or(known.len())).map_err(|_| Errno::ENFILE)?;
    if at.is_none() {
        known.push(value);
    }
    Ok(number)
}

impl Slot {
    const fn unused() -> Self {
        Self {
            inode: 0,
            lookups: AtomicU32::new(0),
            generation: 0,
            parent: 0,
            parent_generation: 0,
            name: NameAt::NOWHERE,
            birth: Birth(0),
            held: HeldAt::NOWHERE,
            state: 0,
            device: 0,
        }
    }

    fn is_unused(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) == 0
    }
}

impl Birth {
    fn of(time: Option<Time>) -> Self {
        let Some(time) = time else {
            return Self(0);
        };
        // Nanoseconds have 30 bits; the rest and a multiplication spread the seconds over all.
        let seconds = low(time.seconds.cast_unsigned()).wrapping_mul(0x9e37_79b1);
        Self((seconds ^ time.nanos).max(1))
    }

    fn is_known(self) -> bool {
        self.0 != 0
    }
}

/// The lower half.
fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

const _: () = assert!(ROOT_ID == ROOT as u64, "the root's number is its place");
const _: () = assert!(size_of::<Slot>() == 40, "a node without its name");

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// A directory's attributes, which any will do for.
    fn attributes() -> Attributes {
        let here = crate::host::Host::new(
            std::fs::File::open(std::env::temp_dir()).unwrap().into(),
            true,
            None,
        );
        here.unwrap().1.attributes().unwrap()
    }

    #[test]
    fn a_place_is_given_away_until_its_numbers_are_used_up_and_keeps_to_its_share() {
        let attributes = attributes();
        for share in [0, 7, 255].map(ShareNumber) {
            let mut table = Table::new(share);
            let insert = |table: &mut Table| {
                let slot = table.insert(&attributes, State::default(), None).unwrap();
                (slot, table.id(slot))
            };
            assert_eq!(insert(&mut table), (ROOT, share.root()));
            let (slot, first) = insert(&mut table);
            table.remove(slot);
            assert_eq!(table.place_of(first), Err(Errno::ESTALE));
            table.at_mut(slot).unwrap().generation = LAST_GENERATION;
            let (same, last) = insert(&mut table);
            assert_eq!((same, ShareNumber::of(last)), (slot, share));
            assert_eq!(table.place_of(last), Ok(slot));
            for other in [0, 1, 7, 255].map(ShareNumber) {
                let there = other.mark(last & u64::MAX >> 8);
                assert_eq!(table.place_of(there).is_ok(), other == share);
            }
            table.remove(slot);
            let (another, id) = insert(&mut table);
            assert_ne!(another, slot);
            assert_eq!(table.place_of(last), Err(Errno::ESTALE));
            assert_eq!(ShareNumber::of(id), share);
        }
    }
}
