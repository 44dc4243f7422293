//! Operations on open files.

use std::sync::Arc;

use super::Server;
use super::budget::Place;
use super::config::LockPolicy;
use super::growth::Growth;
use super::handles::{Manner, Open, OpenFile};
use super::inodes::{Found, Inode};
use super::scratch::{FilePart, Scratch};
use crate::abi::{FallocateMode, Name, OpenFlags, OpenReply, wire};
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, File, Node};
use crate::rules::State;
use crate::transfer::Reader;

/// Most bytes that one COPY_FILE_RANGE copies: it runs in the host's kernel and cannot be stopped. The guest asks again for the rest.
const LONGEST_COPY: u64 = 64 << 20;
/// Files of fewer bytes are read through this server: two calls to make the kernel take a file and let go of it would cost more.
const LARGE: u64 = 64 << 10;
/// `SEEK_DATA`.
const SEEK_DATA: u32 = 3;
/// `SEEK_HOLE`.
const SEEK_HOLE: u32 = 4;

/// What is to be known of an open file.
#[derive(Clone, Copy)]
struct Opened {
    manner: Manner,
    /// It is worth the while to let the kernel read and write it.
    is_large: bool,
}

impl Server {
    /// OPEN.
    pub(super) fn open(&self, node: u64, flags: OpenFlags) -> Result<wire::OpenOut, Errno> {
        let place = self.handle_budget.take()?;
        self.open_node(self.node(node)?, flags, place)
    }

    fn open_node(
        &self,
        inode: Arc<Inode>,
        flags: OpenFlags,
        place: Place,
    ) -> Result<wire::OpenOut, Errno> {
        let truncates = flags.contains(OpenFlags::TRUNC);
        let inode = if flags.changes() {
            inode.may_change()?;
            self.note_node(&inode);
            self.own(inode)?
        } else {
            inode
        };
        if truncates {
            self.host.drop_privilege_bits(&inode.node)?;
        }
        let flags = if truncates && self.empty(&inode)? {
            flags - OpenFlags::TRUNC
        } else {
            flags
        };
        let (file, attributes) = self.host.open(&inode.node, self.access_mode(flags))?;
        let what = Opened {
            manner: Manner {
                privileged: flags.writes() && attributes.has_privilege_bits(),
                appends: self.appends(flags),
            },
            is_large: flags.writes() || attributes.size >= LARGE,
        };
        Ok(self.opened(inode, file, what, place))
    }

    fn appends(&self, flags: OpenFlags) -> bool {
        flags.contains(OpenFlags::APPEND) && !self.session.caches_writes()
    }

    fn access_mode(&self, flags: OpenFlags) -> AccessMode {
        AccessMode::from_guest(flags, self.session.caches_writes())
    }

    fn opened(&self, inode: Arc<Inode>, file: File, what: Opened, place: Place) -> wire::OpenOut {
        let mut reply = OpenReply::empty();
        let backing = if self.session.passes_through() {
            // Before its first change, a privileged file loses its privilege, which is this server's business.
            let is_wanted = what.is_large && !what.manner.privileged;
            self.passthrough.begin(inode.id, file.handle(), is_wanted)
        } else {
            None
        };
        reply.set(OpenReply::PASSTHROUGH, backing.is_some());
        // The kernel takes one or the other.
        let keeps = self.cache.keep_pages && backing.is_none();
        reply.set(OpenReply::KEEP_CACHE, keeps);
        let open = Open::new(inode, file, what.manner);
        let fh = self.files.insert(open, place);
        wire::OpenOut {
            fh,
            open_flags: reply.bits(),
            backing_id: backing.unwrap_or(0),
        }
    }

    /// CREATE: makes the file if it is not there, then opens it.
    pub(super) fn create(
        &self,
        parent: u64,
        name: Name<'_>,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<(wire::EntryOut, wire::OpenOut), Errno> {
        let parent = self.node(parent)?;
        let state = self.may_make(&parent, name, false)?;
        let parent = self.own(parent)?;
        let places = (self.inodes.reserve()?, self.handle_budget.take()?);
        let at = (state, Some((&*parent, name)));
        self.note_name(&parent, name);
        match self.make_file(&parent, name, flags, mode) {
            Ok((file, node)) => self.created(file, node, at, flags, places),
            Err(errno @ (Errno::EEXIST | Errno::EDQUOT)) if !flags.contains(OpenFlags::EXCL) => {
                let node = self.host.lookup(&parent.node, name);
                let node = node.map_err(|missing| match errno {
                    Errno::EDQUOT => errno,
                    _ => missing,
                })?;
                self.open_found(node, at, flags, places)
            }
            Err(errno) => Err(errno),
        }
    }

    fn make_file(
        &self,
        parent: &Inode,
        name: Name<'_>,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<(File, Node), Errno> {
        let charge = self.charge_inode()?;
        let access = self.access_mode(flags);
        let made = self.host.create(&parent.node, name, mode, access)?;
        charge.keep();
        Ok(made)
    }

    /// TMPFILE.
    pub(super) fn create_unnamed(
        &self,
        parent: u64,
        flags: OpenFlags,
        mode: u32,
    ) -> Result<(wire::EntryOut, wire::OpenOut), Errno> {
        let parent = self.own(self.node(parent)?)?;
        let places = (self.inodes.reserve()?, self.handle_budget.take()?);
        let charge = self.charge_inode()?;
        let exclusive = flags.contains(OpenFlags::EXCL);
        let (file, node) =
            self.host
                .create_unnamed(&parent.node, mode, self.access_mode(flags), exclusive)?;
        charge.keep();
        self.created(file, node, (State::default(), None), flags, places)
    }

    fn created(
        &self,
        file: File,
        node: Node,
        at: (State, Option<(&Inode, Name<'_>)>),
        flags: OpenFlags,
        places: (Place, Place),
    ) -> Result<(wire::EntryOut, wire::OpenOut), Errno> {
        let (inode, attributes) = self.adopted(node, at, places.0)?;
        let entry = self.entry_out(inode.id, &attributes, at.1.map(|(parent, _)| parent));
        let what = Opened {
            manner: Manner {
                privileged: false,
                appends: self.appends(flags),
            },
            is_large: true,
        };
        Ok((entry, self.opened(inode, file, what, places.1)))
    }

    /// The node of what was made or found, with what the guest is told of it.
    fn adopted(
        &self,
        node: Node,
        (state, at): (State, Option<(&Inode, Name<'_>)>),
        place: Place,
    ) -> Result<(Arc<Inode>, Attributes), Errno> {
        let attributes = node.attributes()?;
        let found = Found {
            attributes: &attributes,
            state,
            at,
        };
        let inode = self.inodes.adopt(&self.host, node, &found, place)?;
        Ok((inode, attributes))
    }

    /// Opens what CREATE found to be there.
    fn open_found(
        &self,
        node: Node,
        at: (State, Option<(&Inode, Name<'_>)>),
        flags: OpenFlags,
        places: (Place, Place),
    ) -> Result<(wire::EntryOut, wire::OpenOut), Errno> {
        let (inode, _) = self.adopted(node, at, places.0)?;
        let id = inode.id;
        let opened = self.open_node(inode, flags, places.1).and_then(|open| {
            let attributes = self.inodes.attributes(&self.host, id)?;
            Ok((
                self.entry_out(id, &attributes, at.1.map(|(parent, _)| parent)),
                open,
            ))
        });
        if opened.is_err() {
            // The guest does not learn of the node, so its lookup does not count.
            self.inodes.forget(id, 1);
        }
        opened
    }

    /// READ. The content goes straight to where the reply goes, when that is sent.
    pub(super) fn read(
        &self,
        node: u64,
        fh: u64,
        (offset, size): (u64, u32),
        scratch: &Scratch,
    ) -> Result<FilePart, Errno> {
        let open = self.files.get(fh, node)?;
        if size > self.max_transfer {
            return Err(Errno::EINVAL);
        }
        // A reply that is shorter than asked would say that the file ends there, so what does not fit is refused.
        let len = scratch.expect_room(size)?;
        range(offset, len as u64, Errno::EINVAL)?;
        Ok(FilePart { open, offset, len })
    }

    /// WRITE, of what `content` begins with.
    pub(super) fn write(
        &self,
        node: u64,
        fh: u64,
        (offset, size): (u64, u32),
        content: &mut dyn Reader,
    ) -> Result<wire::WriteOut, Errno> {
        let open = self.files.get(fh, node)?;
        if size > self.max_transfer {
            return Err(Errno::EINVAL);
        }
        range(offset, size.into(), Errno::EFBIG)?;
        open.before_change(&self.host)?;
        let growth = self.growth(&open.inode, |present| {
            let begin = if open.appends { present } else { offset };
            begin.saturating_add(size.into())
        })?;
        let len = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        let written = open.object.write_from(content, offset, len)?;
        growth.map_or(Ok(()), Growth::settle)?;
        Ok(wire::WriteOut {
            size: u32::try_from(written).unwrap_or(u32::MAX),
            padding: 0,
        })
    }

    /// RELEASE.
    pub(super) fn close(&self, node: u64, fh: u64) -> Result<(), Errno> {
        self.files.remove(fh, node)?;
        self.passthrough.end(node);
        Ok(())
    }

    /// FLUSH: one descriptor of the guest was closed, which ends its record locks on the file. Where those are in the guest there is nothing
    /// to do, and the guest's kernel is told never to ask again: it would wait for the answer at each close.
    pub(super) fn flush(&self, node: u64, fh: u64, lock_owner: u64) -> Result<(), Errno> {
        if self.locks == LockPolicy::Guest {
            return Err(Errno::ENOSYS);
        }
        let open = self.files.get(fh, node)?;
        open.inode.lock_owners().remove(&lock_owner);
        Ok(())
    }

    /// FSYNC.
    pub(super) fn sync_file(&self, node: u64, fh: u64, data_only: bool) -> Result<(), Errno> {
        self.files.get(fh, node)?.object.sync(data_only)
    }

    /// FALLOCATE.
    pub(super) fn allocate(
        &self,
        node: u64,
        fh: u64,
        offset: u64,
        length: u64,
        mode: Option<FallocateMode>,
    ) -> Result<(), Errno> {
        let open = self.files.get(fh, node)?;
        let mode = mode.ok_or(Errno::EOPNOTSUPP)?;
        range(offset, length, Errno::EFBIG)?;
        open.before_change(&self.host)?;
        let keeps_size = mode.contains(FallocateMode::KEEP_SIZE);
        if self.usage.is_some() && keeps_size && !mode.contains(FallocateMode::PUNCH_HOLE) {
            // What is reserved beyond the end of a file would not be counted.
            return Err(Errno::EOPNOTSUPP);
        }
        let end = offset.saturating_add(length);
        let growth = self.growth(&open.inode, |size| if keeps_size { size } else { end })?;
        let outcome = open.object.allocate(mode, offset, length);
        // A file may have grown although the host's disk was full.
        growth.map_or(Ok(()), Growth::settle)?;
        outcome
    }

    /// LSEEK: data and holes; the guest knows the other positions itself.
    pub(super) fn seek(
        &self,
        node: u64,
        fh: u64,
        offset: u64,
        whence: u32,
    ) -> Result<wire::LseekOut, Errno> {
        let open = self.files.get(fh, node)?;
        range(offset, 0, Errno::EINVAL)?;
        let offset = match whence {
            SEEK_DATA => open.object.next_data(offset)?,
            SEEK_HOLE => open.object.next_hole(offset)?,
            _ => return Err(Errno::EINVAL),
        };
        Ok(wire::LseekOut { offset })
    }

    /// COPY_FILE_RANGE.
    pub(super) fn copy_range(
        &self,
        node: u64,
        copy: &wire::CopyFileRangeIn,
    ) -> Result<wire::WriteOut, Errno> {
        if copy.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let (source, target) = (
            self.files.get(copy.fh_in, node)?,
            self.files.get(copy.fh_out, copy.nodeid_out)?,
        );
        range(copy.off_in, copy.len, Errno::EINVAL)?;
        range(copy.off_out, copy.len, Errno::EFBIG)?;
        self.copy(&source, &target, copy)
    }

    fn copy(
        &self,
        source: &OpenFile,
        target: &OpenFile,
        copy: &wire::CopyFileRangeIn,
    ) -> Result<wire::WriteOut, Errno> {
        target.before_change(&self.host)?;
        let len = usize::try_from(copy.len.min(LONGEST_COPY)).map_err(|_| Errno::EINVAL)?;
        let end = copy.off_out.saturating_add(len as u64);
        let growth = self.growth(&target.inode, |_| end)?;
        let copied = source
            .object
            .copy_to(copy.off_in, &target.object, copy.off_out, len)?;
        growth.map_or(Ok(()), Growth::settle)?;
        Ok(wire::WriteOut {
            size: u32::try_from(copied).unwrap_or(u32::MAX),
            padding: 0,
        })
    }
}

/// Checks that a range ends where a file can end, at `i64::MAX`.
fn range(offset: u64, len: u64, errno: Errno) -> Result<(), Errno> {
    let end = offset.checked_add(len).ok_or(errno)?;
    i64::try_from(end).map(drop).map_err(|_| errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_at_the_end_of_the_largest_file() {
        const END: u64 = i64::MAX.cast_unsigned();
        for (offset, len, fits) in [
            (0, 0, true),
            (0, END, true),
            (END, 0, true),
            (END - 1, 1, true),
            (END, 1, false),
            (END + 1, 0, false),
            (u64::MAX, 1, false),
            (1, u64::MAX, false),
        ] {
            assert_eq!(
                range(offset, len, Errno::EFBIG).is_ok(),
                fits,
                "{offset} {len}"
            );
        }
    }
}
