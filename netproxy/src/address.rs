//! Which addresses may be dialled: public unicast, and none of the host's own.
//!
//! [`check`] follows the IANA special-purpose registries for IPv4 and IPv6 (RFC 6890) as of 2026, and is stricter than they are: their
//! globally reachable entries are anycast services of whatever network the host is in, so they are refused too, as is everything that
//! carries an IPv4 address within an IPv6 one, whichever it is.
//!
//! What it cannot know is a translation prefix that the host's network took out of its own public space (RFC 6052, section 2.2; 6rd):
//! such a prefix belongs into [`HostAddresses`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod host;
mod ranges;

pub use host::{HostAddresses, Subnet, SubnetError};

/// Why an address may not be dialled. The text names the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum AddressRefusal {
    /// `0.0.0.0/8` (RFC 791), `::` (RFC 4291).
    #[error("it is in 0.0.0.0/8 or is ::, which mean this host")]
    ThisHost,
    /// RFC 1918.
    #[error("it is in 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, which are private")]
    Private,
    /// RFC 6598.
    #[error("it is in 100.64.0.0/10, which carriers share")]
    CarrierShared,
    /// RFC 1122, RFC 4291.
    #[error("it is in 127.0.0.0/8 or is ::1, which loop back")]
    Loopback,
    /// Metadata services of clouds are here. RFC 3927, RFC 4291.
    #[error("it is in 169.254.0.0/16 or fe80::/10, which are of one link")]
    LinkLocal,
    /// Of them, 192.0.0.9 and 192.0.0.10 are anycast addresses of the nearest NAT. RFC 6890, RFC 7723, RFC 8155.
    #[error("it is in 192.0.0.0/24 or 2001::/23, which are for protocols")]
    ProtocolAssignment,
    /// RFC 5737, RFC 3849, RFC 9637.
    #[error("it is in a range for documentation")]
    Documentation,
    /// RFC 7534, RFC 7535.
    #[error("it is in 192.31.196.0/24, 192.175.48.0/24 or 2620:4f:8000::/48, which are AS112's")]
    As112,
    /// RFC 7450.
    #[error("it is in 192.52.193.0/24, which is for multicast tunnels")]
    MulticastTunnel,
    /// RFC 7526.
    #[error("it is in 192.88.99.0/24, which was for 6to4 relays")]
    SixToFourRelay,
    /// Synthetic addresses are here by default. RFC 2544, RFC 5180.
    #[error("it is in 198.18.0.0/15 or 2001:2::/48, which are for benchmarks")]
    Benchmarking,
    /// RFC 5771, RFC 4291.
    #[error("it is in 224.0.0.0/4 or ff00::/8, which are for multicast")]
    Multicast,
    /// RFC 1112.
    #[error("it is in 240.0.0.0/4, which is reserved")]
    Reserved,
    /// RFC 919.
    #[error("it is 255.255.255.255, which is for broadcasts")]
    Broadcast,
    /// In no registry, but the host's cloud answers there, with what is meant for the host.
    #[error("it is 168.63.129.16, which is the platform of the host's cloud")]
    CloudPlatform,
    /// RFC 4291, section 2.5.5.1.
    #[error("it is in ::/96, which carries an IPv4 address")]
    V4Compatible,
    /// RFC 4291, section 2.5.5.2.
    #[error("it is in ::ffff:0:0/96, which carries an IPv4 address")]
    V4Mapped,
    /// SIIT. RFC 2765, section 2.1.
    #[error("it is in ::ffff:0:0:0/96, which carries an IPv4 address")]
    V4Translated,
    /// RFC 6052, RFC 8215.
    #[error("it is in 64:ff9b::/96 or 64:ff9b:1::/48, which carry an IPv4 address")]
    Nat64,
    /// RFC 4380.
    #[error("it is in 2001::/32, which is for Teredo and carries an IPv4 address")]
    Teredo,
    /// RFC 3056.
    #[error("it is in 2002::/16, which is for 6to4 and carries an IPv4 address")]
    SixToFour,
    /// RFC 5214, section 6.1.
    #[error("its interface id is ISATAP's, which carries an IPv4 address")]
    Isatap,
    /// RFC 6666, RFC 9780.
    #[error("it is in 100::/64 or 100:0:0:1::/64, where everything is thrown away")]
    Discard,
    /// RFC 4193.
    #[error("it is in fc00::/7, which is private")]
    UniqueLocal,
    /// RFC 3879.
    #[error("it is in fec0::/10, which was of one site")]
    SiteLocal,
    /// RFC 9602.
    #[error("it is in 5f00::/16, which is for segment routing")]
    SegmentRouting,
    /// RFC 4291, section 2.5.4; IANA assigns unicast addresses from nowhere else.
    #[error("it is outside of 2000::/3, where the public addresses are")]
    NotGlobal,
    /// One of those that the caller of [`HostAddresses::new`] gave.
    #[error("it is the host's own, or of a network of its own")]
    HostOwn,
}

/// Whether `address` is public unicast, and so may be dialled as far as its bits say.
///
/// # Errors
///
/// Which range it is in.
pub fn check(address: IpAddr) -> Result<(), AddressRefusal> {
    let refusal = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    refusal.map_or(Ok(()), Err)
}

fn special_v4(address: Ipv4Addr) -> Option<AddressRefusal> {
    ranges::V4
        .iter()
        .find(|range| range.contains(address))
        .map(|range| range.refusal)
}

fn special_v6(address: Ipv6Addr) -> Option<AddressRefusal> {
    let listed = ranges::V6.iter().find(|range| range.contains(address));
    if let Some(range) = listed {
        return Some(range.refusal);
    }
    if !ranges::GLOBAL.contains(address) {
        return Some(AddressRefusal::NotGlobal);
    }
    is_isatap(address).then_some(AddressRefusal::Isatap)
}

/// Interface ids `0000:5efe:a.b.c.d` and, for an address that is unique, `0200:5efe:a.b.c.d`: a router that knows ISATAP sends on to the
/// IPv4 address.
fn is_isatap(address: Ipv6Addr) -> bool {
    let [.., high, low, _, _] = address.segments();
    matches!((high, low), (0 | 0x0200, 0x5efe))
}

#[cfg(test)]
mod tests;
