//! An assembler for tiny bare-metal guests: exactly the instructions that tests need, no more.
//!
//! A program runs in long mode with memory mapped one to one. Every operation loads the registers it
//! needs, so operations can be put together freely; R12 counts loops. Encodings: APM volume 3.
//!
//! The fake hypervisor interprets the same bytes, so one program runs on both.

#[cfg(test)]
mod tests;

/// Width of an access in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Width {
    /// One byte.
    W1,
    /// Two bytes.
    W2,
    /// Four bytes.
    W4,
    /// Eight bytes; memory only.
    W8,
}

impl Width {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::W1, Self::W2, Self::W4, Self::W8];
    /// Those that an I/O port takes.
    pub const PORT: [Self; 3] = [Self::W1, Self::W2, Self::W4];

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::W1 => 1,
            Self::W2 => 2,
            Self::W4 => 4,
            Self::W8 => 8,
        }
    }

    /// `byte` with the prefix that selects the width; `byte` is the opcode for one byte, and the
    /// next higher one is that for the others.
    fn opcode(self, byte: u8) -> Vec<u8> {
        match self {
            Self::W1 => vec![byte],
            Self::W2 => vec![0x66, byte + 1],
            Self::W4 => vec![byte + 1],
            Self::W8 => vec![0x48, byte + 1],
        }
    }
}

/// A place in a [`Program`] to jump back to.
#[derive(Clone, Copy, Debug)]
pub struct Label(usize);

/// Numbers of the local APIC's registers as MSRs (Intel SDM volume 3, table 11-6).
mod x2apic {
    pub(super) const EOI: u32 = 0x80b;
    pub(super) const SPURIOUS: u32 = 0x80f;
    pub(super) const COMMAND: u32 = 0x830;
}

/// Machine code under construction.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Program(Vec<u8>);

impl Program {
    /// An empty program.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The machine code.
    #[must_use]
    pub fn code(&self) -> &[u8] {
        &self.0
    }

    /// Appends bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Writes `value` to a port.
    pub fn out(&mut self, port: u16, width: Width, value: u32) -> &mut Self {
        self.edx(port.into()).eax(value);
        self.raw(&width.opcode(0xee))
    }

    /// Writes RAX to a port.
    pub fn out_rax(&mut self, port: u16, width: Width) -> &mut Self {
        self.edx(port.into()).raw(&width.opcode(0xee))
    }

    /// Reads a port into RAX, whose other bits are cleared.
    pub fn input(&mut self, port: u16, width: Width) -> &mut Self {
        self.edx(port.into()).clear_rax();
        self.raw(&width.opcode(0xec))
    }

    /// Writes `count` items at `address` to a port: `REP OUTS`.
    pub fn out_string(&mut self, port: u16, width: Width, address: u64, count: u64) -> &mut Self {
        self.edx(port.into()).wide(&[0x48, 0xbe], address);
        self.wide(&[0x48, 0xb9], count).raw(&[0xfc, 0xf3]);
        self.raw(&width.opcode(0x6e))
    }

    /// Reads `count` items from a port to `address`: `REP INS`.
    pub fn in_string(&mut self, port: u16, width: Width, address: u64, count: u64) -> &mut Self {
        self.edx(port.into()).wide(&[0x48, 0xbf], address);
        self.wide(&[0x48, 0xb9], count).raw(&[0xfc, 0xf3]);
        self.raw(&width.opcode(0x6c))
    }

    /// Writes `value` to memory.
    pub fn store(&mut self, address: u64, width: Width, value: u64) -> &mut Self {
        self.wide(&[0x48, 0xb8], value).store_rax(address, width)
    }

    /// Writes RAX to memory.
    pub fn store_rax(&mut self, address: u64, width: Width) -> &mut Self {
        self.rbx(address).raw(&width.opcode(0x88)).raw(&[0x03])
    }

    /// Reads memory into RAX, whose other bits are cleared.
    pub fn load(&mut self, address: u64, width: Width) -> &mut Self {
        self.rbx(address).clear_rax();
        self.raw(&width.opcode(0x8a)).raw(&[0x03])
    }

    /// Adds one to the eight bytes at `address`.
    pub fn increment(&mut self, address: u64) -> &mut Self {
        self.rbx(address).raw(&[0x48, 0xff, 0x03])
    }

    /// Reads a port of one byte until it is not 0.
    pub fn wait_port(&mut self, port: u16) -> &mut Self {
        let start = self.label();
        self.input(port, Width::W1).raw(&[0x84, 0xc0]); // TEST AL, AL
        self.jump_with(&[0x0f, 0x84], start) // JZ
    }

    /// Does `body` `count` times, at least once. Loops do not nest.
    pub fn repeat(&mut self, count: u64, body: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.wide(&[0x49, 0xbc], count);
        let start = self.label();
        body(self);
        self.raw(&[0x49, 0xff, 0xcc]); // DEC R12
        self.jump_with(&[0x0f, 0x85], start) // JNZ
    }

    /// The present place.
    #[must_use]
    pub const fn label(&self) -> Label {
        Label(self.0.len())
    }

    /// Goes on at `label`.
    pub fn jump(&mut self, label: Label) -> &mut Self {
        self.jump_with(&[0xe9], label)
    }

    /// Does nothing, for ever, without leaving the guest.
    pub fn spin(&mut self) -> &mut Self {
        let here = self.label();
        self.jump(here)
    }

    /// Lets interrupts in.
    pub fn enable_interrupts(&mut self) -> &mut Self {
        self.raw(&[0xfb])
    }

    /// Keeps interrupts out.
    pub fn disable_interrupts(&mut self) -> &mut Self {
        self.raw(&[0xfa])
    }

    /// Waits for an interrupt.
    pub fn halt(&mut self) -> &mut Self {
        self.raw(&[0xf4])
    }

    /// Lets interrupts in and waits for them, for ever.
    pub fn serve_interrupts(&mut self) -> &mut Self {
        self.enable_interrupts();
        let start = self.label();
        self.halt().jump(start)
    }

    /// An interrupt handler: `body`, end of interrupt, return.
    pub fn handler(&mut self, body: impl FnOnce(&mut Self) -> &mut Self) -> &mut Self {
        self.raw(&[0x50, 0x51, 0x52, 0x53]); // PUSH RAX, RCX, RDX, RBX
        body(self);
        self.write_msr(x2apic::EOI, 0);
        self.raw(&[0x5b, 0x5a, 0x59, 0x58, 0x48, 0xcf]) // POP ..., IRETQ
    }

    /// Switches the local APIC on, which has to be in x2APIC mode.
    pub fn enable_apic(&mut self) -> &mut Self {
        self.write_msr(x2apic::SPURIOUS, 0x1ff)
    }

    /// Sends an interrupt to the processor `target`.
    pub fn send_ipi(&mut self, target: u32, vector: u8) -> &mut Self {
        self.command(target, 0x4000 | u32::from(vector))
    }

    /// Starts the processor `target` at `page * 4096` in real mode.
    pub fn start_processor(&mut self, target: u32, page: u8) -> &mut Self {
        self.command(target, 0x4500)
            .command(target, 0x4600 | u32::from(page))
    }

    fn command(&mut self, target: u32, low: u32) -> &mut Self {
        self.write_msr(x2apic::COMMAND, u64::from(target) << 32 | u64::from(low))
    }

    /// Writes a model-specific register.
    pub fn write_msr(&mut self, index: u32, value: u64) -> &mut Self {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.narrow(0xb9, index)
            .eax(u32::from_le_bytes([a, b, c, d]))
            .edx(u32::from_le_bytes([e, f, g, h]));
        self.raw(&[0x0f, 0x30])
    }

    /// Reads a model-specific register into EDX and EAX.
    pub fn read_msr(&mut self, index: u32) -> &mut Self {
        self.narrow(0xb9, index).raw(&[0x0f, 0x32])
    }

    /// Calls the hypervisor with `number`.
    pub fn hypercall(&mut self, number: u32) -> &mut Self {
        self.eax(number).raw(&[0x0f, 0x01, 0xc1])
    }

    /// An invalid instruction; without a handler table, a triple fault.
    pub fn invalid(&mut self) -> &mut Self {
        self.raw(&[0x0f, 0x0b])
    }

    /// Writes the byte `value` to a port below 256 and halts, in a form that means the same in real
    /// mode: for a processor that was just started.
    pub fn real_mode_out(&mut self, port: u8, value: u8) -> &mut Self {
        self.raw(&[0xb0, value, 0xe6, port]).halt()
    }

    fn eax(&mut self, value: u32) -> &mut Self {
        self.narrow(0xb8, value)
    }

    fn edx(&mut self, value: u32) -> &mut Self {
        self.narrow(0xba, value)
    }

    fn rbx(&mut self, value: u64) -> &mut Self {
        self.wide(&[0x48, 0xbb], value)
    }

    fn clear_rax(&mut self) -> &mut Self {
        self.raw(&[0x31, 0xc0])
    }

    fn narrow(&mut self, opcode: u8, value: u32) -> &mut Self {
        self.raw(&[opcode]).raw(&value.to_le_bytes())
    }

    fn wide(&mut self, opcode: &[u8], value: u64) -> &mut Self {
        self.raw(opcode).raw(&value.to_le_bytes())
    }

    fn jump_with(&mut self, opcode: &[u8], label: Label) -> &mut Self {
        self.raw(opcode);
        // Backwards over less than 2 GiB: the distance from the end of the four bytes.
        let distance = u32::try_from(self.0.len() + 4 - label.0).unwrap_or(0);
        self.raw(&distance.wrapping_neg().to_le_bytes())
    }
}
