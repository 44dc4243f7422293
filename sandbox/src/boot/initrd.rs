//! The initial RAM disk.

use std::fs::File;
use std::ops::Range;

use hv_core::GuestRam;

use super::BootError;
use super::layout::{page_down, page_up};
use super::source::{Piece, ReadAt as _};

const PART: &str = "the initial RAM disk";

/// Where the initial RAM disk is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Initrd {
    pub(super) address: u64,
    pub(super) size: u64,
}

/// Puts the initial RAM disk at the upper end of `room`, on a page boundary: far from the kernel,
/// which takes what follows its own end first.
pub(super) fn place(ram: &GuestRam, file: &File, room: Range<u64>) -> Result<Initrd, BootError> {
    let size = file
        .size()
        .map_err(|source| BootError::Read { part: PART, source })?;
    if size == 0 {
        return Err(BootError::Truncated { part: PART });
    }
    let address = fit(size, &room).ok_or_else(|| BootError::DoesNotFit {
        part: PART,
        end: room.start.saturating_add(size),
        limit: room.end,
    })?;
    let piece = Piece {
        part: PART,
        offset: 0,
        address,
        bytes: size,
    };
    piece.place(ram, file)?;
    Ok(Initrd { address, size })
}

fn fit(size: u64, room: &Range<u64>) -> Option<u64> {
    let address = page_down(room.end.checked_sub(size)?);
    (address >= page_up(room.start)?).then_some(address)
}
