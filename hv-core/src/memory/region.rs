//! A range of RAM with the host memory behind it.

use vm_memory::bitmap::BS;
use vm_memory::guest_memory::Result as AccessResult;
use vm_memory::{
    GuestAddress, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes, GuestUsize,
    MemoryRegionAddress, MmapRegion, VolatileMemory as _, VolatileSlice,
};

use super::{MemoryError, RamRange, reserve};

/// The size of the pages by which a host maps much memory at once, where it can.
const LARGE_PAGE: usize = 2 << 20;

/// RAM at a guest-physical address.
///
/// Host and guest addresses are equal modulo 2 MiB if the range begins at a multiple of that:
/// only then can host and hypervisor map large pages, which saves most faults of a starting guest.
#[derive(Debug)]
pub struct RamRegion {
    range: RamRange,
    /// The range, and what is before and behind it for its alignment.
    reserved: MmapRegion<()>,
    /// Where the range begins in what is reserved.
    offset: usize,
    size: usize,
}

impl RamRegion {
    /// Reserves zeroed memory, which comes from the host when it is first touched.
    pub(crate) fn new(range: RamRange) -> Result<Self, MemoryError> {
        let size = usize::try_from(range.size).map_err(|_| MemoryError::Layout)?;
        if size == 0 || range.start.checked_add(range.size).is_none() {
            return Err(MemoryError::Layout);
        }
        let slack = if size < LARGE_PAGE { 0 } else { LARGE_PAGE };
        let reserved = reserve(size.checked_add(slack).ok_or(MemoryError::Layout)?)?;
        let start = reserved.as_ptr().addr();
        let offset = match slack {
            0 => 0,
            _ => start.next_multiple_of(LARGE_PAGE) - start,
        };
        #[cfg(target_os = "linux")]
        super::prefer_large_pages(&reserved);
        Ok(Self {
            range,
            reserved,
            offset,
            size,
        })
    }

    /// Where it is in the guest.
    #[must_use]
    pub const fn range(&self) -> RamRange {
        self.range
    }

    /// The first byte in the host. Valid for the whole range as long as this region lives.
    #[must_use]
    pub fn host_address(&self) -> *mut u8 {
        self.reserved.as_ptr().wrapping_add(self.offset)
    }
}

impl GuestMemoryRegion for RamRegion {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.range.size
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.range.start)
    }

    fn bitmap(&self) -> BS<'_, ()> {}

    fn get_host_address(&self, address: MemoryRegionAddress) -> AccessResult<*mut u8> {
        let slice = self.get_slice(address, 1)?;
        Ok(slice.ptr_guard_mut().as_ptr())
    }

    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> AccessResult<VolatileSlice<'_, ()>> {
        let outside = || GuestMemoryError::InvalidBackendAddress;
        let offset = usize::try_from(offset.0).map_err(|_| outside())?;
        if offset.checked_add(count).is_none_or(|end| end > self.size) {
            return Err(outside());
        }
        Ok(self.reserved.get_slice(self.offset + offset, count)?)
    }
}

impl GuestMemoryRegionBytes for RamRegion {}
