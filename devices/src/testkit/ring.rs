//! The driver's side of a split queue, without any scruples.

use hv_core::GuestRam;
use vm_memory::{Bytes as _, GuestAddress};

/// A descriptor as a driver writes it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Descriptor {
    /// Guest-physical address of the buffer.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// `NEXT` 1, `WRITE` 2, `INDIRECT` 4.
    pub flags: u16,
    /// The next descriptor's index.
    pub next: u16,
}

impl Descriptor {
    /// Another descriptor follows.
    pub const NEXT: u16 = 1;
    /// The device writes the buffer.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;

    /// Its 16 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// An entry of a used ring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Used {
    /// Head of the chain.
    pub id: u32,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// A split queue in RAM.
#[derive(Clone, Debug)]
pub struct Ring {
    ram: GuestRam,
    /// Number of descriptors.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: u64,
    /// Address of the available ring.
    pub available: u64,
    /// Address of the used ring.
    pub used: u64,
    /// The available index as last written.
    pub next_avail: u16,
    /// Used entries seen.
    pub next_used: u16,
}

impl Ring {
    /// Bytes that a ring of `size` needs, page-aligned parts included.
    #[must_use]
    pub fn bytes(size: u16) -> u64 {
        16 * u64::from(size) + page(6 + 2 * u64::from(size)) + page(6 + 8 * u64::from(size)) + 4096
    }

    /// A zeroed ring at `base` (page-aligned).
    #[must_use]
    pub fn new(ram: &GuestRam, base: u64, size: u16) -> Self {
        let available = base + page(16 * u64::from(size));
        let used = available + page(6 + 2 * u64::from(size));
        let zeros = vec![0; usize::try_from(Self::bytes(size)).unwrap()];
        ram.write_slice(&zeros, GuestAddress(base)).unwrap();
        Self {
            ram: ram.clone(),
            size,
            descriptors: base,
            available,
            used,
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Writes a descriptor; any index, as long as it is in RAM.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let address = self.descriptors + 16 * u64::from(index);
        self.write(address, &descriptor.to_bytes());
    }

    /// Makes `head` available.
    pub fn push(&mut self, head: u16) {
        let slot = u64::from(self.next_avail % self.size);
        self.write(self.available + 4 + 2 * slot, &head.to_le_bytes());
        self.set_available_index(self.next_avail.wrapping_add(1));
    }

    /// Writes the available index.
    pub fn set_available_index(&mut self, index: u16) {
        self.next_avail = index;
        self.write(self.available + 2, &index.to_le_bytes());
    }

    /// Writes the available ring's flags (1: no interrupt).
    pub fn set_available_flags(&self, flags: u16) {
        self.write(self.available, &flags.to_le_bytes());
    }

    /// Writes the used event index: an interrupt is wanted when the used index passes it.
    pub fn set_used_event(&self, index: u16) {
        let address = self.available + 4 + 2 * u64::from(self.size);
        self.write(address, &index.to_le_bytes());
    }

    /// The device's used index.
    #[must_use]
    pub fn used_index(&self) -> u16 {
        self.read(self.used + 2)
    }

    /// The used ring's flags (1: no notification).
    #[must_use]
    pub fn used_flags(&self) -> u16 {
        self.read(self.used)
    }

    /// The available event index: a notification is wanted when the available index passes it.
    #[must_use]
    pub fn available_event(&self) -> u16 {
        self.read(self.used + 4 + 8 * u64::from(self.size))
    }

    /// Takes the next used entry.
    pub fn pop_used(&mut self) -> Option<Used> {
        if self.used_index() == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let entry = GuestAddress(self.used + 4 + 8 * slot);
        let [id, len] = self.ram.read_obj::<[u32; 2]>(entry).unwrap();
        Some(Used {
            id: u32::from_le(id),
            len: u32::from_le(len),
        })
    }

    fn write(&self, address: u64, data: &[u8]) {
        self.ram.write_slice(data, GuestAddress(address)).unwrap();
    }

    fn read(&self, address: u64) -> u16 {
        let value = self
            .ram
            .load(GuestAddress(address), std::sync::atomic::Ordering::Acquire);
        u16::from_le(value.unwrap())
    }
}

const fn page(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}
