//! How a Linux kernel gets into guest RAM, and how it finds its devices.
//!
//! [`load`] recognises the kernel by its content (64-bit ELF with a PVH entry, or bzImage), lays it
//! over RAM, writes the ACPI tables that announce processors, interrupt controller and devices, and
//! gives the boot processor's registers. Nothing on the way touches more of RAM than it fills; what
//! can be mapped from the file is not copied.
//!
//! The files and the command line are the operator's and trusted to be what they seem, but every
//! field of a header is checked, because a broken file must end in an error. RAM must be fresh:
//! what no file covers is left as it is, and must be zero.
//!
//! No compressed or signed containers are opened, no kernel is relocated, no PCI is described.
//!
//! References: PVH is Xen's "x86/HVM direct boot ABI", the 64-bit protocol is Linux's
//! `Documentation/arch/x86/boot.rst`, ACPI is version 6.5.

pub mod acpi;
mod error;
mod firmware;
mod initrd;
pub mod kernel;
pub mod layout;
mod memory_map;
mod processor;
mod source;
#[cfg(test)]
mod tests;
mod windows;

use std::fs::File;

use hv_core::arch::x86_64::Registers;
use hv_core::{GuestRam, IrqLayout};
use vm_memory::{Bytes as _, GuestAddress};

pub use error::BootError;
pub use source::ReadAt;
pub use windows::{AnnouncedDevice, DeviceWindows};

use initrd::Initrd;
use kernel::Kernel;
use layout::{COMMAND_LINE, COMMAND_LINE_MAX};

/// What to boot, and on what machine.
#[derive(Clone, Copy, Debug)]
pub struct BootSpec<'a> {
    /// The kernel: 64-bit ELF or bzImage. Parts of it stay mapped: it must not shrink while the VM
    /// lives.
    pub kernel: &'a File,
    /// The initial RAM disk, likewise.
    pub initrd: Option<&'a File>,
    /// The kernel's command line, without NUL, at most [`COMMAND_LINE_MAX`] bytes.
    pub command_line: &'a str,
    /// How many vCPUs the machine has, 1 to 255. A vCPU's local APIC has its index as identifier.
    pub vcpus: u32,
    /// The virtio-mmio devices.
    pub devices: &'a [AnnouncedDevice],
    /// The interrupt controller.
    pub irq: IrqLayout,
    /// Whether there is a serial port at [`layout::SERIAL_PORT`].
    pub serial: bool,
}

/// A kernel that is ready to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loaded {
    /// The boot vCPU's registers; all other vCPUs wait for their start-up interrupt.
    pub registers: Registers,
    /// One past the last guest-physical byte that the kernel needs before it manages memory itself.
    pub kernel_end: u64,
}

/// What a kernel is told by whoever loads it; the same for both boot protocols.
#[derive(Clone, Copy, Debug)]
struct HandOff {
    initrd: Option<Initrd>,
    /// Guest-physical address of the ACPI root pointer.
    rsdp: u64,
    /// Guest-physical address of the local APICs.
    lapic: u64,
}

/// Puts a kernel, its initial RAM disk, command line and ACPI tables into fresh RAM.
///
/// # Errors
/// See [`BootError`]. RAM may then be partly written and must not be used.
pub fn load(ram: &GuestRam, boot: &BootSpec<'_>) -> Result<Loaded, BootError> {
    let limit = layout::low_ram_end(ram)?;
    let kernel = Kernel::parse(boot.kernel)?;
    check_command_line(boot.command_line, kernel.command_line_max())?;
    kernel.place(ram, boot.kernel, limit)?;
    let room = kernel.end()..limit.min(kernel.initrd_limit());
    let initrd = boot
        .initrd
        .map(|file| initrd::place(ram, file, room))
        .transpose()?;
    let tables = acpi::Tables::build(boot)?;
    ram.write_slice(&tables.bytes, GuestAddress(tables.address))?;
    firmware::write_reset_vector(ram)?;
    // RAM is zero, so that the final NUL is there already.
    ram.write_slice(boot.command_line.as_bytes(), GuestAddress(COMMAND_LINE))?;
    let hand_off = HandOff {
        initrd,
        rsdp: tables.rsdp,
        lapic: acpi::lapic(boot.irq)?,
    };
    Ok(Loaded {
        registers: kernel.hand_over(ram, &hand_off)?,
        kernel_end: kernel.end(),
    })
}

fn check_command_line(line: &str, kernel_max: usize) -> Result<(), BootError> {
    let max = COMMAND_LINE_MAX.min(kernel_max);
    if line.len() > max || line.contains('\0') {
        return Err(BootError::CommandLine { max });
    }
    Ok(())
}
