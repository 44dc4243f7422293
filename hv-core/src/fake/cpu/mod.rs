//! A processor that executes the instructions that [`Program`](crate::arch::x86_64::asm::Program) emits.

mod access;
mod execute;
mod trap;

use std::sync::Arc;

use super::irq::Lines;
use super::vm::Vm;
use crate::arch::x86_64::{
    GeneralRegisters, MpState, Registers, Segment, SystemRegisters, VcpuState,
};

/// What an instruction did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flow {
    /// Go on with the next one.
    Next,
    /// An exception for which there is no handler.
    TripleFault,
    /// An instruction of this opcode that the fake does not know, or one that cannot be fetched.
    Unknown(u8),
}

const ZERO: u64 = 1 << 6;
const INTERRUPTS: u64 = 1 << 9;
const SHADOW_STI: u8 = 2;

/// Bytes of the local APIC's register page.
pub(super) const LAPIC_PAGE: usize = 1024;

mod local_apic {
    //! The local APIC: its registers as MSRs, and places in its register page.
    pub(super) const ID: u32 = 0x802;
    pub(super) const EOI: u32 = 0x80b;
    pub(super) const SPURIOUS: u32 = 0x80f;
    pub(super) const COMMAND: u32 = 0x830;
    pub(super) const ENABLED: u64 = 1 << 8;
    pub(super) const SPURIOUS_PLACE: usize = 0xf1;
    pub(super) const REQUEST_PLACE: usize = 0x200;
}

#[derive(Clone, Copy, Default)]
struct Prefixes {
    half: bool,
    repeat: bool,
    rex: u8,
}

impl Prefixes {
    /// Width of the operand of `opcode`, whose lowest bit tells a byte from the rest.
    const fn width(self, opcode: u8) -> usize {
        match (opcode & 1, self.rex & 8, self.half) {
            (0, ..) => 1,
            (_, 8, _) => 8,
            (_, _, true) => 2,
            _ => 4,
        }
    }
}

pub(super) struct Cpu {
    pub(super) vm: Arc<Vm>,
    pub(super) index: usize,
    pub(super) state: VcpuState,
    /// An interrupt that is delivered before the next instruction.
    incoming: Option<u8>,
    /// The VM's arrivals when there was nothing left to take.
    seen: Option<u64>,
}

impl Cpu {
    pub(super) fn new(vm: Arc<Vm>, index: usize) -> Self {
        const BOOT_PROCESSOR: u64 = 1 << 8;
        let (mp_state, boot) = match index {
            0 => (MpState::Running, BOOT_PROCESSOR),
            _ => (MpState::Uninitialized, 0),
        };
        let system = SystemRegisters {
            apic_base: 0xfee0_0800 | boot,
            ..SystemRegisters::default()
        };
        let general = GeneralRegisters {
            rip: 0xfff0,
            rflags: 2,
            ..GeneralRegisters::default()
        };
        let state = VcpuState {
            registers: Registers { general, system },
            mp_state,
            lapic: vec![0; LAPIC_PAGE],
            ..VcpuState::default()
        };
        Self {
            vm,
            index,
            state,
            incoming: None,
            seen: None,
        }
    }

    /// Nothing came since the last look, and nothing is left from it.
    pub(super) fn is_undisturbed(&self) -> bool {
        self.state.mp_state == MpState::Running && self.seen == Some(self.vm.arrivals())
    }

    /// Takes what came for this processor; true when it can go on.
    pub(super) fn accept(&mut self, lines: &mut Lines) -> bool {
        if std::mem::take(&mut lines.init) {
            self.state.mp_state = MpState::InitReceived;
        }
        let startup = lines.startup.take();
        if let (MpState::InitReceived, Some(page)) = (self.state.mp_state, startup) {
            self.start_at(page);
        }
        if !matches!(self.state.mp_state, MpState::Running | MpState::Halted) {
            return false;
        }
        let open = self.general().rflags & INTERRUPTS != 0 && self.state.events.shadow == 0;
        if open && self.incoming.is_none() {
            self.incoming = lines.pending.pop_last();
        }
        if self.incoming.is_some() {
            self.state.mp_state = MpState::Running;
        }
        self.seen = lines.pending.is_empty().then(|| self.vm.arrivals());
        self.state.mp_state == MpState::Running
    }

    fn start_at(&mut self, page: u8) {
        self.state.mp_state = MpState::Running;
        self.state.registers.system.cs = Segment {
            base: u64::from(page) << 12,
            selector: u16::from(page) << 8,
            ..Segment::default()
        };
        self.general().rip = 0;
    }

    /// The state, with what is pending in the local APIC's request registers.
    pub(super) fn save(&self) -> VcpuState {
        let mut state = self.state.clone();
        let inner = self.vm.inner();
        let Some(lines) = inner.cpus.get(self.index) else {
            return state;
        };
        if let Some(byte) = state.lapic.get_mut(local_apic::SPURIOUS_PLACE) {
            *byte = lines.enabled.into();
        }
        for vector in 0..=u8::MAX {
            let waits = lines.pending.contains(&vector) || self.incoming == Some(vector);
            let (place, bit) = request_bit(vector);
            if let Some(byte) = state.lapic.get_mut(place) {
                *byte = *byte & !bit | if waits { bit } else { 0 };
            }
        }
        state
    }

    pub(super) fn load(&mut self, state: &VcpuState) {
        self.state = state.clone();
        (self.incoming, self.seen) = (None, None);
        let waits = |vector: &u8| {
            let (place, bit) = request_bit(*vector);
            state.lapic.get(place).is_some_and(|byte| byte & bit != 0)
        };
        if let Some(lines) = self.vm.inner().cpus.get_mut(self.index) {
            lines.enabled = state.lapic.get(local_apic::SPURIOUS_PLACE) == Some(&1);
            lines.pending = (0..=u8::MAX).filter(waits).collect();
        }
    }

    pub(super) const fn general(&mut self) -> &mut GeneralRegisters {
        &mut self.state.registers.general
    }
}

/// Where the local APIC's page has the bit for a requested interrupt: 32 bits every 16 bytes.
fn request_bit(vector: u8) -> (usize, u8) {
    let (word, bit) = (usize::from(vector / 32), vector % 32);
    let place = local_apic::REQUEST_PLACE + word * 16 + usize::from(bit / 8);
    (place, 1 << (bit % 8))
}
