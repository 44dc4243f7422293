//! Exceptions, interrupts, and the registers by which processors interrupt each other.

use super::{Cpu, Flow, INTERRUPTS, local_apic};
use crate::VmIo;
use crate::arch::x86_64::GeneralRegisters;

pub(super) mod exception {
    pub(in crate::fake) const INVALID_OPCODE: u8 = 6;
    pub(in crate::fake) const GENERAL_PROTECTION: u8 = 13;
}

impl Cpu {
    pub(super) fn fault(
        &mut self,
        vector: u8,
        code: Option<u64>,
        start: u64,
        io: &dyn VmIo,
    ) -> Flow {
        self.general().rip = start;
        self.interrupt(vector, code, io)
    }

    /// Goes through the interrupt table (APM volume 2, section 8.9.1).
    pub(super) fn interrupt(&mut self, vector: u8, code: Option<u64>, io: &dyn VmIo) -> Flow {
        let table = self.state.registers.system.idt;
        let offset = u64::from(vector) * 16;
        let gate = self.read_number(table.base.wrapping_add(offset), 8, io);
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

    pub(super) fn interrupt_return(&mut self, io: &dyn VmIo) {
        let rip = self.pop(io);
        self.pop(io);
        let rflags = self.pop(io);
        let rsp = self.pop(io);
        let general = self.general();
        (general.rip, general.rflags, general.rsp) = (rip, rflags, rsp);
    }

    /// False: there is no such register.
    pub(super) fn read_msr(&mut self) -> bool {
        if low(self.general().rcx) != local_apic::ID {
            return false;
        }
        self.general().rax = self.index as u64;
        self.general().rdx = 0;
        true
    }

    /// False: there is no such register.
    pub(super) fn write_msr(&mut self) -> bool {
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
