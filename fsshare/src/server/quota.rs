//! How much the guest may add to the tree.
//!
//! Bytes are those of the files' sizes, holes included, so the count is exact and no file takes more of the host's disk than it counts
//! for (a little metadata apart). What the guest removes is given back when the file is gone: when it has no name and no handle any
//! more. So the tree is never larger than it was by more than the quota; what the guest removes makes room for what it adds, also where the
//! host had made it, and where nothing is used it gives nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::errno::Errno;
use crate::host::{Attributes, Identity, Kind};

/// Most that the guest may add to the tree; no limit unless set. Beyond it the guest gets `EDQUOT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Sizes of files together, bytes.
    pub bytes: Option<u64>,
    /// Files, directories and symbolic links.
    pub inodes: Option<u64>,
}

/// The nodes of one file.
#[derive(Debug, Default)]
struct Life {
    nodes: usize,
    /// It was gone before the first of them, and what it took was given back.
    was_gone: bool,
    size: SizeLock,
}

/// Held by whoever changes a file's size, by whichever of its nodes.
pub(super) type SizeLock = Arc<Mutex<()>>;

/// What was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) bytes: u64,
    pub(super) inodes: u64,
}

/// The quota and what is used of it.
#[derive(Debug)]
pub(super) struct Usage {
    quota: Quota,
    used: Mutex<Added>,
    /// How many nodes of a file there are: one, or more if the guest forgot one that is still open.
    living: Mutex<HashMap<Identity, Life>>,
}

/// Something that was counted before it was made; dropping it takes it back.
#[derive(Debug)]
pub(super) struct Charge<'a> {
    usage: Option<&'a Usage>,
    added: Added,
}

impl Added {
    pub(super) const ONE_INODE: Self = Self {
        bytes: 0,
        inodes: 1,
    };

    /// What a file is that is gone.
    fn of(attributes: &Attributes) -> Self {
        let is_regular = attributes.kind() == Kind::Regular;
        Self {
            bytes: if is_regular { attributes.size } else { 0 },
            inodes: 1,
        }
    }
}

impl Usage {
    /// Nothing is used; no usage is kept without a limit.
    pub(super) fn of(quota: Quota) -> Option<Arc<Self>> {
        (quota != Quota::default()).then(|| {
            Arc::new(Self {
                quota,
                used: Mutex::default(),
                living: Mutex::default(),
            })
        })
    }

    /// Counts what is about to be added. `EDQUOT` if it is too much.
    pub(super) fn charge(&self, added: Added) -> Result<Charge<'_>, Errno> {
        let mut used = self.used();
        let sum = Added {
            bytes: within(used.bytes, added.bytes, self.quota.bytes)?,
            inodes: within(used.inodes, added.inodes, self.quota.inodes)?,
        };
        *used = sum;
        Ok(Charge {
            usage: Some(self),
            added,
        })
    }

    pub(super) fn give_back(&self, added: Added) {
        let mut used = self.used();
        used.bytes = used.bytes.saturating_sub(added.bytes);
        used.inodes = used.inodes.saturating_sub(added.inodes);
    }

    /// There is one more node of the file. The first is asked whether it is gone already: whoever takes a file's last name holds a node of it, so what it
    /// took was given back then.
    pub(super) fn begins(&self, identity: Identity, is_gone: impl FnOnce() -> bool) -> SizeLock {
        let mut living = self.living();
        let life = living.entry(identity).or_default();
        if life.nodes == 0 {
            life.was_gone = is_gone();
        }
        life.nodes += 1;
        Arc::clone(&life.size)
    }

    /// There is one node less of the file. Without a name it is gone with the last of them, which is then asked for its attributes: earlier, another
    /// thread could be about to take the name.
    pub(super) fn ends(&self, identity: Identity, last: impl FnOnce() -> Option<Attributes>) {
        let mut living = self.living();
        if let Some(life) = living.get_mut(&identity) {
            life.nodes -= 1;
            if life.nodes > 0 {
                return;
            }
        }
        if living.remove(&identity).is_some_and(|life| life.was_gone) {
            return;
        }
        if let Some(last) = last().filter(|last| last.links == 0) {
            self.give_back(Added::of(&last));
        }
    }

    fn living(&self) -> MutexGuard<'_, HashMap<Identity, Life>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is left of bytes and inodes, where there is a limit.
    pub(super) fn left(&self) -> (Option<u64>, Option<u64>) {
        let used = *self.used();
        let left = |limit: Option<u64>, used| limit.map(|limit| limit.saturating_sub(used));
        (
            left(self.quota.bytes, used.bytes),
            left(self.quota.inodes, used.inodes),
        )
    }

    fn used(&self) -> MutexGuard<'_, Added> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge<'_> {
    /// Nothing is counted.
    pub(super) const fn none() -> Self {
        Self {
            usage: None,
            added: Added {
                bytes: 0,
                inodes: 0,
            },
        }
    }

    /// It was made, all of it.
    pub(super) fn keep(mut self) {
        self.usage = None;
    }

    /// So many of the bytes were written.
    pub(super) fn keep_bytes(mut self, bytes: u64) {
        self.added.bytes = self.added.bytes.saturating_sub(bytes);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        if let Some(usage) = self.usage {
            usage.give_back(self.added);
        }
    }
}

fn within(used: u64, more: u64, limit: Option<u64>) -> Result<u64, Errno> {
    let sum = used.checked_add(more).ok_or(Errno::EDQUOT)?;
    // What adds nothing is always allowed.
    if more > 0 && limit.is_some_and(|limit| sum > limit) {
        Err(Errno::EDQUOT)
    } else {
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(bytes: u64, inodes: u64) -> Arc<Usage> {
        let (bytes, inodes) = (Some(bytes), Some(inodes));
        Usage::of(Quota { bytes, inodes }).unwrap()
    }

    fn bytes(bytes: u64) -> Added {
        Added { bytes, inodes: 0 }
    }

    #[test]
    fn the_limit_is_hit_exactly() {
        let usage = usage(10, 1);
        usage.charge(bytes(10)).unwrap().keep();
        assert_eq!(usage.charge(bytes(1)).unwrap_err(), Errno::EDQUOT);
        assert!(usage.charge(bytes(0)).is_ok());
        usage.charge(Added::ONE_INODE).unwrap().keep();
        assert_eq!(usage.charge(Added::ONE_INODE).unwrap_err(), Errno::EDQUOT);
        usage.give_back(bytes(4));
        assert_eq!(usage.left(), (Some(4), Some(0)));
        assert_eq!(usage.charge(bytes(u64::MAX)).unwrap_err(), Errno::EDQUOT);
    }

    #[test]
    fn what_was_not_made_does_not_count() {
        let usage = usage(10, 1);
        drop(usage.charge(bytes(10)).unwrap());
        usage.charge(bytes(8)).unwrap().keep_bytes(3);
        assert_eq!(usage.left(), (Some(7), Some(1)));
    }

    #[test]
    fn removing_what_was_there_gives_nothing() {
        let usage = usage(10, 1);
        usage.give_back(bytes(100));
        assert_eq!(usage.left(), (Some(10), Some(1)));
        assert!(usage.charge(bytes(11)).is_err());
    }
}
