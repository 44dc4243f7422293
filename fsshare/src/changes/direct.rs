//! What a guest changed in the host's own tree.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::change::{Caution, Change, FileKind, FileState, What};
use super::journal::Before;
use super::origins::Origin;
use super::overlay::ChangesError;
use super::report::Report;
use super::tree::{Found, Tree, join};
use crate::errno::Errno;
use crate::host::{Attributes, Kind};

/// Most entries of moved directories that are looked at.
const MOST_LOOKED_AT: usize = 1 << 20;

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

/// What a guest has changed in the tree at `root` since its share began, which writes its [`Config::journal`](crate::Config::journal) to the file
/// `journal`. What the host's user did to the same files meanwhile cannot be told apart. A directory that was renamed is one
/// change; of what is in it only that is told besides which the guest has changed, or which is marked.
///
/// # Errors
/// [`ChangesError::Open`].
pub fn changes_in_place(root: OwnedFd, journal: &OwnedFd) -> Result<ChangesInPlace, ChangesError> {
    let before = Before::read(journal).map_err(ChangesError::Open)?;
    let mut comparison = Comparison {
        tree: Tree::new(root)?,
        report: Report::default(),
        was: HashMap::new(),
        come: Vec::new(),
        looked_at: 0,
    };
    for (path, origin) in &before.paths {
        comparison.compare(Path::new(OsStr::from_bytes(path)), origin.as_ref());
    }
    let moved = comparison.moved();
    comparison.look_into(&moved, &before.paths);
    let renamed = moved.into_iter().filter(|one| one.is_gone);
    let renamed = renamed.map(|one| (one.new, one.old)).collect();
    comparison.report.merge_renames(renamed);
    let report = comparison.report.sorted();
    Ok(ChangesInPlace {
        is_complete: !before.is_cut && !report.was_full() && comparison.looked_at <= MOST_LOOKED_AT,
        list: report.entries.into_iter().map(|one| one.change).collect(),
        unread: report.unread,
    })
}

/// Something by another path than it had.
struct Moved {
    new: PathBuf,
    old: PathBuf,
    /// Whether nothing is where it was.
    is_gone: bool,
}

/// The same thing, whatever its name is, unless it was removed: a number is given again.
type Thing = (u64, FileKind);

struct Was {
    path: PathBuf,
    origin: Origin,
    /// Whether nothing is where it was.
    is_gone: bool,
}

struct Comparison {
    tree: Tree,
    report: Report,
    /// Where things were.
    was: HashMap<Thing, Was>,
    /// Things that were not there.
    come: Vec<(PathBuf, Attributes)>,
    looked_at: usize,
}

impl Comparison {
    fn compare(&mut self, path: &Path, origin: Option<&Origin>) {
        let compared = self.tree.find(path).and_then(|present| {
            let change = compare(&self.tree, path, origin, present.as_ref())?;
            Ok(change.map(|change| (change, present)))
        });
        let Some((change, present)) = self.report.kept(compared, path).flatten() else {
            return;
        };
        if let Some(origin) = origin {
            let kind = FileState::of_origin(origin).kind;
            let was = Was {
                path: path.into(),
                origin: *origin,
                is_gone: present.is_none(),
            };
            self.was.insert((origin.inode, kind), was);
        }
        if let Some(present) = present {
            let (inode, kind) = thing(&present.attributes);
            // Or another directory, which has taken its place.
            let is_other = origin.is_none_or(|origin| origin.inode != inode);
            if origin.is_none() || (is_other && kind == FileKind::Directory) {
                self.come.push((path.into(), present.attributes));
            }
        }
        self.report.tell(change, None);
    }

    /// What has come from where it is no more. A file that was written to besides may as well be a new one with the number of one that was removed.
    fn moved(&self) -> Vec<Moved> {
        let moved = self.come.iter().filter_map(|(path, attributes)| {
            let thing = thing(attributes);
            let Was {
                path: old,
                origin,
                is_gone,
            } = self.was.get(&thing)?;
            let is_it = thing.1 == FileKind::Directory || origin.is_same_content(attributes);
            is_it.then(|| Moved {
                new: path.clone(),
                old: old.clone(),
                is_gone: *is_gone,
            })
        });
        moved.collect()
    }

    /// Tells of what is marked in directories that were moved: by its old name it may not have been.
    fn look_into(&mut self, moved: &[Moved], told: &BTreeMap<Vec<u8>, Option<Origin>>) {
        let paths = moved.iter().map(|one| (one.new.clone(), one.old.clone()));
        let mut left: Vec<_> = paths.collect();
        let mut seen: HashSet<PathBuf> = HashSet::new();
        while let Some((directory, old)) = left.pop() {
            if !seen.insert(directory.clone()) {
                continue;
            }
            let names = self.names(&directory);
            for name in self.report.kept(names, &directory).unwrap_or_default() {
                self.looked_at += 1;
                if self.looked_at > MOST_LOOKED_AT || self.report.was_full() {
                    return;
                }
                let (path, old) = (join(&directory, &name), join(&old, &name));
                let found = self.tree.find(&path);
                let Some(found) = self.report.kept(found, &path).flatten() else {
                    continue;
                };
                if !told.contains_key(path.as_os_str().as_bytes()) {
                    self.tell_if_marked(&path, &old, &found);
                }
                if found.attributes.kind() == Kind::Directory {
                    left.push((path, old));
                }
            }
        }
    }

    fn names(&self, path: &Path) -> Result<Vec<std::ffi::CString>, Errno> {
        match self.tree.find(path)? {
            Some(found) if found.attributes.kind() == Kind::Directory => {
                self.tree.names_in(&found.node)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn tell_if_marked(&mut self, path: &Path, old: &Path, found: &Found) {
        let caution = Caution::of(&self.tree, path, found);
        let caution = self.report.kept(caution, path).flatten();
        if caution.is_some() {
            let state = Some(FileState::of(found));
            let change = Change {
                path: path.into(),
                what: What::Renamed { from: old.into() },
                before: state,
                after: state,
                is_conflict: false,
                caution,
            };
            self.report.tell(change, None);
        }
    }
}

fn thing(attributes: &Attributes) -> Thing {
    let origin = Origin::of(attributes);
    (origin.inode, FileState::of_origin(&origin).kind)
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
            let is_same = match states {
                (old, new) if old.kind != new.kind => false,
                (_, new) if new.kind == FileKind::Directory => {
                    origin.inode == present.attributes.identity.inode
                }
                _ => origin.is_same_content(&present.attributes),
            };
            match is_same {
                true if states.0.mode == states.1.mode => return Ok(None),
                true => What::Mode,
                false => What::Modified,
            }
        }
    };
    let before = origin.map(FileState::of_origin);
    let is_directory = |state: FileState| state.kind == FileKind::Directory;
    Ok(Some(Change {
        path: path.into(),
        what,
        before,
        after: present.map(FileState::of),
        is_conflict: false,
        caution: match present {
            Some(present) => Caution::of(tree, path, present)?,
            None => Caution::of_name(path, before.is_some_and(is_directory)),
        },
    }))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::changes::Journal;

    #[test]
    fn a_new_file_with_the_number_of_a_removed_one_was_not_renamed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("new"), "").unwrap();
        let open = || OwnedFd::from(File::open(root.path()).unwrap());
        let tree = Tree::new(open()).unwrap();
        let same = tree.find(Path::new("new")).unwrap().unwrap().attributes;
        let mut older = same;
        older.modified.seconds -= 5;
        let renamed = What::Renamed { from: "old".into() };
        for (removed, expected) in [
            (same, vec![renamed]),
            (older, vec![What::Added, What::Deleted]),
        ] {
            let file = tempfile::tempfile().unwrap();
            let journal = Journal::new(file.try_clone().unwrap().into()).unwrap();
            journal.note(b"old", Some(&removed));
            journal.note(b"new", None);
            let told = changes_in_place(open(), &file.into()).unwrap();
            let told: Vec<_> = told.list.into_iter().map(|one| one.what).collect();
            assert_eq!(told, expected);
        }
    }

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
