//! Registers and state of an x86-64 VM.

use serde::{Deserialize, Serialize};

/// General and system registers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Registers {
    /// The integer registers.
    pub general: GeneralRegisters,
    /// Segments, control registers and descriptor tables.
    pub system: SystemRegisters,
}

/// The integer registers (APM volume 1, section 2.3).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the registers' architectural names"
)]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
}

/// Segments, control registers and descriptor tables (APM volume 2, chapters 3 and 4).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the registers' architectural names"
)]
pub struct SystemRegisters {
    pub cs: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub ss: Segment,
    pub tr: Segment,
    pub ldt: Segment,
    pub gdt: DescriptorTable,
    pub idt: DescriptorTable,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
}

/// A segment register with its hidden part (APM volume 2, section 4.5).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Linear address of byte 0.
    pub base: u64,
    /// Last valid offset in bytes, after scaling by the granularity bit.
    pub limit: u32,
    /// The visible selector.
    pub selector: u16,
    /// Descriptor type (bits 0-3 of the access byte).
    pub kind: u8,
    /// Code or data (1) rather than system (0): bit S.
    pub code_or_data: bool,
    /// Privilege level, 0 to 3.
    pub dpl: u8,
    /// Bit P.
    pub present: bool,
    /// Bit AVL.
    pub available: bool,
    /// 64-bit code: bit L.
    pub long: bool,
    /// 32-bit default operand size: bit D/B.
    pub default_big: bool,
    /// Limit counted in 4 KiB: bit G.
    pub granularity: bool,
    /// The segment cannot be used (a null selector was loaded).
    pub unusable: bool,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct DescriptorTable {
    /// Linear address of entry 0.
    pub base: u64,
    /// Last valid offset in bytes.
    pub limit: u16,
}

/// DR0-DR3, DR6, DR7 (APM volume 2, section 13.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields are the registers' architectural names"
)]
pub struct DebugRegisters {
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
}

/// A model-specific register and its value.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct MsrValue {
    /// Its number, as in ECX of RDMSR.
    pub index: u32,
    /// Its 64 bits.
    pub value: u64,
}

/// Where a processor is in the multiprocessor start-up protocol.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum MpState {
    /// It executes.
    #[default]
    Running,
    /// It executed HLT.
    Halted,
    /// It has not had INIT yet.
    Uninitialized,
    /// It had INIT and waits for the start-up IPI.
    InitReceived,
    /// It had the start-up IPI and has not begun.
    SipiReceived,
}

/// Exceptions and interrupts that are pending or being delivered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct PendingEvents {
    /// An exception that is being delivered: vector and error code.
    pub exception: Option<(u8, Option<u32>)>,
    /// An external interrupt that is being delivered: its vector.
    pub interrupt: Option<u8>,
    /// Interrupts are held off by STI or MOV SS for one instruction (bit 0: MOV SS, bit 1: STI).
    pub shadow: u8,
    /// A non-maskable interrupt is being delivered.
    pub nmi_injected: bool,
    /// A non-maskable interrupt waits.
    pub nmi_pending: bool,
    /// Non-maskable interrupts are held off until IRET.
    pub nmi_masked: bool,
    /// The vector of a start-up IPI that was received.
    pub sipi_vector: u32,
}

/// Everything of an x86-64 vCPU that a guest could tell apart.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct VcpuState {
    /// General and system registers.
    pub registers: Registers,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// The XSAVE area in standard (not compacted) form (APM volume 2, section 11.5).
    pub xsave: Vec<u8>,
    /// Extended control registers: number and value.
    pub xcrs: Vec<(u32, u64)>,
    /// Model-specific registers, in the order in which they must be written back.
    pub msrs: Vec<MsrValue>,
    /// The local APIC's register page, 1024 bytes.
    pub lapic: Vec<u8>,
    /// Where it is in the start-up protocol.
    pub mp_state: MpState,
    /// Pending exceptions and interrupts.
    pub events: PendingEvents,
}

/// Everything of an x86-64 VM that is neither RAM nor a vCPU.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The paravirtual clock in nanoseconds.
    pub clock_ns: u64,
    /// Registers of the I/O APIC and, where there are any, of the two 8259s, as the backend lays
    /// them out; restored only by the same backend.
    pub irqchips: Vec<Vec<u8>>,
}
