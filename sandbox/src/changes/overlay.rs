//! The directory that takes a guest's changes.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fsshare::Changes;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// What errors call it.
const WHAT: &str = "directory for changes";

/// A workspace, and the directory that takes the changes of a guest to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Overlay {
    /// The workspace.
    pub workspace: PathBuf,
    /// Where the changes are kept.
    pub changes: PathBuf,
}

impl Overlay {
    /// What the guest has changed so far; its sandbox may still be running.
    ///
    /// # Errors
    /// A directory is not there or cannot be used.
    pub fn read(&self) -> Result<Changes> {
        let workspace = open("workspace", &self.workspace)?;
        let changes = open(WHAT, &self.changes)?;
        Changes::of(workspace, changes).map_err(|error| Error::Path {
            what: WHAT,
            path: self.changes.clone(),
            problem: describe(&error),
        })
    }

    /// Throws the changes away, with their directory.
    ///
    /// # Errors
    /// [`Error::Busy`] if a sandbox has them; a directory that is not there, or cannot be removed.
    pub fn discard(&self) -> Result<()> {
        let directory = open(WHAT, &self.changes)?;
        lock(&directory, &self.changes)?;
        let removed = fs::remove_dir_all(&self.changes).or_else(|error| {
            if error.kind() != io::ErrorKind::PermissionDenied {
                return Err(error);
            }
            // The guest may have taken the permission from its directories.
            make_removable(&self.changes)?;
            fs::remove_dir_all(&self.changes)
        });
        removed.map_err(|error| path_error(WHAT, &self.changes, &error))
    }
}

/// Opens the directory, which is made if it is not there, and takes its lock, which lasts as long as the descriptor.
pub(crate) fn open_to_change(path: &Path) -> Result<OwnedFd> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|error| path_error(WHAT, path, &error))?;
    let directory = open(WHAT, path)?;
    lock(&directory, path)?;
    Ok(directory)
}

fn open(what: &'static str, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty());
    opened.map_err(|errno| path_error(what, path, &errno.into()))
}

fn lock(directory: &OwnedFd, path: &Path) -> Result<()> {
    match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(Error::Busy { path: path.into() }),
        locked => locked.map_err(|errno| path_error(WHAT, path, &errno.into())),
    }
}

fn make_removable(top: &Path) -> io::Result<()> {
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // Not of what a link leads to.
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(())
}

fn path_error(what: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Path {
        what,
        path: path.into(),
        problem: error.to_string(),
    }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay() -> (tempfile::TempDir, Overlay) {
        let folder = tempfile::tempdir().unwrap();
        let overlay = Overlay {
            workspace: folder.path().join("work"),
            changes: folder.path().join("state/changes"),
        };
        fs::create_dir(&overlay.workspace).unwrap();
        (folder, overlay)
    }

    #[test]
    fn one_sandbox_at_a_time_has_the_changes() {
        let (_folder, overlay) = overlay();
        let first = open_to_change(&overlay.changes).unwrap();
        let busy = |result: Result<()>| matches!(result, Err(Error::Busy { .. }));
        assert!(busy(open_to_change(&overlay.changes).map(drop)));
        assert!(busy(overlay.discard()));
        assert!(overlay.read().unwrap().list().is_empty());
        drop(first);
        overlay.discard().unwrap();
        assert!(!overlay.changes.exists() && overlay.workspace.exists());
    }

    #[test]
    fn changes_that_are_not_there_are_told() {
        let (_folder, overlay) = overlay();
        for result in [overlay.read().map(drop), overlay.discard()] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("No such file"), "{message}");
        }
    }

    #[test]
    fn directories_without_permissions_are_thrown_away_too() {
        let (_folder, overlay) = overlay();
        let closed = overlay.changes.join("upper/closed");
        fs::create_dir_all(closed.join("inner")).unwrap();
        std::os::unix::fs::symlink(&overlay.workspace, closed.join("link")).unwrap();
        fs::set_permissions(closed.join("inner"), Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
        overlay.discard().unwrap();
        assert!(!overlay.changes.exists() && overlay.workspace.exists());
    }
}
