//! What the parts of a fake VM share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::doorbell::Bell;
use super::irq::{IoApic, Lines};
use super::map::Maps;
use super::{Call, Host, lock};
use crate::arch::x86_64;
use crate::{
    DirtyLog, Doorbells, EventIrqs, GuestMap, GuestRam, HvError, IrqChip, Limits, Partition,
    PartitionState, Result,
};

/// Everything that changes.
pub(super) struct Inner {
    pub(super) maps: Maps,
    pub(super) bells: Vec<Bell>,
    /// Events that are tied to a line, by their registration.
    pub(super) tied: Vec<crate::Event>,
    pub(super) ioapic: IoApic,
    pub(super) cpus: Vec<Lines>,
    /// Pages of RAM that were written, while they are tracked.
    pub(super) written: Option<BTreeSet<u64>>,
}

pub(super) struct Vm {
    pub(super) host: Arc<Host>,
    pub(super) ram: GuestRam,
    inner: Mutex<Inner>,
    /// An interrupt, a start-up or a kick came.
    pub(super) wake: Condvar,
    /// How many interrupts and start-ups came, so that a processor need not look under the lock
    /// before every instruction: that would keep everybody else from it.
    arrivals: AtomicU64,
}

impl Vm {
    pub(super) fn new(
        host: Arc<Host>,
        limits: &Limits,
        ram: &GuestRam,
        vcpus: u32,
        ioapic: IoApic,
    ) -> Result<Arc<Self>> {
        let mut maps = Maps::new(limits);
        for range in ram.ranges() {
            maps.reserve(range.start, range.size)?;
        }
        let inner = Inner {
            maps,
            bells: Vec::new(),
            tied: Vec::new(),
            ioapic,
            cpus: (0..vcpus).map(|_| Lines::default()).collect(),
            written: None,
        };
        Ok(Arc::new(Self {
            host,
            ram: ram.clone(),
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            arrivals: AtomicU64::new(0),
        }))
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }

    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals.load(SeqCst)
    }

    /// Tells the processors that something came for one of them.
    pub(super) fn arrived(&self, inner: MutexGuard<'_, Inner>) {
        self.arrivals.fetch_add(1, SeqCst);
        drop(inner);
        self.wake.notify_all();
    }

    pub(super) fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.wake
            .wait(inner)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The handle that the caller gets.
pub(super) struct FakePartition(pub(super) Arc<Vm>);

impl Partition for FakePartition {
    fn memory(&self) -> &dyn GuestMap {
        self
    }

    fn irq(&self) -> &dyn IrqChip {
        self
    }

    fn doorbells(&self) -> Option<&dyn Doorbells> {
        self.0.host.options.doorbells.then_some(self)
    }

    fn event_irqs(&self) -> Option<&dyn EventIrqs> {
        self.0.host.options.event_irqs.then_some(self)
    }

    fn dirty(&self) -> Option<&dyn DirtyLog> {
        self.0.host.options.dirty_log.then_some(self)
    }

    fn save(&self) -> Result<PartitionState> {
        self.0.host.enter(Call::Save)?;
        Ok(PartitionState::X86_64(Box::new(x86_64::PartitionState {
            clock_ns: 0,
            irqchips: vec![self.0.inner().ioapic.to_bytes()],
        })))
    }

    fn load(&self, state: &PartitionState) -> Result<()> {
        self.0.host.enter(Call::Load)?;
        let PartitionState::X86_64(state) = state;
        let [ioapic] = state.irqchips.as_slice() else {
            return Err(HvError::invalid("load: number of interrupt controllers"));
        };
        let ioapic = IoApic::from_bytes(ioapic);
        self.0.inner().ioapic =
            ioapic.ok_or(HvError::invalid("load: the interrupt controller's size"))?;
        Ok(())
    }
}
