//! A report while it is made.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::change::{Change, What};
use super::overlay::ChangesError;
use crate::errno::Errno;
use crate::host::{Attributes, Identity, Kind, Time};

/// Most changes, and paths that cannot be compared, that are told.
const MOST: usize = 1 << 20;
/// Most bytes of their paths together: a guest can make them as long as it likes.
const MOST_BYTES: usize = 64 << 20;

/// What is told, in any order.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) entries: Vec<Entry>,
    pub(super) unread: Vec<ChangesError>,
    bytes: usize,
    was_full: bool,
}

/// A change, and what it was seen in.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) change: Change,
    /// The guest's, unless it is gone.
    pub(super) seen: Option<Seen>,
}

/// What tells whether the guest has changed something since it was looked at. In a directory it may have: what is there is told by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    identity: Identity,
    mode: u32,
    of_content: Option<(u64, Time, Time)>,
}

impl Seen {
    pub(super) fn of(attributes: &Attributes) -> Self {
        let content = (attributes.size, attributes.modified, attributes.changed);
        Self {
            identity: attributes.identity,
            mode: attributes.mode,
            of_content: (attributes.kind() != Kind::Directory).then_some(content),
        }
    }
}

impl Report {
    pub(super) fn tell(&mut self, change: Change, seen: Option<Seen>) {
        if self.has_room(&change.path) {
            self.entries.push(Entry { change, seen });
        }
    }

    /// What there is of a result; an error is told.
    pub(super) fn kept<T>(&mut self, result: Result<T, Errno>, path: &Path) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(errno) => {
                if self.has_room(path) {
                    self.unread.push(unread(path, errno));
                }
                None
            }
        }
    }

    fn has_room(&mut self, path: &Path) -> bool {
        let bytes = self.bytes.saturating_add(path.as_os_str().len());
        self.was_full |= self.entries.len() + self.unread.len() >= MOST || bytes > MOST_BYTES;
        if !self.was_full {
            self.bytes = bytes;
        }
        !self.was_full
    }

    /// Whether something was left out, so that there is no sense in looking further.
    pub(super) fn was_full(&self) -> bool {
        self.was_full
    }

    /// Makes one change of each thing that came to a path and what went from the other: where it is now, and its old path.
    pub(super) fn merge_renames(&mut self, renamed: HashMap<PathBuf, PathBuf>) {
        let mut by_old: HashMap<_, _> = renamed.into_iter().map(|(new, old)| (old, new)).collect();
        let mut gone = HashMap::new();
        self.entries.retain(|entry| {
            let new = match entry.change.what {
                What::Deleted => by_old.remove(&entry.change.path),
                _ => None,
            };
            let Some(new) = new else { return true };
            gone.insert(new, entry.change.clone());
            false
        });
        for entry in &mut self.entries {
            if let Some(old) = gone.remove(&entry.change.path) {
                entry.change.come_from(old);
            }
        }
    }

    /// The whole, by path.
    pub(super) fn sorted(mut self) -> Self {
        self.entries
            .sort_by(|a, b| a.change.path.cmp(&b.change.path));
        self
    }
}

impl Change {
    /// It is what is gone by another name. What the host runs or obeys is so under either.
    fn come_from(&mut self, old: Self) {
        self.before = old.before;
        self.is_conflict |= old.is_conflict;
        self.caution = self.caution.or(old.caution);
        self.what = What::Renamed { from: old.path };
    }
}

/// The error of something at `path`.
pub(super) fn unread(path: &Path, errno: Errno) -> ChangesError {
    ChangesError::Read {
        path: path.into(),
        source: io::Error::from(errno),
    }
}
