//! What is not complete yet: it is made in a directory of its own and moved to its place when it is.

use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};

use super::os;
use crate::abi::{Name, RenameMode};
use crate::errno::Errno;
use crate::host::{Attributes, Kind, Next, SETTABLE_MODE};

/// Room for a listing of whiteouts, bytes.
const LISTING: usize = 8 << 10;
/// What a directory's owner needs to make and move something in it, and to move it.
pub(super) const OWN: u32 = 0o700;

/// The directory of drafts, whose names are numbers.
#[derive(Debug)]
pub(super) struct Drafts {
    work: os::Node,
    next: AtomicU64,
}

/// The name of something that is being made, or of what came away for it. What is there when it is dropped is removed.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    host: &'a os::Host,
    drafts: &'a Drafts,
    name: CString,
}

impl Drafts {
    pub(super) fn new(work: os::Node) -> Self {
        Self {
            work,
            next: AtomicU64::new(0),
        }
    }

    /// A name that nothing has.
    pub(super) fn begin<'a>(&'a self, host: &'a os::Host) -> Result<Draft<'a>, Errno> {
        let draft = Draft {
            host,
            drafts: self,
            name: CString::new(self.next.fetch_add(1, Ordering::Relaxed).to_string())
                .map_err(|_| Errno::EIO)?,
        };
        // A worker that was ended may have left one.
        draft.remove()?;
        Ok(draft)
    }
}

impl Draft<'_> {
    pub(super) fn work(&self) -> &os::Node {
        &self.drafts.work
    }

    pub(super) fn name(&self) -> Result<Name<'_>, Errno> {
        Name::new(&self.name).map_err(|_| Errno::EIO)
    }

    /// Moves what was made to `name` of the upper directory `parent`, which has nothing there, or a whiteout.
    pub(super) fn place(&self, parent: &os::Node, name: Name<'_>) -> Result<(), Errno> {
        match self.host.attributes_at(parent, name) {
            Err(Errno::ENOENT) => self.rename(parent, name, RenameMode::NOREPLACE),
            Ok(present) if present.is_whiteout() => self.swap(parent, name),
            Ok(_) => Err(Errno::EEXIST),
            Err(errno) => Err(errno),
        }
    }

    /// The same for what a copy-up made, whatever the directory's permissions: what is copied up was there before.
    pub(super) fn place_copy(&self, parent: &os::Node, name: Name<'_>) -> Result<(), Errno> {
        match self.place(parent, name) {
            Err(Errno::EACCES) => {}
            outcome => return outcome,
        }
        let before = parent.attributes()?;
        let mode = before.mode & SETTABLE_MODE;
        self.set_mode(parent, &before, mode | OWN)?;
        let outcome = self.place(parent, name);
        self.set_mode(parent, &before, mode)?;
        outcome
    }

    /// Takes away what is there, for good when this is dropped.
    pub(super) fn take(&self, parent: &os::Node, name: Name<'_>) -> Result<(), Errno> {
        self.allow_move(parent, name)?;
        let to = (self.work(), self.name()?);
        self.host.rename((parent, name), to, RenameMode::NOREPLACE)
    }

    /// A directory that goes is one that its owner may move.
    fn allow_move(&self, parent: &os::Node, name: Name<'_>) -> Result<(), Errno> {
        let node = self.host.lookup(parent, name)?;
        let before = node.attributes()?;
        if before.kind() != Kind::Directory || before.mode & OWN == OWN {
            return Ok(());
        }
        self.set_mode(&node, &before, OWN)
    }

    /// Sets permissions, and keeps a directory opaque that is.
    fn set_mode(&self, node: &os::Node, before: &Attributes, mode: u32) -> Result<(), Errno> {
        match before.is_opaque() {
            true => self.host.set_opaque_mode(node, mode),
            false => self.host.set_mode(node, mode),
        }
    }

    /// Puts what was made in the place of `name`, and takes away what is there.
    pub(super) fn swap(&self, parent: &os::Node, name: Name<'_>) -> Result<(), Errno> {
        self.allow_move(parent, name)?;
        self.rename(parent, name, RenameMode::EXCHANGE)
    }

    /// Undoes [`Self::swap`], which took away a directory with these attributes.
    pub(super) fn swap_back(
        &self,
        (parent, name): (&os::Node, Name<'_>),
        before: &Attributes,
    ) -> Result<(), Errno> {
        self.swap(parent, name)?;
        let node = self.host.lookup(parent, name)?;
        self.set_mode(&node, before, before.mode & SETTABLE_MODE)
    }

    fn rename(&self, parent: &os::Node, name: Name<'_>, mode: RenameMode) -> Result<(), Errno> {
        self.host
            .rename((self.work(), self.name()?), (parent, name), mode)
    }

    fn remove(&self) -> Result<(), Errno> {
        let (work, name) = (self.work(), self.name()?);
        match self
            .host
            .attributes_at(work, name)
            .map(|present| present.kind())
        {
            Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno),
            Ok(Kind::Directory) => {
                let directory = self.host.lookup(work, name)?;
                // The guest may have taken even its owner's permissions away.
                self.host.set_mode(&directory, OWN)?;
                clear(self.host, &directory)?;
                self.host.remove_directory(work, name)
            }
            Ok(_) => self.host.unlink(work, name),
        }
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // What cannot be removed is found again under the same number by the next worker, or goes with the whole overlay.
        let _ = self.remove();
    }
}

/// Removes the whiteouts from an upper directory.
fn clear(host: &os::Host, directory: &os::Node) -> Result<(), Errno> {
    let listing = host.open_directory(directory)?;
    let mut scratch = Vec::with_capacity(LISTING);
    let mut whiteouts: Vec<CString> = Vec::new();
    listing.list(0, scratch.spare_capacity_mut(), |entry| {
        if super::listing::is_whiteout(entry)
            && let Ok(name) = CString::new(entry.name)
        {
            whiteouts.push(name);
        }
        Ok(Next::More)
    })?;
    for name in &whiteouts {
        host.unlink(directory, Name::new(name).map_err(|_| Errno::EIO)?)?;
    }
    Ok(())
}
