//! Directory listings.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{RawDir, SeekFrom};

use crate::abi::DirEntry;
use crate::errno::Errno;
use crate::host::Next;

/// A directory that is open for listing.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: OwnedFd,
    /// The kernel's cursor is part of the descriptor, so seek and read belong together.
    cursor: Mutex<()>,
}

impl Directory {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self {
            descriptor,
            cursor: Mutex::new(()),
        }
    }

    /// Shows the entries from the cookie `from` on to `each` until it has enough or the directory ends. 0 is the beginning.
    pub(crate) fn list(
        &self,
        from: u64,
        scratch: &mut [MaybeUninit<u8>],
        mut each: impl FnMut(&DirEntry<'_>) -> Result<Next, Errno>,
    ) -> Result<(), Errno> {
        let _cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&self.descriptor, SeekFrom::Start(from))?;
        let mut entries = RawDir::new(&self.descriptor, scratch);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let shown = DirEntry {
                ino: entry.ino(),
                next: entry.next_entry_cookie(),
                kind: entry.file_type().as_raw_mode() >> 12,
                name: entry.file_name().to_bytes(),
            };
            if each(&shown)? == Next::Enough {
                break;
            }
        }
        Ok(())
    }

    /// Makes the directory durable.
    pub(crate) fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let done = if data_only {
            rustix::fs::fdatasync(&self.descriptor)
        } else {
            rustix::fs::fsync(&self.descriptor)
        };
        Ok(done?)
    }
}
