//! Decoding and executing. Encodings: APM volume 3. An instruction that is not one of those that
//! programs use is reported, never guessed.

use super::trap::exception;
use super::{Cpu, Flow, INTERRUPTS, Prefixes, SHADOW_STI, ZERO};
use crate::VmIo;
use crate::arch::x86_64::MpState;

impl Cpu {
    /// Delivers a pending interrupt or executes one instruction.
    pub(in crate::fake) fn step(&mut self, io: &dyn VmIo) -> Flow {
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
        let base = self.state.registers.system.cs.base;
        let address = base.wrapping_add(self.general().rip);
        let mut byte = [0];
        self.general().rip = self.general().rip.wrapping_add(1);
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
    pub(super) fn set_rax(&mut self, value: u64, width: usize) {
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
}
