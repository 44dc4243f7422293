//! Host memory in slots: RAM for the VM's life, other ranges behind guards.

#![expect(unsafe_code, reason = "tells KVM which host memory a guest may use")]

use std::sync::Arc;

use hv_core::{Access, GuestMap, HostMemory, Mapping, RamRegion, Result};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};

use crate::failed;
use crate::vm::{KvmPartition, Vm};

/// Maps all of RAM, whose ranges have the slots from 0 on, in their order.
pub(crate) fn map_ram(vm: &Vm) -> Result<()> {
    for region in vm.ram.regions() {
        let range = region.range();
        let slot = vm.slots().take(range.start, range.size)?;
        set_slot(vm, slot, &Span::of_ram(region), 0)?;
    }
    Ok(())
}

/// Switches the tracking of written pages of RAM.
pub(crate) fn track_ram(vm: &Vm, on: bool) -> Result<()> {
    let flags = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
    for (slot, region) in (0..).zip(vm.ram.regions()) {
        set_slot(vm, slot, &Span::of_ram(region), flags)?;
    }
    Ok(())
}

/// Host memory at a guest-physical address. Its fields are what a live owner of the memory says.
struct Span {
    guest: u64,
    host: *mut u8,
    bytes: u64,
}

impl Span {
    fn of_ram(region: &RamRegion) -> Self {
        let range = region.range();
        Self {
            guest: range.start,
            host: region.host_address(),
            bytes: range.size,
        }
    }

    fn of(memory: &HostMemory, guest: u64) -> Self {
        Self {
            guest,
            host: memory.as_ptr(),
            bytes: memory.size() as u64,
        }
    }
}

fn set_slot(vm: &Vm, slot: u32, span: &Span, flags: u32) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: span.guest,
        memory_size: span.bytes,
        userspace_addr: span.host as u64,
    };
    // SAFETY: a `Span` is made of memory that its owner has mapped. RAM is held by `Vm`, which every
    // vCPU holds; other memory by the `KvmMapping` that removes the slot before it lets go. All host
    // access to either is volatile, so that the guest may change it at any time.
    unsafe { vm.fd.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
}

fn clear_slot(vm: &Vm, slot: u32) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: size 0 removes the slot and names no host memory.
    unsafe { vm.fd.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))
}

const fn flags(access: Access) -> u32 {
    match access {
        Access::ReadOnly => KVM_MEM_READONLY,
        Access::ReadWrite => 0,
    }
}

impl GuestMap for KvmPartition {
    fn map(
        &self,
        address: u64,
        memory: Arc<HostMemory>,
        access: Access,
    ) -> Result<Box<dyn Mapping>> {
        let slot = self.0.slots().take(address, memory.size() as u64)?;
        if let Err(error) = set_slot(&self.0, slot, &Span::of(&memory, address), flags(access)) {
            self.0.slots().give_back(address);
            return Err(error);
        }
        Ok(Box::new(KvmMapping {
            vm: Arc::clone(&self.0),
            slot,
            address,
            memory,
        }))
    }
}

struct KvmMapping {
    vm: Arc<Vm>,
    slot: u32,
    address: u64,
    memory: Arc<HostMemory>,
}

impl Mapping for KvmMapping {
    fn protect(&self, access: Access) -> Result<()> {
        clear_slot(&self.vm, self.slot)?;
        set_slot(
            &self.vm,
            self.slot,
            &Span::of(&self.memory, self.address),
            flags(access),
        )
    }
}

impl Drop for KvmMapping {
    fn drop(&mut self) {
        if clear_slot(&self.vm, self.slot).is_ok() {
            self.vm.slots().give_back(self.address);
        } else {
            // The guest can still reach the memory: it must never be used for anything else.
            std::mem::forget(Arc::clone(&self.memory));
        }
    }
}
