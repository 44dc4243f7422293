//! System calls: bytes between files and guest RAM without a copy in between, and random bytes.
//!
//! Guest memory is never borrowed as a Rust slice: the guest may change it at any time. So the
//! kernel gets addresses, and where there is no such call a host buffer is copied by volatile
//! accesses.

#![cfg_attr(
    unix,
    expect(unsafe_code, reason = "passes addresses of guest RAM to the kernel")
)]

use std::io;

use vm_memory::VolatileSlice;

/// The most slices that one call takes. An array of them fits the stack, and moving so many pages
/// takes far longer than making the call.
pub(crate) const MAX_SLICES: usize = 64;

#[cfg(unix)]
pub use imp::{read, write};
pub use imp::{read_at, write_at};

#[cfg(unix)]
mod imp {
    use super::{MAX_SLICES, VolatileSlice, io};
    use std::os::fd::{AsFd, AsRawFd as _};

    /// The first slices as the system calls take them.
    struct Vector {
        entries: [libc::iovec; MAX_SLICES],
        count: libc::c_int,
    }

    impl Vector {
        fn new(slices: &[VolatileSlice<'_>]) -> Self {
            let mut vector = Self {
                entries: [libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: 0,
                }; MAX_SLICES],
                count: 0,
            };
            for (entry, slice) in vector.entries.iter_mut().zip(slices) {
                entry.iov_base = slice.ptr_guard_mut().as_ptr().cast();
                entry.iov_len = slice.len();
                vector.count += 1;
            }
            vector
        }
    }

    /// Repeats a call that a signal interrupted.
    fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
        loop {
            if let Ok(count) = usize::try_from(call()) {
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    fn position(offset: u64) -> io::Result<libc::off_t> {
        libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    /// Reads from `offset` of `file` into `into`; may read less, 0 at the end.
    ///
    /// # Errors
    /// The host's.
    pub fn read_at(file: &impl AsFd, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let (vector, fd) = (Vector::new(into), file.as_fd().as_raw_fd());
        let offset = position(offset)?;
        // SAFETY: each of the `count` entries is the address and length of a `VolatileSlice` that is
        // borrowed for this call, hence mapped and writable; the kernel keeps none of them.
        retry(|| unsafe { libc::preadv(fd, vector.entries.as_ptr(), vector.count, offset) })
    }

    /// Writes `from` at `offset` of `file`; may write less.
    ///
    /// # Errors
    /// The host's.
    pub fn write_at(
        file: &impl AsFd,
        from: &[VolatileSlice<'_>],
        offset: u64,
    ) -> io::Result<usize> {
        let (vector, fd) = (Vector::new(from), file.as_fd().as_raw_fd());
        let offset = position(offset)?;
        // SAFETY: as in `read_at`; the kernel only reads.
        retry(|| unsafe { libc::pwritev(fd, vector.entries.as_ptr(), vector.count, offset) })
    }

    /// Reads from a stream into `into`; may read less, 0 at the end.
    ///
    /// # Errors
    /// The host's, `WouldBlock` included.
    pub fn read(stream: &impl AsFd, into: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let (vector, fd) = (Vector::new(into), stream.as_fd().as_raw_fd());
        // SAFETY: as in `read_at`.
        retry(|| unsafe { libc::readv(fd, vector.entries.as_ptr(), vector.count) })
    }

    /// Writes `from` to a stream; may write less.
    ///
    /// # Errors
    /// The host's, `WouldBlock` included.
    pub fn write(stream: &impl AsFd, from: &[VolatileSlice<'_>]) -> io::Result<usize> {
        let (vector, fd) = (Vector::new(from), stream.as_fd().as_raw_fd());
        // SAFETY: as in `read_at`; the kernel only reads.
        retry(|| unsafe { libc::writev(fd, vector.entries.as_ptr(), vector.count) })
    }
}

/// Fills `data` from the operating system's generator.
///
/// # Errors
/// The host's.
#[cfg(target_os = "linux")]
pub(crate) fn entropy(mut data: &mut [u8]) -> io::Result<()> {
    use rustix::rand::{GetRandomFlags, getrandom};
    while !data.is_empty() {
        let count = getrandom(&mut *data, GetRandomFlags::empty())?;
        data = data.split_at_mut(count.min(data.len())).1;
    }
    Ok(())
}

/// Fills `data` from the operating system's generator.
///
/// # Errors
/// The host's.
#[cfg(target_os = "macos")]
pub(crate) fn entropy(data: &mut [u8]) -> io::Result<()> {
    /// What one call gives at most.
    const LIMIT: usize = 256;
    for part in data.chunks_mut(LIMIT) {
        // SAFETY: pointer and length are those of `part`, which is borrowed for the call.
        if unsafe { libc::getentropy(part.as_mut_ptr().cast(), part.len()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(windows)]
mod imp {
    use super::{VolatileSlice, io};
    use std::fs::File;
    use std::os::windows::fs::FileExt as _;

    /// Bytes of the buffer that a copy goes through.
    const BOUNCE: usize = 64 << 10;

    /// The first slice that is not empty, as long as the buffer at most.
    fn first<'a>(slices: &[VolatileSlice<'a>]) -> Option<VolatileSlice<'a>> {
        let slice = slices.iter().find(|slice| !slice.is_empty())?;
        slice.subslice(0, slice.len().min(BOUNCE)).ok()
    }

    /// Reads from `offset` of `file` into `into`; may read less, 0 at the end.
    ///
    /// # Errors
    /// The host's.
    pub fn read_at(file: &File, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let Some(slice) = first(into) else {
            return Ok(0);
        };
        let mut bounce = vec![0; slice.len()];
        let count = file.seek_read(&mut bounce, offset)?;
        bounce.truncate(count);
        slice.copy_from(&bounce);
        Ok(count)
    }

    /// Writes `from` at `offset` of `file`; may write less.
    ///
    /// # Errors
    /// The host's.
    pub fn write_at(file: &File, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let Some(slice) = first(from) else {
            return Ok(0);
        };
        let mut bounce = vec![0; slice.len()];
        slice.copy_to(&mut bounce);
        file.seek_write(&bounce, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two slices of one buffer, in the wrong order.
    fn slices(data: &mut [u8], mid: usize) -> [VolatileSlice<'_>; 2] {
        let (first, second) = VolatileSlice::from(data).split_at(mid).unwrap();
        [second, first]
    }

    /// Repeats a transfer, which may do less than asked, until `total` is done.
    fn all(total: usize, mut step: impl FnMut(usize) -> usize) {
        let mut done = 0;
        while done < total {
            let count = step(done);
            assert!(count > 0);
            done += count;
        }
    }

    /// What of `slices` is left after `done` bytes.
    fn rest<'a>(slices: &[VolatileSlice<'a>], mut done: usize) -> Vec<VolatileSlice<'a>> {
        let left = slices.iter().map(|slice| {
            let skip = done.min(slice.len());
            done -= skip;
            slice.offset(skip).unwrap()
        });
        left.collect()
    }

    fn at(done: usize) -> u64 {
        10 + u64::try_from(done).unwrap()
    }

    #[test]
    fn files_are_read_and_written_at_a_position() {
        let file = tempfile::tempfile().unwrap();
        let mut data = *b"defghabc";
        let from = slices(&mut data, 5);
        all(8, |done| {
            write_at(&file, &rest(&from, done), at(done)).unwrap()
        });
        let mut back = [0; 8];
        let into = slices(&mut back, 2);
        all(8, |done| {
            read_at(&file, &rest(&into, done), at(done)).unwrap()
        });
        assert_eq!(&back, b"ghabcdef");
        let end = VolatileSlice::from(&mut back[..]);
        assert_eq!(read_at(&file, &[end], 18).unwrap(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn streams_are_read_and_written() {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut data = *b"defabc";
        assert_eq!(write(&near, &slices(&mut data, 3)).unwrap(), 6);
        let mut back = [0; 10];
        assert_eq!(read(&far, &slices(&mut back, 6)).unwrap(), 6);
        assert_eq!(&back, b"ef\0\0\0\0abcd");
        far.set_nonblocking(true).unwrap();
        let empty = read(&far, &slices(&mut back, 6));
        assert_eq!(empty.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(near);
        assert_eq!(read(&far, &slices(&mut back, 6)).unwrap(), 0);
        assert!(write(&far, &slices(&mut back, 6)).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn positions_past_what_a_host_has_are_refused() {
        let file = tempfile::tempfile().unwrap();
        let mut data = [0; 2];
        let slices = slices(&mut data, 1);
        assert!(read_at(&file, &slices, u64::MAX).is_err());
        assert!(write_at(&file, &slices, 1 << 63).is_err());
    }
}
