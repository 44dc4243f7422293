//! A queue's registers and position as plain data.

use hv_core::GuestRam;
use vm_memory::{GuestAddress, GuestMemoryBackend as _};

use super::QueueError;

/// The largest size of a split queue (virtio 1.3 section 2.7).
pub const MAX_QUEUE_SIZE: u16 = 32768;

/// All that must be known of a queue to go on with it; what pause and snapshot keep.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueState {
    /// Number of descriptors.
    pub size: u16,
    /// The driver enabled it.
    pub ready: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the available ring (driver area).
    pub available: u64,
    /// Guest-physical address of the used ring (device area).
    pub used: u64,
    /// Available entries taken so far, modulo 2^16.
    pub next_avail: u16,
    /// Used entries given so far, modulo 2^16.
    pub next_used: u16,
    /// `VIRTIO_F_EVENT_IDX` was negotiated.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub indirect: bool,
}

impl QueueState {
    /// Whether `size` is one that a split queue can have.
    #[must_use]
    pub const fn valid_size(size: u16) -> bool {
        size.is_power_of_two() && size <= MAX_QUEUE_SIZE
    }

    /// Checks size, alignment and that all three parts are in RAM. Everything that the queue later
    /// does with ring addresses relies on it.
    pub(super) fn check(&self, ram: &GuestRam) -> Result<(), QueueError> {
        if !Self::valid_size(self.size) {
            return Err(QueueError::Size(self.size));
        }
        let size = u64::from(self.size);
        // Alignments and lengths: virtio 1.3 section 2.7, with the event index field in both rings.
        for (address, align, len) in [
            (self.descriptors, 16, 16 * size),
            (self.available, 2, 6 + 2 * size),
            (self.used, 4, 6 + 8 * size),
        ] {
            if address % align != 0 {
                return Err(QueueError::Alignment(address));
            }
            check_range(ram, address, len)?;
        }
        Ok(())
    }
}

/// All of `len` bytes at `address` are RAM. No bytes are RAM anywhere.
pub(super) fn check_range(ram: &GuestRam, address: u64, len: u64) -> Result<(), QueueError> {
    let outside = QueueError::Range { address, len };
    let count = usize::try_from(len).map_err(|_| outside)?;
    let wraps = address.checked_add(len).is_none();
    if wraps || !ram.check_range(GuestAddress(address), count) {
        return Err(outside);
    }
    Ok(())
}
