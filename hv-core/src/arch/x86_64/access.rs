//! How an access outside memory is cut into the widths that [`crate::VmIo`] takes.

use std::ops::Range;

/// Cuts `bytes` bytes at `address` into pieces of 1, 2, 4 or 8 bytes, rising.
///
/// An access that has such a width stays whole, aligned or not. What is left of an access that
/// crosses a page can have any width up to 7; it is cut where alignment allows the largest piece.
pub fn pieces(address: u64, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let whole = matches!(bytes, 1 | 2 | 4 | 8);
    let mut start = 0;
    std::iter::from_fn(move || {
        let left = bytes.checked_sub(start).filter(|left| *left > 0)?;
        let width = if whole {
            bytes
        } else {
            largest(address.wrapping_add(start as u64), left)
        };
        let piece = start..start + width;
        start = piece.end;
        Some(piece)
    })
}

fn largest(address: u64, left: usize) -> usize {
    let fits = |width: &usize| *width <= left && address.is_multiple_of(*width as u64);
    [8, 4, 2].into_iter().find(fits).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn widths(address: u64, bytes: usize) -> Vec<usize> {
        pieces(address, bytes).map(|piece| piece.len()).collect()
    }

    #[test]
    fn odd_widths_are_cut_at_their_alignment() {
        let table: [(u64, usize, &[usize]); 8] = [
            (0x1000, 0, &[]),
            (0x1001, 4, &[4]),
            (0x1003, 8, &[8]),
            (0x1ffd, 3, &[1, 2]),
            (0x2000, 5, &[4, 1]),
            (0x2000, 3, &[2, 1]),
            (0x1ff9, 7, &[1, 2, 4]),
            (0x2000, 6, &[4, 2]),
        ];
        for (address, bytes, expected) in table {
            assert_eq!(widths(address, bytes), expected, "{bytes} at {address:#x}");
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_the_access_once(address in any::<u64>(), bytes in 0_usize..40) {
            let mut next = 0;
            for piece in pieces(address, bytes) {
                prop_assert_eq!(piece.start, next);
                prop_assert!(matches!(piece.len(), 1 | 2 | 4 | 8));
                next = piece.end;
            }
            prop_assert_eq!(next, bytes);
        }
    }
}
