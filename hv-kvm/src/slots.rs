//! Which guest-physical range has which slot number. KVM knows ranges by slots; nobody else does.

use std::collections::BTreeMap;

use hv_core::{HvError, HvErrorKind, Limits, Result};

/// One page that KVM uses for an identity page table (Intel, real mode without paging).
pub(crate) const IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages that KVM uses for a task state segment (Intel, real mode).
pub(crate) const TSS: usize = 0xfffb_d000;

/// Windows where nothing can be mapped: I/O APIC, local APIC, KVM's own pages.
const RESERVED: [(u64, u64); 3] = [
    (0xfec0_0000, 0xfec0_1000),
    (0xfee0_0000, 0xfee0_1000),
    (IDENTITY_MAP, 0xfffc_0000),
];

/// The slots of a VM.
pub(crate) struct Slots {
    limit: u32,
    granule: u64,
    /// First address that does not exist.
    end: u64,
    /// Ranges by start: end and slot.
    used: BTreeMap<u64, (u64, u32)>,
    free: Vec<u32>,
    next: u32,
}

impl Slots {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limit: u32::try_from(limits.max_mappings).unwrap_or(u32::MAX),
            granule: limits.granule,
            end: 1_u64
                .checked_shl(u32::from(limits.address_bits))
                .unwrap_or(u64::MAX),
            used: BTreeMap::new(),
            free: Vec::new(),
            next: 0,
        }
    }

    /// Gives `start..start + size` a slot.
    pub(crate) fn take(&mut self, start: u64, size: u64) -> Result<u32> {
        let end = self.check(start, size)?;
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.next < self.limit => {
                self.next += 1;
                self.next - 1
            }
            None => return Err(HvError::new("map: no slot left", HvErrorKind::Exhausted)),
        };
        self.used.insert(start, (end, slot));
        Ok(slot)
    }

    /// Takes the slot of the range that begins at `start` back.
    pub(crate) fn give_back(&mut self, start: u64) {
        if let Some((_, slot)) = self.used.remove(&start) {
            self.free.push(slot);
        }
    }

    /// The range's end, when it is one that can be mapped.
    fn check(&self, start: u64, size: u64) -> Result<u64> {
        if size == 0 || !start.is_multiple_of(self.granule) || !size.is_multiple_of(self.granule) {
            return Err(HvError::invalid("map: not whole pages"));
        }
        let end = start.checked_add(size).filter(|end| *end <= self.end);
        let end = end.ok_or(HvError::invalid("map: beyond the guest's address width"))?;
        let overlaps = |&(from, to): &(u64, u64)| start < to && from < end;
        if RESERVED.iter().any(overlaps) {
            return Err(HvError::invalid(
                "map: a window of the interrupt controller or KVM",
            ));
        }
        let before = self.used.range(..end).next_back();
        match before {
            Some((&from, &(to, _))) if overlaps(&(from, to)) => Err(HvError::new(
                "map: the range is mapped already",
                HvErrorKind::InvalidState,
            )),
            _ => Ok(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(max_mappings: usize) -> Slots {
        Slots::new(&Limits {
            address_bits: 40,
            granule: 4096,
            max_mappings,
        })
    }

    #[test]
    fn only_free_whole_pages_within_the_address_width_are_given() {
        let mut slots = slots(9);
        slots.take(0x10_0000, 0x10_0000).unwrap();
        let table = [
            (0x0, 0x10_0000, true),
            (0x20_0000, 0x1000, true),
            (0x1f_f000, 0x1000, false),
            (0xf_f000, 0x2000, false),
            (0x8_0000, 0x100_0000, false),
            (0x30_0000, 0, false),
            (0x30_0001, 0x1000, false),
            (0x30_0000, 0x1001, false),
            ((1 << 40) - 0x1000, 0x1000, true),
            ((1 << 40) - 0x1000, 0x2000, false),
            (u64::MAX - 0xfff, 0x1000, false),
            (0xfee0_0000, 0x1000, false),
            (0xfec0_0000, 0x1000, false),
            (0xfffb_0000, 0x1_0000, false),
            (0xfffc_0000, 0x4_0000, true),
        ];
        for (start, size, possible) in table {
            assert_eq!(slots.check(start, size).is_ok(), possible, "{start:#x}");
        }
    }

    #[test]
    fn slots_run_out_and_are_used_again() {
        let mut slots = slots(2);
        assert_eq!(slots.take(0, 0x1000), Ok(0));
        assert_eq!(slots.take(0x1000, 0x1000), Ok(1));
        let full = slots.take(0x2000, 0x1000).unwrap_err();
        assert_eq!(full.kind, HvErrorKind::Exhausted);
        slots.give_back(0);
        slots.give_back(0);
        assert_eq!(slots.take(0x2000, 0x1000), Ok(0));
        assert!(slots.take(0, 0x1000).is_err());
    }
}
