//! What a guest changed: in an overlay, where it is kept, what it is, and how it gets into the host's tree; or in the host's tree itself.
//!
//! The directory that the embedder gives for an overlay holds
//!
//! * `upper`, the tree that takes the changes (what is in it: the host layer's `layers`);
//! * `work`, what is not complete yet;
//! * `origins`, what the host had wherever the guest changed something of it ([`Origins`]).

mod apply;
mod change;
mod direct;
mod journal;
mod origins;
mod overlay;
mod place;
mod record;
mod report;
mod tree;

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

pub use self::apply::{ApplyError, OnConflict};
pub use self::change::{Caution, Change, FileKind, FileState, What};
pub use self::direct::{ChangesInPlace, changes_in_place};
pub(crate) use self::journal::Journal;
pub(crate) use self::origins::Origins;
pub use self::overlay::{Changes, ChangesError, Content};
use crate::host::Over;

/// The tree that takes the changes.
const UPPER: &std::ffi::CStr = c"upper";
/// Where they are made, and what the guest never sees.
const WORK: &std::ffi::CStr = c"work";
/// How the directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Opens the tree that has taken the changes.
fn open_upper(directory: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        directory,
        UPPER,
        DIRECTORY,
        Mode::empty(),
    )?)
}

/// Opens what is kept in `directory`, and makes what is not there yet, for changes of the tree at `root`.
pub(crate) fn open(directory: &OwnedFd, root: &OwnedFd) -> io::Result<(Over, Origins)> {
    let over = Over {
        upper: subdirectory(directory, UPPER, || mode_of(root))?,
        work: subdirectory(directory, WORK, || Ok(Mode::RWXU))?,
    };
    Ok((over, Origins::open(directory)?))
}

fn subdirectory(
    parent: &OwnedFd,
    name: &std::ffi::CStr,
    mode: impl FnOnce() -> io::Result<Mode>,
) -> io::Result<OwnedFd> {
    let is_new = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => false,
        outcome => outcome.map(|()| true)?,
    };
    let directory = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
    if is_new {
        // `mkdirat` is subject to the umask.
        rustix::fs::fchmod(&directory, mode()?)?;
    }
    Ok(directory)
}

fn mode_of(root: &OwnedFd) -> io::Result<Mode> {
    let stat = rustix::fs::statat(root, c"", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(Mode::from_raw_mode(stat.st_mode) & Mode::from_bits_truncate(0o1777) | Mode::RWXU)
}
