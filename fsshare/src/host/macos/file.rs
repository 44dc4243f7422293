//! What macOS does in its own way with regular files, or not at all.

use std::os::fd::BorrowedFd;

use rustix::io;

use crate::abi::FallocateMode;
use crate::errno::Errno;
use crate::host::unix::File;

/// Makes a file or directory durable. Here `fsync` ends at the drive's own memory.
pub(super) fn sync(file: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::fcntl_fullfsync(file) {
        Err(io::Errno::NOTSUP | io::Errno::INVAL | io::Errno::NOTTY) => {
            Ok(rustix::fs::fsync(file)?)
        }
        done => Ok(done?),
    }
}

impl File {
    /// Makes the file durable.
    pub(crate) fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        sync(self.handle())
    }

    /// Not here: space can be reserved only together with setting the size, which would cut what another writer appends meanwhile. Holes are made
    /// in whole blocks only, which a guest does not know of.
    #[expect(clippy::unused_self, reason = "other systems reserve and free ranges")]
    pub(crate) fn allocate(
        &self,
        _mode: FallocateMode,
        _offset: u64,
        _length: u64,
    ) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// There is no such call for parts of files. The guest's kernel then copies by reading and writing.
    #[expect(clippy::unused_self, reason = "other systems copy in the kernel")]
    pub(crate) fn copy_to(
        &self,
        _offset: u64,
        _target: &Self,
        _target_offset: u64,
        _len: usize,
    ) -> Result<usize, Errno> {
        Err(Errno::ENOSYS)
    }
}
