//! Content and locks of regular files.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FallocateFlags, FlockOperation, SeekFrom};
use rustix::io::retry_on_intr;

use crate::abi::FallocateMode;
use crate::errno::Errno;
use crate::sys::{self, RecordLock};
use crate::transfer::{self, Reader};

/// Bytes that are copied at once where the host's kernel does not do it.
const COPY_BUFFER: usize = 1 << 20;

/// A regular file that is open for I/O. Positions are always given, so threads may share it.
#[derive(Debug)]
pub(crate) struct File(OwnedFd);

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<File> for std::fs::File {
    fn from(file: File) -> Self {
        file.0.into()
    }
}

/// What is asked of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockRequest {
    Shared,
    Exclusive,
    Release,
}

impl File {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
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

    /// Makes the file durable.
    pub(crate) fn sync(&self, data_only: bool) -> Result<(), Errno> {
        let done = if data_only {
            rustix::fs::fdatasync(&self.0)
        } else {
            rustix::fs::fsync(&self.0)
        };
        Ok(done?)
    }

    /// Reserves or frees a range.
    pub(crate) fn allocate(
        &self,
        mode: FallocateMode,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let flags = FallocateFlags::from_bits_truncate(mode.bits());
        Ok(retry_on_intr(|| {
            rustix::fs::fallocate(&self.0, flags, offset, length)
        })?)
    }

    /// The first byte of data at or after `offset`.
    pub(crate) fn next_data(&self, offset: u64) -> Result<u64, Errno> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Data(offset))?)
    }

    /// The first byte of a hole at or after `offset`; the end of the file counts as one.
    pub(crate) fn next_hole(&self, offset: u64) -> Result<u64, Errno> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Hole(offset))?)
    }

    /// Copies up to `len` bytes to `target`; returns how many.
    pub(crate) fn copy_to(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        let (mut from, mut to) = (offset, target_offset);
        Ok(rustix::fs::copy_file_range(
            &self.0,
            Some(&mut from),
            &target.0,
            Some(&mut to),
            len,
        )?)
    }

    /// Gives an empty file the first `size` bytes of `source`, whose blocks it shares where the file system can. Holes stay holes.
    pub(crate) fn copy_from(&self, source: &Self, size: u64) -> Result<(), Errno> {
        if rustix::fs::ioctl_ficlone(&self.0, &source.0).is_ok() {
            return Ok(());
        }
        self.set_size(size)?;
        let mut at = 0;
        while at < size {
            let begin = match source.next_data(at) {
                // Only a hole is left.
                Err(Errno::ENXIO) => break,
                begin => begin?,
            };
            let end = source.next_hole(begin)?.clamp(begin, size);
            if begin == end {
                break;
            }
            self.copy_part(source, begin, end)?;
            at = end;
        }
        Ok(())
    }

    fn copy_part(&self, source: &Self, mut at: u64, end: u64) -> Result<(), Errno> {
        let mut buffer = Vec::new();
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(usize::MAX);
            let copied = match source.copy_to(at, self, at, len) {
                // Two file systems that do not know each other.
                Err(Errno::EXDEV | Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                    buffer.resize(len.min(COPY_BUFFER), 0);
                    let read = source.read_at(&mut buffer, at)?;
                    let mut content = buffer.get(..read).unwrap_or_default();
                    self.write_from(&mut content, at, read)?
                }
                copied => copied?,
            };
            if copied == 0 {
                // Someone made it shorter meanwhile.
                break;
            }
            at = at.saturating_add(copied as u64);
        }
        Ok(())
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

fn kind_of(request: LockRequest) -> i32 {
    match request {
        LockRequest::Shared => sys::SHARED,
        LockRequest::Exclusive => sys::EXCLUSIVE,
        LockRequest::Release => sys::NONE,
    }
}
