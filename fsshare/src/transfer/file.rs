//! Content between a file and a transport.

use std::io;

use crate::abi::{self, OUT_HEADER_LEN, wire};
use crate::errno::Errno;
use crate::handle::BorrowedHandle;

/// Moves `len` bytes from or to `offset` of a file, by as many calls of `step` as it takes. A call is told where in the file to go on
/// and how many bytes are left, and says how many it moved; one that moves none, or fails, is the last.
///
/// Returns how many bytes were moved.
///
/// # Errors
/// That of a call before which none were moved.
pub fn repeat(
    offset: u64,
    len: usize,
    mut step: impl FnMut(u64, usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0_usize;
    while done < len {
        match step(offset.saturating_add(done as u64), len - done) {
            Ok(0) => break,
            Ok(moved) => done = done.saturating_add(moved).min(len),
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Reads until `buffer` is full or the file ends; returns the number of bytes.
pub(crate) fn read_at(
    file: BorrowedHandle<'_>,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let len = buffer.len();
    repeat(offset, len, |offset, left| {
        let rest = buffer.get_mut(len - left..).unwrap_or_default();
        read_once(file, rest, offset)
    })
}

/// Writes until all is written or the host refuses; returns the number of bytes.
pub(super) fn write_at(file: BorrowedHandle<'_>, data: &[u8], offset: u64) -> io::Result<usize> {
    repeat(offset, data.len(), |offset, left| {
        let rest = data.get(data.len() - left..).unwrap_or_default();
        write_once(file, rest, offset)
    })
}

#[cfg(unix)]
fn read_once(file: BorrowedHandle<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let read = rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *buffer, offset));
    Ok(read?)
}

#[cfg(unix)]
fn write_once(file: BorrowedHandle<'_>, data: &[u8], offset: u64) -> io::Result<usize> {
    let written = rustix::io::retry_on_intr(|| rustix::io::pwrite(file, data, offset));
    Ok(written?)
}

/// By way of a second handle: only an owner of one has positional I/O that is safe. It costs two short calls.
#[cfg(windows)]
fn read_once(file: BorrowedHandle<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt as _;
    let file = std::fs::File::from(file.try_clone_to_owned()?);
    file.seek_read(buffer, offset)
}

#[cfg(windows)]
fn write_once(file: BorrowedHandle<'_>, data: &[u8], offset: u64) -> io::Result<usize> {
    use std::os::windows::fs::FileExt as _;
    let file = std::fs::File::from(file.try_clone_to_owned()?);
    file.seek_write(data, offset)
}

/// A reply whose payload is in a file and was not read yet.
///
/// Its head comes first and says how long the payload is, or that it could not be read, and so is known last.
#[derive(Clone, Copy, Debug)]
pub struct FileReply<'a> {
    unique: u64,
    file: BorrowedHandle<'a>,
    offset: u64,
    len: usize,
}

impl<'a> FileReply<'a> {
    /// Bytes of the head.
    pub const HEAD_LEN: usize = OUT_HEADER_LEN;

    /// The reply to `unique` with `len` bytes from `offset` of `file` on, or fewer if it ends before.
    #[must_use]
    pub const fn new(unique: u64, file: BorrowedHandle<'a>, offset: u64, len: usize) -> Self {
        Self {
            unique,
            file,
            offset,
            len,
        }
    }

    /// Reads the payload by `step`, as [`repeat`] does. Returns the head, and the number of bytes that go with it.
    pub fn read_by(
        &self,
        mut step: impl FnMut(BorrowedHandle<'a>, u64, usize) -> io::Result<usize>,
    ) -> (wire::OutHeader, usize) {
        self.headed(repeat(self.offset, self.len, |offset, left| {
            step(self.file, offset, left)
        }))
    }

    /// Reads the payload into `buffer`, which only ever grows, to be cleared once and not for every reply. Returns the head and the payload.
    pub fn read_into<'b>(&self, buffer: &'b mut Vec<u8>) -> (wire::OutHeader, &'b [u8]) {
        if buffer.len() < self.len {
            buffer.resize(self.len, 0);
        }
        let payload = buffer.get_mut(..self.len).unwrap_or_default();
        let (head, len) = self.headed(read_at(self.file, payload, self.offset));
        (head, payload.get(..len).unwrap_or_default())
    }

    fn headed(&self, read: io::Result<usize>) -> (wire::OutHeader, usize) {
        let outcome = read.map_err(Errno::from);
        (abi::head(self.unique, outcome), outcome.unwrap_or(0))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;

    use zerocopy::IntoBytes as _;

    use super::*;
    use crate::transfer::{Reader, Writer};

    #[test]
    fn steps_go_on_until_all_is_moved_or_none_is() {
        for (moves, expected) in [
            (vec![Ok(10)], Ok(10)),
            (vec![Ok(4), Ok(5), Ok(1)], Ok(10)),
            (vec![Ok(4), Ok(0)], Ok(4)),
            (vec![Ok(4), Err(5)], Ok(4)),
            (vec![Err(5)], Err(Some(5))),
            (vec![Ok(0)], Ok(0)),
            (vec![Ok(4), Ok(usize::MAX)], Ok(10)),
        ] {
            let (mut left, mut done) = (moves.iter(), 0);
            let outcome = repeat(100, 10, |offset, rest| {
                assert_eq!((offset, rest), (100 + done as u64, 10 - done));
                let moved = left.next().unwrap().map_err(io::Error::from_raw_os_error);
                done += moved.as_ref().copied().unwrap_or(0).min(rest);
                moved
            });
            assert_eq!(outcome.map_err(|error| error.raw_os_error()), expected);
            assert_eq!(left.next(), None);
        }
        assert_eq!(repeat(u64::MAX, 0, |_, _| panic!("no step")).unwrap(), 0);
    }

    /// A transport that says no more than it must.
    struct Plain<'a>(&'a [u8]);

    impl Reader for Plain<'_> {
        fn remaining(&self) -> usize {
            self.0.len()
        }

        fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
            Reader::read_exact(&mut self.0, buffer)
        }
    }

    #[test]
    fn content_is_written_by_every_reader() {
        let file = tempfile::tempfile().unwrap();
        let (mut slice, mut plain) = (&b"abcdef"[..], Plain(b"ghijkl"));
        assert_eq!(slice.write_to_file(file.as_fd(), 1, 4).unwrap(), 4);
        assert_eq!(plain.write_to_file(file.as_fd(), 5, 4).unwrap(), 4);
        assert_eq!((slice.remaining(), plain.remaining()), (2, 2));
        assert!(slice.write_to_file(file.as_fd(), 0, 3).is_err());
        assert!(plain.write_to_file(file.as_fd(), 0, 3).is_err());
        let mut content = [0; 9];
        file.read_exact_at(&mut content, 0).unwrap();
        assert_eq!(&content, b"\0abcdghij");
        assert_eq!(file.metadata().unwrap().len(), 9);
    }

    #[test]
    fn a_reply_is_as_long_as_what_was_read() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"abcdef", 0).unwrap();
        let pipe = io::pipe().unwrap().0;
        for (reply, head, payload) in [
            (FileReply::new(7, file.as_fd(), 1, 3), Ok(3), &b"bcd"[..]),
            (FileReply::new(7, file.as_fd(), 4, 30), Ok(2), b"ef"),
            (FileReply::new(7, file.as_fd(), 6, 3), Ok(0), b""),
            (
                FileReply::new(7, pipe.as_fd(), 0, 3),
                Err(Errno::from_host(libc::ESPIPE)),
                b"",
            ),
        ] {
            let mut sent = Vec::with_capacity(64);
            let len = sent.send_file(&reply).unwrap();
            assert_eq!(len, sent.len());
            let expected = abi::head(7, head);
            assert_eq!(sent, [expected.as_bytes(), payload].concat());
        }
    }
}
