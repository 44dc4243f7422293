//! Directory listings.

use std::mem::MaybeUninit;
use std::os::windows::io::{AsHandle as _, OwnedHandle};
use std::sync::{Mutex, PoisonError};

use windows_sys::Win32::Foundation::{STATUS_NO_MORE_FILES, STATUS_NO_SUCH_FILE};
use zerocopy::IntoBytes as _;

use super::sys::{self, Status};
use crate::abi::DirEntry;
use crate::errno::Errno;
use crate::host::Next;
use crate::host::listing::{Listed, Listing, Stream};
use crate::host::windows_info as info;

/// What is read at once, words: some 25 entries. Each directory that a guest has open holds so much.
const ROOM: usize = 512;

/// A directory that is open for listing.
#[derive(Debug)]
pub(crate) struct Directory(Mutex<Listing<Entries>>);

/// The system's listing, of which it keeps the place.
#[derive(Debug)]
struct Entries {
    handle: OwnedHandle,
    answer: Box<[u64; ROOM]>,
    /// Where in the answer the next entry is, if one is left.
    at: Option<usize>,
    anew: bool,
}

impl Directory {
    pub(super) fn new(handle: OwnedHandle) -> Self {
        Self(Mutex::new(Listing::new(Entries {
            handle,
            answer: Box::new([0; ROOM]),
            at: None,
            anew: true,
        })))
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

    /// The file system's journal sees to that; nobody may ask for more. The guest's kernel takes this answer for success.
    #[expect(clippy::unused_self, reason = "other systems can")]
    pub(crate) fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }
}

impl Entries {
    /// Reads on; whether there is anything.
    fn fill(&mut self) -> Result<bool, Errno> {
        let anew = std::mem::take(&mut self.anew);
        match sys::list(
            self.handle.as_handle(),
            self.answer.as_mut_slice(),
            None,
            anew,
        ) {
            Ok(()) => Ok(true),
            Err(Status(STATUS_NO_MORE_FILES | STATUS_NO_SUCH_FILE)) => Ok(false),
            Err(status) => Err(status.into()),
        }
    }
}

impl Stream for Entries {
    fn rewind(&mut self) -> Result<(), Errno> {
        (self.at, self.anew) = (None, true);
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Listed>, Errno> {
        loop {
            if self.at.is_none() && !self.fill()? {
                return Ok(None);
            }
            let at = self.at.unwrap_or(0);
            let rest = self.answer.as_bytes().get(at..).ok_or(Errno::EIO)?;
            let found = info::entry(rest)?;
            self.at = (found.next != 0).then(|| at.saturating_add(found.next));
            if let Some(listed) = found.listed() {
                return Ok(Some(listed));
            }
        }
    }
}
