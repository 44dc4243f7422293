//! Guest RAM and other host memory that a guest can be given.
//!
//! RAM is a `vm-memory` map: every access is bounds-checked and volatile, because the guest may
//! change any byte at any time. This module adds what `vm-memory` leaves open: memory that costs
//! nothing until it is touched, and parts of a file laid over RAM copy-on-write, so that a kernel's
//! segments need not be copied.

#![cfg_attr(
    unix,
    expect(unsafe_code, reason = "maps files over RAM that this module owns")
)]

mod region;

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use vm_memory::{GuestMemoryBackend as _, GuestRegionCollection, MmapRegion};

pub use self::region::RamRegion;

/// A failure to make or fill host memory for a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// The host did not give the memory.
    #[error("the host has no {bytes} bytes of address space for guest memory")]
    Allocate {
        /// How much was asked for.
        bytes: usize,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The ranges overlap, are empty, or do not fit an address.
    #[error("guest memory ranges overlap, are empty or too large")]
    Layout,
    /// A file cannot be laid over this part of RAM.
    #[error("{bytes} bytes at {address:#x} are not whole pages of guest RAM")]
    Overlay {
        /// Guest-physical address of the first byte.
        address: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// The host could not map the file.
    #[error("cannot map the file into guest memory")]
    MapFile(#[source] io::Error),
}

/// A range of guest-physical RAM.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RamRange {
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// A VM's RAM. Clones are handles on the same memory, which lives as long as any of them.
///
/// Dereferences to `vm-memory`'s map, whose `Bytes` and `GuestMemory` traits read and write it.
#[derive(Clone, Debug)]
pub struct GuestRam(Arc<GuestRegionCollection<RamRegion>>);

impl GuestRam {
    /// Reserves RAM at `ranges`; pages come from the host when they are first touched.
    ///
    /// # Errors
    /// The ranges overlap, are empty or too large (caller); the host gives no address space.
    pub fn new(ranges: &[RamRange]) -> Result<Self, MemoryError> {
        let regions = ranges
            .iter()
            .map(|&range| RamRegion::new(range))
            .collect::<Result<Vec<_>, _>>()?;
        let map = GuestRegionCollection::from_regions(regions).map_err(|_| MemoryError::Layout)?;
        Ok(Self(Arc::new(map)))
    }

    /// The ranges, rising.
    #[must_use]
    pub fn ranges(&self) -> Vec<RamRange> {
        self.regions().map(RamRegion::range).collect()
    }

    /// The ranges with the host memory behind each, for a backend that maps them.
    pub fn regions(&self) -> impl Iterator<Item = &RamRegion> {
        self.0.iter()
    }

    /// Total bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ranges().iter().map(|range| range.size).sum()
    }

    /// Lays `bytes` bytes of `file`, from `offset` on, over RAM at `address`, copy-on-write: the
    /// guest sees the file's content, its writes stay in RAM, and pages it only reads are shared
    /// with the host's page cache.
    ///
    /// The file must neither shrink nor be written while the VM lives: an access to pages that it no
    /// longer has kills this process, and whether the guest sees a write is up to the host.
    ///
    /// Returns false when this host cannot do that, so that the caller copies instead.
    ///
    /// # Errors
    /// `address`, `offset`, `bytes` or the start of the range of RAM is not a multiple of the host's
    /// page size, or it is not all in one range of RAM (caller); the host refused to map.
    #[cfg(unix)]
    pub fn overlay_file(
        &self,
        address: u64,
        file: &File,
        offset: u64,
        bytes: u64,
    ) -> Result<bool, MemoryError> {
        use rustix::mm::{MapFlags, ProtFlags, mmap};
        use vm_memory::GuestAddress;
        let outside = MemoryError::Overlay { address, bytes };
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
        let aligned = [address, offset, bytes]
            .iter()
            .all(|value| value % page == 0);
        let length = usize::try_from(bytes).unwrap_or(0);
        if !aligned || length == 0 {
            return Err(outside);
        }
        let Ok(slice) = self.0.get_slice(GuestAddress(address), length) else {
            return Err(outside);
        };
        let host = slice.ptr_guard_mut().as_ptr();
        // A range that begins inside a page puts aligned guest addresses at others of the host.
        if u64::try_from(host.addr()).map_or(true, |host| host % page != 0) {
            return Err(outside);
        }
        // SAFETY: `get_slice` proved that `host..host + length` lies inside one mapping that this
        // `GuestRam` owns, and both ends are page aligned, so MAP_FIXED replaces pages of that
        // mapping only. All access to RAM is volatile through `vm-memory`, so no reference to the
        // replaced pages exists; the region's owner unmaps the whole range, these pages included.
        unsafe {
            mmap(
                host.cast(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                file,
                offset,
            )
        }
        .map_err(|errno| MemoryError::MapFile(errno.into()))?;
        Ok(true)
    }

    /// See the Unix form: this host cannot lay a file over memory, so nothing is done.
    ///
    /// # Errors
    /// None here.
    #[cfg(not(unix))]
    pub fn overlay_file(
        &self,
        _address: u64,
        _file: &File,
        _offset: u64,
        _bytes: u64,
    ) -> Result<bool, MemoryError> {
        Ok(false)
    }
}

impl Deref for GuestRam {
    type Target = GuestRegionCollection<RamRegion>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Host memory that is not RAM but can be mapped into a guest ([`crate::GuestMap::map`]).
#[derive(Debug)]
pub struct HostMemory(MmapRegion<()>);

impl HostMemory {
    /// Reserves zeroed memory of `bytes` bytes.
    ///
    /// # Errors
    /// The host gives no address space.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        let size = usize::try_from(bytes).map_err(|_| MemoryError::Layout)?;
        reserve(size).map(Self)
    }
}

impl Deref for HostMemory {
    type Target = MmapRegion<()>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Zeroed memory of `size` bytes, which comes from the host when it is first touched.
#[cfg(unix)]
fn reserve(size: usize) -> Result<MmapRegion<()>, MemoryError> {
    use rustix::mm::{MapFlags, ProtFlags};
    let bits = |value: u32| i32::try_from(value).unwrap_or(0);
    let protection = bits((ProtFlags::READ | ProtFlags::WRITE).bits());
    let flags = bits((MapFlags::PRIVATE | MapFlags::NORESERVE).bits()) | libc_map_anonymous();
    MmapRegion::build(None, size, protection, flags).map_err(|error| MemoryError::Allocate {
        bytes: size,
        source: io::Error::other(error.to_string()),
    })
}

/// Asks for large pages on a host that gives them to those who ask.
#[cfg(target_os = "linux")]
fn prefer_large_pages(memory: &MmapRegion<()>) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the range is the mapping that `memory` owns, and this advice never changes its content.
    // A host without large pages refuses, and nothing is lost.
    let _ = unsafe { madvise(memory.as_ptr().cast(), memory.size(), Advice::LinuxHugepage) };
}

/// `MAP_ANONYMOUS`, which rustix keeps to itself.
#[cfg(unix)]
const fn libc_map_anonymous() -> i32 {
    if cfg!(any(target_os = "macos", target_os = "ios")) {
        0x1000
    } else {
        0x20
    }
}

#[cfg(not(unix))]
fn reserve(size: usize) -> Result<MmapRegion<()>, MemoryError> {
    MmapRegion::new(size).map_err(|source| MemoryError::Allocate {
        bytes: size,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use vm_memory::{Bytes as _, GuestAddress};

    const MIB: u64 = 1 << 20;

    fn two_ranges() -> GuestRam {
        GuestRam::new(&[
            RamRange {
                start: 0,
                size: MIB,
            },
            RamRange {
                start: 4 * MIB,
                size: MIB,
            },
        ])
        .unwrap()
    }

    #[test]
    fn reads_back_what_was_written_and_refuses_the_hole() {
        let ram = two_ranges();
        ram.write_obj(0x1122_3344_u32, GuestAddress(4 * MIB))
            .unwrap();
        assert_eq!(
            ram.read_obj::<u32>(GuestAddress(4 * MIB)).unwrap(),
            0x1122_3344
        );
        assert!(ram.write_obj(0_u8, GuestAddress(MIB)).is_err());
        assert!(ram.read_obj::<u64>(GuestAddress(MIB - 4)).is_err());
        assert_eq!(ram.size(), 2 * MIB);
    }

    #[test]
    fn large_ranges_are_aligned_alike_in_host_and_guest() {
        let range = RamRange {
            start: 4 * MIB,
            size: 2 * MIB + 4096,
        };
        let ram = GuestRam::new(&[range]).unwrap();
        let region = ram.regions().next().unwrap();
        assert_eq!(region.host_address().addr() % (2 << 20), 0);
        assert_eq!(region.range(), range);
        let last = GuestAddress(range.start + range.size - 1);
        ram.write_obj(7_u8, last).unwrap();
        assert_eq!(ram.read_obj::<u8>(last).unwrap(), 7);
        assert!(ram.write_obj(7_u16, last).is_err());
        assert!(ram.get_slice(last, 2).is_err());
    }

    #[test]
    fn layout_mistakes_are_refused() {
        let range = |start, size| RamRange { start, size };
        for ranges in [
            vec![range(0, MIB), range(MIB / 2, MIB)],
            vec![range(u64::MAX - 4095, MIB)],
            vec![],
        ] {
            assert!(GuestRam::new(&ranges).is_err(), "{ranges:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn overlay_shows_the_file_and_keeps_writes_off_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 3 * 4096]).unwrap();
        let ram = two_ranges();
        assert!(ram.overlay_file(0x2000, &file, 4096, 2 * 4096).unwrap());
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x3fff)).unwrap(), 7);
        assert_eq!(ram.read_obj::<u8>(GuestAddress(0x4000)).unwrap(), 0);
        ram.write_obj(9_u8, GuestAddress(0x2000)).unwrap();
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 4096).unwrap();
        assert_eq!(
            (byte, ram.read_obj::<u8>(GuestAddress(0x2000)).unwrap()),
            ([7], 9)
        );
    }

    #[cfg(unix)]
    #[test]
    fn overlay_refuses_ram_that_begins_inside_a_page() {
        let file = tempfile::tempfile().unwrap();
        let ram = GuestRam::new(&[RamRange {
            start: 0x800,
            size: MIB,
        }])
        .unwrap();
        for address in [0x800, 0x1000] {
            let refused = ram.overlay_file(address, &file, 0, 4096);
            let refused_as_ours = matches!(refused, Err(MemoryError::Overlay { .. }));
            assert!(refused_as_ours, "{address:#x}: {refused:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn overlay_refuses_what_is_not_whole_pages_of_ram() {
        let file = tempfile::tempfile().unwrap();
        let ram = two_ranges();
        for (address, offset, bytes) in [
            (1, 0, 4096),
            (0, 1, 4096),
            (0, 0, 1),
            (0, 0, 0),
            (MIB - 4096, 0, 8192),
            (2 * MIB, 0, 4096),
            (u64::MAX - 4095, 0, 4096),
        ] {
            assert!(
                ram.overlay_file(address, &file, offset, bytes).is_err(),
                "{address:#x}"
            );
        }
    }
}
