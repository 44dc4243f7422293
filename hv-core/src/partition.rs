//! A VM without its processors: memory, interrupts, doorbells, dirty pages, state.

use std::sync::Arc;

use crate::{Event, HostMemory, IrqChip, PartitionState, Result};

/// What a guest may do with a mapped range.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Read and execute; a write becomes an MMIO write exit.
    ReadOnly,
    /// Read, write and execute.
    ReadWrite,
}

/// A VM. Dropping the last handle after its vCPUs ended gives everything back to the host.
pub trait Partition: Send + Sync {
    /// Ranges beside RAM.
    fn memory(&self) -> &dyn GuestMap;

    /// The interrupt controller.
    fn irq(&self) -> &dyn IrqChip;

    /// Doorbells that the hypervisor rings without an exit to us; `None`: the bus's own table does.
    fn doorbells(&self) -> Option<&dyn Doorbells>;

    /// Events that the hypervisor turns into interrupts itself; `None`: use [`IrqChip::pulse`].
    fn event_irqs(&self) -> Option<&dyn EventIrqs>;

    /// Tracking of pages of RAM that the guest wrote.
    fn dirty(&self) -> Option<&dyn DirtyLog>;

    /// The VM's state outside vCPUs and RAM. Call it while every vCPU is paused.
    ///
    /// # Errors
    /// The hypervisor refused to tell.
    fn save(&self) -> Result<PartitionState>;

    /// Puts a saved state back. Call it before any vCPU runs.
    ///
    /// # Errors
    /// The state is of another architecture or malformed (caller), or the hypervisor refused it.
    fn load(&self, state: &PartitionState) -> Result<()>;
}

/// Guest-physical ranges beside RAM.
pub trait GuestMap: Send + Sync {
    /// Maps the whole of `memory` at `address`.
    ///
    /// # Errors
    /// Not aligned to the granule, overlapping another range, or outside the address width (caller);
    /// no mapping left (host).
    fn map(
        &self,
        address: u64,
        memory: Arc<HostMemory>,
        access: Access,
    ) -> Result<Box<dyn Mapping>>;
}

/// A mapped range; dropping it unmaps it, after which the guest's accesses are MMIO again.
pub trait Mapping: Send {
    /// Changes what the guest may do with it. A vCPU that runs meanwhile may see the range unmapped
    /// for a moment.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn protect(&self, access: Access) -> Result<()>;
}

/// The address space of a doorbell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DoorbellSpace {
    /// Guest-physical memory.
    Mmio,
    /// I/O ports of x86.
    Pio,
}

/// A registration that ends when it is dropped.
pub trait Attached: Send {}

/// Doorbells: guest writes that signal an [`Event`] without returning to [`crate::VmIo`].
pub trait Doorbells: Send + Sync {
    /// Signals `event` when the guest writes `value` (or anything, when `None`) with a width of
    /// `width` bytes (1, 2, 4, 8) at `address`.
    ///
    /// # Errors
    /// Such a doorbell exists already or the width is not one of these (caller); none left (host).
    fn attach(
        &self,
        space: DoorbellSpace,
        address: u64,
        width: u8,
        value: Option<u64>,
        event: &Event,
    ) -> Result<Box<dyn Attached>>;
}

/// Events whose signal is an edge on an interrupt line.
pub trait EventIrqs: Send + Sync {
    /// Ties `event` to `line`.
    ///
    /// # Errors
    /// The line does not exist or the event is tied already (caller); none left (host).
    fn attach(&self, line: u32, event: &Event) -> Result<Box<dyn Attached>>;
}

/// Pages of one range of RAM that were written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirtyPages {
    /// Guest-physical address of the range.
    pub start: u64,
    /// Bytes a page.
    pub page_size: u64,
    /// A bit a page, page 0 in bit 0 of word 0.
    pub bitmap: Vec<u64>,
}

impl DirtyPages {
    /// Guest-physical addresses of the written pages, rising.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        (0u64..).zip(&self.bitmap).flat_map(move |(index, &word)| {
            (0..64u64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| self.start + (index * 64 + bit) * self.page_size)
        })
    }
}

/// Tracking of pages that the guest wrote. Its page tables may be among them, because some processors
/// count a walk as a write; what this process wrote is not.
pub trait DirtyLog: Send + Sync {
    /// Begins to track all RAM.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn start(&self) -> Result<()>;

    /// The pages written since the last call (or since [`DirtyLog::start`]), one entry a range of
    /// RAM; clears them.
    ///
    /// # Errors
    /// Tracking is off (caller), or the hypervisor refused.
    fn take(&self) -> Result<Vec<DirtyPages>>;

    /// Ends the tracking.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn stop(&self) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_bits_become_addresses() {
        let pages = DirtyPages {
            start: 0x1000,
            page_size: 4096,
            bitmap: vec![0b101, 1 << 63],
        };
        let expected = [0x1000, 0x3000, 0x1000 + 127 * 4096];
        assert_eq!(pages.addresses().collect::<Vec<_>>(), expected);
    }
}
