//! Bounded access to the buffers of a chain.
//!
//! A [`Reader`] is over what the driver wrote, a [`Writer`] over what it wants filled. Both copy by
//! volatile accesses (the guest may change its memory at any time, so a byte that is read twice
//! may differ) and never leave the chain.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::os::fd::BorrowedFd;

use hv_core::GuestRam;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, VolatileSlice};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::walk::Segment;
use crate::sys;

/// A chain has fewer bytes than a request of this kind needs; the guest's fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("guest driver: buffer ends {missing} bytes too early")]
pub struct ShortBuffer {
    /// How many bytes were asked for beyond the end.
    pub missing: usize,
}

/// A part of a chain's buffers.
#[derive(Clone, Copy, Debug)]
struct Span<'a> {
    ram: &'a GuestRam,
    segments: &'a [Segment],
    /// Bytes of the first segment that are before the span.
    skip: u32,
    len: usize,
}

impl<'a> Span<'a> {
    fn new(ram: &'a GuestRam, (segments, bytes): (&'a [Segment], u32)) -> Self {
        Self {
            ram,
            segments,
            skip: 0,
            len: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// The host memory behind the first `limit` bytes, in order.
    fn slices(&self, limit: usize) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a> {
        let ram = self.ram;
        let mut left = limit.min(self.len);
        let mut skip = self.skip;
        self.segments.iter().flat_map(move |segment| {
            let offset = std::mem::take(&mut skip);
            let rest = usize::try_from(segment.len - offset).unwrap_or(usize::MAX);
            let count = rest.min(left);
            left -= count;
            // No overflow and no error: the segment was checked to be in RAM, which never shrinks.
            let address = GuestAddress(segment.address.wrapping_add(u64::from(offset)));
            ram.get_slices(address, count).filter_map(Result::ok)
        })
    }

    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some((first, rest)) = self.segments.split_first() {
            let here = usize::try_from(first.len - self.skip).unwrap_or(usize::MAX);
            if left < here {
                self.skip += u32::try_from(left).unwrap_or(0);
                return;
            }
            left -= here;
            (self.segments, self.skip) = (rest, 0);
        }
    }

    fn split_at(self, mid: usize) -> Result<(Self, Self), ShortBuffer> {
        self.require(mid)?;
        let (mut first, mut second) = (self, self);
        first.len = mid;
        second.advance(mid);
        Ok((first, second))
    }

    fn require(&self, count: usize) -> Result<(), ShortBuffer> {
        match count.checked_sub(self.len) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(ShortBuffer { missing }),
        }
    }

    /// Lets `io` transfer up to `limit` bytes, as far as they are in few enough pieces, and skips
    /// what it says it did.
    fn transfer<E>(
        &mut self,
        limit: usize,
        io: impl FnOnce(&[VolatileSlice<'a>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let nothing: &'static mut [u8] = &mut [];
        let mut slices = [VolatileSlice::from(nothing); sys::MAX_SLICES];
        let (mut count, mut bytes) = (0, 0);
        // Nothing of a buffer without bytes gets here, so no bytes means that none are left.
        for (place, slice) in slices.iter_mut().zip(self.slices(limit)) {
            *place = slice;
            count += 1;
            bytes += slice.len();
        }
        let done = io(slices.get(..count).unwrap_or_default())?.min(bytes);
        self.advance(done);
        Ok(done)
    }
}

/// The readable part of a chain, from its present position on.
#[derive(Clone, Debug)]
pub struct Reader<'a>(Span<'a>);

impl<'a> Reader<'a> {
    pub(super) fn new(ram: &'a GuestRam, part: (&'a [Segment], u32)) -> Self {
        Self(Span::new(ram, part))
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.0.len
    }

    /// Copies as much as is there and fits, and says how much.
    pub fn read(&mut self, data: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in self.0.slices(data.len()) {
            if let Some(rest) = data.get_mut(done..) {
                done += slice.copy_to(rest);
            }
        }
        self.0.advance(done);
        done
    }

    /// Fills `data`.
    ///
    /// # Errors
    /// There is less left; nothing is consumed then.
    pub fn read_exact(&mut self, data: &mut [u8]) -> Result<(), ShortBuffer> {
        self.0.require(data.len())?;
        self.read(data);
        Ok(())
    }

    /// Copies a structure out.
    ///
    /// # Errors
    /// There is less left than it needs; nothing is consumed then.
    pub fn read_obj<T: FromBytes + IntoBytes>(&mut self) -> Result<T, ShortBuffer> {
        let mut object = T::new_zeroed();
        self.read_exact(object.as_mut_bytes())?;
        Ok(object)
    }

    /// Splits off the first `mid` bytes.
    ///
    /// # Errors
    /// There is less left.
    pub fn split_at(self, mid: usize) -> Result<(Self, Self), ShortBuffer> {
        self.0.split_at(mid).map(|(a, b)| (Self(a), Self(b)))
    }

    /// Hands up to `limit` bytes to `io` where they are, without a copy, and skips as many as it
    /// says it took. They are fewer where they are in very many pieces, never 0 unless none are
    /// left. `io` must only read them.
    ///
    /// # Errors
    /// What `io` returns; nothing is consumed then.
    pub fn drain_with<E>(
        &mut self,
        limit: usize,
        io: impl FnOnce(&[VolatileSlice<'a>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.0.transfer(limit, io)
    }

    /// Writes up to `limit` bytes from where they are to `offset` of `file`, and skips as many as it
    /// says were written; they may be fewer.
    ///
    /// # Errors
    /// The host's; nothing is consumed then.
    #[cfg(unix)]
    pub fn write_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        limit: usize,
    ) -> io::Result<usize> {
        self.drain_with(limit, |slices| sys::write_at(&file, slices, offset))
    }
}

/// The writable part of a chain, from its present position on.
#[derive(Debug)]
pub struct Writer<'a> {
    span: Span<'a>,
    written: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(ram: &'a GuestRam, part: (&'a [Segment], u32)) -> Self {
        Self {
            span: Span::new(ram, part),
            written: 0,
        }
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn available(&self) -> usize {
        self.span.len
    }

    /// Bytes written so far by this writer; what [`super::Chain::finish`] wants, if writing began
    /// at the beginning.
    #[must_use]
    pub const fn written(&self) -> u32 {
        self.written
    }

    /// Copies as much as fits, and says how much.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let mut done = 0;
        for slice in self.span.slices(data.len()) {
            if let Some(part) = data.get(done..).and_then(|rest| rest.get(..slice.len())) {
                slice.copy_from(part);
                done += part.len();
            }
        }
        self.advance(done)
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// There is less room; nothing is written then.
    pub fn write_all(&mut self, data: &[u8]) -> Result<(), ShortBuffer> {
        self.span.require(data.len())?;
        self.write(data);
        Ok(())
    }

    /// Writes a structure.
    ///
    /// # Errors
    /// There is less room than it needs; nothing is written then.
    pub fn write_obj<T: IntoBytes + Immutable>(&mut self, object: &T) -> Result<(), ShortBuffer> {
        self.write_all(object.as_bytes())
    }

    /// Splits off the first `mid` bytes; each part counts what is written to it from zero.
    ///
    /// # Errors
    /// There is less left.
    pub fn split_at(self, mid: usize) -> Result<(Self, Self), ShortBuffer> {
        let part = |span| Self { span, written: 0 };
        self.span.split_at(mid).map(|(a, b)| (part(a), part(b)))
    }

    /// Leaves the next `len` bytes to the writer that this gives, to be written after what is behind
    /// them. They count as written here, so the caller must write all of them.
    ///
    /// # Errors
    /// There is less room.
    pub fn reserve(&mut self, len: usize) -> Result<Self, ShortBuffer> {
        let (span, rest) = self.span.split_at(len)?;
        self.span = rest;
        self.count(len);
        Ok(Self { span, written: 0 })
    }

    /// Lets `io` fill up to `limit` bytes where they are, without a copy, and skips as many as it
    /// says it filled. They are fewer where they are in very many pieces, never 0 unless none are
    /// left.
    ///
    /// # Errors
    /// What `io` returns; the position stays then.
    pub fn fill_with<E>(
        &mut self,
        limit: usize,
        io: impl FnOnce(&[VolatileSlice<'a>]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let done = self.span.transfer(limit, io)?;
        Ok(self.count(done))
    }

    /// Reads up to `limit` bytes at `offset` of `file` to where they belong, and skips as many as it
    /// says were read; they may be fewer, and are 0 where the file ends.
    ///
    /// # Errors
    /// The host's; the position stays then.
    #[cfg(unix)]
    pub fn read_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        limit: usize,
    ) -> io::Result<usize> {
        self.fill_with(limit, |slices| sys::read_at(&file, slices, offset))
    }

    fn advance(&mut self, done: usize) -> usize {
        self.span.advance(done);
        self.count(done)
    }

    fn count(&mut self, done: usize) -> usize {
        // A chain has at most 2^32 - 1 bytes.
        self.written = self
            .written
            .saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
        done
    }
}
