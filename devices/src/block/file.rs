//! A raw disk in a file or block device of the host.
//!
//! Raw because the configuration says so: the content is never looked at, so no image format can
//! be smuggled in by writing one's magic bytes to the first sector.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use vm_memory::VolatileSlice;

use super::{BlockBackend, Extent};
use crate::sys;

/// What the guest may do with a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskAccess {
    /// Only read it.
    ReadOnly,
    /// Read and write it.
    ReadWrite,
}

/// A file that cannot serve as a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// It is empty or has no whole number of sectors (caller).
    #[error("a disk of {0} bytes is empty or not a multiple of 512 bytes: resize the file")]
    Size(u64),
    /// A disk for reading was opened for writing as well (caller).
    #[error("the file of a read-only disk is open for writing: open it read-only")]
    Writable,
    /// The host does not tell its size.
    #[error("cannot determine the size of the disk")]
    Host(#[from] io::Error),
}

/// A raw disk.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    bytes: u64,
    access: DiskAccess,
}

impl FileDisk {
    /// The disk in `file`, which must not change its size from now on.
    ///
    /// # Errors
    /// The size is no multiple of 512, or a read-only disk's file is open for writing (caller; the
    /// second is checked on unix); the host does not tell the size.
    pub fn new(mut file: File, access: DiskAccess) -> Result<Self, DiskError> {
        #[cfg(unix)]
        if access == DiskAccess::ReadOnly && writable(&file)? {
            return Err(DiskError::Writable);
        }
        // A block device's size is where it ends, not what its metadata say.
        let bytes = file.seek(SeekFrom::End(0))?;
        if bytes == 0 || bytes % super::wire::SECTOR != 0 {
            return Err(DiskError::Size(bytes));
        }
        Ok(Self {
            file,
            bytes,
            access,
        })
    }

    /// Writes zeros the slow way.
    pub(super) fn fill(&self, extent: Extent) -> io::Result<()> {
        const CHUNK: usize = 64 << 10;
        let mut zeros = vec![0; CHUNK];
        let zeros = VolatileSlice::from(zeros.as_mut_slice());
        let mut done = 0;
        while done < extent.len {
            let left = usize::try_from(extent.len - done).unwrap_or(CHUNK);
            let part = zeros
                .subslice(0, left.min(CHUNK))
                .map_err(io::Error::other)?;
            let count = sys::write_at(&self.file, &[part], extent.offset + done)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            done += u64::try_from(count).unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(unix)]
fn writable(file: &File) -> io::Result<bool> {
    use rustix::fs::{OFlags, fcntl_getfl};
    Ok(fcntl_getfl(file)?.intersects(OFlags::WRONLY | OFlags::RDWR))
}

impl BlockBackend for FileDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_only(&self) -> bool {
        self.access == DiskAccess::ReadOnly
    }

    fn read_at(&mut self, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        sys::read_at(&self.file, into, offset)
    }

    fn write_at(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        sys::write_at(&self.file, from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// A hint: hosts that cannot make holes do nothing.
    fn discard(&mut self, extent: Extent) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        holes::punch(&self.file, extent)?;
        #[cfg(not(target_os = "linux"))]
        let _ = extent;
        Ok(())
    }

    fn write_zeroes(&mut self, extent: Extent, may_unmap: bool) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if holes::zero(&self.file, extent, may_unmap)? {
            return Ok(());
        }
        let _ = may_unmap;
        self.fill(extent)
    }
}

#[cfg(target_os = "linux")]
mod holes {
    use super::{Extent, File, io};
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;

    /// Gives the space of `extent` back; it reads as zeros afterwards. False: not possible here.
    pub(super) fn punch(file: &File, extent: Extent) -> io::Result<bool> {
        allocate(file, FallocateFlags::PUNCH_HOLE, extent)
    }

    /// Makes `extent` read as zeros. False: not possible here.
    pub(super) fn zero(file: &File, extent: Extent, may_unmap: bool) -> io::Result<bool> {
        if may_unmap && punch(file, extent)? {
            return Ok(true);
        }
        allocate(file, FallocateFlags::ZERO_RANGE, extent)
    }

    fn allocate(file: &File, mode: FallocateFlags, extent: Extent) -> io::Result<bool> {
        if extent.len == 0 {
            return Ok(true);
        }
        let mode = mode | FallocateFlags::KEEP_SIZE;
        match fallocate(file, mode, extent.offset, extent.len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NODEV | Errno::NOSYS) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
