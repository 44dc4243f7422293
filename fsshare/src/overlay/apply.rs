//! From the upper tree to the host's: each file whole or not at all.

use std::cmp::Reverse;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::changes::{Change, Changes, ChangesError, What};
use super::origins::Origins;
use super::tree::{Found, Tree, checked, names};
use crate::abi::{Name, RenameMode, Target};
use crate::errno::Errno;
use crate::host::{AccessMode, Kind, SETTABLE_MODE, copy_xattrs, os};

/// What a file is called until it is complete, beside its place. One that is found was left by someone who was ended.
const DRAFT: &std::ffi::CStr = c".cofferdam-apply";

/// Why a change did not get onto the host.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The host's has changed meanwhile.
    #[error("`{}` was changed on the host, too: look at both, then apply with the guest's taking the place of the host's, or leave it", .0.display())]
    Conflict(PathBuf),
    /// The host does not do it.
    #[error("the host does not change `{}`", .path.display())]
    Host {
        /// What was to be changed.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: io::Error,
    },
}

/// What is done where both sides have changed something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// The host's stays: [`ApplyError::Conflict`].
    #[default]
    Keep,
    /// The guest's takes its place.
    Overwrite,
}

impl Changes {
    /// Makes the chosen changes on the host. A file is replaced in one step by a complete one, or stays as it was; who is ended half-way
    /// goes on by doing it again. Gives what could not be done, and goes on with the others.
    ///
    /// What was done is no change any more when it is compared anew.
    ///
    /// # Errors
    /// [`ChangesError::Open`]: nothing was done.
    pub fn apply(
        &self,
        chosen: impl Fn(&Change) -> bool,
        on_conflict: OnConflict,
    ) -> Result<Vec<(Change, ApplyError)>, ChangesError> {
        let application = Application {
            changes: self,
            origins: Origins::open(&self.directory).map_err(ChangesError::Open)?,
            on_conflict,
        };
        let mut list: Vec<&Change> = self.list().iter().filter(|one| chosen(one)).collect();
        list.sort_by_key(|change| stage(change));
        let mut failed = Vec::new();
        for change in list {
            if let Err(error) = application.one(change) {
                failed.push((change.clone(), error));
            }
        }
        Ok(failed)
    }
}

/// When a change comes, beside its path: room is made before it is taken. A directory goes when what was in it is gone, also what is called
/// something else now; and only then may something else come in its place.
fn stage(change: &Change) -> (u8, Option<Reverse<&Path>>) {
    match (&change.what, change.replaces_directory()) {
        (What::Deleted, false) => (0, None),
        (What::Deleted, true) => (2, Some(Reverse(&change.path))),
        (_, false) => (1, None),
        (_, true) => (3, None),
    }
}

/// Changes on their way to the host.
struct Application<'a> {
    changes: &'a Changes,
    origins: Origins,
    on_conflict: OnConflict,
}

impl Application<'_> {
    fn one(&self, change: &Change) -> Result<(), ApplyError> {
        let path = &change.path;
        let host = |errno: Errno| ApplyError::Host {
            path: path.clone(),
            source: io::Error::from_raw_os_error(errno.number().into()),
        };
        let conflict = || ApplyError::Conflict(path.clone());
        if change.is_conflict && self.on_conflict == OnConflict::Keep {
            return Err(conflict());
        }
        let outcome = match &change.what {
            What::Deleted => self.remove(path),
            What::Renamed { from } => self.put(path).and_then(|()| self.remove(from)),
            What::Added | What::Modified | What::Mode => self.put(path),
        };
        match outcome {
            Err(Errno::ESTALE) => Err(conflict()),
            outcome => outcome.map_err(host),
        }
    }

    /// Takes away what the guest has removed. `ESTALE` if it is not what the guest removed.
    fn remove(&self, path: &Path) -> Result<(), Errno> {
        let Some((parent, name)) = self.place(path)? else {
            return Ok(());
        };
        let node = parent
            .as_ref()
            .map_or(&self.changes.lower.root, |found| &found.node);
        let present = match self.changes.lower.at(node, &name) {
            Err(Errno::ENOENT) => return Ok(()),
            present => present?,
        };
        self.expect_unchanged(path, Some(&present))?;
        let host = &self.changes.lower.host;
        match present.attributes.kind() {
            Kind::Directory => host.remove_directory(node, checked(&name)?),
            _ => host.unlink(node, checked(&name)?),
        }?;
        sync(&self.changes.lower, node)
    }

    /// Puts there what the guest has. `ESTALE` if what is there is not what the guest changed.
    fn put(&self, path: &Path) -> Result<(), Errno> {
        let Some(own) = self.changes.upper.find(path)? else {
            return Err(Errno::ESTALE);
        };
        let (parent, name) = self.place_or_make(path)?;
        let node = parent
            .as_ref()
            .map_or(&self.changes.lower.root, |found| &found.node);
        let name = checked(&name)?;
        let present = self.changes.lower.find(path)?;
        let host = &self.changes.lower.host;
        let mode = own.attributes.mode & SETTABLE_MODE;
        match (own.attributes.kind(), &present) {
            (Kind::Directory, Some(present)) if present.attributes.kind() == Kind::Directory => {
                self.expect_unchanged(path, Some(present))?;
                host.set_mode(&present.node, mode)?;
            }
            (Kind::Directory, _) => {
                self.expect_unchanged(path, present.as_ref())?;
                if present.is_some() {
                    host.unlink(node, name)?;
                }
                let made = host.make_directory(node, name, mode)?;
                host.set_mode(&made, mode)?;
            }
            _ => {
                self.replace(path, &own, (node, name))?;
            }
        }
        sync(&self.changes.lower, node)?;
        self.remember(path)
    }

    /// Makes the new one beside the old and lets it take its place.
    fn replace(
        &self,
        path: &Path,
        own: &Found,
        (parent, name): (&os::Node, Name<'_>),
    ) -> Result<(), Errno> {
        let host = &self.changes.lower.host;
        let draft = Name::new(DRAFT).map_err(|_| Errno::EINVAL)?;
        match host.unlink(parent, draft) {
            Err(Errno::ENOENT) => {}
            outcome => outcome?,
        }
        let made = self.copy(own, parent, draft);
        // As late as can be.
        let outcome = made.and_then(|()| {
            let present = self.changes.lower.find(path)?;
            self.expect_unchanged(path, present.as_ref())?;
            let is_directory = |found: &Found| found.attributes.kind() == Kind::Directory;
            if present.as_ref().is_some_and(is_directory) {
                host.remove_directory(parent, name)?;
            }
            let mode = match present {
                Some(_) => RenameMode::empty(),
                None => RenameMode::NOREPLACE,
            };
            host.rename((parent, draft), (parent, name), mode)
        });
        if outcome.is_err() {
            // It was refused; its draft may be there or not.
            let _ = host.unlink(parent, draft);
        }
        outcome
    }

    fn copy(&self, own: &Found, parent: &os::Node, draft: Name<'_>) -> Result<(), Errno> {
        let host = &self.changes.lower.host;
        if own.attributes.kind() == Kind::Symlink {
            let text = CString::new(self.changes.upper.link(own)?).map_err(|_| Errno::EIO)?;
            let target = Target::new(&text).map_err(|_| Errno::EIO)?;
            return host.make_symlink(parent, draft, target).map(drop);
        }
        let mode = own.attributes.mode & SETTABLE_MODE;
        let (source, attributes) = self.changes.upper.host.open(&own.node, AccessMode::READ)?;
        let (file, node) = host.create(parent, draft, mode, AccessMode::WRITE)?;
        file.copy_from(&source, attributes.size)?;
        copy_xattrs((&self.changes.upper.host, &own.node), (host, &node))?;
        host.set_mode(&node, mode)?;
        file.sync(false)
    }

    /// `ESTALE` if what is there is not what the guest changed, unless that does not matter.
    fn expect_unchanged(&self, path: &Path, present: Option<&Found>) -> Result<(), Errno> {
        let is_unchanged = match (self.changes.origin(path), present) {
            (Some(origin), Some(present)) => origin.is_still(&present.attributes),
            (None, None) => true,
            _ => false,
        };
        if is_unchanged || self.on_conflict == OnConflict::Overwrite {
            Ok(())
        } else {
            Err(Errno::ESTALE)
        }
    }

    /// The host's directory of a path (none for the root) and the last name; nothing if there is no such directory.
    fn place(&self, path: &Path) -> Result<Option<(Option<Found>, CString)>, Errno> {
        let name = names(path)?.pop().ok_or(Errno::EINVAL)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                let found = self.changes.lower.find(parent)?;
                Ok(found.map(|found| (Some(found), name)))
            }
            _ => Ok(Some((None, name))),
        }
    }

    /// The same; directories that the guest made and that were not chosen themselves come along.
    fn place_or_make(&self, path: &Path) -> Result<(Option<Found>, CString), Errno> {
        if let Some(place) = self.place(path)? {
            return Ok(place);
        }
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        for parent in parents
            .into_iter()
            .rev()
            .filter(|path| !path.as_os_str().is_empty())
        {
            if self.changes.lower.find(parent)?.is_none() {
                self.put_directory(parent)?;
            }
        }
        self.place(path)?.ok_or(Errno::ENOENT)
    }

    fn put_directory(&self, path: &Path) -> Result<(), Errno> {
        let own = self.changes.upper.find(path)?.ok_or(Errno::ESTALE)?;
        let (parent, name) = self.place(path)?.ok_or(Errno::ENOENT)?;
        let node = parent
            .as_ref()
            .map_or(&self.changes.lower.root, |found| &found.node);
        let mode = own.attributes.mode & SETTABLE_MODE;
        self.changes
            .lower
            .host
            .make_directory(node, checked(&name)?, mode)?;
        self.remember(path)
    }

    /// What is there now is what the guest changes from now on.
    fn remember(&self, path: &Path) -> Result<(), Errno> {
        let Some(present) = self.changes.lower.find(path)? else {
            return Ok(());
        };
        self.origins
            .record(path.as_os_str().as_bytes(), &present.attributes)
    }
}

fn sync(tree: &Tree, directory: &os::Node) -> Result<(), Errno> {
    tree.host.open_directory(directory)?.sync(false)
}
