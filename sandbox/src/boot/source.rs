//! Files as the loader reads them, and how their bytes get into RAM.

use std::fs::File;
use std::io;

use hv_core::{GuestRam, MemoryError};
use vm_memory::{Bytes as _, GuestAddress};

use super::BootError;
use super::layout::{PAGE, page_down, page_up};

/// The most that one read copies, in bytes.
const COPY_CHUNK: usize = 1 << 18;

/// Something that can be read at any offset without moving a position that others may share.
pub trait ReadAt {
    /// Its size in bytes.
    ///
    /// # Errors
    /// The host does not tell.
    fn size(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// The host refuses, or there are not that many bytes.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    #[cfg(windows)]
    fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        use std::os::windows::fs::FileExt as _;
        while !buffer.is_empty() {
            let read = self.seek_read(buffer, offset)?;
            let rest = std::mem::take(&mut buffer).get_mut(read..);
            buffer = rest
                .filter(|_| read > 0)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            offset += u64::try_from(read).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> io::Result<u64> {
        u64::try_from(self.len()).map_err(io::Error::other)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start
            .checked_add(buffer.len())
            .and_then(|end| self.get(start..end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Reads `bytes` bytes from `offset`. The caller has bounded `bytes`.
pub(super) fn read(
    source: &(impl ReadAt + ?Sized),
    part: &'static str,
    offset: u64,
    bytes: usize,
) -> Result<Vec<u8>, BootError> {
    let mut buffer = vec![0; bytes];
    match source.read_exact_at(&mut buffer, offset) {
        Ok(()) => Ok(buffer),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(BootError::Truncated { part })
        }
        Err(source) => Err(BootError::Read { part, source }),
    }
}

/// A part of a file and where in RAM it belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Piece {
    /// What it is, for errors.
    pub(super) part: &'static str,
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Where it begins in RAM.
    pub(super) address: u64,
    /// How many bytes.
    pub(super) bytes: u64,
}

impl Piece {
    /// Puts the piece into RAM: whole pages are laid over it copy-on-write where file and RAM
    /// agree on page boundaries, the rest is copied.
    pub(super) fn place(self, ram: &GuestRam, file: &File) -> Result<(), BootError> {
        let Some((head, pages, tail)) = self.split() else {
            return self.copy(ram, file);
        };
        head.copy(ram, file)?;
        pages.overlay_or_copy(ram, file)?;
        tail.copy(ram, file)
    }

    /// The bytes before the first whole page, the whole pages, the bytes after the last one;
    /// `None` when there is no whole page or file and RAM differ in their page boundaries.
    fn split(self) -> Option<(Self, Self, Self)> {
        let end = self.address.checked_add(self.bytes)?;
        let (first, last) = (page_up(self.address)?, page_down(end));
        if self.address % PAGE != self.offset % PAGE || first >= last {
            return None;
        }
        let cut = |from: u64, to: u64| Self {
            offset: self.offset + (from - self.address),
            address: from,
            bytes: to - from,
            ..self
        };
        Some((cut(self.address, first), cut(first, last), cut(last, end)))
    }

    fn overlay_or_copy(self, ram: &GuestRam, file: &File) -> Result<(), BootError> {
        match ram.overlay_file(self.address, file, self.offset, self.bytes) {
            Ok(true) => Ok(()),
            // The host cannot map files, or its pages are larger than the guest's.
            Ok(false) | Err(MemoryError::Overlay { .. }) => self.copy(ram, file),
            Err(source) => Err(BootError::Overlay {
                part: self.part,
                source,
            }),
        }
    }

    fn copy(self, ram: &GuestRam, file: &File) -> Result<(), BootError> {
        let mut done = 0;
        while done < self.bytes {
            let chunk =
                usize::try_from(self.bytes - done).map_or(COPY_CHUNK, |n| n.min(COPY_CHUNK));
            let bytes = read(file, self.part, self.offset + done, chunk)?;
            ram.write_slice(&bytes, GuestAddress(self.address + done))?;
            done += u64::try_from(chunk).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}
