//! What the guest is told of RAM: the list that PVH and the PC's E820 call share.

use hv_core::GuestRam;

use super::layout::{CONVENTIONAL_END, KERNEL_MIN};

/// What a range of guest-physical memory is for (ACPI 15.1, table 15.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub(super) enum Kind {
    Ram = 1,
    Reserved = 2,
}

/// One entry of the map.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) kind: Kind,
}

/// The map of `ram`, rising: all of it is usable but the part below 1 MiB that a PC's operating
/// system never takes for RAM, where the ACPI tables are. RAM begins at 0 and is larger than 1 MiB.
pub(super) fn entries(ram: &GuestRam) -> Vec<Entry> {
    let span = |address, end, kind| Entry {
        address,
        size: end - address,
        kind,
    };
    let mut entries = vec![
        span(0, CONVENTIONAL_END, Kind::Ram),
        span(CONVENTIONAL_END, KERNEL_MIN, Kind::Reserved),
    ];
    entries.extend(ram.ranges().iter().map(|range| {
        let start = range.start.max(KERNEL_MIN);
        span(start, range.start + range.size, Kind::Ram)
    }));
    entries
}
