//! The instructions that [`Program`](crate::arch::x86_64::asm::Program) emits, one at a time.
//!
//! Encodings: APM volume 3. An instruction that is not one of them is reported, never guessed.

use std::sync::Arc;

use super::irq::{IOAPIC, IOAPIC_END, Lines};
use super::vm::Vm;
use crate::arch::x86_64::{
    GeneralRegisters, MpState, Registers, Segment, SystemRegisters, VcpuState, pieces,
};
use crate::{DoorbellSpace, VmIo};

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

mod exception {
    pub(super) const INVALID_OPCODE: u8 = 6;
    pub(super) const GENERAL_PROTECTION: u8 = 13;
}

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

    const fn general(&mut self) -> &mut GeneralRegisters {
        &mut self.state.registers.general
    }

    /// Delivers a pending interrupt or executes one instruction.
    pub(super) fn step(&mut self, io: &dyn VmIo) -> Flow {
        if let Some(vector) = self.incoming.take() {
            return self.interrupt(vector, None, io);
        }
        self.state.events.shadow = 0;
        let start = self.general().rip;
        let mut prefixes = Prefixes::default();
        loop {
            match self.fetch() {
                Some(0x66) => prefixes.half = true,
                Some(0xf3) => prefixes.repeat = true,
                Some(rex @ 0x48..=0x4f) => prefixes.rex = rex,
                Some(opcode) => return self.execute(opcode, prefixes, start, io),
                None => return Flow::Unknown(0),
            }
        }
    }

    fn fetch(&mut self) -> Option<u8> {
        let address = self.state.registers.system.cs.base + self.general().rip;
        let mut byte = [0];
        self.general().rip += 1;
        let there = self.vm.inner().read(&self.vm, address, &mut byte);
        there.then_some(byte[0])
    }

    /// The `width` bytes that follow, as a number.
    fn immediate(&mut self, width: usize) -> u64 {
        let mut bytes = [0; 8];
        for byte in bytes.iter_mut().take(width) {
            *byte = self.fetch().unwrap_or(0);
        }
        u64::from_le_bytes(bytes)
    }

    fn execute(&mut self, opcode: u8, prefixes: Prefixes, start: u64, io: &dyn VmIo) -> Flow {
        let width = prefixes.width(opcode);
        match opcode {
            0x0f => return self.execute_two_bytes(start, io),
            0x50..=0x53 => {
                let value = *self.register(opcode & 7);
                self.push(value, io);
            }
            0x58..=0x5b => *self.register(opcode & 7) = self.pop(io),
            0x6c..=0x6f => self.string(opcode, prefixes, start, io),
            0xb0 => {
                let value = self.immediate(1);
                self.set_rax(value, 1);
            }
            0xb8..=0xbf => {
                let value = self.immediate(if prefixes.rex == 0 { 4 } else { 8 });
                *self.register(opcode & 7 | (prefixes.rex & 1) << 3) = value;
            }
            0xe6 => {
                let port = self.immediate(1);
                self.port_write(port, 1, io);
            }
            0xec | 0xed => self.port_read(self.port(), width, io),
            0xee | 0xef => self.port_write(self.port(), width, io),
            0xe9 => self.jump(true),
            0xf4 => self.state.mp_state = MpState::Halted,
            0xfa => self.general().rflags &= !INTERRUPTS,
            0xfb => {
                self.general().rflags |= INTERRUPTS;
                self.state.events.shadow = SHADOW_STI;
            }
            0xfc => {}
            0xcf => self.interrupt_return(io),
            _ => return self.execute_with_operand(opcode, width, io),
        }
        Flow::Next
    }

    /// Instructions with an operand byte: only the operands that programs use.
    fn execute_with_operand(&mut self, opcode: u8, width: usize, io: &dyn VmIo) -> Flow {
        let rbx = self.general().rbx;
        match (opcode, self.fetch()) {
            (0x31, Some(0xc0)) => self.set_rax(0, 8),
            (0x84, Some(0xc0)) => {
                let zero = self.general().rax & 0xff == 0;
                self.set_zero(zero);
            }
            (0x88 | 0x89, Some(0x03)) => {
                let bytes = self.general().rax.to_le_bytes();
                self.write(rbx, bytes.get(..width).unwrap_or(&[]), io);
            }
            (0x8a | 0x8b, Some(0x03)) => {
                let value = self.read_number(rbx, width, io);
                self.set_rax(value, width);
            }
            (0xff, Some(0x03)) => {
                let value = self.read_number(rbx, 8, io).wrapping_add(1);
                self.write(rbx, &value.to_le_bytes(), io);
            }
            (0xff, Some(0xcc)) => {
                let count = self.general().r12.wrapping_sub(1);
                self.general().r12 = count;
                self.set_zero(count == 0);
            }
            _ => return Flow::Unknown(opcode),
        }
        Flow::Next
    }

    fn execute_two_bytes(&mut self, start: u64, io: &dyn VmIo) -> Flow {
        let zero = self.general().rflags & ZERO != 0;
        let known = match self.fetch() {
            Some(0x01) => {
                // VMCALL: no such service.
                let known = self.fetch() == Some(0xc1);
                self.set_rax(u64::MAX, 8);
                known
            }
            Some(0x0b) => return self.fault(exception::INVALID_OPCODE, None, start, io),
            Some(0x30) => self.write_msr(),
            Some(0x32) => self.read_msr(),
            Some(0x84) => {
                self.jump(zero);
                true
            }
            Some(0x85) => {
                self.jump(!zero);
                true
            }
            other => return Flow::Unknown(other.unwrap_or(0)),
        };
        if known {
            return Flow::Next;
        }
        self.fault(exception::GENERAL_PROTECTION, Some(0), start, io)
    }

    fn register(&mut self, number: u8) -> &mut u64 {
        let registers = self.general();
        match number {
            0 => &mut registers.rax,
            1 => &mut registers.rcx,
            2 => &mut registers.rdx,
            3 => &mut registers.rbx,
            4 => &mut registers.rsp,
            5 => &mut registers.rbp,
            6 => &mut registers.rsi,
            7 => &mut registers.rdi,
            8 => &mut registers.r8,
            9 => &mut registers.r9,
            10 => &mut registers.r10,
            11 => &mut registers.r11,
            12 => &mut registers.r12,
            13 => &mut registers.r13,
            14 => &mut registers.r14,
            _ => &mut registers.r15,
        }
    }

    /// Writes the low `width` bytes of RAX; four bytes clear the rest (APM volume 1, section 3.1.2).
    fn set_rax(&mut self, value: u64, width: usize) {
        let kept = match width {
            1 => !0xff,
            2 => !0xffff,
            _ => 0,
        };
        self.general().rax = self.general().rax & kept | value & !kept;
    }

    fn set_zero(&mut self, zero: bool) {
        let others = self.general().rflags & !ZERO;
        self.general().rflags = others | if zero { ZERO } else { 0 };
    }

    /// A jump over a signed distance of four bytes, counted from its end.
    fn jump(&mut self, taken: bool) {
        let [a, b, c, d, ..] = self.immediate(4).to_le_bytes();
        let distance = i64::from(i32::from_le_bytes([a, b, c, d]));
        if taken {
            let rip = &mut self.general().rip;
            *rip = rip.wrapping_add_signed(distance);
        }
    }

    const fn port(&self) -> u64 {
        self.state.registers.general.rdx & 0xffff
    }

    fn port_write(&mut self, port: u64, width: usize, io: &dyn VmIo) {
        let bytes = self.general().rax.to_le_bytes();
        self.port_out(port, bytes.get(..width).unwrap_or(&[]), io);
    }

    fn port_out(&self, port: u64, data: &[u8], io: &dyn VmIo) {
        let rung = self.vm.inner().ring(DoorbellSpace::Pio, port, data);
        if !rung {
            io.pio_write(u16::try_from(port).unwrap_or(u16::MAX), data);
        }
    }

    fn port_read(&mut self, port: u64, width: usize, io: &dyn VmIo) {
        let mut bytes = [0; 8];
        if let Some(data) = bytes.get_mut(..width) {
            io.pio_read(u16::try_from(port).unwrap_or(u16::MAX), data);
        }
        self.set_rax(u64::from_le_bytes(bytes), width);
    }

    /// One item of `INS` or `OUTS`; with a repeat prefix the instruction stays until RCX is 0.
    fn string(&mut self, opcode: u8, prefixes: Prefixes, start: u64, io: &dyn VmIo) {
        if prefixes.repeat {
            if self.general().rcx == 0 {
                return;
            }
            self.general().rcx -= 1;
            if self.general().rcx > 0 {
                self.general().rip = start;
            }
        }
        let width = prefixes.width(opcode);
        let mut bytes = [0; 8];
        let Some(data) = bytes.get_mut(..width) else {
            return;
        };
        let port = self.port();
        if opcode < 0x6e {
            io.pio_read(u16::try_from(port).unwrap_or(u16::MAX), data);
            self.write(self.state.registers.general.rdi, data, io);
            self.general().rdi += width as u64;
        } else {
            self.read(self.state.registers.general.rsi, data, io);
            self.port_out(port, data, io);
            self.general().rsi += width as u64;
        }
    }

    fn push(&mut self, value: u64, io: &dyn VmIo) {
        let rsp = self.general().rsp.wrapping_sub(8);
        self.general().rsp = rsp;
        self.write(rsp, &value.to_le_bytes(), io);
    }

    fn pop(&mut self, io: &dyn VmIo) -> u64 {
        let rsp = self.general().rsp;
        self.general().rsp = rsp.wrapping_add(8);
        self.read_number(rsp, 8, io)
    }

    fn read_number(&self, address: u64, width: usize, io: &dyn VmIo) -> u64 {
        let mut bytes = [0; 8];
        if let Some(data) = bytes.get_mut(..width) {
            self.read(address, data, io);
        }
        u64::from_le_bytes(bytes)
    }

    fn read(&self, address: u64, data: &mut [u8], io: &dyn VmIo) {
        let (head, tail) = data.split_at_mut(in_first_page(address, data.len()));
        let second = address.wrapping_add(head.len() as u64);
        for (address, part) in [(address, head), (second, tail)] {
            let there = part.is_empty() || self.vm.inner().read(&self.vm, address, part);
            if !there {
                read_outside(io, address, part);
            }
        }
    }

    fn write(&self, address: u64, data: &[u8], io: &dyn VmIo) {
        let (head, tail) = data.split_at(in_first_page(address, data.len()));
        let second = address.wrapping_add(head.len() as u64);
        for (address, part) in [(address, head), (second, tail)] {
            if !part.is_empty() && !self.write_inside(address, part) {
                write_outside(io, address, part);
            }
        }
    }

    /// Writes that never leave the hypervisor: doorbells, memory, the interrupt controller.
    fn write_inside(&self, address: u64, data: &[u8]) -> bool {
        let mut inner = self.vm.inner();
        if (IOAPIC..IOAPIC_END).contains(&address) {
            let value = data
                .first_chunk()
                .map_or(0, |bytes| u32::from_le_bytes(*bytes));
            inner.ioapic.write(address, value);
            return true;
        }
        inner.ring(DoorbellSpace::Mmio, address, data) || inner.write(&self.vm, address, data)
    }

    fn fault(&mut self, vector: u8, code: Option<u64>, start: u64, io: &dyn VmIo) -> Flow {
        self.general().rip = start;
        self.interrupt(vector, code, io)
    }

    /// Goes through the interrupt table (APM volume 2, section 8.9.1).
    fn interrupt(&mut self, vector: u8, code: Option<u64>, io: &dyn VmIo) -> Flow {
        let table = self.state.registers.system.idt;
        let offset = u64::from(vector) * 16;
        let gate = self.read_number(table.base + offset, 8, io);
        if offset + 15 > table.limit.into() || gate >> 47 & 1 == 0 {
            return Flow::TripleFault;
        }
        let general = *self.general();
        let system = &self.state.registers.system;
        let (ss, cs) = (system.ss.selector.into(), system.cs.selector.into());
        for value in [ss, general.rsp, general.rflags, cs, general.rip] {
            self.push(value, io);
        }
        if let Some(code) = code {
            self.push(code, io);
        }
        self.general().rflags &= !INTERRUPTS;
        self.general().rip = gate & 0xffff | (gate >> 48) << 16;
        Flow::Next
    }

    fn interrupt_return(&mut self, io: &dyn VmIo) {
        let rip = self.pop(io);
        self.pop(io);
        let rflags = self.pop(io);
        let rsp = self.pop(io);
        let general = self.general();
        (general.rip, general.rflags, general.rsp) = (rip, rflags, rsp);
    }

    /// False: there is no such register.
    fn read_msr(&mut self) -> bool {
        if low(self.general().rcx) != local_apic::ID {
            return false;
        }
        self.general().rax = self.index as u64;
        self.general().rdx = 0;
        true
    }

    /// False: there is no such register.
    fn write_msr(&mut self) -> bool {
        let GeneralRegisters { rax, rcx, rdx, .. } = *self.general();
        match low(rcx) {
            local_apic::EOI => {}
            local_apic::SPURIOUS => {
                if let Some(lines) = self.vm.inner().cpus.get_mut(self.index) {
                    lines.enabled = rax & local_apic::ENABLED != 0;
                }
            }
            local_apic::COMMAND => self.send(rdx, rax),
            _ => return false,
        }
        true
    }

    /// An interrupt to another processor (APM volume 2, section 16.5).
    fn send(&self, target: u64, command: u64) {
        let target = usize::try_from(target).unwrap_or(usize::MAX);
        let vector = command.to_le_bytes()[0];
        let mode = command >> 8 & 7;
        if mode == 0 {
            return self.vm.deliver(target, vector);
        }
        let mut inner = self.vm.inner();
        if let Some(lines) = inner.cpus.get_mut(target) {
            match mode {
                5 => lines.init = true,
                6 => lines.startup = Some(vector),
                _ => {}
            }
        }
        self.vm.arrived(inner);
    }
}

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Where the local APIC's page has the bit for a requested interrupt: 32 bits every 16 bytes.
fn request_bit(vector: u8) -> (usize, u8) {
    let (word, bit) = (usize::from(vector / 32), vector % 32);
    let place = local_apic::REQUEST_PLACE + word * 16 + usize::from(bit / 8);
    (place, 1 << (bit % 8))
}

/// How many of `bytes` bytes at `address` lie in the page of the first.
fn in_first_page(address: u64, bytes: usize) -> usize {
    const PAGE: u64 = 4096;
    usize::try_from(PAGE - address % PAGE).map_or(bytes, |left| left.min(bytes))
}

fn read_outside(io: &dyn VmIo, address: u64, data: &mut [u8]) {
    for piece in pieces(address, data.len()) {
        let at = address.wrapping_add(piece.start as u64);
        if let Some(part) = data.get_mut(piece) {
            io.mmio_read(at, part);
        }
    }
}

fn write_outside(io: &dyn VmIo, address: u64, data: &[u8]) {
    for piece in pieces(address, data.len()) {
        let at = address.wrapping_add(piece.start as u64);
        if let Some(part) = data.get(piece) {
            io.mmio_write(at, part);
        }
    }
}
