//! The directory that takes a guest's changes.

use std::ffi::OsStr;
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
        let changes = open_kept(&self.changes)?;
        check(&self.changes)?;
        Changes::of(workspace, changes).map_err(|error| unread(WHAT, &self.changes, &error))
    }

    /// Throws the changes away, with their directory.
    ///
    /// # Errors
    /// [`Error::Busy`] if a sandbox has them; a directory that is not there, or cannot be removed.
    pub fn discard(&self) -> Result<()> {
        let directory = open_kept(&self.changes)?;
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
        let is_part = PARTS.iter().any(|part| name == *part);
        if !is_part && !is_removed(&name) {
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

/// Opens one that is there.
fn open_kept(path: &Path) -> Result<OwnedFd> {
    if path.try_exists().is_ok_and(|exists| !exists) {
        return Err(Error::Path {
            what: WHAT,
            path: path.into(),
            problem: "it is not there: no sandbox has kept changes".into(),
        });
    }
    open(WHAT, path)
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

/// What a directory is called while it is removed: who was ended meanwhile has left it.
const REMOVED: &str = "removed";

fn is_removed(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.strip_prefix(REMOVED));
    number.is_some_and(|number| number.parse::<u64>().is_ok())
}

/// Removes a directory with all that is in it. However deep a guest has made it, and whatever permissions it has taken away: each directory is moved to
/// the top before it is looked into.
fn remove(top: &Path) -> io::Result<()> {
    let mut left = vec![top.to_owned()];
    let mut emptied = Vec::new();
    let mut numbers = 0_u64..;
    while let Some(directory) = left.pop() {
        // All of them first: what is moved to the top while it is read would be found again.
        let entries: Vec<_> = fs::read_dir(&directory)?.collect::<io::Result<_>>()?;
        for entry in entries {
            // A link is none, wherever it leads.
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
            let mut places = numbers
                .by_ref()
                .map(|number| top.join(format!("{REMOVED}{number}")));
            let place = places.find(|place| !place.exists());
            let place = place.ok_or(io::ErrorKind::StorageFull)?;
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
        let message = overlay.read().unwrap_err().to_string();
        assert!(
            message.contains("no sandbox has kept changes there"),
            "{message}"
        );
        drop(first);
        overlay.discard().unwrap();
        assert!(!overlay.changes.exists() && overlay.workspace.exists());
    }

    #[test]
    fn changes_that_are_not_there_are_told() {
        let (_folder, overlay) = overlay();
        for result in [overlay.read().map(drop), overlay.discard()] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("no sandbox has kept changes"), "{message}");
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
    fn who_was_ended_while_they_were_thrown_away_goes_on() {
        let (_folder, overlay) = overlay();
        for left in ["removed0/inner/more", "removed7", "upper/closed"] {
            fs::create_dir_all(overlay.changes.join(left)).unwrap();
        }
        fs::write(overlay.changes.join("removed0/inner/file"), "").unwrap();
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
