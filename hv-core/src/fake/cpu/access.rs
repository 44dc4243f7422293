//! Ports and memory, as an instruction reaches them.

use super::{Cpu, Prefixes};
use crate::arch::x86_64::pieces;
use crate::fake::irq::{IOAPIC, IOAPIC_END};
use crate::{DoorbellSpace, VmIo};

impl Cpu {
    pub(super) const fn port(&self) -> u64 {
        self.state.registers.general.rdx & 0xffff
    }

    pub(super) fn port_write(&mut self, port: u64, width: usize, io: &dyn VmIo) {
        let bytes = self.general().rax.to_le_bytes();
        self.port_out(port, bytes.get(..width).unwrap_or(&[]), io);
    }

    fn port_out(&self, port: u64, data: &[u8], io: &dyn VmIo) {
        let rung = self.vm.inner().ring(DoorbellSpace::Pio, port, data);
        if !rung {
            io.pio_write(u16::try_from(port).unwrap_or(u16::MAX), data);
        }
    }

    pub(super) fn port_read(&mut self, port: u64, width: usize, io: &dyn VmIo) {
        let mut bytes = [0; 8];
        if let Some(data) = bytes.get_mut(..width) {
            io.pio_read(u16::try_from(port).unwrap_or(u16::MAX), data);
        }
        self.set_rax(u64::from_le_bytes(bytes), width);
    }

    /// One item of `INS` or `OUTS`; with a repeat prefix the instruction stays until RCX is 0.
    pub(super) fn string(&mut self, opcode: u8, prefixes: Prefixes, start: u64, io: &dyn VmIo) {
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
            self.general().rdi = self.general().rdi.wrapping_add(width as u64);
        } else {
            self.read(self.state.registers.general.rsi, data, io);
            self.port_out(port, data, io);
            self.general().rsi = self.general().rsi.wrapping_add(width as u64);
        }
    }

    pub(super) fn push(&mut self, value: u64, io: &dyn VmIo) {
        let rsp = self.general().rsp.wrapping_sub(8);
        self.general().rsp = rsp;
        self.write(rsp, &value.to_le_bytes(), io);
    }

    pub(super) fn pop(&mut self, io: &dyn VmIo) -> u64 {
        let rsp = self.general().rsp;
        self.general().rsp = rsp.wrapping_add(8);
        self.read_number(rsp, 8, io)
    }

    pub(super) fn read_number(&self, address: u64, width: usize, io: &dyn VmIo) -> u64 {
        let mut bytes = [0; 8];
        if let Some(data) = bytes.get_mut(..width) {
            self.read(address, data, io);
        }
        u64::from_le_bytes(bytes)
    }

    pub(super) fn read(&self, address: u64, data: &mut [u8], io: &dyn VmIo) {
        let (head, tail) = data.split_at_mut(in_first_page(address, data.len()));
        let second = address.wrapping_add(head.len() as u64);
        for (address, part) in [(address, head), (second, tail)] {
            let there = part.is_empty() || self.vm.inner().read(&self.vm, address, part);
            if !there {
                read_outside(io, address, part);
            }
        }
    }

    pub(super) fn write(&self, address: u64, data: &[u8], io: &dyn VmIo) {
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
