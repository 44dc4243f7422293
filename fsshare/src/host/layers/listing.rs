//! Listings of directories that are in both trees.

use std::collections::HashSet;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::os;
use crate::abi::DirEntry;
use crate::errno::Errno;
use crate::host::{Next, upper_number};

/// `DT_FIFO`.
const FIFO: u32 = 1;
/// `DT_DIR`.
const DIRECTORY: u32 = 4;
/// Most bytes that the listings of one share take together: directories in both trees with two million entries of usual names.
const MOST_BYTES: usize = 128 << 20;
/// What an entry takes beside its name, about.
const ENTRY_BYTES: usize = 48;

/// A directory that is open for listing.
#[derive(Debug)]
pub(crate) enum Directory {
    /// Of the host's tree.
    Plain(os::Directory),
    /// Of the upper tree only.
    Upper(os::Directory),
    Merged(Merged),
}

/// A directory that is in both trees. What it holds is gathered when it is listed from the beginning, so that its order and the
/// positions in it stay the same, whatever is copied up meanwhile.
#[derive(Debug)]
pub(crate) struct Merged {
    upper: os::Directory,
    lower: os::Directory,
    /// It was opened before it was copied up: positions that were given then are the lower directory's.
    was_lower: bool,
    gathered: Mutex<Option<Gathered>>,
    room: Room,
}

/// How many bytes are gathered in all listings.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<AtomicUsize>);

/// What a directory held; its bytes are counted in the room.
#[derive(Debug)]
struct Gathered {
    entries: Vec<Entry>,
    bytes: usize,
    room: Room,
}

#[derive(Debug)]
struct Entry {
    ino: u64,
    kind: u32,
    name: Box<[u8]>,
}

/// Whether the entry of an upper directory says that there is nothing of that name.
pub(super) fn is_whiteout(entry: &DirEntry<'_>) -> bool {
    entry.kind == FIFO
}

/// The entry of an upper directory with the number that the guest knows.
fn shown<'a>(entry: &DirEntry<'a>) -> DirEntry<'a> {
    let ino = match entry.kind {
        DIRECTORY => entry.ino,
        _ => upper_number(entry.ino),
    };
    DirEntry { ino, ..*entry }
}

impl Directory {
    pub(super) fn merged(upper: os::Directory, lower: os::Directory, room: &Room) -> Self {
        Self::Merged(Merged {
            upper,
            lower,
            was_lower: false,
            gathered: Mutex::default(),
            room: room.clone(),
        })
    }

    /// The same for someone who began to list the lower directory when there was no other.
    pub(crate) fn resumed(mut self) -> Self {
        if let Self::Merged(merged) = &mut self {
            merged.was_lower = true;
        }
        self
    }

    /// Shows the entries from the cookie `from` on to `each` until it has enough or the directory ends. 0 is the beginning.
    pub(crate) fn list(
        &self,
        from: u64,
        scratch: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&DirEntry<'_>) -> Result<Next, Errno>,
    ) -> Result<(), Errno> {
        match self {
            Self::Plain(directory) => directory.list(from, scratch, each),
            Self::Upper(directory) => directory.list(from, scratch, |entry| {
                if is_whiteout(entry) {
                    Ok(Next::More)
                } else {
                    each(&shown(entry))
                }
            }),
            Self::Merged(merged) => merged.list(from, scratch, each),
        }
    }

    /// Makes the directory durable.
    pub(crate) fn sync(&self, data_only: bool) -> Result<(), Errno> {
        match self {
            Self::Plain(directory) | Self::Upper(directory) => directory.sync(data_only),
            Self::Merged(merged) => merged.upper.sync(data_only),
        }
    }
}

impl Merged {
    fn list(
        &self,
        from: u64,
        scratch: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&DirEntry<'_>) -> Result<Next, Errno>,
    ) -> Result<(), Errno> {
        let mut gathered = self.gathered();
        if self.was_lower && from != 0 && gathered.is_none() {
            return self.lower.list(from, scratch, each);
        }
        if from == 0 || gathered.is_none() {
            // First, so that its room can be taken again.
            *gathered = None;
            *gathered = Some(self.gather(scratch)?);
        }
        let begin = usize::try_from(from).map_err(|_| Errno::EINVAL)?;
        let entries = gathered.as_ref().map(|gathered| &gathered.entries);
        let rest = entries.and_then(|entries| entries.get(begin..));
        for (entry, next) in rest.unwrap_or_default().iter().zip(from + 1..) {
            let shown = DirEntry {
                ino: entry.ino,
                next,
                kind: entry.kind,
                name: &entry.name,
            };
            if each(&shown)? == Next::Enough {
                break;
            }
        }
        Ok(())
    }

    fn gather(&self, scratch: &mut [MaybeUninit<u8>]) -> Result<Gathered, Errno> {
        let mut gathered = Gathered {
            entries: Vec::new(),
            bytes: 0,
            room: self.room.clone(),
        };
        // What is in the upper directory hides what is below, be it something or nothing.
        let mut above: HashSet<Box<[u8]>> = HashSet::new();
        self.upper.list(0, scratch, |entry| {
            gathered.count(entry)?;
            above.insert(entry.name.into());
            if !is_whiteout(entry) {
                gathered.push(&shown(entry))?;
            }
            Ok(Next::More)
        })?;
        self.lower.list(0, scratch, |entry| {
            if !above.contains(entry.name) {
                gathered.push(entry)?;
            }
            Ok(Next::More)
        })?;
        Ok(gathered)
    }

    fn gathered(&self) -> MutexGuard<'_, Option<Gathered>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn push(&mut self, entry: &DirEntry<'_>) -> Result<(), Errno> {
        self.count(entry)?;
        self.entries.push(Entry {
            ino: entry.ino,
            kind: entry.kind,
            name: entry.name.into(),
        });
        Ok(())
    }

    /// Counts what an entry takes. `ENOMEM` if it is too much.
    fn count(&mut self, entry: &DirEntry<'_>) -> Result<(), Errno> {
        let bytes = ENTRY_BYTES + entry.name.len();
        let more = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= MOST_BYTES);
        let taken = self
            .room
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|_| Errno::ENOMEM)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
