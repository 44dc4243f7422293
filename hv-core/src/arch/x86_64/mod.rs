//! x86-64: registers and state as plain data, and the CPUID and MSR policy.
//!
//! References are to the AMD64 Architecture Programmer's Manual (APM) and the Intel SDM.

mod access;
#[cfg(any(feature = "fake", feature = "conformance"))]
pub mod asm;
pub mod cpuid;
pub mod msr;
mod registers;

pub use access::pieces;

pub use registers::{
    DebugRegisters, DescriptorTable, GeneralRegisters, MpState, MsrValue, PartitionState,
    PendingEvents, Registers, Segment, SystemRegisters, VcpuState,
};
