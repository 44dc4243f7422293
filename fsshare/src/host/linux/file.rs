//! What only Linux does with regular files.

use rustix::fs::FallocateFlags;
use rustix::io::retry_on_intr;

use crate::abi::FallocateMode;
use crate::errno::Errno;
use crate::host::unix::File;

/// Bytes that are copied at once where the host's kernel does not do it.
const COPY_BUFFER: usize = 1 << 20;

impl From<File> for std::fs::File {
    fn from(file: File) -> Self {
        file.0.into()
    }
}

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
}
