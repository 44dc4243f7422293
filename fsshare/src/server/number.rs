//! The share's part of a node's number.

use crate::abi::ROOT_ID;

/// Which of a session's shares a node is of: the uppermost byte of its number. 0 where a share has the session for itself, and of the directory
/// above all shares where it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShareNumber(pub(super) u8);

impl ShareNumber {
    const SHIFT: u32 = 56;

    /// The share of the node with this number.
    pub(super) const fn of(node: u64) -> Self {
        let [.., number] = node.to_le_bytes();
        Self(number)
    }

    /// The number that a node with this one has outside of its share.
    pub(super) const fn mark(self, node: u64) -> u64 {
        (self.0 as u64) << Self::SHIFT | node
    }

    /// The number of the share's root.
    pub(super) const fn root(self) -> u64 {
        self.mark(ROOT_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_survives_its_mark() {
        for share in [0, 1, 7, 255] {
            for node in [0, 1, u64::MAX >> 8] {
                let marked = ShareNumber(share).mark(node);
                assert_eq!(ShareNumber::of(marked), ShareNumber(share));
                assert_eq!(marked & u64::MAX >> 8, node);
            }
        }
        assert_eq!(ShareNumber::default().root(), ROOT_ID);
    }
}
