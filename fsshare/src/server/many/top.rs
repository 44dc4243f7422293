//! The directory above the shares, which the guest cannot change: it is made of nothing but their numbers.
//!
//! Nothing here answers `ENOSYS` that a share does not: the guest's kernel would never ask any share again.

use super::Shares;
use crate::abi::{DirEntry, Listing, Name, Operation, ROOT_ID, wire};
use crate::errno::Errno;
use crate::server::done;
use crate::server::scratch::{Answer, Scratch};

/// A directory that all may read and walk through.
const MODE: u32 = 0o040_555;
/// `DT_DIR`.
const DIRECTORY: u32 = 4;
/// `W_OK`.
const WRITE: u32 = 2;
const BLOCK: u32 = 4096;
const LONGEST_NAME: u32 = 255;
/// Seconds for which it may be remembered: for as long as there are shares it stays as it is.
const VALID: u64 = 24 * 60 * 60;
/// `STATX_BASIC_STATS`.
const BASIC: u32 = 0x7ff;

impl Shares {
    pub(super) fn perform_at_top(
        &self,
        operation: &Operation<'_>,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        match *operation {
            Operation::Access { mask } if mask & WRITE != 0 => Err(Errno::EROFS),
            Operation::Open { .. } => Err(Errno::EISDIR),
            _ if operation.changes() => Err(Errno::EROFS),
            Operation::Lookup { name } => Ok(scratch.put(&self.find(name)?)),
            Operation::GetAttr => Ok(scratch.put(&wire::AttrOut {
                attr_valid: VALID,
                attr: self.attributes(),
                ..wire::AttrOut::default()
            })),
            Operation::Statx => Ok(scratch.put(&self.statx())),
            Operation::StatFs => Ok(scratch.put(&wire::StatFsOut {
                bsize: BLOCK,
                frsize: BLOCK,
                namelen: LONGEST_NAME,
                ..wire::StatFsOut::default()
            })),
            Operation::OpenDir => Ok(scratch.put(&wire::OpenOut::default())),
            Operation::ReadDir {
                offset, size, plus, ..
            } => self.list(offset, size, plus, scratch),
            Operation::Access { .. }
            | Operation::ReleaseDir { .. }
            | Operation::FsyncDir { .. }
            | Operation::SyncFs => done(Ok(())),
            Operation::GetXattr { .. } | Operation::ListXattr { .. } => Err(Errno::EOPNOTSUPP),
            Operation::ReadLink => Err(Errno::EINVAL),
            Operation::Ioctl => Err(Errno::ENOTTY),
            Operation::Unsupported => Err(Errno::ENOSYS),
            // No file is open here.
            _ => Err(Errno::EBADF),
        }
    }

    /// A share's name is its number, written as anyone would.
    fn find(&self, name: Name<'_>) -> Result<wire::EntryOut, Errno> {
        let text = name.as_c_str().to_str().map_err(|_| Errno::ENOENT)?;
        let number = text.parse().ok();
        let number = number.filter(|number: &usize| number.to_string() == text);
        let at = number.and_then(|number| number.checked_sub(1));
        let server = at.and_then(|at| self.servers.get(at));
        server.ok_or(Errno::ENOENT)?.top()
    }

    fn attributes(&self) -> wire::Attr {
        wire::Attr {
            ino: ROOT_ID,
            mode: MODE,
            nlink: self.links(),
            blksize: BLOCK,
            ..wire::Attr::default()
        }
    }

    fn statx(&self) -> wire::StatxOut {
        wire::StatxOut {
            attr_valid: VALID,
            stat: wire::Statx {
                mask: BASIC,
                blksize: BLOCK,
                nlink: self.links(),
                mode: u16::try_from(MODE).unwrap_or(0),
                ino: ROOT_ID,
                ..wire::Statx::default()
            },
            ..wire::StatxOut::default()
        }
    }

    fn links(&self) -> u32 {
        u32::try_from(self.servers.len()).map_or(u32::MAX, |shares| shares.saturating_add(2))
    }

    /// READDIR and READDIRPLUS, which has to look nothing up.
    fn list(
        &self,
        from: u64,
        size: u32,
        plus: bool,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        let limit = usize::try_from(size).map_or(scratch.room, |size| size.min(scratch.room));
        let mut listing = Listing::new(&mut scratch.structures, limit, plus);
        let names = (1..=self.servers.len()).map(|number| number.to_string());
        let entries = [".", ".."].map(String::from).into_iter().chain(names);
        let skipped = usize::try_from(from).unwrap_or(usize::MAX);
        let mut is_empty = true;
        for (next, name) in (1..).zip(entries).skip(skipped) {
            let entry = DirEntry {
                // Of what is in the shares nobody asks here, and 0 would hide the entry.
                ino: ROOT_ID,
                next,
                kind: DIRECTORY,
                name: name.as_bytes(),
            };
            if !listing.fits(&entry) {
                // An empty reply would say that the directory ends here.
                return if is_empty {
                    Err(Errno::EINVAL)
                } else {
                    Ok(Answer::Structures)
                };
            }
            listing.push(&entry, &wire::EntryOut::default());
            is_empty = false;
        }
        Ok(Answer::Structures)
    }
}
