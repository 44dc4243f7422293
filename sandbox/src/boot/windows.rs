//! Hands out virtio-mmio windows and the interrupt lines that go with them.

use vm_allocator::{AddressAllocator, AllocPolicy, IdAllocator};

use super::BootError;
use super::layout::{DEVICE_WINDOW_SIZE, DEVICE_WINDOWS, DEVICE_WINDOWS_END, SERIAL_LINE};

/// The real-time clock's line on a PC. Ours raises none, but KVM's I/O APIC drops edges on this
/// pin while an earlier one has not been acknowledged, so no device gets it.
const RTC_LINE: u32 = 8;

/// A device as the guest is told of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AnnouncedDevice {
    /// Guest-physical address of its window.
    pub address: u64,
    /// Bytes of the window.
    pub size: u64,
    /// Its interrupt line: edge-triggered, active high, not shared.
    pub line: u32,
}

/// The windows and lines that are still free.
#[derive(Debug)]
pub struct DeviceWindows {
    addresses: AddressAllocator,
    lines: IdAllocator,
}

impl DeviceWindows {
    /// All windows, and the lines of a controller that has `lines` of them. Lines up to the serial
    /// port's stay with the devices that a PC's operating system expects there.
    ///
    /// # Errors
    /// The controller has too few lines (caller).
    pub fn new(lines: u32) -> Result<Self, BootError> {
        let last = lines.saturating_sub(1);
        Ok(Self {
            addresses: AddressAllocator::new(DEVICE_WINDOWS, DEVICE_WINDOWS_END - DEVICE_WINDOWS)
                .map_err(BootError::NoWindow)?,
            lines: IdAllocator::new(SERIAL_LINE + 1, last).map_err(BootError::NoWindow)?,
        })
    }

    /// The next window with its line.
    ///
    /// # Errors
    /// No window or line is left: the machine has too many devices (caller).
    pub fn allocate(&mut self) -> Result<AnnouncedDevice, BootError> {
        let line = self.line().map_err(BootError::NoWindow)?;
        let window = self
            .addresses
            .allocate(
                DEVICE_WINDOW_SIZE,
                DEVICE_WINDOW_SIZE,
                AllocPolicy::FirstMatch,
            )
            .map_err(BootError::NoWindow)?;
        Ok(AnnouncedDevice {
            address: window.start(),
            size: window.len(),
            line,
        })
    }

    fn line(&mut self) -> vm_allocator::Result<u32> {
        match self.lines.allocate_id()? {
            RTC_LINE => self.lines.allocate_id(),
            line => Ok(line),
        }
    }
}
