//! How a transport hands over the bytes of a request and takes those of a reply.
//!
//! A virtio-fs device keeps both in guest memory, which only volatile copies may touch. So the server never sees that
//! memory: it asks a [`Reader`] to copy out and a [`Writer`] to copy in. The device implements both over its
//! descriptor chain; slices implement them here, for tests and for transports with ordinary buffers.
//!
//! What is in files the server does not even copy: it names the file, and the transport moves the bytes.

mod file;

use std::io;

use zerocopy::IntoBytes as _;

pub(crate) use self::file::read_at;
pub use self::file::{FileReply, repeat};
use crate::handle::BorrowedHandle;

/// The readable part of one request, front to back.
pub trait Reader {
    /// Bytes that are left.
    fn remaining(&self) -> usize;

    /// Fills `buffer` with the next bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if fewer are left, or the transport's own error.
    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes the next `len` bytes to `offset` of `file`, as far as the host takes them; returns how many it took. Nothing is read
    /// after that.
    ///
    /// A transport that does not say how goes through a buffer of `len` bytes, for which the caller has a bound.
    ///
    /// # Errors
    /// The host's, if it took none; as [`Self::read_exact`].
    fn write_to_file(
        &mut self,
        file: BorrowedHandle<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<usize> {
        let mut buffer = vec![0; len];
        self.read_exact(&mut buffer)?;
        file::write_at(file, &buffer, offset)
    }
}

/// The writable part of one request, front to back.
pub trait Writer {
    /// Bytes that still fit.
    fn available(&self) -> usize;

    /// Appends `bytes`, all of them or an error.
    ///
    /// # Errors
    /// [`io::ErrorKind::WriteZero`] if they do not fit, or the transport's own error.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Writes a whole reply, which has two parts. For a transport that takes both at once.
    ///
    /// # Errors
    /// As [`Self::write_all`].
    fn send(&mut self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        self.write_all(head)?;
        self.write_all(payload)
    }

    /// Writes a whole reply whose payload is in a file; it fits. Returns the reply's length.
    ///
    /// A transport that does not say how goes through a buffer.
    ///
    /// # Errors
    /// As [`Self::write_all`]. What the host says of the file is in the reply.
    fn send_file(&mut self, reply: &FileReply<'_>) -> io::Result<usize> {
        let mut buffer = Vec::new();
        let (head, payload) = reply.read_into(&mut buffer);
        self.send(head.as_bytes(), payload)?;
        Ok(FileReply::HEAD_LEN + payload.len())
    }
}

impl Reader for &[u8] {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        io::Read::read_exact(self, buffer)
    }

    fn write_to_file(
        &mut self,
        file: BorrowedHandle<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<usize> {
        let parts = self.split_at_checked(len);
        let (data, rest) = parts.ok_or(io::ErrorKind::UnexpectedEof)?;
        *self = rest;
        file::write_at(file, data, offset)
    }
}

impl Writer for &mut [u8] {
    fn available(&self) -> usize {
        self.len()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        io::Write::write_all(self, bytes)
    }
}

/// Grows as far as its capacity was reserved: `available` is the spare capacity, so a reply never reallocates it.
impl Writer for Vec<u8> {
    fn available(&self) -> usize {
        self.capacity() - self.len()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.available() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_reader_gives_its_bytes_once_and_in_order() {
        let mut source: &[u8] = b"abcdef";
        let mut part = [0; 4];
        source.read_exact(&mut part).unwrap();
        assert_eq!((&part, source.remaining()), (b"abcd", 2));
        assert_eq!(
            Reader::read_exact(&mut source, &mut part)
                .unwrap_err()
                .kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn a_slice_writer_refuses_what_does_not_fit_and_stays_as_it_was() {
        let mut room = [0_u8; 4];
        let mut writer = room.as_mut_slice();
        Writer::write_all(&mut writer, b"abc").unwrap();
        assert_eq!(
            Writer::write_all(&mut writer, b"de").unwrap_err().kind(),
            io::ErrorKind::WriteZero
        );
        assert_eq!(writer.available(), 1);
        assert_eq!(&room, b"abc\0");
    }

    #[test]
    fn a_vec_writer_ends_at_its_capacity() {
        let mut out = Vec::with_capacity(8);
        let room = out.available();
        Writer::write_all(&mut out, &vec![7; room]).unwrap();
        assert_eq!(
            Writer::write_all(&mut out, b"x").unwrap_err().kind(),
            io::ErrorKind::WriteZero
        );
        assert_eq!(out.len(), room);
    }
}
