//! Synthetic addresses: one for each name that the guest asked for and may reach.
//!
//! The guest's connection says an address only. Because each address stands for one name, the name is known before the first byte, and
//! nothing the guest asks for has to be looked up. A table serves one sandbox; another one's has the same addresses and does not know it.
//!
//! What holds, whatever the guest asks for:
//!
//! * an address stands for at most one name at a time, and a name has at most one address;
//! * an address gets another name only when [`REST`] has passed since it was last given as an answer, and while nobody holds it
//!   ([`Names::hold`]): whoever remembers an answer for that long reaches nothing else by it;
//! * there are at most [`MAX_NAMES`] names, and at most as many as the pool has addresses.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::name::HostName;

mod pool;

pub use pool::{Pool, PoolError};

/// How long an address is nobody else's after it was given as an answer: longer than a guest may remember one ([`crate::dns::TTL`]),
/// because programs do.
pub const REST: Duration = Duration::from_secs(300);
/// Most names of a sandbox at a time.
pub const MAX_NAMES: usize = 8192;

/// Which address stands for which name.
///
/// Time is what the caller says. When it goes backwards, addresses rest longer.
#[derive(Debug)]
pub struct Names {
    pool: Pool,
    /// As many as were ever given, in the order of the pool's addresses.
    entries: Vec<Entry>,
    by_name: HashMap<HostName, usize>,
    /// Each entry once, by its `order`: the one that was given the longest ago is first.
    oldest: BTreeSet<(u64, usize)>,
    /// Answers given so far.
    answers: u64,
}

/// One address.
#[derive(Debug)]
struct Entry {
    name: HostName,
    /// Which of all answers gave it last.
    order: u64,
    given: Instant,
    /// As many more references as there are holders.
    holders: Arc<()>,
}

/// As long as it lives, the address goes on standing for the name.
#[derive(Clone, Debug)]
pub struct HeldName {
    name: HostName,
    _holder: Arc<()>,
}

impl HeldName {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.name
    }
}

impl Names {
    /// No names yet; their addresses will be of `pool`.
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            entries: Vec::new(),
            by_name: HashMap::new(),
            oldest: BTreeSet::new(),
            answers: 0,
        }
    }

    /// The address that stands for `name` from now on, given as an answer at `now`. `None` when there is no room: no address is free,
    /// and none has rested.
    pub fn give(&mut self, name: &HostName, now: Instant) -> Option<Ipv4Addr> {
        let index = match self.by_name.get(name) {
            Some(index) => *index,
            None => self.assign(name, now)?,
        };
        self.touch(index, now);
        self.pool.address(index)
    }

    /// Which name `address` stands for.
    #[must_use]
    pub fn name_of(&self, address: Ipv4Addr) -> Option<&HostName> {
        self.entry(address).map(|entry| &entry.name)
    }

    /// Which address stands for `name`. Unlike [`Self::give`] this is no answer.
    #[must_use]
    pub fn address_of(&self, name: &HostName) -> Option<Ipv4Addr> {
        self.pool.address(*self.by_name.get(name)?)
    }

    /// Which name `address` stands for, for a flow that goes there: it stays so until what is returned, and every clone of it, is dropped.
    #[must_use]
    pub fn hold(&self, address: Ipv4Addr) -> Option<HeldName> {
        self.entry(address).map(|entry| HeldName {
            name: entry.name.clone(),
            _holder: Arc::clone(&entry.holders),
        })
    }

    /// Where the addresses are from.
    #[must_use]
    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// How many names have an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no name has an address.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&self, address: Ipv4Addr) -> Option<&Entry> {
        self.entries.get(self.pool.index(address)?)
    }

    /// Gives `name`, which has none, an address: one that was never given, else the one that was given the longest ago.
    fn assign(&mut self, name: &HostName, now: Instant) -> Option<usize> {
        let unused = self.entries.len();
        if unused < MAX_NAMES.min(self.pool.size()) {
            self.entries.push(Entry::new(name, now));
            self.by_name.insert(name.clone(), unused);
            return Some(unused);
        }
        let index = self.rested(now)?;
        let entry = self.entries.get_mut(index)?;
        self.by_name.remove(&entry.name);
        entry.name = name.clone();
        self.by_name.insert(name.clone(), index);
        Some(index)
    }

    /// An entry that may get another name. Those that are held are put behind all others as if given `now`, so that the next search does
    /// not meet them again; therefore one search meets each entry at most once.
    fn rested(&mut self, now: Instant) -> Option<usize> {
        loop {
            let (_, index) = *self.oldest.first()?;
            let entry = self.entries.get(index)?;
            if now.saturating_duration_since(entry.given) < REST {
                return None;
            }
            if !entry.is_held() {
                return Some(index);
            }
            self.touch(index, now);
        }
    }

    /// Puts an entry behind all others.
    fn touch(&mut self, index: usize, now: Instant) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        self.oldest.remove(&(entry.order, index));
        self.answers += 1;
        entry.order = self.answers;
        entry.given = entry.given.max(now);
        self.oldest.insert((entry.order, index));
    }
}

impl Entry {
    fn new(name: &HostName, now: Instant) -> Self {
        Self {
            name: name.clone(),
            order: 0,
            given: now,
            holders: Arc::new(()),
        }
    }

    fn is_held(&self) -> bool {
        Arc::strong_count(&self.holders) > 1
    }
}

#[cfg(test)]
mod tests;
