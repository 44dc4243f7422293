//! From the head of a descriptor chain to its buffers (virtio 1.3 section 2.7.5).
//!
//! Each descriptor is copied out of guest memory once, then checked, then used; the walk ends
//! after as many descriptors as the queue has.

use hv_core::GuestRam;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes as _, GuestAddress};
use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::state::check_range;
use super::{QueueError, QueueState};

/// Bytes of a descriptor.
const DESCRIPTOR_SIZE: u32 = 16;

/// `struct virtq_desc`.
#[derive(FromBytes)]
#[repr(C)]
struct Descriptor {
    address: U64,
    len: U32,
    flags: U16,
    next: U16,
}

impl Descriptor {
    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags.get()) & flag != 0
    }
}

/// A part of a buffer: guest RAM, checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Segment {
    pub(super) address: u64,
    pub(super) len: u32,
}

/// The buffers of one chain: those for the device to read, then those for it to write.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    segments: Vec<Segment>,
    readable: usize,
    readable_bytes: u32,
    writable_bytes: u32,
}

impl Buffers {
    fn clear(&mut self) {
        let Self {
            segments,
            readable,
            readable_bytes,
            writable_bytes,
        } = self;
        segments.clear();
        (*readable, *readable_bytes, *writable_bytes) = (0, 0, 0);
    }

    pub(super) fn readable(&self) -> (&[Segment], u32) {
        let (readable, _) = self.segments.split_at(self.readable);
        (readable, self.readable_bytes)
    }

    pub(super) fn writable(&self) -> (&[Segment], u32) {
        let (_, writable) = self.segments.split_at(self.readable);
        (writable, self.writable_bytes)
    }

    fn push(&mut self, segment: Segment, write: bool) -> Result<(), QueueError> {
        let total = self.readable_bytes.checked_add(self.writable_bytes);
        if total.and_then(|sum| sum.checked_add(segment.len)).is_none() {
            return Err(QueueError::ChainBytes);
        }
        if write {
            self.writable_bytes += segment.len;
        } else if self.readable < self.segments.len() {
            return Err(QueueError::Direction);
        } else {
            self.readable += 1;
            self.readable_bytes += segment.len;
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Replaces what is here by the buffers of the chain that begins at `head`.
    pub(super) fn walk(
        &mut self,
        ram: &GuestRam,
        queue: &QueueState,
        head: u16,
    ) -> Result<(), QueueError> {
        self.clear();
        let mut table = Table::of(queue);
        let mut index = head;
        loop {
            let descriptor = table.get(ram, index)?;
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                table = table.indirect(ram, queue, &descriptor)?;
                index = 0;
                continue;
            }
            if self.segments.len() == usize::from(queue.size) {
                return Err(QueueError::ChainLength);
            }
            let segment = Segment {
                address: descriptor.address.get(),
                len: descriptor.len.get(),
            };
            if segment.len != 0 {
                check_range(ram, segment.address, u64::from(segment.len))?;
            }
            self.push(segment, descriptor.has(VRING_DESC_F_WRITE))?;
            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = descriptor.next.get();
        }
    }
}

/// A descriptor table that is all in RAM.
struct Table {
    base: u64,
    count: u32,
    indirect: bool,
}

impl Table {
    fn of(queue: &QueueState) -> Self {
        Self {
            base: queue.descriptors,
            count: u32::from(queue.size),
            indirect: false,
        }
    }

    fn get(&self, ram: &GuestRam, index: u16) -> Result<Descriptor, QueueError> {
        let count = self.count;
        if u32::from(index) >= count {
            return Err(QueueError::DescriptorIndex { index, count });
        }
        // No overflow: the whole table was checked to be in RAM.
        let address = self.base + u64::from(index) * u64::from(DESCRIPTOR_SIZE);
        let mut bytes = [0; DESCRIPTOR_SIZE as usize];
        let outside = QueueError::Range {
            address,
            len: u64::from(DESCRIPTOR_SIZE),
        };
        ram.read_slice(&mut bytes, GuestAddress(address))
            .map_err(|_| outside)?;
        Descriptor::read_from_bytes(&bytes).map_err(|_| outside)
    }

    /// The table that `descriptor` refers to. Its write flag means nothing (section 2.7.5.3.2).
    fn indirect(
        &self,
        ram: &GuestRam,
        queue: &QueueState,
        descriptor: &Descriptor,
    ) -> Result<Self, QueueError> {
        if !queue.indirect || self.indirect || descriptor.has(VRING_DESC_F_NEXT) {
            return Err(QueueError::Indirect);
        }
        let (base, len) = (descriptor.address.get(), descriptor.len.get());
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_SIZE) {
            return Err(QueueError::IndirectLength(len));
        }
        check_range(ram, base, u64::from(len))?;
        Ok(Self {
            base,
            count: len / DESCRIPTOR_SIZE,
            indirect: true,
        })
    }
}
