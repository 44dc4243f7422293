//! From the upper tree to the host's: each file whole or not at all.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::change::{Caution, Change, What};
use super::origins::Origins;
use super::overlay::{Changes, ChangesError};
use super::place::{Place, Stop, draft_name};
use super::report::Seen;
use super::tree::{Found, names};
use crate::abi::Target;
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, Kind, SETTABLE_MODE, copy_xattrs, os};
use crate::server::Fault;

/// Why a change did not get onto the host.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The host's has changed meanwhile.
    #[error("`{}` was changed on the host, too: look at both, then apply with the guest's taking the place of the host's, or leave it", .0.display())]
    Conflict(PathBuf),
    /// The guest has changed its own since it was compared.
    #[error("the guest has changed `{}` since the changes were compared: compare anew, look at it, then apply it", .0.display())]
    GuestChanged(PathBuf),
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

impl ApplyError {
    /// Who has to mend it.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            // Which of the two it is to be is for the user to say.
            Self::Conflict(_) => Fault::Caller,
            Self::Host { .. } => Fault::Host,
            Self::GuestChanged(_) => Fault::Guest,
        }
    }
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
    /// [`ChangesError::Open`], or [`ChangesError::Busy`] while another one applies them: nothing was done.
    pub fn apply(
        &self,
        chosen: impl Fn(&Change) -> bool,
        on_conflict: OnConflict,
    ) -> Result<Vec<(Change, ApplyError)>, ChangesError> {
        let origins = Origins::open(&self.directory).map_err(ChangesError::Open)?;
        if !origins.lock().map_err(ChangesError::Open)? {
            return Err(ChangesError::Busy);
        }
        let application = Application {
            changes: self,
            origins,
            draft: draft_name(&self.directory).map_err(ChangesError::Open)?,
            on_conflict,
            open: RefCell::default(),
        };
        let all = self.list().iter().zip(&self.seen);
        let mut wanted: Vec<_> = all.filter(|(change, _)| chosen(change)).collect();
        wanted.sort_by_key(|(change, _)| stage(change));
        let mut failed = Vec::new();
        for (change, seen) in wanted {
            if let Err(error) = application.one(change, seen.as_ref()) {
                failed.push((change.clone(), error));
            }
        }
        failed.extend(application.close());
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
    /// What something is called until it is complete, beside its place.
    draft: CString,
    on_conflict: OnConflict,
    /// Directories that do not have their own permissions yet: their owner must be able to fill them.
    open: RefCell<Vec<(&'a Change, u32)>>,
}

/// What a directory's owner needs to fill it.
const FILLED: u32 = 0o700;

impl<'a> Application<'a> {
    fn one(&self, change: &'a Change, seen: Option<&Seen>) -> Result<(), ApplyError> {
        let path = &change.path;
        if change.is_conflict && self.on_conflict == OnConflict::Keep {
            return Err(ApplyError::Conflict(path.clone()));
        }
        let outcome = match &change.what {
            What::Deleted => self.remove(path),
            What::Renamed { from } => self.put(change, seen).and_then(|()| self.remove(from)),
            What::Added | What::Modified | What::Mode => self.put(change, seen),
        };
        outcome.map_err(|stop| match stop {
            Stop::Conflict => ApplyError::Conflict(path.clone()),
            Stop::GuestChanged => ApplyError::GuestChanged(path.clone()),
            Stop::Host(errno) => host_error(path, errno),
        })
    }

    /// Gives the directories that are filled their own permissions: the inner ones first, since the way to them may be closed then.
    fn close(&self) -> Vec<(Change, ApplyError)> {
        let open = self.open.take().into_iter().rev();
        let failed = open.filter_map(|(change, mode)| {
            let errno = self.close_one(&change.path, mode).err()?;
            Some((change.clone(), host_error(&change.path, errno)))
        });
        failed.collect()
    }

    fn close_one(&self, path: &Path, mode: u32) -> Result<(), Errno> {
        let found = self.changes.lower.find(path)?.ok_or(Errno::ENOENT)?;
        self.changes.lower.host.set_mode(&found.node, mode)?;
        let closed = found.node.attributes()?;
        self.origins.record(path.as_os_str().as_bytes(), &closed)
    }

    /// Takes away what the guest has removed.
    fn remove(&self, path: &Path) -> Result<(), Stop> {
        if !self.changes.hides(path)? {
            return Err(Stop::GuestChanged);
        }
        if let Some(place) = self.place(path)? {
            place.clear(|present| self.expect_unchanged(path, Some(present)))?;
        }
        Ok(self.origins.add(path.as_os_str().as_bytes(), None)?)
    }

    /// Puts there what the guest has.
    fn put(&self, change: &'a Change, seen: Option<&Seen>) -> Result<(), Stop> {
        let path = &change.path;
        let own = self.changes.upper.find(path)?.ok_or(Stop::GuestChanged)?;
        let is_as_seen = |attributes: &Attributes| seen == Some(&Seen::of(attributes));
        let caution = Caution::of(&self.changes.upper, path, &own)?;
        if !is_as_seen(&own.attributes) || (own.is_link() && caution != change.caution) {
            return Err(Stop::GuestChanged);
        }
        let place = self.place_or_make(path)?;
        let make = || {
            let made = self.make_draft(&own, &place)?;
            match is_as_seen(&own.node.attributes()?) {
                true => Ok(made.attributes()?),
                false => Err(Stop::GuestChanged),
            }
        };
        let present = place.present()?;
        self.expect_unchanged(path, present.as_ref())?;
        let made = match present {
            Some(present) if own.is_directory() && present.is_directory() => {
                place.host().set_mode(&present.node, own.mode() | FILLED)?;
                present.node.attributes()?
            }
            None => place.fill(make)?,
            Some(_) => place.replace(make, |found| self.expect_unchanged(path, Some(found)))?,
        };
        place.sync()?;
        if own.is_directory() && own.mode() & FILLED != FILLED {
            self.open.borrow_mut().push((change, own.mode()));
        }
        Ok(self.origins.record(path.as_os_str().as_bytes(), &made)?)
    }

    /// Makes the same as the guest's beside its place.
    fn make_draft(&self, own: &Found, place: &Place<'_>) -> Result<os::Node, Errno> {
        let upper = &self.changes.upper;
        let (host, (parent, draft)) = (place.host(), place.draft()?);
        match own.attributes.kind() {
            Kind::Symlink => {
                let text = CString::new(upper.link(own)?).map_err(|_| Errno::EIO)?;
                let target = Target::new(&text).map_err(|_| Errno::EIO)?;
                host.make_symlink(parent, draft, target)
            }
            Kind::Directory => {
                let made = host.make_directory(parent, draft, own.mode() | FILLED)?;
                host.set_mode(&made, own.mode() | FILLED)?;
                Ok(made)
            }
            Kind::Regular => {
                let (source, attributes) = upper.host.open(&own.node, AccessMode::READ)?;
                let (file, made) = host.create(parent, draft, own.mode(), AccessMode::WRITE)?;
                file.copy_from(&source, attributes.size)?;
                copy_xattrs((&upper.host, &own.node), (host, &made))?;
                host.set_mode(&made, own.mode())?;
                file.sync(false)?;
                Ok(made)
            }
            Kind::Special => Err(Errno::EINVAL),
        }
    }

    /// Whether what is there is what the guest changed, unless that does not matter.
    fn expect_unchanged(&self, path: &Path, present: Option<&Found>) -> Result<(), Stop> {
        let is_unchanged = match (self.changes.origin(path), present) {
            (Some(origin), Some(present)) => origin.is_still(&present.attributes),
            (None, None) => true,
            _ => false,
        };
        if is_unchanged || self.on_conflict == OnConflict::Overwrite {
            Ok(())
        } else {
            Err(Stop::Conflict)
        }
    }

    /// Where on the host a path is; nothing if it has no such directory.
    fn place(&self, path: &Path) -> Result<Option<Place<'_>>, Errno> {
        let name = names(path)?.pop().ok_or(Errno::EINVAL)?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => {
                match self.changes.lower.find(parent)? {
                    None => return Ok(None),
                    parent => parent,
                }
            }
            _ => None,
        };
        Place::new(&self.changes.lower, parent, name, &self.draft).map(Some)
    }

    /// The same; directories that the guest made and that were not chosen themselves come along.
    fn place_or_make(&self, path: &Path) -> Result<Place<'_>, Stop> {
        if let Some(place) = self.place(path)? {
            return Ok(place);
        }
        let parents: Vec<&Path> = path.ancestors().skip(1).collect();
        let is_below_root = |path: &&Path| !path.as_os_str().is_empty();
        for parent in parents.into_iter().rev().filter(is_below_root) {
            if self.changes.lower.find(parent)?.is_none() {
                self.make_parent(parent)?;
            }
        }
        Ok(self.place(path)?.ok_or(Errno::ENOENT)?)
    }

    /// Makes a directory that was not chosen. One that the host had, and whose end is the host user's wish, is none of the guest's.
    fn make_parent(&self, path: &Path) -> Result<(), Stop> {
        self.expect_unchanged(path, None)?;
        let own = self.changes.upper.find(path)?.ok_or(Stop::GuestChanged)?;
        let place = self.place(path)?.ok_or(Errno::ENOENT)?;
        let (parent, name) = place.name()?;
        let made = place.host().make_directory(parent, name, own.mode())?;
        place.host().set_mode(&made, own.mode())?;
        let made = made.attributes()?;
        Ok(self.origins.record(path.as_os_str().as_bytes(), &made)?)
    }
}

fn host_error(path: &Path, errno: Errno) -> ApplyError {
    ApplyError::Host {
        path: path.into(),
        source: errno.into(),
    }
}

impl Found {
    fn is_directory(&self) -> bool {
        self.attributes.kind() == Kind::Directory
    }

    fn is_link(&self) -> bool {
        self.attributes.kind() == Kind::Symlink
    }

    /// Its permission bits, as far as anyone may give them.
    fn mode(&self) -> u32 {
        self.attributes.mode & SETTABLE_MODE
    }
}
