//! Content and locks of regular files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FlockOperation, SeekFrom};
use rustix::io::retry_on_intr;

use crate::errno::Errno;
use crate::host::LockRequest;
use crate::sys::{self, LockKind, RecordLock};
use crate::transfer::{self, Reader};

/// A regular file that is open for I/O. Positions are always given, so threads may share it.
#[derive(Debug)]
pub(crate) struct File(pub(in crate::host) OwnedFd);

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl File {
    pub(in crate::host) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Reads until `buffer` is full or the file ends; returns the number of bytes.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        Ok(transfer::read_at(self.as_fd(), buffer, offset)?)
    }

    /// Writes the next `len` bytes of `content`, as far as the host takes them; returns how many.
    pub(crate) fn write_from(
        &self,
        content: &mut dyn Reader,
        offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        Ok(content.write_to_file(self.as_fd(), offset, len)?)
    }

    /// Cuts or extends the file.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), Errno> {
        Ok(retry_on_intr(|| rustix::fs::ftruncate(&self.0, size))?)
    }

    /// The first byte of data at or after `offset`.
    pub(crate) fn next_data(&self, offset: u64) -> Result<u64, Errno> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Data(offset))?)
    }

    /// The first byte of a hole at or after `offset`; the end of the file counts as one.
    pub(crate) fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Hole(offset))?)
    }

    /// Takes, changes or gives up the `flock` of this open file; never waits.
    pub(crate) fn flock(&self, request: LockRequest) -> Result<(), Errno> {
        let operation = match request {
            LockRequest::Shared => FlockOperation::NonBlockingLockShared,
            LockRequest::Exclusive => FlockOperation::NonBlockingLockExclusive,
            LockRequest::Release => FlockOperation::NonBlockingUnlock,
        };
        Ok(rustix::fs::flock(&self.0, operation)?)
    }

    /// Takes or gives up a record lock that belongs to this open file; never waits.
    pub(crate) fn set_record_lock(
        &self,
        request: LockRequest,
        start: u64,
        end: u64,
    ) -> Result<(), Errno> {
        let lock = RecordLock {
            kind: kind_of(request),
            start,
            end,
        };
        sys::set_record_lock(self.as_fd(), lock).map_err(Errno::from_host)
    }

    /// The lock that stands in the way of such a record lock, if there is one.
    pub(crate) fn record_lock_in_the_way(
        &self,
        request: LockRequest,
        start: u64,
        end: u64,
    ) -> Result<Option<(LockRequest, u64, u64)>, Errno> {
        let lock = RecordLock {
            kind: kind_of(request),
            start,
            end,
        };
        let found = sys::record_lock_in_the_way(self.as_fd(), lock).map_err(Errno::from_host)?;
        Ok(found.map(|held| {
            let request = if held.kind == sys::SHARED {
                LockRequest::Shared
            } else {
                LockRequest::Exclusive
            };
            (request, held.start, held.end)
        }))
    }
}

fn kind_of(request: LockRequest) -> LockKind {
    match request {
        LockRequest::Shared => sys::SHARED,
        LockRequest::Exclusive => sys::EXCLUSIVE,
        LockRequest::Release => sys::NONE,
    }
}
