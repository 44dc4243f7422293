//! The ranges as data, one line each.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::AddressRefusal::{self, *};

/// Addresses whose first bits are those of `first`, and what they are.
pub(super) struct Range<A> {
    first: A,
    /// How many bits; at least one.
    length: u32,
    pub(super) refusal: AddressRefusal,
}

impl Range<Ipv4Addr> {
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        let differing = address.to_bits() ^ self.first.to_bits();
        differing.leading_zeros() >= self.length
    }
}

impl Range<Ipv6Addr> {
    pub(super) fn contains(&self, address: Ipv6Addr) -> bool {
        let differing = address.to_bits() ^ self.first.to_bits();
        differing.leading_zeros() >= self.length
    }
}

const fn v4(first: [u8; 4], length: u32, refusal: AddressRefusal) -> Range<Ipv4Addr> {
    let [a, b, c, d] = first;
    Range {
        first: Ipv4Addr::new(a, b, c, d),
        length,
        refusal,
    }
}

/// A range whose first address ends in 32 zeros, as all but one do.
const fn v6(first: [u16; 6], length: u32, refusal: AddressRefusal) -> Range<Ipv6Addr> {
    v6_whole(first, 0, length, refusal)
}

const fn v6_whole(
    first: [u16; 6],
    last: u16,
    length: u32,
    refusal: AddressRefusal,
) -> Range<Ipv6Addr> {
    let [a, b, c, d, e, f] = first;
    Range {
        first: Ipv6Addr::new(a, b, c, d, e, f, 0, last),
        length,
        refusal,
    }
}

/// The first one that has an address decides what is said of it.
pub(super) static V4: [Range<Ipv4Addr>; 20] = [
    v4([0, 0, 0, 0], 8, ThisHost),
    v4([10, 0, 0, 0], 8, Private),
    v4([100, 64, 0, 0], 10, CarrierShared),
    v4([127, 0, 0, 0], 8, Loopback),
    v4([168, 63, 129, 16], 32, CloudPlatform),
    v4([169, 254, 0, 0], 16, LinkLocal),
    v4([172, 16, 0, 0], 12, Private),
    v4([192, 0, 0, 0], 24, ProtocolAssignment),
    v4([192, 0, 2, 0], 24, Documentation),
    v4([192, 31, 196, 0], 24, As112),
    v4([192, 52, 193, 0], 24, MulticastTunnel),
    v4([192, 88, 99, 0], 24, SixToFourRelay),
    v4([192, 168, 0, 0], 16, Private),
    v4([192, 175, 48, 0], 24, As112),
    v4([198, 18, 0, 0], 15, Benchmarking),
    v4([198, 51, 100, 0], 24, Documentation),
    v4([203, 0, 113, 0], 24, Documentation),
    v4([224, 0, 0, 0], 4, Multicast),
    v4([255, 255, 255, 255], 32, Broadcast),
    v4([240, 0, 0, 0], 4, Reserved),
];

/// The only IPv6 range of which anything may be dialled.
pub(super) static GLOBAL: Range<Ipv6Addr> = v6([0x2000, 0, 0, 0, 0, 0], 3, NotGlobal);

/// The first one that has an address decides what is said of it.
pub(super) static V6: [Range<Ipv6Addr>; 22] = [
    v6([0, 0, 0, 0, 0, 0], 128, ThisHost),
    v6_whole([0, 0, 0, 0, 0, 0], 1, 128, Loopback),
    v6([0, 0, 0, 0, 0, 0], 96, V4Compatible),
    v6([0, 0, 0, 0, 0, 0xffff], 96, V4Mapped),
    v6([0, 0, 0, 0, 0xffff, 0], 96, V4Translated),
    v6([0x64, 0xff9b, 0, 0, 0, 0], 96, Nat64),
    v6([0x64, 0xff9b, 1, 0, 0, 0], 48, Nat64),
    v6([0x100, 0, 0, 0, 0, 0], 64, Discard),
    v6([0x100, 0, 0, 1, 0, 0], 64, Discard),
    v6([0x2001, 0, 0, 0, 0, 0], 32, Teredo),
    v6([0x2001, 2, 0, 0, 0, 0], 48, Benchmarking),
    v6([0x2001, 4, 0x112, 0, 0, 0], 48, As112),
    v6([0x2001, 0, 0, 0, 0, 0], 23, ProtocolAssignment),
    v6([0x2001, 0xdb8, 0, 0, 0, 0], 32, Documentation),
    v6([0x2002, 0, 0, 0, 0, 0], 16, SixToFour),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0], 48, As112),
    v6([0x3fff, 0, 0, 0, 0, 0], 20, Documentation),
    v6([0x5f00, 0, 0, 0, 0, 0], 16, SegmentRouting),
    v6([0xfc00, 0, 0, 0, 0, 0], 7, UniqueLocal),
    v6([0xfe80, 0, 0, 0, 0, 0], 10, LinkLocal),
    v6([0xfec0, 0, 0, 0, 0, 0], 10, SiteLocal),
    v6([0xff00, 0, 0, 0, 0, 0], 8, Multicast),
];
