//! What only Linux does with regular files.

use rustix::fs::FallocateFlags;
use rustix::io::retry_on_intr;

use crate::abi::FallocateMode;
use crate::errno::Errno;
use crate::host::unix::File;

impl File {
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
}
