//! The VM that its partition, its mappings and its vCPUs share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hv_core::{
    DirtyLog, Doorbells, EventIrqs, GuestMap, GuestRam, HvError, IrqChip, Partition,
    PartitionState, Result,
};
use kvm_bindings::{kvm_clock_data, kvm_irqchip};
use kvm_ioctls::VmFd;

use crate::hypervisor::Host;
use crate::slots::Slots;
use crate::{failed, memory, sys};

pub(crate) struct Vm {
    pub(crate) host: Arc<Host>,
    pub(crate) fd: VmFd,
    /// Held for as long as KVM knows of it.
    pub(crate) ram: GuestRam,
    slots: Mutex<Slots>,
    /// Pages of RAM are being tracked.
    tracking: Mutex<bool>,
}

impl Vm {
    pub(crate) fn new(host: Arc<Host>, fd: VmFd, ram: GuestRam) -> Result<Self> {
        let vm = Self {
            slots: Mutex::new(Slots::new(host.limits())),
            tracking: Mutex::new(false),
            host,
            fd,
            ram,
        };
        memory::map_ram(&vm)?;
        Ok(vm)
    }

    pub(crate) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tracking(&self) -> MutexGuard<'_, bool> {
        self.tracking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle that the caller gets.
pub(crate) struct KvmPartition(pub(crate) Arc<Vm>);

/// The chips of `KVM_CREATE_IRQCHIP` by their numbers: two 8259s, the I/O APIC.
const IRQCHIPS: [u32; 3] = [0, 1, 2];

impl KvmPartition {
    fn save_irqchip(&self, chip_id: u32) -> Result<Vec<u8>> {
        let mut chip = kvm_irqchip {
            chip_id,
            ..kvm_irqchip::default()
        };
        self.0
            .fd
            .get_irqchip(&mut chip)
            .map_err(failed("KVM_GET_IRQCHIP"))?;
        Ok(sys::irqchip_bytes(&chip))
    }

    fn load_irqchip(&self, chip_id: u32, bytes: &[u8]) -> Result<()> {
        let chip = sys::irqchip_from(chip_id, bytes)
            .ok_or(HvError::invalid("load: the interrupt controller's size"))?;
        self.0
            .fd
            .set_irqchip(&chip)
            .map_err(failed("KVM_SET_IRQCHIP"))
    }
}

impl Partition for KvmPartition {
    fn memory(&self) -> &dyn GuestMap {
        self
    }

    fn irq(&self) -> &dyn IrqChip {
        self
    }

    fn doorbells(&self) -> Option<&dyn Doorbells> {
        Some(self)
    }

    fn event_irqs(&self) -> Option<&dyn EventIrqs> {
        Some(self)
    }

    fn dirty(&self) -> Option<&dyn DirtyLog> {
        Some(self)
    }

    fn save(&self) -> Result<PartitionState> {
        let clock = self.0.fd.get_clock().map_err(failed("KVM_GET_CLOCK"))?;
        let irqchips = IRQCHIPS.map(|chip| self.save_irqchip(chip));
        Ok(PartitionState::X86_64(Box::new(
            hv_core::arch::x86_64::PartitionState {
                clock_ns: clock.clock,
                irqchips: irqchips.into_iter().collect::<Result<_>>()?,
            },
        )))
    }

    fn load(&self, state: &PartitionState) -> Result<()> {
        let PartitionState::X86_64(state) = state else {
            return Err(HvError::invalid("load: state of another architecture"));
        };
        if state.irqchips.len() != IRQCHIPS.len() {
            return Err(HvError::invalid("load: number of interrupt controllers"));
        }
        for (chip, bytes) in IRQCHIPS.into_iter().zip(&state.irqchips) {
            self.load_irqchip(chip, bytes)?;
        }
        let clock = kvm_clock_data {
            clock: state.clock_ns,
            ..kvm_clock_data::default()
        };
        self.0.fd.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))
    }
}
