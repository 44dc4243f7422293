//! Kernel formats: recognised by content, checked, placed and started.

mod bzimage;
mod elf;
mod pvh;
#[cfg(test)]
mod tests;

use std::fs::File;

use hv_core::GuestRam;
use hv_core::arch::x86_64::Registers;

use super::layout::KERNEL_MIN;
use super::source::{Piece, ReadAt, read};
use super::{BootError, HandOff};

pub use bzimage::BzImage;
pub use elf::ElfKernel;

const PART: &str = "the kernel";
const HEADERS: &str = "the kernel's headers";

/// Where an arm64 `Image` has its magic number (`Documentation/arch/arm64/booting.rst`).
const ARM64_MAGIC_AT: usize = 56;
const ARM64_MAGIC: [u8; 4] = *b"ARM\x64";

/// A kernel whose headers have been read and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kernel {
    /// A 64-bit ELF file with a PVH entry.
    Elf(ElfKernel),
    /// A bzImage with a 64-bit entry.
    BzImage(BzImage),
}

impl Kernel {
    /// Recognises the kernel in `source` and checks its headers; reads nothing else of it.
    ///
    /// # Errors
    /// It is none that can be booted, or its headers are broken or incomplete.
    pub fn parse(source: &(impl ReadAt + ?Sized)) -> Result<Self, BootError> {
        let size = source
            .size()
            .map_err(|source| BootError::Read { part: PART, source })?;
        let head_size = usize::try_from(size).map_or(bzimage::HEAD, |size| size.min(bzimage::HEAD));
        let head = read(source, HEADERS, 0, head_size)?;
        if head.starts_with(&elf::MAGIC) {
            ElfKernel::parse(source, size, &head).map(Self::Elf)
        } else if bzimage::recognise(&head) {
            BzImage::parse(size, &head).map(Self::BzImage)
        } else if head.get(ARM64_MAGIC_AT..ARM64_MAGIC_AT + 4) == Some(&ARM64_MAGIC) {
            Err(BootError::WrongArchitecture { found: "arm64" })
        } else {
            Err(BootError::NotAKernel)
        }
    }

    /// One past the last byte of RAM that it needs before it manages memory itself.
    #[must_use]
    pub fn end(&self) -> u64 {
        match self {
            Self::Elf(kernel) => kernel.end(),
            Self::BzImage(kernel) => kernel.end(),
        }
    }

    /// One past the highest address that an initial RAM disk may have.
    pub(super) fn initrd_limit(&self) -> u64 {
        match self {
            Self::Elf(_) => u64::MAX,
            Self::BzImage(kernel) => kernel.initrd_limit(),
        }
    }

    /// The longest command line in bytes, without its NUL.
    pub(super) fn command_line_max(&self) -> usize {
        match self {
            Self::Elf(_) => usize::MAX,
            Self::BzImage(kernel) => kernel.command_line_max(),
        }
    }

    /// Puts it into RAM, which ends at `limit`.
    pub(super) fn place(&self, ram: &GuestRam, file: &File, limit: u64) -> Result<(), BootError> {
        if self.end() > limit {
            return Err(BootError::DoesNotFit {
                part: PART,
                end: self.end(),
                limit,
            });
        }
        let pieces = match self {
            Self::Elf(kernel) => kernel.pieces(),
            Self::BzImage(kernel) => vec![kernel.piece()],
        };
        pieces
            .into_iter()
            .try_for_each(|piece| piece.place(ram, file))
    }

    /// Writes what its boot protocol hands over, and gives the registers to start it with.
    pub(super) fn hand_over(
        &self,
        ram: &GuestRam,
        hand_off: &HandOff,
    ) -> Result<Registers, BootError> {
        match self {
            Self::Elf(kernel) => kernel.hand_over(ram, hand_off),
            Self::BzImage(kernel) => kernel.hand_over(ram, hand_off),
        }
    }
}

/// A range that begins at or above 1 MiB, or the error that it does not.
fn above_low_memory(address: u64) -> Result<(), BootError> {
    if address < KERNEL_MIN {
        return Err(BootError::Broken("it wants to be loaded below 1 MiB"));
    }
    Ok(())
}
