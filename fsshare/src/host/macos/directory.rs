//! Directory listings.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::Dir;

use super::file;
use crate::abi::DirEntry;
use crate::errno::Errno;
use crate::host::Next;
use crate::host::listing::{Listed, Listing, Stream};

/// A directory that is open for listing.
#[derive(Debug)]
pub(crate) struct Directory(Mutex<Listing<Entries>>);

/// The system's listing. It has cookies, but they are no numbers to give away: each is remembered until the directory is closed.
#[derive(Debug)]
struct Entries(Dir);

impl Directory {
    pub(super) fn new(descriptor: OwnedFd) -> Result<Self, Errno> {
        let entries = Entries(Dir::new(descriptor)?);
        Ok(Self(Mutex::new(Listing::new(entries))))
    }

    /// Shows the entries from the cookie `from` on to `each` until it has enough or the directory ends. 0 is the beginning.
    pub(crate) fn list(
        &self,
        from: u64,
        _scratch: &mut [MaybeUninit<u8>],
        each: impl FnMut(&DirEntry<'_>) -> Result<Next, Errno>,
    ) -> Result<(), Errno> {
        let mut listing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listing.list(from, each)
    }

    /// Makes the directory durable.
    pub(crate) fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        let listing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file::sync(listing.stream().0.fd()?)
    }
}

impl Stream for Entries {
    fn rewind(&mut self) -> Result<(), Errno> {
        self.0.rewind();
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Listed>, Errno> {
        let Some(entry) = self.0.read() else {
            return Ok(None);
        };
        let entry = entry?;
        Ok(Some(Listed {
            ino: entry.ino(),
            kind: u32::from(entry.file_type().as_raw_mode()) >> 12,
            name: entry.file_name().to_bytes().to_vec(),
        }))
    }
}
