//! Operations on open directories.

use super::Server;
use super::handles::{Manner, Open};
use super::inodes::Inode;
use super::scratch::{Answer, Scratch};
use crate::abi::{DirEntry, Listing, Name, OpenReply, ROOT_ID, wire};
use crate::errno::Errno;
use crate::host::Next;
use crate::rules::Judgement;

/// Fewest bytes to read from the host at once; a directory entry takes at most 280.
const SHORTEST_READ: usize = 1 << 10;
/// An entry of READDIRPLUS takes about this many times the room that the host's own entry does.
const PLUS_FACTOR: usize = 4;

impl Server {
    /// OPENDIR.
    pub(super) fn open_directory(&self, node: u64) -> Result<wire::OpenOut, Errno> {
        let inode = self.node(node)?;
        self.watch(&inode);
        let place = self.handle_budget.take()?;
        let directory = self.host.open_directory(&inode.node)?;
        let fh = self
            .directories
            .insert(Open::new(inode, directory, Manner::default()), place);
        let mut reply = OpenReply::empty();
        let keeps = OpenReply::CACHE_DIR | OpenReply::KEEP_CACHE;
        reply.set(keeps, self.cache.keep_pages);
        Ok(wire::OpenOut {
            fh,
            open_flags: reply.bits(),
            backing_id: 0,
        })
    }

    /// READDIR and READDIRPLUS.
    pub(super) fn list(
        &self,
        node: u64,
        fh: u64,
        from: u64,
        size: u32,
        plus: bool,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        let open = self.directories.get(fh, node)?;
        i64::try_from(from).map_err(|_| Errno::EINVAL)?;
        let limit = usize::try_from(size.min(self.max_transfer))
            .map_or(scratch.room, |size| size.min(scratch.room));
        let read = if plus { limit / PLUS_FACTOR } else { limit };
        let spare = scratch.listing.spare_capacity_mut();
        let read = read.clamp(SHORTEST_READ, spare.len().max(SHORTEST_READ));
        let spare = spare.get_mut(..read).ok_or(Errno::ENOMEM)?;
        let mut listing = Listing::new(&mut scratch.structures, limit, plus);
        let mut is_empty = true;
        let listed = open.object.list(from, spare, |entry| {
            let entry = shown(&open.inode, entry);
            let judged = self.rules.judge(open.inode.state(), entry.name);
            if judged.is_hidden() && !is_dot(entry.name) {
                return Ok(Next::More);
            }
            if !listing.fits(&entry) {
                // An empty reply would say that the directory ends here.
                return if is_empty {
                    Err(Errno::EINVAL)
                } else {
                    Ok(Next::Enough)
                };
            }
            let found = if plus {
                self.find_listed(&open.inode, &entry, judged)
            } else {
                wire::EntryOut::default()
            };
            listing.push(&entry, &found);
            is_empty = false;
            Ok(Next::More)
        });
        match listed {
            Err(errno) if is_empty => Err(errno),
            // The guest has to learn of what was looked up; a failure behind it comes with its next request.
            _ => Ok(Answer::Structures),
        }
    }

    /// What a lookup of the entry gives, or nothing: the guest then looks it up itself when it needs it.
    fn find_listed(
        &self,
        parent: &Inode,
        entry: &DirEntry<'_>,
        judged: Judgement,
    ) -> wire::EntryOut {
        let nothing = wire::EntryOut::default();
        if is_dot(entry.name) || self.inodes.is_crowded() {
            return nothing;
        }
        let mut text = Vec::with_capacity(entry.name.len() + 1);
        text.extend_from_slice(entry.name);
        text.push(0);
        let name = std::ffi::CStr::from_bytes_with_nul(&text)
            .ok()
            .and_then(|text| Name::new(text).ok());
        let found = name.and_then(|name| self.find_in_passing(parent, name, judged).ok());
        found.unwrap_or(nothing)
    }

    /// FSYNCDIR.
    pub(super) fn sync_directory(&self, node: u64, fh: u64, data_only: bool) -> Result<(), Errno> {
        self.directories.get(fh, node)?.object.sync(data_only)
    }
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// The entry as the guest may see it: above the root there is nothing.
fn shown<'a>(directory: &Inode, entry: &DirEntry<'a>) -> DirEntry<'a> {
    let ino = if directory.is_top() && entry.name == b".." {
        ROOT_ID
    } else {
        entry.ino
    };
    DirEntry { ino, ..*entry }
}
