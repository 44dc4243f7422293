//! State of a VM as plain data, one variant an architecture.

use serde::{Deserialize, Serialize};

use crate::arch::x86_64;

/// General and system registers of a vCPU.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Registers {
    /// Of an x86-64 vCPU.
    X86_64(Box<x86_64::Registers>),
}

/// Everything of a vCPU that a guest could tell apart.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VcpuState {
    /// Of an x86-64 vCPU.
    X86_64(Box<x86_64::VcpuState>),
}

/// Everything of a VM that is neither RAM nor a vCPU.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PartitionState {
    /// Of an x86-64 VM.
    X86_64(Box<x86_64::PartitionState>),
}
