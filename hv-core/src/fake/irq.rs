//! Interrupts: an I/O APIC for edges, and what each processor's local APIC has pending.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use super::vm::{FakePartition, Vm};
use super::{Call, Interrupt};
use crate::{Attached, Event, EventIrqs, HvError, HvErrorKind, IrqChip, IrqLayout, Msi, Result};

pub(super) const IOAPIC: u64 = 0xfec0_0000;
pub(super) const IOAPIC_END: u64 = 0xfec0_1000;
const LAPIC: u64 = 0xfee0_0000;
const LAPIC_END: u64 = 0xfef0_0000;
const LINES: usize = 24;

/// Registers of the I/O APIC: the select register, the redirection table, the lines' levels.
#[derive(Clone, Debug)]
pub(super) struct IoApic {
    select: u64,
    table: [u64; LINES],
    levels: [bool; LINES],
}

const MASKED: u64 = 1 << 16;

impl Default for IoApic {
    fn default() -> Self {
        Self {
            select: 0,
            table: [MASKED; LINES],
            levels: [false; LINES],
        }
    }
}

impl IoApic {
    /// A guest's write to the register window.
    pub(super) fn write(&mut self, address: u64, value: u32) {
        match address - IOAPIC {
            0x0 => self.select = value.into(),
            0x10 => self.write_selected(value),
            _ => {}
        }
    }

    fn write_selected(&mut self, value: u32) {
        let Some(index) = self.select.checked_sub(0x10) else {
            return;
        };
        let entry = usize::try_from(index / 2).ok();
        let Some(entry) = entry.and_then(|entry| self.table.get_mut(entry)) else {
            return;
        };
        let shift = index % 2 * 32;
        *entry = *entry & !(0xffff_ffff << shift) | u64::from(value) << shift;
    }

    /// Drives a line; gives the message of a rising edge. `None`: there is no such line.
    fn drive(&mut self, line: usize, high: bool) -> Option<Option<(usize, u8)>> {
        let level = self.levels.get_mut(line)?;
        let rises = !std::mem::replace(level, high) && high;
        let [vector, .., target] = self.table.get(line)?.to_le_bytes();
        let masked = self.table.get(line)? & MASKED != 0;
        Some((rises && !masked).then_some((target.into(), vector)))
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let levels = self.levels.iter().map(|level| u64::from(*level));
        let words = std::iter::once(self.select).chain(self.table).chain(levels);
        words.flat_map(u64::to_le_bytes).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<8>() else {
            return None;
        };
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut ioapic = Self {
            select: words.next()?,
            ..Self::default()
        };
        for entry in &mut ioapic.table {
            *entry = words.next()?;
        }
        for level in &mut ioapic.levels {
            *level = words.next()? != 0;
        }
        words.next().is_none().then_some(ioapic)
    }
}

/// What waits for a processor.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    /// The local APIC is on.
    pub(super) enabled: bool,
    /// Vectors of interrupts.
    pub(super) pending: BTreeSet<u8>,
    /// It was sent INIT.
    pub(super) init: bool,
    /// It was sent a start-up IPI for this page.
    pub(super) startup: Option<u8>,
}

impl Vm {
    /// Delivers an interrupt; one for a processor that is not there, or not ready, is lost.
    pub(super) fn deliver(&self, target: usize, vector: u8) {
        let mut inner = self.inner();
        if let Some(cpu) = inner.cpus.get_mut(target).filter(|cpu| cpu.enabled) {
            cpu.pending.insert(vector);
        }
        self.arrived(inner);
    }

    fn drive(&self, line: u32, high: bool) -> Result<()> {
        let wrong = HvError::invalid("interrupt line that does not exist");
        let index = usize::try_from(line).unwrap_or(usize::MAX);
        let message = self.inner().ioapic.drive(index, high).ok_or(wrong)?;
        self.host.raised(Interrupt::Line { line, high });
        if let Some((target, vector)) = message {
            self.deliver(target, vector);
        }
        Ok(())
    }
}

impl IrqChip for FakePartition {
    fn set_line(&self, line: u32, high: bool) -> Result<()> {
        self.0.host.enter(Call::SetLine)?;
        self.0.drive(line, high)
    }

    fn msi(&self, msi: Msi) -> Result<()> {
        self.0.host.enter(Call::Msi)?;
        if !(LAPIC..LAPIC_END).contains(&msi.address) {
            return Err(HvError::invalid("MSI to nowhere"));
        }
        let target = usize::try_from(msi.address >> 12 & 0xff).unwrap_or(0);
        self.0.host.raised(Interrupt::Msi(msi));
        self.0.deliver(target, msi.data.to_le_bytes()[0]);
        Ok(())
    }

    fn layout(&self) -> IrqLayout {
        IrqLayout::X86_64 {
            lapic: LAPIC,
            ioapic: IOAPIC,
            lines: 24,
        }
    }
}

impl EventIrqs for FakePartition {
    fn attach(&self, line: u32, event: &Event) -> Result<Box<dyn Attached>> {
        self.0.host.enter(Call::AttachEventIrq)?;
        if line >= 24 {
            return Err(HvError::invalid("interrupt line that does not exist"));
        }
        let mut inner = self.0.inner();
        if inner.tied.iter().any(|tied| tied.is_same(event)) {
            return Err(HvError::new("event is tied", HvErrorKind::InvalidState));
        }
        inner.tied.push(event.clone());
        drop(inner);
        let over = Arc::new(AtomicBool::new(false));
        let (vm, heard, ends) = (Arc::clone(&self.0), event.clone(), Arc::clone(&over));
        Ok(Box::new(Tie {
            vm: Arc::clone(&self.0),
            event: event.clone(),
            over,
            listener: Some(std::thread::spawn(move || listen(&vm, line, &heard, &ends))),
        }))
    }
}

fn listen(vm: &Vm, line: u32, event: &Event, over: &AtomicBool) {
    loop {
        event.wait();
        if over.load(SeqCst) {
            return;
        }
        // The line was checked when the event was tied to it.
        drop(vm.drive(line, true).and_then(|()| vm.drive(line, false)));
    }
}

struct Tie {
    vm: Arc<Vm>,
    event: Event,
    over: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Attached for Tie {}

impl Drop for Tie {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        self.event.signal();
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
        // The signal that ended the listener may still be there.
        let _ = self.event.take();
        self.vm
            .inner()
            .tied
            .retain(|tied| !tied.is_same(&self.event));
    }
}
