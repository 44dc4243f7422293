//! The files of an audit log.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use netproxy::audit::{Digest, MAX_LINE, Store, is_record};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::text;
use crate::audit::rotated;

/// A log's files, in a directory that is held open: another one in its place does not get them.
#[derive(Debug)]
pub(crate) struct LogFiles {
    directory: OwnedFd,
    /// The name there of the one that is written.
    name: PathBuf,
    /// How many there are at most.
    most: u32,
    /// None after a rotation that did not come to its end.
    file: Option<File>,
    len: u64,
    /// Behind `len` there is a part of a line.
    is_torn: bool,
}

/// Files that were opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) files: LogFiles,
    /// The digest of the last line in them.
    pub(super) head: Digest,
    /// Lines of which there was only a part, which is cut off.
    pub(super) lost: u64,
}

impl LogFiles {
    /// Opens the log `path`, or makes it. The error is for a person.
    pub(super) fn open(path: &Path, most: u32) -> Result<Opened, String> {
        let name = path.file_name().ok_or("it has no file name")?;
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = folder.unwrap_or(Path::new("."));
        let directory = rustix::fs::open(folder, flags, Mode::empty()).map_err(text)?;
        let mut files = Self {
            directory,
            name: name.into(),
            most,
            file: None,
            len: 0,
            is_torn: false,
        };
        let file = files.open_file(OFlags::empty()).map_err(text)?;
        let (mut tail, lost) = (Tail::of(&file)?, file.metadata().map_err(text)?.len());
        let lost = u64::from(lost > tail.len);
        files.len = tail.len;
        files.is_torn = lost > 0;
        files.file = Some(file);
        // The program ended before it began the next file.
        if files.len == 0 {
            tail.head = files.head_of_rotated()?;
        }
        Ok(Opened {
            files,
            head: tail.head,
            lost,
        })
    }

    /// Opens the file that is written. No link or pipe is followed in its place, and nobody else may have it.
    fn open_file(&self, how: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | how;
        let mode = Mode::from_raw_mode(0o600);
        let file = File::from(rustix::fs::openat(
            &self.directory,
            &self.name,
            flags,
            mode,
        )?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            match errno {
                Errno::WOULDBLOCK => io::Error::other("another sandbox writes it"),
                errno => errno.into(),
            }
        })?;
        Ok(file)
    }

    fn head_of_rotated(&self) -> Result<Digest, String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let name = rotated(&self.name, 1);
        match rustix::fs::openat(&self.directory, &name, flags, Mode::empty()) {
            Ok(file) => Ok(Tail::of(&file.into())?.head),
            Err(Errno::NOENT) => Ok(Digest::default()),
            Err(errno) => Err(text(errno)),
        }
    }

    /// Renames, if there is such a file.
    fn rename(&self, from: u32, to: u32) -> io::Result<bool> {
        let (from, to) = (rotated(&self.name, from), rotated(&self.name, to));
        match rustix::fs::renameat(&self.directory, &from, &self.directory, &to) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn exists(&self, times: u32) -> bool {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::statat(&self.directory, rotated(&self.name, times), flags).is_ok()
    }
}

impl Store for LogFiles {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.open_file(OFlags::EXCL)?,
        };
        let file = self.file.insert(file);
        if self.is_torn {
            file.set_len(self.len)?;
            self.is_torn = false;
        }
        if let Err(error) = file.write_all(line) {
            // Where it cannot be cut off now, it is before the next line.
            self.is_torn = file.set_len(self.len).is_err();
            return Err(error);
        }
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.len = self.len.saturating_add(len);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Only up to the first name that is free: a rotation that fails again and again pushes nothing out.
        let free = (1..self.most).find(|times| !self.exists(*times));
        let last = free.unwrap_or(self.most - 1);
        for times in (1..last).rev() {
            self.rename(times, times + 1)?;
        }
        self.rename(0, 1)?;
        self.file = None;
        self.len = 0;
        Ok(())
    }
}

/// How a file ends.
struct Tail {
    /// The digest of its last whole line.
    head: Digest,
    /// Its bytes up to the end of that.
    len: u64,
}

impl Tail {
    /// The error is for a person: it is no audit log, or cannot be read.
    fn of(file: &File) -> Result<Self, String> {
        let all = file.metadata().map_err(text)?.len();
        // A whole line, the break before it, and a part of another.
        let most = u64::try_from(2 * MAX_LINE + 1).unwrap_or(u64::MAX);
        let begin = all.saturating_sub(most);
        let len = usize::try_from(all - begin).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, begin).map_err(text)?;
        let break_at = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        let foreign = || "it is there, and is not an audit log".to_owned();
        let Some(end) = break_at(&bytes) else {
            let is_begun = b"{\"prev\":\""
                .iter()
                .zip(&bytes)
                .all(|(one, other)| one == other);
            return match begin {
                // Nothing, or a part of a first line.
                0 if is_begun => Ok(Self {
                    head: Digest::default(),
                    len: 0,
                }),
                _ => Err(foreign()),
            };
        };
        let whole = bytes.get(..end).unwrap_or_default();
        let line = break_at(whole).map_or(whole, |at| whole.get(at + 1..).unwrap_or_default());
        if !is_record(line) {
            return Err(foreign());
        }
        let torn = u64::try_from(bytes.len() - end - 1).unwrap_or(u64::MAX);
        Ok(Self {
            head: Digest::of(line),
            len: all.saturating_sub(torn),
        })
    }
}
