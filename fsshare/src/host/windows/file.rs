//! Content of regular files.

use std::fs;
use std::os::windows::io::{AsHandle as _, BorrowedHandle, OwnedHandle};

use windows_sys::Wdk::Storage::FileSystem::FILE_NON_DIRECTORY_FILE;
use windows_sys::Win32::Storage::FileSystem::FILE_WRITE_DATA;

use super::{index, reopen};
use crate::abi::FallocateMode;
use crate::errno::Errno;
use crate::host::LockRequest;
use crate::transfer::{self, Reader};

/// A regular file that is open for I/O. Positions are always given, so threads may share it.
#[derive(Debug)]
pub(crate) struct File {
    file: fs::File,
    writes: bool,
    /// The kernel lets nothing be written but at the end.
    appends: bool,
}

impl File {
    pub(super) fn new(handle: OwnedHandle, writes: bool, appends: bool) -> Self {
        Self {
            file: handle.into(),
            writes,
            appends,
        }
    }

    pub(crate) fn handle(&self) -> BorrowedHandle<'_> {
        self.file.as_handle()
    }

    /// Reads until `buffer` is full or the file ends; returns the number of bytes.
    pub(crate) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        Ok(transfer::read_at(self.handle(), buffer, offset)?)
    }

    /// Writes the next `len` bytes of `content`, as far as the host takes them; returns how many.
    pub(crate) fn write_from(
        &self,
        content: &mut dyn Reader,
        offset: u64,
        len: usize,
    ) -> Result<usize, Errno> {
        Ok(content.write_to_file(self.handle(), offset, len)?)
    }

    /// Cuts or extends the file.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), Errno> {
        if self.appends {
            let (file, number) = (self.handle(), index(self.handle())?);
            let whole = reopen(file, number, FILE_WRITE_DATA, FILE_NON_DIRECTORY_FILE)?;
            return Ok(fs::File::from(whole).set_len(size)?);
        }
        Ok(self.file.set_len(size)?)
    }

    /// Makes the file durable. Of a file that is open for reading there is nothing to do, and it would be refused.
    pub(crate) fn sync(&self, _data_only: bool) -> Result<(), Errno> {
        if self.writes {
            self.file.sync_all()?;
        }
        Ok(())
    }

    /// Not here: space can be reserved only together with setting the size, which would cut what another writer appends meanwhile. Holes take
    /// files that are marked for them, which others would notice.
    #[expect(clippy::unused_self, reason = "other systems reserve and free ranges")]
    pub(crate) fn allocate(
        &self,
        _mode: FallocateMode,
        _offset: u64,
        _length: u64,
    ) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Holes are not told here. The guest's kernel then takes everything for data.
    #[expect(clippy::unused_self, reason = "other systems know")]
    pub(crate) fn next_data(&self, _offset: u64) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// As [`Self::next_data`].
    #[expect(clippy::unused_self, reason = "other systems know")]
    pub(crate) fn next_hole(&self, _offset: u64) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
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

    /// Locks of Windows keep others from reading and writing, which a guest's programs do not mean.
    #[expect(clippy::unused_self, reason = "other systems have such locks")]
    pub(crate) fn flock(&self, _request: LockRequest) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// As [`Self::flock`].
    #[expect(clippy::unused_self, reason = "other systems have such locks")]
    pub(crate) fn set_record_lock(
        &self,
        _request: LockRequest,
        _start: u64,
        _end: u64,
    ) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// As [`Self::flock`].
    #[expect(clippy::unused_self, reason = "other systems have such locks")]
    pub(crate) fn record_lock_in_the_way(
        &self,
        _request: LockRequest,
        _start: u64,
        _end: u64,
    ) -> Result<Option<(LockRequest, u64, u64)>, Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
