//! The directory that takes a guest's changes.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use fsshare::{Changes, ChangesError};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::text::printable;

/// What errors call it.
const WHAT: &str = "directory for changes";
/// What it consists of.
const PARTS: [&str; 3] = ["upper", "work", "origins"];

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
        check(&self.changes)?;
        Changes::of(workspace, changes).map_err(|error| unread(WHAT, &self.changes, &error))
    }

    /// Throws the changes away, with their directory.
    ///
    /// # Errors
    /// [`Error::Busy`] if a sandbox has them; a directory that is not there, or cannot be removed.
    pub fn discard(&self) -> Result<()> {
        let directory = open(WHAT, &self.changes)?;
        lock(&directory, &self.changes)?;
        check(&self.changes)?;
        remove(&self.changes).map_err(|error| path_error(WHAT, &self.changes, &error))
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
    check(path)?;
    Ok(directory)
}

/// Refuses a directory that holds anything else than changes: it is not one for them.
fn check(path: &Path) -> Result<()> {
    let entries = fs::read_dir(path).map_err(|error| path_error(WHAT, path, &error))?;
    for entry in entries {
        let name = entry
            .map_err(|error| path_error(WHAT, path, &error))?
            .file_name();
        if !PARTS.iter().any(|part| name == *part) {
            return Err(Error::Path {
                what: WHAT,
                path: path.into(),
                problem: "it holds other files; give one that is empty, not there, or an overlay's"
                    .into(),
            });
        }
    }
    Ok(())
}

pub(super) fn open(what: &'static str, path: &Path) -> Result<OwnedFd> {
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

/// Removes a directory with all that is in it. However deep a guest has made it, and whatever permissions it has taken away: each directory is moved to
/// the top before it is looked into.
fn remove(top: &Path) -> io::Result<()> {
    let mut left = vec![top.to_owned()];
    let mut emptied = Vec::new();
    let mut moved = 0_u64;
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            // A link is none, wherever it leads.
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
            let place = top.join(format!("removed{moved}"));
            moved += 1;
            fs::rename(entry.path(), &place)?;
            left.push(place);
        }
        emptied.push(directory);
    }
    // The top came first.
    emptied.iter().rev().try_for_each(fs::remove_dir)
}

fn path_error(what: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::Path {
        what,
        path: path.into(),
        problem: error.to_string(),
    }
}

pub(super) fn unread(what: &'static str, path: &Path, error: &ChangesError) -> Error {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    Error::Path {
        what,
        path: path.into(),
        problem: printable(&format!("{error}{}", source.unwrap_or_default())),
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

    #[test]
    fn however_deep_it_is_it_is_thrown_away() {
        let (_folder, overlay) = overlay();
        let upper = overlay.changes.join("upper");
        fs::create_dir_all(&upper).unwrap();
        // Deeper than a path can be: made from within.
        let long = "x".repeat(250);
        let script = format!("for i in $(seq 40); do mkdir {long} && cd -P {long} || exit 1; done");
        let done = std::process::Command::new("sh")
            .args(["-c", &script])
            .current_dir(&upper)
            .status();
        assert!(done.unwrap().success());
        let told = overlay.read().unwrap();
        assert_eq!((told.list().len(), told.unread().len()), (17, 1));
        overlay.discard().unwrap();
        assert!(!overlay.changes.exists());
    }

    #[test]
    fn a_directory_of_other_things_is_none_for_changes() {
        let (folder, overlay) = overlay();
        let overlay = Overlay {
            changes: folder.path().join("precious"),
            ..overlay
        };
        fs::create_dir(&overlay.changes).unwrap();
        fs::write(overlay.changes.join("work"), "").unwrap();
        fs::write(overlay.changes.join("file"), "").unwrap();
        for result in [
            overlay.read().map(drop),
            overlay.discard(),
            open_to_change(&overlay.changes).map(drop),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("it holds other files"), "{message}");
        }
        assert!(overlay.changes.join("file").exists());
    }
}
