//! The way from a host's hypervisor to a VM: [`Hypervisor`], [`Draft`], [`Parts`].

use std::sync::Arc;

use crate::{GuestRam, IrqPlan, Partition, Result, VcpuSeed};

/// An instruction set that a guest can have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Arch {
    /// x86 with long mode.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What the host's hypervisor is and can do; read once, before any VM exists.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// The backend's name: `kvm`, `hvf`, `whp`, `fake`.
    pub name: &'static str,
    /// The instruction set of its guests.
    pub arch: Arch,
    /// The largest number of vCPUs of one VM.
    pub max_vcpus: u32,
}

/// What must be known of a VM before its memory map can be chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VmSpec {
    /// How many vCPUs it will have, at least 1.
    pub vcpus: u32,
}

/// The bounds within which a VM's memory map must lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Width of a guest-physical address in bits.
    pub address_bits: u8,
    /// Guest-physical ranges are mapped in multiples of this many bytes (4096 or 16384).
    pub granule: u64,
    /// How many separate ranges can be mapped at once, RAM included.
    pub max_mappings: usize,
}

/// A host's hypervisor.
pub trait Hypervisor: Send + Sync {
    /// What it is and can do.
    fn host(&self) -> &HostFacts;

    /// Begins a VM.
    ///
    /// # Errors
    /// The spec is outside [`HostFacts`] (caller), or the host has no room for another VM.
    fn prepare(&self, spec: &VmSpec) -> Result<Box<dyn Draft>>;
}

/// A VM whose memory map and interrupt windows are still to be chosen.
pub trait Draft {
    /// The bounds for that choice.
    fn limits(&self) -> &Limits;

    /// Fixes the memory map and the interrupt controller and hands out the VM's parts.
    ///
    /// # Errors
    /// RAM or windows break [`Limits`] (caller), or the host refuses a call.
    fn finish(self: Box<Self>, ram: &GuestRam, irq: &IrqPlan) -> Result<Parts>;
}

/// The parts of a VM that is ready to be started.
pub struct Parts {
    /// Memory, interrupts and state.
    pub partition: Arc<dyn Partition>,
    /// One seed a vCPU, in order of their index; index 0 is the boot processor.
    pub vcpus: Vec<Box<dyn VcpuSeed>>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts")
            .field("vcpus", &self.vcpus.len())
            .finish_non_exhaustive()
    }
}
