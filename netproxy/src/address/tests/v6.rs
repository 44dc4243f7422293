//! IPv6: what carries an IPv4 address, and the ranges of its own registry.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{AddressRefusal, Numbers, check, reference};

/// Each way to carry an IPv4 address within an IPv6 one: how it is called, and the address as text.
fn embeddings(address: Ipv4Addr) -> Vec<(&'static str, String)> {
    let [a, b, c, d] = address.octets();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let inverted = (!high, !low);
    vec![
        ("compatible", format!("::{high:x}:{low:x}")),
        ("compatible, dotted", format!("::{address}")),
        ("mapped", format!("::ffff:{high:x}:{low:x}")),
        ("mapped, dotted", format!("::FFFF:{address}")),
        (
            "mapped, in full",
            format!("0:0:0:0:0:ffff:{high:04x}:{low:04x}"),
        ),
        ("SIIT", format!("::ffff:0:{address}")),
        ("NAT64", format!("64:ff9b::{address}")),
        ("NAT64, hexadecimal", format!("64:ff9b::{high:x}:{low:x}")),
        ("local NAT64 /96", format!("64:ff9b:1::{address}")),
        // RFC 6052, section 2.2: bits 64 to 71 are skipped.
        (
            "local NAT64 /48",
            format!("64:ff9b:1:{high:x}:{c:x}:{d:x}00::"),
        ),
        (
            "local NAT64 /64",
            format!("64:ff9b:1:fffe:{a:x}:{b:02x}{c:02x}:{d:x}00:0"),
        ),
        ("6to4", format!("2002:{high:x}:{low:x}::1")),
        (
            "6to4, all the rest set",
            format!("2002:{high:x}:{low:x}:ffff:ffff:ffff:ffff:ffff"),
        ),
        (
            "Teredo server",
            format!("2001:0:{high:x}:{low:x}:8000:f227:f7f7:f7f7"),
        ),
        (
            "Teredo client",
            format!("2001:0:808:808:8000:f227:{:x}:{:x}", inverted.0, inverted.1),
        ),
        ("ISATAP", format!("2001:470:1:2:0:5efe:{address}")),
        (
            "ISATAP, unique",
            format!("2a00:1450:4001:81b:200:5efe:{address}"),
        ),
        ("ISATAP, link", format!("fe80::5efe:{address}")),
        ("ISATAP, private", format!("fd00::200:5efe:{address}")),
        ("ORCHID", format!("2001:20::{address}")),
        ("documentation", format!("2001:db8::{address}")),
    ]
}

/// Both ends of each special range, two addresses of its inside and its two neighbours; and some that everybody knows.
fn v4_samples() -> Vec<Ipv4Addr> {
    let mut numbers = Numbers(2);
    let mut samples = Vec::new();
    for (first, last) in reference::special() {
        let mut within = || {
            let offset = numbers.next() % (u64::from(last - first) + 1);
            first + u32::try_from(offset).unwrap()
        };
        samples.extend([within(), within(), first, last]);
        samples.extend([first.wrapping_sub(1), last.wrapping_add(1)]);
    }
    let known = ["169.254.169.254", "127.0.0.1", "8.8.8.8", "1.1.1.1"];
    samples.extend(known.map(|text| text.parse::<Ipv4Addr>().unwrap().to_bits()));
    samples.into_iter().map(Ipv4Addr::from_bits).collect()
}

#[test]
fn no_embedded_ipv4_address_passes() {
    let mut seen = HashSet::new();
    for v4 in v4_samples() {
        for (how, text) in embeddings(v4) {
            let address: Ipv6Addr = text.parse().unwrap();
            assert!(check(address.into()).is_err(), "{how}: {address} of {v4}");
            seen.insert(text);
        }
    }
    assert!(seen.len() >= 2_000, "{}", seen.len());
}

#[test]
fn what_only_looks_like_an_embedding_passes() {
    for address in [
        "2606:4700::ffff:7f00:1",
        "2606:4700::7f00:1",
        "2606:4700::1:5efe:7f00:1",
        "2606:4700::5efe:0:7f00:1",
        "2606:4700::100:5efe:7f00:1",
        "2003:7f00:1::",
        "2001:200:7f00:1::",
        "2400:64:ff9b::7f00:1",
    ] {
        assert_eq!(check(address.parse().unwrap()), Ok(()), "{address}");
    }
}

/// First and last address of each range, and what is said of both.
const RANGES: [(&str, &str, AddressRefusal); 25] = [
    ("::", "::", AddressRefusal::ThisHost),
    ("::1", "::1", AddressRefusal::Loopback),
    ("::2", "::ffff:ffff", AddressRefusal::V4Compatible),
    ("::ffff:0:0", "::ffff:ffff:ffff", AddressRefusal::V4Mapped),
    (
        "::ffff:0:0:0",
        "::ffff:0:ffff:ffff",
        AddressRefusal::V4Translated,
    ),
    ("64:ff9b::", "64:ff9b::ffff:ffff", AddressRefusal::Nat64),
    (
        "64:ff9b:1::",
        "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Nat64,
    ),
    ("100::", "100::ffff:ffff:ffff:ffff", AddressRefusal::Discard),
    (
        "100:0:0:1::",
        "100::1:ffff:ffff:ffff:ffff",
        AddressRefusal::Discard,
    ),
    (
        "2001::",
        "2001:0:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Teredo,
    ),
    (
        "2001:1::",
        "2001:1:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::ProtocolAssignment,
    ),
    (
        "2001:2::",
        "2001:2:0:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Benchmarking,
    ),
    (
        "2001:4:112::",
        "2001:4:112:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::As112,
    ),
    (
        "2001:10::",
        "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::ProtocolAssignment,
    ),
    (
        "2001:db8::",
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Documentation,
    ),
    (
        "2002::",
        "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::SixToFour,
    ),
    (
        "2620:4f:8000::",
        "2620:4f:8000:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::As112,
    ),
    (
        "3fff::",
        "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Documentation,
    ),
    (
        "4000::",
        "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::NotGlobal,
    ),
    (
        "5f00::",
        "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::SegmentRouting,
    ),
    (
        "5f01::",
        "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::NotGlobal,
    ),
    (
        "fc00::",
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::UniqueLocal,
    ),
    (
        "fe80::",
        "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::LinkLocal,
    ),
    (
        "fec0::",
        "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::SiteLocal,
    ),
    (
        "ff00::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        AddressRefusal::Multicast,
    ),
];

#[test]
fn every_ipv6_range_is_refused_by_its_name() {
    for (first, last, refusal) in RANGES {
        for text in [first, last] {
            assert_eq!(check(text.parse().unwrap()), Err(refusal), "{text}");
        }
    }
}

#[test]
fn beside_the_ranges_within_2000_3_addresses_pass() {
    for text in [
        "2000::",
        "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:200::",
        "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
        "2001:db9::",
        "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "2003::",
        "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
        "2620:4f:8001::",
        "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "3fff:1000::",
        "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ] {
        assert_eq!(check(text.parse().unwrap()), Ok(()), "{text}");
    }
    for text in ["1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::"] {
        assert_eq!(check(text.parse().unwrap()), Err(AddressRefusal::NotGlobal));
    }
}

#[test]
fn outside_of_2000_3_nothing_passes() {
    let mut numbers = Numbers(3);
    for _ in 0..200_000 {
        let bits = (u128::from(numbers.next()) << 64) | u128::from(numbers.next());
        let address = Ipv6Addr::from_bits(bits);
        let is_outside = address.octets()[0] & 0xe0 != 0x20;
        assert!(!is_outside || check(address.into()).is_err(), "{address}");
    }
}
