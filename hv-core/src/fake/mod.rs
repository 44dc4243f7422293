//! A hypervisor without hardware, for tests of devices and of the machine.
//!
//! Its vCPUs interpret the instructions that [`Program`](crate::arch::x86_64::asm::Program) emits, against the
//! real [`VmIo`](crate::VmIo) and guest RAM, with interrupts, halts, kicks and a start-up protocol as the contract wants
//! them; the conformance suite runs on it. It is stricter than real backends where the contract is strict
//! (granules, overlaps, few mappings), can leave out every facet that the contract calls optional, can fail any
//! call, and keeps a list of all interrupts that were raised.
//!
//! Not modelled: paging (memory is one to one), privilege, priorities of interrupts in service,
//! level-triggered lines, time.

mod cpu;
mod dirty;
mod doorbell;
mod irq;
mod map;
mod vcpu;
mod vm;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::irq::IoApic;
use self::vcpu::FakeSeed;
use self::vm::{FakePartition, Vm};
use crate::{
    Arch, Draft, GuestRam, HostFacts, HvError, HvErrorKind, Hypervisor, IrqPlan, Limits, Msi,
    Parts, Result, VcpuSeed, VmSpec,
};

/// What a fake hypervisor is like.
#[derive(Clone, Copy, Debug)]
pub struct FakeOptions {
    /// Multiple of which ranges are mapped: 4096, or 16384 as on Apple silicon.
    pub granule: u64,
    /// It has doorbells.
    pub doorbells: bool,
    /// It has event interrupts.
    pub event_irqs: bool,
    /// It has a dirty log.
    pub dirty_log: bool,
}

impl Default for FakeOptions {
    /// All facets, 4 KiB.
    fn default() -> Self {
        Self {
            granule: 4096,
            doorbells: true,
            event_irqs: true,
            dirty_log: true,
        }
    }
}

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Call {
    /// [`Hypervisor::prepare`].
    Prepare,
    /// [`Draft::finish`].
    Finish,
    /// [`crate::GuestMap::map`].
    Map,
    /// [`crate::Mapping::protect`].
    Protect,
    /// [`crate::IrqChip::set_line`].
    SetLine,
    /// [`crate::IrqChip::msi`].
    Msi,
    /// [`crate::Doorbells::attach`].
    AttachDoorbell,
    /// [`crate::EventIrqs::attach`].
    AttachEventIrq,
    /// [`crate::DirtyLog::start`] and [`crate::DirtyLog::take`].
    DirtyLog,
    /// [`VcpuSeed::bind`].
    Bind,
    /// [`crate::Vcpu::run`].
    Run,
    /// [`crate::Vcpu::save`] and [`crate::Partition::save`].
    Save,
    /// [`crate::Vcpu::load`], [`crate::Vcpu::set_registers`] and [`crate::Partition::load`].
    Load,
}

/// An interrupt that was raised through [`crate::IrqChip`] or [`crate::EventIrqs`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interrupt {
    /// A line was driven.
    Line {
        /// Which.
        line: u32,
        /// To which level.
        high: bool,
    },
    /// A message was delivered.
    Msi(Msi),
}

/// The fake. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct FakeHypervisor(Arc<Host>);

/// What all VMs of a fake share.
#[derive(Debug)]
struct Host {
    facts: HostFacts,
    options: FakeOptions,
    /// Calls that are to fail: after how many more.
    faults: Mutex<BTreeMap<Call, u32>>,
    interrupts: Mutex<Vec<Interrupt>>,
}

impl Default for FakeHypervisor {
    fn default() -> Self {
        Self::new(FakeOptions::default())
    }
}

impl FakeHypervisor {
    /// A fake that is like `options`.
    #[must_use]
    pub fn new(options: FakeOptions) -> Self {
        Self(Arc::new(Host {
            facts: HostFacts {
                name: "fake",
                arch: Arch::X86_64,
                max_vcpus: 8,
            },
            options,
            faults: Mutex::default(),
            interrupts: Mutex::default(),
        }))
    }

    /// Lets the `nth` call from now on (1 is the next one) fail with [`HvErrorKind::Exhausted`]; others
    /// before and after it work.
    pub fn fail(&self, call: Call, nth: u32) {
        lock(&self.0.faults).insert(call, nth);
    }

    /// All interrupts so far, of all VMs.
    #[must_use]
    pub fn interrupts(&self) -> Vec<Interrupt> {
        lock(&self.0.interrupts).clone()
    }
}

impl Host {
    /// Fails if this is the call that was chosen to.
    fn enter(&self, call: Call) -> Result<()> {
        let mut faults = lock(&self.faults);
        let Some(left) = faults.get_mut(&call) else {
            return Ok(());
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        faults.remove(&call);
        Err(HvError::new("fake: chosen call", HvErrorKind::Exhausted))
    }

    fn raised(&self, interrupt: Interrupt) {
        lock(&self.interrupts).push(interrupt);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hypervisor for FakeHypervisor {
    fn host(&self) -> &HostFacts {
        &self.0.facts
    }

    fn prepare(&self, spec: &VmSpec) -> Result<Box<dyn Draft>> {
        self.0.enter(Call::Prepare)?;
        if !(1..=self.0.facts.max_vcpus).contains(&spec.vcpus) {
            return Err(HvError::invalid("prepare: this number of vCPUs"));
        }
        Ok(Box::new(FakeDraft {
            host: Arc::clone(&self.0),
            spec: *spec,
            limits: Limits {
                address_bits: 40,
                granule: self.0.options.granule,
                max_mappings: 32,
            },
        }))
    }
}

struct FakeDraft {
    host: Arc<Host>,
    spec: VmSpec,
    limits: Limits,
}

impl Draft for FakeDraft {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn finish(self: Box<Self>, ram: &GuestRam, irq: &IrqPlan) -> Result<Parts> {
        self.host.enter(Call::Finish)?;
        let IrqPlan::X86_64 = irq;
        let vm = Vm::new(
            self.host,
            &self.limits,
            ram,
            self.spec.vcpus,
            IoApic::default(),
        )?;
        let seed = |index| Box::new(FakeSeed::new(Arc::clone(&vm), index)) as Box<dyn VcpuSeed>;
        Ok(Parts {
            vcpus: (0..self.spec.vcpus as usize).map(seed).collect(),
            partition: Arc::new(FakePartition(vm)),
        })
    }
}
