//! What the host had wherever the guest changed something of it: the ground for saying later what was changed, and whether the host's user has
//! changed the same meanwhile.
//!
//! A file of records, each two NULs and two texts that end with NUL: the path below the root, and the decimal numbers mode, size, inode, seconds and
//! nanoseconds of the last change of content, with a blank behind each; or `-` and a blank where there was nothing. Records are only ever added,
//! each by one call; of several for one path the last holds. One that was cut off, since its writer was ended, spoils none behind it.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::errno::Errno;
use crate::host::{Attributes, Kind};

/// In the place of the numbers: there was nothing.
const NOTHING: &str = "- ";
/// The file's name.
const NAME: &std::ffi::CStr = c"origins";

/// Most records that one writer adds: as many files of the host as it changes, and each once unless the host changes it, too.
const MOST: usize = 1 << 22;
/// Most bytes that are read.
const LONGEST: u64 = 1 << 30;

/// The file, to be added to.
#[derive(Debug)]
pub(crate) struct Origins {
    records: Mutex<Added>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Added {
    file: File,
    /// What was added, by its hash: a guest may have the same refused for ever.
    told: HashSet<u64>,
}

/// What the host had by some name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) inode: u64,
    modified: (i64, u32),
}

impl Origin {
    pub(crate) fn of(attributes: &Attributes) -> Self {
        let modified = attributes.modified;
        Self {
            mode: attributes.mode,
            size: attributes.size,
            inode: attributes.identity.inode,
            modified: (modified.seconds, modified.nanos),
        }
    }

    /// Whether something with these attributes is as it was. Of a directory only what it is counts: what is in it has its own records.
    pub(crate) fn is_still(&self, attributes: &Attributes) -> bool {
        let now = Self::of(attributes);
        if Kind::of_mode(self.mode) == Kind::Directory {
            self.mode == now.mode
        } else {
            *self == now
        }
    }

    /// Whether a file with these attributes is the same and has not been written to.
    pub(super) fn is_same_content(&self, attributes: &Attributes) -> bool {
        let now = Self::of(attributes);
        (self.size, self.inode, self.modified) == (now.size, now.inode, now.modified)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = std::str::from_utf8(text)
            .ok()?
            .strip_suffix(' ')?
            .split(' ');
        let mut next = || numbers.next();
        Some(Self {
            mode: next()?.parse().ok()?,
            size: next()?.parse().ok()?,
            inode: next()?.parse().ok()?,
            modified: (next()?.parse().ok()?, next()?.parse().ok()?),
        })
    }

    fn text(&self) -> String {
        let (seconds, nanos) = self.modified;
        format!(
            "{} {} {} {seconds} {nanos} ",
            self.mode, self.size, self.inode
        )
    }
}

impl Origins {
    /// The file in `directory`, which is made if it is not there.
    pub(super) fn open(directory: &OwnedFd) -> io::Result<Self> {
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(directory, NAME, flags, mode)?);
        Ok(Self::of(file))
    }

    /// Adds a record. `ENOSPC` beyond four million.
    pub(crate) fn record(&self, path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
        self.add(path, Some(Origin::of(attributes)))
    }

    /// The same of what was there, if something was.
    pub(super) fn add(&self, path: &[u8], origin: Option<Origin>) -> Result<(), Errno> {
        let text = origin.map_or(NOTHING.into(), |origin| origin.text());
        let record = [b"\0\0", path, b"\0", text.as_bytes(), b"\0"].concat();
        let hash = self.hasher.hash_one(&record);
        let mut added = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if added.told.contains(&hash) {
            return Ok(());
        }
        if added.told.len() == MOST {
            return Err(Errno::ENOSPC);
        }
        added.file.write_all(&record)?;
        added.told.insert(hash);
        Ok(())
    }

    /// That of an open file.
    pub(super) fn of(file: File) -> Self {
        let told = HashSet::new();
        Self {
            records: Mutex::new(Added { file, told }),
            hasher: RandomState::new(),
        }
    }

    /// What the host had, by path, as the last records in `directory` have it.
    pub(super) fn read(directory: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Origin>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        match rustix::fs::openat(directory, NAME, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            file => {
                let mut most = File::from(file?).take(LONGEST + 1);
                if most.read_to_end(&mut bytes)? as u64 > LONGEST {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
            }
        }
        let last: BTreeMap<_, _> = records(&bytes).collect();
        let present = last.into_iter();
        Ok(present
            .filter_map(|(path, origin)| Some((path, origin?)))
            .collect())
    }
}

/// The records in their order.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (Vec<u8>, Option<Origin>)> + '_ {
    let texts = || bytes.split(|byte| *byte == 0);
    let threes = texts().zip(texts().skip(1)).zip(texts().skip(2));
    threes.filter_map(|((before, path), origin)| {
        let was = Origin::parse(origin);
        let is_record = was.is_some() || origin == NOTHING.as_bytes();
        let is_framed = before.is_empty() && !path.is_empty();
        (is_record && is_framed).then(|| (path.to_vec(), was))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> BTreeMap<Vec<u8>, Origin> {
        let records = records(bytes);
        records
            .map(|(path, origin)| (path, origin.unwrap()))
            .collect()
    }

    const PATH: &[u8] = b"a b/\xff\n";
    const RECORD: &[u8] = b"\0\0a b/\xff\n\x0033188 12 5 -3 7 \0";
    const ORIGIN: Origin = Origin {
        mode: 0o100_644,
        size: 12,
        inode: 5,
        modified: (-3, 7),
    };

    #[test]
    fn records_are_read_as_they_were_written() {
        let expected = [b"\0\0", PATH, b"\0", ORIGIN.text().as_bytes(), b"\0"].concat();
        assert_eq!(expected, RECORD);
        assert_eq!(parse(RECORD), BTreeMap::from([(PATH.to_vec(), ORIGIN)]));
    }

    #[test]
    fn a_record_that_was_cut_off_spoils_none_behind_it() {
        let other = b"\0\0other\x001 2 3 4 55 \0";
        for cut in 0..other.len() - 1 {
            let origins = parse(&[&other[..cut], RECORD].concat());
            assert_eq!(origins.get(PATH), Some(&ORIGIN), "{cut}");
            let others = origins.keys().filter(|path| *path != PATH);
            assert_eq!(others.count(), 0, "{cut}");
        }
    }

    #[test]
    fn a_name_that_looks_like_numbers_is_a_name() {
        let record = b"\0\x0033188 12 5 -3 7 \0- \0\0\0x\x001 2 3 4 5 \0";
        let paths: Vec<_> = records(record)
            .map(|(path, origin)| (path, origin.is_some()))
            .collect();
        let expected = [(b"33188 12 5 -3 7 ".to_vec(), false), (b"x".to_vec(), true)];
        assert_eq!(paths, expected);
    }

    #[test]
    fn the_last_record_of_a_path_holds() {
        let earlier = b"\0\0a b/\xff\n\x0033188 99 5 -3 7 \0";
        let origins = parse(&[earlier, RECORD].concat());
        assert_eq!(origins, BTreeMap::from([(PATH.to_vec(), ORIGIN)]));
    }
}
