//! What a guest changed in the host's own tree, which keeps no record of it: the server writes down what was there before each first change.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::change::{Caution, Change, FileKind, FileState, What};
use super::origins::{Origin, Origins, records};
use super::overlay::{ChangesError, kept};
use super::tree::{Found, Tree};
use crate::errno::Errno;
use crate::host::Attributes;

/// Most paths that are written down.
const MOST: usize = 1 << 20;
/// Most bytes of their paths together.
const MOST_BYTES: usize = 64 << 20;
/// Most bytes that are read of a journal: no longer one is written.
const LONGEST: u64 = 256 << 20;
/// In the place of a path, all of which are below the root: the rest was too much.
const REST: &[u8] = b"/";

/// The paths that a guest has changed, each with what was there.
#[derive(Debug)]
pub(crate) struct Journal {
    origins: Origins,
    told: Mutex<Told>,
    hasher: RandomState,
}

/// What was written down.
#[derive(Debug, Default)]
struct Told {
    /// By its hash: two paths with the same one are as unlikely as can be, and cost one its place in the report.
    paths: HashSet<u64>,
    bytes: usize,
    is_full: bool,
}

/// What a guest has changed in the host's own tree.
#[derive(Debug)]
pub struct ChangesInPlace {
    /// By path.
    pub list: Vec<Change>,
    /// What could not be compared, [`ChangesError::Read`] each.
    pub unread: Vec<ChangesError>,
    /// Whether that is all: of more than a million paths, or 64 MiB of them, the rest is not told.
    pub is_complete: bool,
}

impl Journal {
    /// Writes to the end of `file`.
    ///
    /// # Errors
    /// None here; where there are no journals, that.
    pub(crate) fn new(file: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            origins: Origins::of(file.into()),
            told: Mutex::default(),
            hasher: RandomState::new(),
        })
    }

    /// The guest is about to change what is at the path, or to make something where there is nothing. What the journal does not take, the report
    /// does not tell: that is no reason to keep the guest from it.
    pub(crate) fn note(&self, path: &[u8], present: Option<&Attributes>) {
        let hash = self.hasher.hash_one(path);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_full || !told.paths.insert(hash) {
            return;
        }
        told.bytes = told.bytes.saturating_add(path.len());
        told.is_full = told.paths.len() > MOST || told.bytes > MOST_BYTES;
        let _ = if told.is_full {
            self.origins.add(REST, None)
        } else {
            self.origins.add(path, present.map(Origin::of))
        };
    }
}

/// What a guest has changed in the tree at `root` since its share began, which writes its [`Config::journal`](crate::Config::journal) to the file
/// `journal`. What the host's user did to the same files meanwhile cannot be told apart. A directory that was renamed is one
/// change, whatever is in it.
///
/// # Errors
/// [`ChangesError::Open`].
pub fn changes_in_place(root: OwnedFd, journal: &OwnedFd) -> Result<ChangesInPlace, ChangesError> {
    let bytes = read(journal).map_err(ChangesError::Open)?;
    let mut before = BTreeMap::new();
    for (path, origin) in records(&bytes) {
        before.entry(path).or_insert(origin);
    }
    let is_complete = before.remove(REST).is_none();
    let tree = Tree::new(root)?;
    let (mut list, mut unread) = (Vec::new(), Vec::new());
    let mut gone: BTreeMap<(u64, FileKind), PathBuf> = BTreeMap::new();
    let mut added = Vec::new();
    for (path, origin) in &before {
        let path = Path::new(OsStr::from_bytes(path));
        let compared = tree.find(path).and_then(|present| {
            let change = compare(&tree, path, origin.as_ref(), present.as_ref())?;
            Ok(change.map(|change| (change, present)))
        });
        let Some((change, present)) = kept(compared, path, &mut unread).flatten() else {
            continue;
        };
        match (&change.what, origin, &present) {
            (What::Deleted, Some(origin), _) => {
                let kind = FileState::of_origin(origin).kind;
                gone.insert((origin.inode, kind), path.into());
            }
            (What::Added, _, Some(present)) => {
                let kind = FileState::of(present).kind;
                added.push((list.len(), (present.attributes.identity.inode, kind)));
            }
            _ => {}
        }
        list.push(change);
    }
    pair_renames(&mut list, &mut gone, added);
    Ok(ChangesInPlace {
        list,
        unread,
        is_complete,
    })
}

fn read(journal: &OwnedFd) -> io::Result<Vec<u8>> {
    let journal = File::from(journal.try_clone()?);
    let length = journal.metadata()?.len().min(LONGEST);
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    // At its own place: whoever writes has the same descriptor.
    journal.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn compare(
    tree: &Tree,
    path: &Path,
    origin: Option<&Origin>,
    present: Option<&Found>,
) -> Result<Option<Change>, Errno> {
    let what = match (origin, present) {
        (None, None) => return Ok(None),
        (None, Some(_)) => What::Added,
        (Some(_), None) => What::Deleted,
        (Some(origin), Some(present)) => {
            let states = (FileState::of_origin(origin), FileState::of(present));
            let is_directory = states.1.kind == FileKind::Directory;
            let is_same = states.0.kind == states.1.kind
                && (is_directory || origin.is_same_content(&present.attributes));
            match is_same {
                true if states.0.mode == states.1.mode => return Ok(None),
                true => What::Mode,
                false => What::Modified,
            }
        }
    };
    let before = origin.map(FileState::of_origin);
    let after = present.map(FileState::of);
    let is_directory = |state: FileState| state.kind == FileKind::Directory;
    Ok(Some(Change {
        path: path.into(),
        what,
        before,
        after,
        is_conflict: false,
        caution: match present {
            Some(present) => Caution::of(tree, path, present)?,
            None => Caution::of_name(path, before.is_some_and(is_directory)),
        },
    }))
}

/// What was added and is the same file as one that is gone is that one by another name.
fn pair_renames(
    list: &mut Vec<Change>,
    gone: &mut BTreeMap<(u64, FileKind), PathBuf>,
    added: Vec<(usize, (u64, FileKind))>,
) {
    let mut renamed = HashSet::new();
    for (at, key) in added {
        if let Some(from) = gone.remove(&key)
            && let Some(change) = list.get_mut(at)
        {
            renamed.insert(from.clone());
            change.what = What::Renamed { from };
        }
    }
    list.retain(|change| change.what != What::Deleted || !renamed.contains(&change.path));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_is_full_says_so() {
        let (file, root) = (tempfile::tempfile().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(root.path().join("new"), "").unwrap();
        let journal = Journal::new(file.try_clone().unwrap().into()).unwrap();
        journal.note(b"new", None);
        let told = || {
            let root = File::open(root.path()).unwrap();
            let changes = changes_in_place(root.into(), &file.try_clone().unwrap().into());
            let changes = changes.unwrap();
            (changes.list.len(), changes.is_complete)
        };
        assert_eq!(told(), (1, true));
        let long = vec![b'x'; 1 << 20];
        for number in 0..100_u8 {
            journal.note(&[&[number + 1], long.as_slice()].concat(), None);
        }
        assert_eq!(told(), (1, false));
        assert!(file.metadata().unwrap().len() < 70 << 20);
    }
}
