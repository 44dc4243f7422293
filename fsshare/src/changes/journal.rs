//! What is written down while a guest changes the host's own tree, which keeps no record of it: what was there before each first change, and which
//! directories were moved.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use super::origins::Origin;
use super::record::{Record, framed, records};
use crate::host::Attributes;

/// Most records that are written.
const MOST: usize = 1 << 20;
/// Most bytes of their paths together.
const MOST_BYTES: usize = 64 << 20;
/// Most bytes that are read of a journal: no longer one is written.
const LONGEST: u64 = 256 << 20;
/// Most bytes of paths that are followed when directories are moved or removed, each time they are.
const MOST_FOLLOWED: usize = 256 << 20;
/// In the place of a path, all of which are below the root: the rest was too much.
const REST: &[u8] = b"/";

/// The paths that a guest has changed, each with what was there.
#[derive(Debug)]
pub(crate) struct Journal {
    written: Mutex<Written>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Written {
    file: File,
    /// What was noted, by its hash, since a directory was moved last: two with the same one are as unlikely as can be, and cost one its place in
    /// the report.
    noted: HashSet<u64>,
    count: usize,
    bytes: usize,
    is_full: bool,
}

impl Journal {
    /// Writes to the end of `file`.
    ///
    /// # Errors
    /// None here; where there are no journals, that.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            written: Mutex::new(Written {
                file: file.into(),
                noted: HashSet::new(),
                count: 0,
                bytes: 0,
                is_full: false,
            }),
            hasher: RandomState::new(),
        })
    }

    /// The guest is about to change what is at the path, or to make something where there is nothing. What the journal does not take, the report
    /// does not tell: that is no reason to keep the guest from it.
    pub(crate) fn note(&self, path: &[u8], present: Option<&Attributes>) {
        self.note_once(path, self.hasher.hash_one(path), || {
            present.map_or(Record::Nothing, |present| Record::Was(Origin::of(present)))
        });
    }

    /// The guest is about to remove a directory: what was noted of what is in it is told there, also if another directory of that name is moved.
    pub(crate) fn note_emptied(&self, path: &[u8]) {
        let hash = self.hasher.hash_one((path, "emptied"));
        self.note_once(path, hash, || Record::Emptied);
    }

    fn note_once(&self, path: &[u8], hash: u64, record: impl FnOnce() -> Record) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if !written.is_full && written.noted.insert(hash) {
            written.add(path, path.len(), &record());
        }
    }

    /// The guest has moved a directory, or exchanged one for something: what was noted of what is in it is told where that is now.
    pub(crate) fn note_moved(&self, from: &[u8], to: &[u8], is_exchange: bool) {
        let record = match is_exchange {
            true => Record::ExchangedWith(to.to_vec()),
            false => Record::MovedTo(to.to_vec()),
        };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.noted.clear();
        written.add(from, from.len() + to.len(), &record);
    }
}

impl Written {
    fn add(&mut self, path: &[u8], length: usize, record: &Record) {
        if self.is_full {
            return;
        }
        self.count += 1;
        self.bytes = self.bytes.saturating_add(length);
        self.is_full = self.count > MOST || self.bytes > MOST_BYTES;
        if !self.is_full && self.file.write_all(&framed(path, record)).is_err() {
            self.is_full = true;
        }
        if self.is_full {
            // Where there is not even room for this, the host's memory has come to its end.
            let _ = self.file.write_all(&framed(REST, &Record::Nothing));
        }
    }
}

/// What was there before the guest changed it first, by the path that it has, or would have, now.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) paths: BTreeMap<Vec<u8>, Option<Origin>>,
    /// Whether not all could be told.
    pub(super) is_cut: bool,
    /// What was in directories that were removed: what comes to its path later is something else.
    gone: BTreeMap<Vec<u8>, Origin>,
    /// Bytes of paths that were followed.
    followed: usize,
}

/// What was noted below a directory, each with the rest of its path.
type Inside = Vec<(Vec<u8>, Option<Origin>)>;

impl Before {
    pub(super) fn read(journal: &OwnedFd) -> io::Result<Self> {
        let journal = File::from(journal.try_clone()?);
        let length = journal.metadata()?.len().min(LONGEST);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        // At its own place: whoever writes has the same descriptor.
        journal.read_exact_at(&mut bytes, 0)?;
        let mut before = Self::default();
        for (path, record) in records(&bytes) {
            before.take(path, record);
        }
        for (path, origin) in std::mem::take(&mut before.gone) {
            before.paths.insert(path, Some(origin));
        }
        Ok(before)
    }

    fn take(&mut self, path: Vec<u8>, record: Record) {
        match record {
            _ if path == REST => self.is_cut = true,
            Record::Was(origin) => drop(self.paths.entry(path).or_insert(Some(origin))),
            Record::Nothing => drop(self.paths.entry(path).or_insert(None)),
            Record::Emptied => self.empty(&path),
            Record::MovedTo(to) => {
                self.empty(&to);
                let inside = self.take_inside(&path);
                self.put_inside(&to, inside);
            }
            Record::ExchangedWith(to) => {
                let (inside, other) = (self.take_inside(&path), self.take_inside(&to));
                self.put_inside(&to, inside);
                self.put_inside(&path, other);
            }
        }
    }

    /// Nothing is in a directory any more. What was not there before stays noted: whether it is gone is seen when it is looked for.
    fn empty(&mut self, directory: &[u8]) {
        for path in self.paths_inside(directory) {
            if let Some(origin @ Some(_)) = self.paths.get_mut(&path)
                && let Some(origin) = origin.take()
            {
                self.gone.entry(path).or_insert(origin);
            }
        }
    }

    /// None if a guest moves and removes so much, so often or so deep that it is not followed any more.
    fn paths_inside(&mut self, directory: &[u8]) -> Vec<Vec<u8>> {
        let begin = [directory, b"/"].concat();
        let mut inside = Vec::new();
        for (path, _) in self.paths.range(begin.clone()..) {
            if !path.starts_with(&begin) {
                break;
            }
            self.followed = self.followed.saturating_add(path.len());
            if self.followed > MOST_FOLLOWED {
                self.is_cut = true;
                return Vec::new();
            }
            inside.push(path.clone());
        }
        inside
    }

    fn take_inside(&mut self, directory: &[u8]) -> Inside {
        let taken = self.paths_inside(directory).into_iter();
        let taken = taken.filter_map(|path| {
            let origin = self.paths.remove(&path)?;
            Some((path.get(directory.len()..)?.to_vec(), origin))
        });
        taken.collect()
    }

    fn put_inside(&mut self, directory: &[u8], inside: Inside) {
        for (rest, origin) in inside {
            let path = [directory, &rest].concat();
            self.followed = self.followed.saturating_add(path.len());
            if self.followed > MOST_FOLLOWED {
                self.is_cut = true;
                return;
            }
            self.paths.entry(path).or_insert(origin);
        }
    }
}
