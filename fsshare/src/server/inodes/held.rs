//! The nodes of which a descriptor is held, no more than the cap. Who comes when all places are taken gets that of one who was not used for
//! long (a clock with a second chance).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Inode;
use crate::errno::Errno;

/// Nodes that would not be found again are passed over so often before one of them has to leave.
const ENOUGH: usize = 64;

/// The place of a held node, or none (the default).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldAt(u32);

/// What gave up its place.
#[derive(Debug)]
pub(super) struct Evicted {
    pub(super) slot: u32,
    pub(super) inode: Arc<Inode>,
}

#[derive(Debug)]
struct Entry {
    slot: u32,
    inode: Arc<Inode>,
    /// Since the hand came by last.
    was_used: AtomicBool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Held {
    places: Vec<Option<Entry>>,
    free: Vec<u32>,
    hand: usize,
    most: usize,
}

impl Held {
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            hand: 0,
            most,
        }
    }

    pub(super) fn get(&self, at: HeldAt) -> Option<&Arc<Inode>> {
        let entry = self.places.get(at.index()?)?.as_ref()?;
        entry.was_used.store(true, Ordering::Relaxed);
        Some(&entry.inode)
    }

    /// Holds a node. If another has to give up its place for it, that one is returned; it is one that nobody uses, and `is_found_again` if
    /// there is such a one at hand. `ENFILE` if all are in use.
    pub(super) fn insert(
        &mut self,
        slot: u32,
        inode: Arc<Inode>,
        is_found_again: impl Fn(u32) -> bool,
    ) -> Result<(HeldAt, Option<Evicted>), Errno> {
        let entry = Entry {
            slot,
            inode,
            was_used: AtomicBool::new(true),
        };
        let (index, evicted) = if let Some(index) = self.free.pop() {
            (index as usize, None)
        } else if self.places.len() < self.most {
            self.places.push(None);
            (self.places.len() - 1, None)
        } else {
            let index = self.find_unused(is_found_again).ok_or(Errno::ENFILE)?;
            (index, self.places.get_mut(index).and_then(Option::take))
        };
        let at = HeldAt::of_index(index)?;
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(entry);
        }
        let evicted = evicted.map(|Entry { slot, inode, .. }| Evicted { slot, inode });
        Ok((at, evicted))
    }

    /// The place of a node that nobody uses: of one that is found again, or else of any.
    fn find_unused(&mut self, is_found_again: impl Fn(u32) -> bool) -> Option<usize> {
        let mut last_resort = None;
        let mut others = 0;
        // The first round takes away the second chances.
        for _ in 0..2 * self.places.len() {
            let index = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            let Some(Some(entry)) = self.places.get(index) else {
                continue;
            };
            let was_used = entry.was_used.swap(false, Ordering::Relaxed);
            // Whoever uses a node has its own reference, and a new one is made from another or under the table's lock.
            let is_in_use = Arc::strong_count(&entry.inode) > 1;
            if was_used || is_in_use {
                continue;
            }
            if is_found_again(entry.slot) {
                return Some(index);
            }
            last_resort = last_resort.or(Some(index));
            others += 1;
            if others == ENOUGH {
                break;
            }
        }
        last_resort
    }

    pub(super) fn remove(&mut self, at: HeldAt) -> Option<Arc<Inode>> {
        let index = at.index()?;
        let entry = self.places.get_mut(index)?.take()?;
        self.free.push(u32::try_from(index).ok()?);
        Some(entry.inode)
    }

    /// All of them; none is left.
    pub(super) fn take(&mut self) -> Self {
        let none = Self::new(self.most);
        std::mem::replace(self, none)
    }
}

impl HeldAt {
    pub(super) const NOWHERE: Self = Self(0);

    pub(super) fn is_nowhere(self) -> bool {
        self.0 == 0
    }

    fn index(self) -> Option<usize> {
        usize::try_from(self.0).ok()?.checked_sub(1)
    }

    fn of_index(index: usize) -> Result<Self, Errno> {
        let number = u32::try_from(index + 1).map_err(|_| Errno::ENFILE)?;
        Ok(Self(number))
    }
}
