//! What the host had wherever the guest changed something of it: the ground for saying later what was changed, and whether the host's user has
//! changed the same meanwhile.
//!
//! A file of records (their form: `record`) which are only ever added, each by one call; of several for one path the last holds.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::record::{Record, framed, records};
use crate::errno::Errno;
use crate::host::{Attributes, Kind};

/// The file's name.
const NAME: &std::ffi::CStr = c"origins";

/// Most records that one writer adds: as many files of the host as it changes, and each once unless the host changes it, too.
const MOST: usize = 1 << 22;
/// Most bytes that are read.
const LONGEST: u64 = 1 << 30;

/// The file, to be added to.
#[derive(Debug)]
pub(crate) struct Origins {
    records: Mutex<Added>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Added {
    file: File,
    /// What was added, by its hash: a guest may have the same refused for ever.
    told: HashSet<u64>,
}

/// What the host had by some name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) inode: u64,
    pub(super) modified: (i64, u32),
}

impl Origin {
    pub(crate) fn of(attributes: &Attributes) -> Self {
        let modified = attributes.modified;
        Self {
            mode: attributes.mode,
            size: attributes.size,
            inode: attributes.identity.inode,
            modified: (modified.seconds, modified.nanos),
        }
    }

    /// Whether something with these attributes is as it was. Of a directory only what it is counts: what is in it has its own records.
    pub(crate) fn is_still(&self, attributes: &Attributes) -> bool {
        let now = Self::of(attributes);
        if Kind::of_mode(self.mode) == Kind::Directory {
            self.mode == now.mode
        } else {
            *self == now
        }
    }

    /// Whether a file with these attributes is the same and has not been written to.
    pub(super) fn is_same_content(&self, attributes: &Attributes) -> bool {
        let now = Self::of(attributes);
        (self.size, self.inode, self.modified) == (now.size, now.inode, now.modified)
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text)
            .ok()?
            .strip_suffix(' ')?
            .split(' ');
        let mut next = || numbers.next();
        Some(Self {
            mode: next()?.parse().ok()?,
            size: next()?.parse().ok()?,
            inode: next()?.parse().ok()?,
            modified: (next()?.parse().ok()?, next()?.parse().ok()?),
        })
    }

    pub(super) fn text(&self) -> String {
        let (seconds, nanos) = self.modified;
        format!(
            "{} {} {} {seconds} {nanos} ",
            self.mode, self.size, self.inode
        )
    }
}

impl Origins {
    /// The file in `directory`, which is made if it is not there.
    pub(super) fn open(directory: &OwnedFd) -> io::Result<Self> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(directory, NAME, flags, mode)?);
        let told = HashSet::new();
        Ok(Self {
            records: Mutex::new(Added { file, told }),
            hasher: RandomState::new(),
        })
    }

    /// Adds a record. `ENOSPC` beyond four million.
    pub(crate) fn record(&self, path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
        self.add(path, Some(Origin::of(attributes)))
    }

    /// The same of what was there, if something was.
    pub(super) fn add(&self, path: &[u8], origin: Option<Origin>) -> Result<(), Errno> {
        let record = framed(path, &origin.map_or(Record::Nothing, Record::Was));
        let hash = self.hasher.hash_one(&record);
        let mut added = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if added.told.contains(&hash) {
            return Ok(());
        }
        if added.told.len() == MOST {
            return Err(Errno::ENOSPC);
        }
        added.file.write_all(&record)?;
        added.told.insert(hash);
        Ok(())
    }

    /// Keeps everybody else from applying the same changes, for as long as this is there. Gives whether nobody does.
    pub(super) fn lock(&self) -> io::Result<bool> {
        let added = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        match rustix::fs::flock(&added.file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            outcome => Ok(outcome.map(|()| true)?),
        }
    }

    /// What the host had, by path, as the last records in `directory` have it.
    pub(super) fn read(directory: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Origin>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        match rustix::fs::openat(directory, NAME, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            file => {
                let mut most = File::from(file?).take(LONGEST + 1);
                if most.read_to_end(&mut bytes)? as u64 > LONGEST {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
            }
        }
        let mut last = BTreeMap::new();
        for (path, record) in records(&bytes) {
            match record {
                Record::Was(origin) => last.insert(path, origin),
                _ => last.remove(&path),
            };
        }
        Ok(last)
    }
}

impl Drop for Origins {
    fn drop(&mut self) {
        // A program that is being started may have the file for a moment longer, and must not keep the lock.
        let added = self.records.get_mut();
        let added = added.unwrap_or_else(PoisonError::into_inner);
        let _ = rustix::fs::flock(&added.file, FlockOperation::Unlock);
    }
}
