//! Mapped ranges, checked strictly, and what an access reaches.

use std::collections::BTreeMap;
use std::sync::Arc;

use vm_memory::{Bytes as _, GuestAddress, VolatileMemory as _};

use super::Call;
use super::vm::{FakePartition, Inner, Vm};
use crate::{Access, GuestMap, HostMemory, HvError, HvErrorKind, Limits, Mapping, Result};

/// Windows where nothing can be mapped: I/O APIC, local APIC.
const RESERVED: [(u64, u64); 2] = [(0xfec0_0000, 0xfec0_1000), (0xfee0_0000, 0xfee0_1000)];

struct Range {
    end: u64,
    /// `None` for RAM, which the VM holds.
    memory: Option<(Arc<HostMemory>, Access)>,
}

/// The guest-physical address space, by the start of each range.
pub(super) struct Maps {
    ranges: BTreeMap<u64, Range>,
    granule: u64,
    end: u64,
    limit: usize,
}

impl Maps {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            ranges: BTreeMap::new(),
            granule: limits.granule,
            end: 1 << limits.address_bits,
            limit: limits.max_mappings,
        }
    }

    /// Takes a range for RAM.
    pub(super) fn reserve(&mut self, start: u64, size: u64) -> Result<()> {
        let end = self.check(start, size)?;
        self.ranges.insert(start, Range { end, memory: None });
        Ok(())
    }

    fn map(&mut self, start: u64, memory: Arc<HostMemory>, access: Access) -> Result<()> {
        let end = self.check(start, memory.size() as u64)?;
        let memory = Some((memory, access));
        self.ranges.insert(start, Range { end, memory });
        Ok(())
    }

    fn check(&self, start: u64, size: u64) -> Result<u64> {
        if size == 0 || !start.is_multiple_of(self.granule) || !size.is_multiple_of(self.granule) {
            return Err(HvError::invalid("map: not whole granules"));
        }
        let end = start.checked_add(size).filter(|end| *end <= self.end);
        let end = end.ok_or(HvError::invalid("map: beyond the address width"))?;
        let overlaps = |from: u64, to: u64| start < to && from < end;
        if RESERVED.iter().any(|(from, to)| overlaps(*from, *to)) {
            return Err(HvError::invalid(
                "map: a window of the interrupt controller",
            ));
        }
        let taken = self
            .ranges
            .iter()
            .any(|(from, range)| overlaps(*from, range.end));
        match (taken, self.ranges.len() < self.limit) {
            (true, _) => Err(HvError::new("map: overlap", HvErrorKind::InvalidState)),
            (_, false) => Err(HvError::new("map: no mapping left", HvErrorKind::Exhausted)),
            _ => Ok(end),
        }
    }

    /// The memory that is mapped at `address`, where it is not RAM, with the offset into it.
    fn find(&self, address: u64) -> Option<(&HostMemory, Access, usize)> {
        let (start, range) = self.ranges.range(..=address).next_back()?;
        let (memory, access) = range.memory.as_ref()?;
        let offset = usize::try_from(address - start).ok()?;
        (address < range.end).then_some((memory, *access, offset))
    }
}

impl Inner {
    /// Reads mapped memory; false when there is none. The bytes lie within one page.
    pub(super) fn read(&self, vm: &Vm, address: u64, data: &mut [u8]) -> bool {
        if vm.ram.read_slice(data, GuestAddress(address)).is_ok() {
            return true;
        }
        let mapped = self.maps.find(address);
        mapped.is_some_and(|(memory, _, offset)| {
            let slice = memory.as_volatile_slice();
            slice.read_slice(data, offset).is_ok()
        })
    }

    /// Writes mapped memory; false when there is none, or none that the guest may write.
    pub(super) fn write(&mut self, vm: &Vm, address: u64, data: &[u8]) -> bool {
        if vm.ram.write_slice(data, GuestAddress(address)).is_ok() {
            let page = vm.host.options.granule;
            if let Some(written) = &mut self.written {
                written.insert(address / page * page);
            }
            return true;
        }
        match self.maps.find(address) {
            Some((memory, Access::ReadWrite, offset)) => {
                memory.as_volatile_slice().write_slice(data, offset).is_ok()
            }
            _ => false,
        }
    }
}

impl GuestMap for FakePartition {
    fn map(
        &self,
        address: u64,
        memory: Arc<HostMemory>,
        access: Access,
    ) -> Result<Box<dyn Mapping>> {
        self.0.host.enter(Call::Map)?;
        self.0.inner().maps.map(address, memory, access)?;
        Ok(Box::new(FakeMapping {
            vm: Arc::clone(&self.0),
            address,
        }))
    }
}

struct FakeMapping {
    vm: Arc<Vm>,
    address: u64,
}

impl Mapping for FakeMapping {
    fn protect(&self, access: Access) -> Result<()> {
        self.vm.host.enter(Call::Protect)?;
        let mut inner = self.vm.inner();
        let range = inner.maps.ranges.get_mut(&self.address);
        if let Some((_, present)) = range.and_then(|range| range.memory.as_mut()) {
            *present = access;
        }
        Ok(())
    }
}

impl Drop for FakeMapping {
    fn drop(&mut self) {
        self.vm.inner().maps.ranges.remove(&self.address);
    }
}
