//! From types to a reply's bytes.

use zerocopy::IntoBytes;

use super::wire;
use crate::errno::Errno;

/// Length of the head of a reply, bytes.
pub const OUT_HEADER_LEN: usize = size_of::<wire::OutHeader>();

/// Directory entries begin at multiples of this.
const ENTRY_ALIGN: usize = 8;

/// The head of the reply to `unique`: success with `payload` bytes behind it, or an error with none.
pub fn head(unique: u64, outcome: Result<usize, Errno>) -> wire::OutHeader {
    let payload = outcome.unwrap_or(0);
    let len = u32::try_from(OUT_HEADER_LEN.saturating_add(payload)).unwrap_or(u32::MAX);
    wire::OutHeader {
        len,
        error: outcome.err().map_or(0, Errno::reply_code),
        unique,
    }
}

/// One entry of a directory listing.
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// Cookie with which the listing goes on behind this entry.
    pub next: u64,
    /// Type, `DT_*`.
    pub kind: u32,
    /// Name, at most 255 bytes.
    pub name: &'a [u8],
}

impl DirEntry<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        let namelen = u32::try_from(self.name.len()).unwrap_or(u32::MAX);
        let head = wire::Dirent {
            ino: self.ino,
            off: self.next,
            namelen,
            kind: self.kind,
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.name);
        out.resize(out.len().next_multiple_of(ENTRY_ALIGN), 0);
    }

    fn len(&self) -> usize {
        size_of::<wire::Dirent>()
            .saturating_add(self.name.len())
            .next_multiple_of(ENTRY_ALIGN)
    }
}

/// A directory listing under construction (the payload of READDIR or READDIRPLUS), at most `limit` bytes long.
#[derive(Debug)]
pub struct Listing<'a> {
    out: &'a mut Vec<u8>,
    room: usize,
    plus: bool,
}

impl<'a> Listing<'a> {
    /// Starts a listing that is appended to `out`; `plus` makes it READDIRPLUS's.
    ///
    /// `out` must hold a multiple of 8 bytes, as it does behind a reply's head.
    pub fn new(out: &'a mut Vec<u8>, limit: usize, plus: bool) -> Self {
        Self {
            out,
            room: limit,
            plus,
        }
    }

    /// Whether `entry` still fits.
    pub fn fits(&self, entry: &DirEntry<'_>) -> bool {
        self.len_of(entry) <= self.room
    }

    /// Appends `entry`, with what its lookup gave where the listing has that. Does nothing if it does not fit.
    pub fn push(&mut self, entry: &DirEntry<'_>, found: &wire::EntryOut) {
        let Some(room) = self.room.checked_sub(self.len_of(entry)) else {
            return;
        };
        self.room = room;
        if self.plus {
            self.out.extend_from_slice(found.as_bytes());
        }
        entry.emit(self.out);
    }

    fn len_of(&self, entry: &DirEntry<'_>) -> usize {
        let found = if self.plus {
            size_of::<wire::EntryOut>()
        } else {
            0
        };
        entry.len().saturating_add(found)
    }
}
