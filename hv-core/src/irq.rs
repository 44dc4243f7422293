//! Interrupt delivery into a VM.

use crate::Result;

/// Where the interrupt controller's windows are and how many lines it has; chosen by the caller of
/// [`crate::Draft::finish`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IrqPlan {
    /// Local APICs and one I/O APIC at the architectural addresses.
    X86_64,
}

/// The interrupt controller as the guest must be told of it (ACPI MADT, FDT).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum IrqLayout {
    /// Local APICs and one I/O APIC. Lines are global system interrupts from 0.
    X86_64 {
        /// Guest-physical address of the local APIC window (4 KiB).
        lapic: u64,
        /// Guest-physical address of the I/O APIC window (4 KiB).
        ioapic: u64,
        /// Number of I/O APIC pins, hence of lines.
        lines: u32,
    },
}

/// A message-signalled interrupt: what a PCI function would write, and where.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Msi {
    /// Address of the write (x86: `0xfee0_0000` and the destination).
    pub address: u64,
    /// Data of the write (x86: vector and delivery mode).
    pub data: u32,
}

/// The interrupt controller of a VM. Any thread may call it at any time.
pub trait IrqChip: Send + Sync {
    /// Drives a line. Edge-triggered guests see the change from low to high.
    ///
    /// # Errors
    /// The line does not exist (caller), or the hypervisor refused.
    fn set_line(&self, line: u32, high: bool) -> Result<()>;

    /// Raises and lowers a line: one edge.
    ///
    /// # Errors
    /// As [`IrqChip::set_line`].
    fn pulse(&self, line: u32) -> Result<()> {
        self.set_line(line, true)?;
        self.set_line(line, false)
    }

    /// Delivers a message-signalled interrupt.
    ///
    /// # Errors
    /// The address is not one of an interrupt controller (caller), or the hypervisor refused.
    fn msi(&self, msi: Msi) -> Result<()>;

    /// What the guest must be told of the controller.
    fn layout(&self) -> IrqLayout;
}
