//! What the host had wherever the guest changed something of it: the ground for saying later what was changed, and whether the host's user has
//! changed the same meanwhile.
//!
//! A file of records, each a NUL and two texts that end with NUL: the path below the root, and the decimal numbers mode, size, inode, seconds and
//! nanoseconds of the last change of content, with a blank behind each. Records are only ever added, each by one call; of several for one path the
//! last holds. One that was cut off, since its writer was ended, spoils none behind it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use crate::errno::Errno;
use crate::host::{Attributes, Kind};

/// The file's name.
const NAME: &std::ffi::CStr = c"origins";

/// The file, to be added to.
#[derive(Debug)]
pub(crate) struct Origins(Mutex<File>);

/// What the host had by some name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    mode: u32,
    size: u64,
    inode: u64,
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
        Ok(Self(Mutex::new(file)))
    }

    /// Adds a record.
    pub(crate) fn record(&self, path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
        let text = Origin::of(attributes).text();
        let record = [b"\0", path, b"\0", text.as_bytes(), b"\0"].concat();
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&record)?;
        Ok(())
    }

    /// All records in `directory`.
    pub(crate) fn read(directory: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, Origin>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut bytes = Vec::new();
        match rustix::fs::openat(directory, NAME, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {}
            file => {
                File::from(file?).read_to_end(&mut bytes)?;
            }
        }
        Ok(parse(&bytes))
    }
}

fn parse(bytes: &[u8]) -> BTreeMap<Vec<u8>, Origin> {
    let texts = || {
        bytes
            .split(|byte| *byte == 0)
            .filter(|text| !text.is_empty())
    };
    let pairs = texts().zip(texts().skip(1));
    let records = pairs.filter_map(|(path, origin)| Some((path.to_vec(), Origin::parse(origin)?)));
    records.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = b"a b/\xff\n";
    const RECORD: &[u8] = b"\0a b/\xff\n\x0033188 12 5 -3 7 \0";
    const ORIGIN: Origin = Origin {
        mode: 0o100_644,
        size: 12,
        inode: 5,
        modified: (-3, 7),
    };

    #[test]
    fn records_are_read_as_they_were_written() {
        let expected = [b"\0", PATH, b"\0", ORIGIN.text().as_bytes(), b"\0"].concat();
        assert_eq!(expected, RECORD);
        assert_eq!(parse(RECORD), BTreeMap::from([(PATH.to_vec(), ORIGIN)]));
    }

    #[test]
    fn a_record_that_was_cut_off_spoils_none_behind_it() {
        let other = b"\0other\x001 2 3 4 55 \0";
        for cut in 0..other.len() - 1 {
            let origins = parse(&[&other[..cut], RECORD].concat());
            assert_eq!(origins.get(PATH), Some(&ORIGIN), "{cut}");
            let others = origins.keys().filter(|path| *path != PATH);
            assert_eq!(others.count(), 0, "{cut}");
        }
    }

    #[test]
    fn the_last_record_of_a_path_holds() {
        let earlier = b"\0a b/\xff\n\x0033188 99 5 -3 7 \0";
        let origins = parse(&[earlier, RECORD].concat());
        assert_eq!(origins, BTreeMap::from([(PATH.to_vec(), ORIGIN)]));
    }
}
