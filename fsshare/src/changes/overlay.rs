//! What was changed: the upper tree compared with the host's tree as it is now.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::hash::Hasher as _;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::change::{Caution, Change, FileKind, FileState, What};
use super::origins::{Origin, Origins};
use super::report::{Entry, Report, Seen, unread};
use super::tree::{Found, Tree, join, names};
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, Kind};
use crate::server::Fault;

/// Why it cannot be said what was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChangesError {
    /// One of the directories cannot be used.
    #[error("the host does not open the workspace, or the directory with its changes")]
    Open(#[source] io::Error),
    /// No share has had the directory yet.
    #[error("no sandbox has kept changes there")]
    NoOverlay,
    /// Someone applies them at this moment.
    #[error("these changes are being applied already: wait for that, then compare anew")]
    Busy,
    /// A file or directory cannot be read.
    #[error("the host does not read `{}`", .path.display())]
    Read {
        /// Which, below the workspace.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
}

impl ChangesError {
    /// Who has to mend it.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Open(_) | Self::Read { .. } => Fault::Host,
            Self::NoOverlay | Self::Busy => Fault::Caller,
        }
    }
}

/// What is or was at a path.
#[derive(Debug)]
pub enum Content {
    /// Nothing.
    Nothing,
    /// A file, open for reading.
    File(File),
    /// What a symbolic link says.
    Link(Vec<u8>),
    /// A directory, or something that is never opened.
    Other,
}

/// What a guest changed in an overlay, as compared with the host's tree when this was made.
#[derive(Debug)]
pub struct Changes {
    pub(super) upper: Tree,
    pub(super) lower: Tree,
    pub(super) directory: OwnedFd,
    origins: BTreeMap<Vec<u8>, Origin>,
    list: Vec<Change>,
    /// What each of the list was seen in.
    pub(super) seen: Vec<Option<Seen>>,
    unread: Vec<ChangesError>,
    is_complete: bool,
}

impl Changes {
    /// Compares. `root` is the workspace, `directory` what was [`Config::overlay`](crate::Config::overlay) of its share, which may still be going on.
    ///
    /// # Errors
    /// [`ChangesError::NoOverlay`] or [`ChangesError::Open`].
    pub fn of(root: OwnedFd, directory: OwnedFd) -> Result<Self, ChangesError> {
        let upper = super::open_upper(&directory).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ChangesError::NoOverlay,
            _ => ChangesError::Open(error),
        })?;
        let mut changes = Self {
            upper: Tree::new(upper)?,
            lower: Tree::new(root)?,
            origins: Origins::read(&directory).map_err(ChangesError::Open)?,
            directory,
            list: Vec::new(),
            seen: Vec::new(),
            unread: Vec::new(),
            is_complete: true,
        };
        let mut report = Report::default();
        changes.present(&mut report);
        changes.deleted(&mut report);
        let renamed = changes.renamed(&mut report);
        report.merge_renames(renamed);
        let report = report.sorted();
        changes.is_complete = !report.was_full();
        let entries = report.entries.into_iter();
        (changes.list, changes.seen) = entries.map(|entry| (entry.change, entry.seen)).unzip();
        changes.unread = report.unread;
        Ok(changes)
    }

    /// All of them, by path.
    #[must_use]
    pub fn list(&self) -> &[Change] {
        &self.list
    }

    /// Whether that is all: of more than a million the rest is not told. What is told can be applied, and then comes more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What could not be compared, [`ChangesError::Read`] each: a guest can take from its files the permission to read them.
    #[must_use]
    pub fn unread(&self) -> &[ChangesError] {
        &self.unread
    }

    /// What the host has at the path, or had for a renamed file.
    ///
    /// # Errors
    /// [`ChangesError::Read`].
    pub fn before(&self, change: &Change) -> Result<Content, ChangesError> {
        let path = match &change.what {
            What::Renamed { from } => from,
            _ => &change.path,
        };
        content(&self.lower, path).map_err(|errno| unread(path, errno))
    }

    /// What the guest has there.
    ///
    /// # Errors
    /// [`ChangesError::Read`].
    pub fn after(&self, change: &Change) -> Result<Content, ChangesError> {
        if change.what == What::Deleted {
            return Ok(Content::Nothing);
        }
        content(&self.upper, &change.path).map_err(|errno| unread(&change.path, errno))
    }

    /// What is in the upper tree and differs.
    fn present(&self, report: &mut Report) {
        let mut left = vec![PathBuf::new()];
        while let Some(directory) = left.pop() {
            let both = self.both(&directory);
            let Some(both) = report.kept(both, &directory) else {
                continue;
            };
            for name in &both.names {
                if report.was_full() {
                    return;
                }
                let path = join(&directory, name);
                let compared = self.compare_entry(&path, name, &both);
                let Some((change, own)) = report.kept(compared, &path) else {
                    continue;
                };
                if let Some(change) = change {
                    report.tell(change, Some(Seen::of(&own)));
                }
                if own.kind() == Kind::Directory {
                    left.push(path);
                }
            }
        }
    }

    fn both(&self, path: &Path) -> Result<Both, Errno> {
        let own = self.upper.find(path)?;
        let node = own.as_ref().map_or(&self.upper.root, |found| &found.node);
        let names = self.upper.names_in(node)?;
        let below = self.lower.find(path)?;
        Ok(Both {
            is_root: path.as_os_str().is_empty(),
            own,
            below,
            names,
        })
    }

    /// The change of a name in a directory, and what the guest has there.
    fn compare_entry(
        &self,
        path: &Path,
        name: &CString,
        directory: &Both,
    ) -> Result<(Option<Change>, Attributes), Errno> {
        let above = directory
            .own
            .as_ref()
            .map_or(&self.upper.root, |found| &found.node);
        let own = self.upper.at(above, name)?;
        if own.attributes.kind() == Kind::Special {
            return Ok((None, own.attributes));
        }
        let root = directory.is_root.then_some(&self.lower.root);
        let lower = directory.below.as_ref().map(|found| &found.node).or(root);
        let below = match lower.map(|lower| self.lower.at(lower, name)) {
            None | Some(Err(Errno::ENOENT | Errno::ENOTDIR)) => None,
            Some(found) => Some(found?),
        };
        Ok((self.compare(path, &own, below.as_ref())?, own.attributes))
    }

    fn compare(
        &self,
        path: &Path,
        own: &Found,
        below: Option<&Found>,
    ) -> Result<Option<Change>, Errno> {
        let what = match below {
            None => What::Added,
            Some(below) => {
                let kinds = (own.attributes.kind(), below.attributes.kind());
                let is_same = kinds == (Kind::Directory, Kind::Directory)
                    || self.upper.is_same(own, (&self.lower, below))?;
                let is_link = own.attributes.kind() == Kind::Symlink;
                let (old, new) = (FileState::of(below), FileState::of(own));
                match is_same {
                    true if is_link || old == new => return Ok(None),
                    true => What::Mode,
                    false => What::Modified,
                }
            }
        };
        let origin = self.origins.get(path.as_os_str().as_bytes());
        let is_conflict = match (origin, below) {
            (Some(origin), Some(below)) => !origin.is_still(&below.attributes),
            (None, None) => false,
            _ => true,
        };
        Ok(Some(Change {
            path: path.into(),
            what,
            before: below.map(FileState::of),
            after: Some(FileState::of(own)),
            is_conflict,
            caution: Caution::of(&self.upper, path, own)?,
        }))
    }

    /// What the guest removed and the host has.
    fn deleted(&self, report: &mut Report) {
        for (bytes, origin) in &self.origins {
            let path = Path::new(OsStr::from_bytes(bytes));
            let below = self.hides(path).and_then(|hides| match hides {
                true => self.lower.find(path),
                false => Ok(None),
            });
            let Some(below) = report.kept(below, path).flatten() else {
                continue;
            };
            let is_directory = below.attributes.kind() == Kind::Directory;
            let change = Change {
                path: path.into(),
                what: What::Deleted,
                before: Some(FileState::of(&below)),
                after: None,
                is_conflict: !origin.is_still(&below.attributes),
                caution: Caution::of_name(path, is_directory),
            };
            report.tell(change, None);
        }
    }

    /// Whether the guest sees nothing there, whatever the host has.
    pub(super) fn hides(&self, path: &Path) -> Result<bool, Errno> {
        let names = names(path)?;
        let mut at: Option<Found> = None;
        let mut is_opaque = false;
        for (name, is_last) in names.iter().zip((1..).map(|count| count == names.len())) {
            let parent = at.as_ref().map_or(&self.upper.root, |found| &found.node);
            let found = match self.upper.at(parent, name) {
                Err(Errno::ENOENT) => return Ok(is_opaque),
                found => found?,
            };
            match found.attributes.kind() {
                Kind::Special => return Ok(true),
                Kind::Directory => is_opaque |= found.attributes.is_opaque(),
                Kind::Regular | Kind::Symlink => return Ok(!is_last),
            }
            at = Some(found);
        }
        Ok(false)
    }

    /// Each file that was added and holds what a deleted one did, with that one's path.
    fn renamed(&self, report: &mut Report) -> HashMap<PathBuf, PathBuf> {
        let paths_of = |what: &What| {
            let is_file = |state: FileState| state.kind == FileKind::File;
            let is_candidate = |entry: &&Entry| {
                let change = &entry.change;
                let state = change.after.or(change.before);
                change.what == *what && !change.is_conflict && state.is_some_and(is_file)
            };
            let candidates = report.entries.iter().filter(is_candidate);
            let paths = candidates.map(|entry| entry.change.path.clone());
            paths.collect::<Vec<_>>()
        };
        let (deleted, added) = (paths_of(&What::Deleted), paths_of(&What::Added));
        let mut gone = HashMap::new();
        let mut sizes = HashSet::new();
        for path in deleted.into_iter().filter(|_| !added.is_empty()) {
            let key = digest(&self.lower, &path, |_| true);
            if let Some(key) = report.kept(key, &path).flatten() {
                sizes.insert(key.0);
                gone.insert(key, path);
            }
        }
        let mut renamed = HashMap::new();
        for path in added.into_iter().filter(|_| !sizes.is_empty()) {
            let key = digest(&self.upper, &path, |size| sizes.contains(&size));
            let old = report.kept(key, &path).flatten();
            let Some(old) = old.and_then(|key| gone.remove(&key)) else {
                continue;
            };
            let is_same = self.holds_same(&path, &old);
            if report.kept(is_same, &path).unwrap_or_default() {
                renamed.insert(path, old);
            }
        }
        renamed
    }

    fn holds_same(&self, new: &Path, old: &Path) -> Result<bool, Errno> {
        match (self.upper.find(new)?, self.lower.find(old)?) {
            (Some(own), Some(other)) => self.upper.is_same(&own, (&self.lower, &other)),
            _ => Ok(false),
        }
    }

    /// What the host had at the path when the guest changed it first.
    pub(super) fn origin(&self, path: &Path) -> Option<&Origin> {
        self.origins.get(path.as_os_str().as_bytes())
    }
}

/// A directory of the upper tree, and that of the host's tree by its path, if there is one. Nothing stands for the roots.
struct Both {
    is_root: bool,
    own: Option<Found>,
    below: Option<Found>,
    /// Those in the upper tree.
    names: Vec<CString>,
}

fn content(tree: &Tree, path: &Path) -> Result<Content, Errno> {
    let Some(found) = tree.find(path)? else {
        return Ok(Content::Nothing);
    };
    Ok(match found.attributes.kind() {
        Kind::Regular => {
            let (file, _) = tree.host.open(&found.node, AccessMode::READ)?;
            Content::File(file.into())
        }
        Kind::Symlink => Content::Link(tree.link(&found)?),
        Kind::Directory | Kind::Special => Content::Other,
    })
}

/// Size and hash of a file that holds something, if one of that size is asked for.
fn digest(
    tree: &Tree,
    path: &Path,
    is_asked_for: impl Fn(u64) -> bool,
) -> Result<Option<(u64, u64)>, Errno> {
    let Content::File(mut file) = content(tree, path)? else {
        return Ok(None);
    };
    if !is_asked_for(file.metadata()?.len()) {
        return Ok(None);
    }
    let mut hasher = DefaultHasher::new();
    let (mut buffer, mut size) = (vec![0; 64 << 10], 0);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size > 0).then(|| (size, hasher.finish())));
        }
        hasher.write(buffer.get(..read).unwrap_or_default());
        size += read as u64;
    }
}
