//! The buses behind a VM's MMIO and port accesses.
//!
//! A [`BusBuilder`] collects windows and doorbells; [`BusBuilder::build`] freezes them, so that an
//! access is a binary search without a lock. The bus answers an access that nothing is at with
//! ones, drops such a write, and refuses overlapping windows when it is built, not when it is used.
//!
//! The *doorbell table* is the software form of [`hv_core::Doorbells`]: a write of the right width
//! and value at the right address signals the event, on hosts whose hypervisor cannot do it and for
//! writes that it did not take.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hv_core::{DoorbellSpace, Event, VmIo};

#[cfg(test)]
mod tests;

/// A device on a bus. Called on vCPU threads, by several at once; must not block, but for a driver's
/// reset of a virtio device, which waits for the host call that the device is in.
pub trait BusDevice: Send + Sync {
    /// A read of `data.len()` bytes (1, 2, 4 or 8) at `offset` in the device's window; fill all of it.
    fn read(&self, offset: u64, data: &mut [u8]);

    /// A write of `data` (1, 2, 4 or 8 bytes, little-endian) at `offset` in the device's window.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A bus that cannot be built as asked; the caller's mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The window is empty, or reaches past the end of its address space.
    #[error("bus window of {size:#x} bytes at {base:#x} is empty or leaves the address space")]
    Window {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
    /// Two windows share an address.
    #[error("bus window of {size:#x} bytes at {base:#x} overlaps another device's")]
    Overlap {
        /// First address.
        base: u64,
        /// Bytes.
        size: u64,
    },
}

struct Window {
    base: u64,
    size: u64,
    device: Arc<dyn BusDevice>,
}

impl Window {
    /// The offset of an access that lies wholly inside.
    fn offset(&self, address: u64, width: usize) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        let end = offset.checked_add(u64::try_from(width).ok()?)?;
        (end <= self.size).then_some(offset)
    }
}

struct Bell {
    address: u64,
    width: u8,
    value: Option<u64>,
    event: Event,
}

/// One address space: windows and doorbells, both sorted by address.
#[derive(Default)]
struct Space {
    windows: Vec<Window>,
    bells: Vec<Bell>,
}

impl Space {
    fn insert(&mut self, window: Window, limit: u64) -> Result<(), BusError> {
        let (base, size) = (window.base, window.size);
        let last = size.checked_sub(1).and_then(|size| base.checked_add(size));
        let Some(last) = last.filter(|last| *last <= limit) else {
            return Err(BusError::Window { base, size });
        };
        let at = self.windows.partition_point(|other| other.base < base);
        let after = self.windows.get(at).is_some_and(|next| next.base <= last);
        let before = at.checked_sub(1).and_then(|index| self.windows.get(index));
        if after || before.is_some_and(|other| base - other.base < other.size) {
            return Err(BusError::Overlap { base, size });
        }
        self.windows.insert(at, window);
        Ok(())
    }

    fn find(&self, address: u64, width: usize) -> Option<(&dyn BusDevice, u64)> {
        let after = self.windows.partition_point(|w| w.base <= address);
        let window = self.windows.get(after.checked_sub(1)?)?;
        Some((&*window.device, window.offset(address, width)?))
    }

    fn bell(&self, address: u64, data: &[u8]) -> Option<&Event> {
        let first = self.bells.partition_point(|bell| bell.address < address);
        let value = value_of(data);
        self.bells
            .get(first..)?
            .iter()
            .take_while(|bell| bell.address == address)
            .find(|bell| {
                usize::from(bell.width) == data.len() && bell.value.is_none_or(|v| v == value)
            })
            .map(|bell| &bell.event)
    }

    fn read(&self, address: u64, data: &mut [u8]) {
        match self.find(address, data.len()) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    fn write(&self, address: u64, data: &[u8]) {
        if let Some(event) = self.bell(address, data) {
            event.signal();
        } else if let Some((device, offset)) = self.find(address, data.len()) {
            device.write(offset, data);
        }
    }
}

/// A little-endian value of at most 8 bytes.
fn value_of(data: &[u8]) -> u64 {
    data.iter()
        .take(8)
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Collects what a [`Bus`] will consist of.
#[derive(Default)]
pub struct BusBuilder {
    mmio: Space,
    pio: Space,
}

impl BusBuilder {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `device` at `size` addresses from `base` on.
    ///
    /// # Errors
    /// The window is empty, leaves the address space or overlaps another (caller).
    pub fn insert(
        &mut self,
        space: DoorbellSpace,
        base: u64,
        size: u64,
        device: Arc<dyn BusDevice>,
    ) -> Result<(), BusError> {
        let window = Window { base, size, device };
        match space {
            DoorbellSpace::Mmio => self.mmio.insert(window, u64::MAX),
            DoorbellSpace::Pio => self.pio.insert(window, u64::from(u16::MAX)),
        }
    }

    /// Signals `event` on a write of `width` bytes with `value` (any value, when `None`) at
    /// `address`; such a write reaches no device. The first of several that fit is signalled.
    pub fn doorbell(
        &mut self,
        space: DoorbellSpace,
        address: u64,
        width: u8,
        value: Option<u64>,
        event: &Event,
    ) {
        let bells = match space {
            DoorbellSpace::Mmio => &mut self.mmio.bells,
            DoorbellSpace::Pio => &mut self.pio.bells,
        };
        let at = bells.partition_point(|bell| bell.address <= address);
        let event = event.clone();
        bells.insert(
            at,
            Bell {
                address,
                width,
                value,
                event,
            },
        );
    }

    /// The bus, immutable from now on.
    #[must_use]
    pub fn build(self) -> Bus {
        Bus {
            mmio: self.mmio,
            pio: self.pio,
            first_access: OnceLock::new(),
        }
    }
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusBuilder")
            .field("mmio", &self.mmio.windows.len())
            .field("pio", &self.pio.windows.len())
            .finish_non_exhaustive()
    }
}

/// A VM's MMIO and port buses.
pub struct Bus {
    mmio: Space,
    pio: Space,
    first_access: OnceLock<Instant>,
}

impl Bus {
    /// When the guest first touched a device or a port: it has begun to run. For the boot timeline.
    #[must_use]
    pub fn first_access(&self) -> Option<Instant> {
        self.first_access.get().copied()
    }

    fn accessed(&self) {
        self.first_access.get_or_init(Instant::now);
    }
}

impl VmIo for Bus {
    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.accessed();
        self.mmio.read(address, data);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.accessed();
        self.mmio.write(address, data);
    }

    fn pio_read(&self, port: u16, data: &mut [u8]) {
        self.accessed();
        self.pio.read(u64::from(port), data);
    }

    fn pio_write(&self, port: u16, data: &[u8]) {
        self.accessed();
        self.pio.write(u64::from(port), data);
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("mmio", &self.mmio.windows.len())
            .field("pio", &self.pio.windows.len())
            .field("first_access", &self.first_access)
            .finish()
    }
}
