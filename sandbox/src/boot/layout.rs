//! The x86-64 guest-physical map: RAM, device windows, I/O ports and boot data.
//!
//! ```text
//! 0x0000_0000  RAM; boot data in the first 640 KiB, ACPI tables in 0xE_0000..0x10_0000
//! 0x0010_0000  RAM; kernel from here up, initial RAM disk at the upper end
//! 0xC000_0000  no RAM: room for windows below 4 GiB
//! 0xD000_0000  virtio-mmio windows
//! 0xFEC0_0000  I/O APIC; 0xFEE0_0000 local APICs; 0xFFFB_C000 pages that KVM keeps for itself
//! 0x1_0000_0000  RAM that did not fit below
//! ```

use hv_core::{GuestRam, RamRange};

use super::BootError;

/// Unit of guest page tables and of overlays, in bytes.
pub const PAGE: u64 = 4096;

/// RAM below 4 GiB ends here at the latest: a whole GiB is left for windows, which 32-bit ACPI
/// descriptors can name, and every RAM range stays a multiple of 1 GiB pages.
pub const LOW_RAM_LIMIT: u64 = 0xC000_0000;
/// RAM that does not fit below [`LOW_RAM_LIMIT`] starts here, at 4 GiB.
pub const HIGH_RAM: u64 = 0x1_0000_0000;

/// The first virtio-mmio window.
pub const DEVICE_WINDOWS: u64 = 0xD000_0000;
/// One past the last byte that a virtio-mmio window may have: the I/O APIC begins here.
pub const DEVICE_WINDOWS_END: u64 = 0xFEC0_0000;
/// Bytes of a virtio-mmio window: one page, so that each can be mapped or trapped alone.
pub const DEVICE_WINDOW_SIZE: u64 = 0x1000;

/// Global descriptor table.
pub(super) const GDT: u64 = 0x1000;
/// PVH start info, then the list of modules and the memory map that it points to.
pub(super) const START_INFO: u64 = 0x2000;
pub(super) const MODULES: u64 = 0x2100;
pub(super) const MEMORY_MAP: u64 = 0x2200;
/// `boot_params` of the 64-bit boot protocol.
pub(super) const ZERO_PAGE: u64 = 0x3000;
/// Identity page tables: one PML4, one PDPT, four page directories.
pub(super) const PAGE_TABLES: u64 = 0x4000;
/// The command line and its final NUL.
pub(super) const COMMAND_LINE: u64 = 0x1_0000;
/// The longest command line in bytes, without the NUL: x86 Linux keeps 2048.
pub const COMMAND_LINE_MAX: usize = 2047;

/// RAM ends here for a PC's operating system: the extended BIOS data area would follow.
pub(super) const CONVENTIONAL_END: u64 = 0x9_FC00;
/// ACPI tables: inside the area that a guest without our pointer scans for the RSDP (ACPI 5.2.5.1).
pub(super) const ACPI_TABLES: u64 = 0xE_0000;
/// Where a PC's processor lands when real-mode code jumps to the firmware, `F000:FFF0`; the ACPI
/// tables end before it.
pub(super) const RESET_VECTOR: u64 = 0xF_FFF0;
/// The lowest address of a kernel.
pub(super) const KERNEL_MIN: u64 = 0x10_0000;

/// First I/O port of the 16550 serial port (COM1).
pub const SERIAL_PORT: u16 = 0x3F8;
/// Ports of the serial port.
pub const SERIAL_PORTS: u8 = 8;
/// Interrupt line of the serial port.
pub const SERIAL_LINE: u32 = 4;
/// First I/O port of the real-time clock: index, then data.
pub const RTC_PORT: u16 = 0x70;
/// Ports of the real-time clock.
pub const RTC_PORTS: u8 = 2;
/// The keyboard controller's command port. ACPI says that there is no such controller; kernels
/// that ignore that still try [`KEYBOARD_RESET`] here to reset.
pub const KEYBOARD_PORT: u16 = 0x64;
/// The keyboard controller's command that pulses the reset line.
pub const KEYBOARD_RESET: u8 = 0xFE;
/// ACPI sleep control register, one byte (ACPI 4.8.3.7), at a port that no PC device has.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;
/// ACPI sleep status register, one byte: reads 0, writes are ignored.
pub const SLEEP_STATUS_PORT: u16 = 0x601;
/// ACPI reset register, one byte (ACPI 4.8.3.6).
pub const RESET_PORT: u16 = 0x602;
/// What the guest writes to [`RESET_PORT`] to reset.
pub const RESET_VALUE: u8 = 1;
/// Sleep type of the soft-off state: `\_S5`.
pub(super) const SLEEP_TYPE_OFF: u8 = 5;
/// What the guest writes to [`SLEEP_CONTROL_PORT`] to power off: type in bits 2-4, enable in bit 5.
pub const SLEEP_CONTROL_OFF: u8 = SLEEP_TYPE_OFF << 2 | 1 << 5;

/// Where `size` bytes of RAM lie: below the hole first, the rest from 4 GiB on.
#[must_use]
pub fn ram_ranges(size: u64) -> Vec<RamRange> {
    let low = size.min(LOW_RAM_LIMIT);
    [(0, low), (HIGH_RAM, size - low)]
        .into_iter()
        .filter(|&(_, size)| size > 0)
        .map(|(start, size)| RamRange { start, size })
        .collect()
}

/// One past the RAM that begins at 0, where the kernel and everything it is handed must lie.
pub(super) fn low_ram_end(ram: &GuestRam) -> Result<u64, BootError> {
    ram.ranges()
        .first()
        .filter(|range| range.start == 0 && range.size > KERNEL_MIN)
        .map(|range| range.size.min(LOW_RAM_LIMIT))
        .ok_or(BootError::RamLayout)
}

/// Rounds up to a whole page; `None` past the last one.
pub(super) fn page_up(address: u64) -> Option<u64> {
    address.checked_next_multiple_of(PAGE)
}

/// Rounds down to a whole page.
pub(super) fn page_down(address: u64) -> u64 {
    address - address % PAGE
}
