//! Records of the link whose header says what is not so: the vmm worker is behind a guest that may have taken it over.

use crate::bench::{Bench, State};
use crate::craft;
use crate::table::Verdict::{Answered, Dropped, Silence};
use crate::table::{Attack, Technique, Verdict, in_every_state};

/// A record with a frame behind these ten bytes.
fn record(header: [u8; 10], frame: &[u8]) -> Vec<u8> {
    let len = u32::try_from(10 + frame.len()).unwrap();
    [&len.to_le_bytes(), &header[..], frame].concat()
}

/// `struct virtio_net_hdr`: flags, kind of segmentation, and four numbers of 16 bits.
const HEADERS: [(&str, [u8; 10]); 16] = [
    ("nothing", [0; 10]),
    (
        "a sum that is not finished",
        [1, 0, 0, 0, 0, 0, 34, 0, 6, 0],
    ),
    (
        "a sum beyond the frame",
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ),
    (
        "a sum that begins at the frame's end",
        [1, 0, 0, 0, 0, 0, 68, 0, 0, 0],
    ),
    ("a sum over the addresses", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    (
        "segments of TCP, of a datagram",
        [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0],
    ),
    ("segments of nothing", [1, 1, 54, 0, 0, 0, 34, 0, 16, 0]),
    ("segments of one byte", [1, 1, 54, 0, 1, 0, 34, 0, 16, 0]),
    ("segments of IPv6", [1, 4, 74, 0, 0xb4, 5, 54, 0, 16, 0]),
    ("segments of UDP", [1, 3, 42, 0, 0xb4, 5, 34, 0, 6, 0]),
    ("segments of UDP, new", [1, 5, 42, 0, 0xb4, 5, 34, 0, 6, 0]),
    (
        "segments with congestion",
        [1, 0x81, 54, 0, 0xb4, 5, 34, 0, 16, 0],
    ),
    (
        "segments of an unknown kind",
        [1, 0x7f, 54, 0, 0xb4, 5, 34, 0, 16, 0],
    ),
    ("segments without a sum", [0, 1, 54, 0, 0xb4, 5, 0, 0, 0, 0]),
    (
        "headers longer than the frame",
        [1, 1, 0xff, 0xff, 0xb4, 5, 34, 0, 16, 0],
    ),
    ("all bits", [0xff; 10]),
];

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let ask = craft::to_resolver(
        5000,
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x04host\0\0\x01\0\x01",
    );
    let quic = craft::ipv4(
        [93, 184, 215, 14].into(),
        17,
        &craft::udp(5000, 443, &[0xc0; 100]),
    );
    let technique = |name: String, record, verdict: Verdict| {
        Technique::new("V13", name, Attack::Record(record), verdict)
    };
    let mut all = Vec::new();
    for (name, header) in HEADERS {
        let good = record(header, &ask);
        all.push(technique(
            format!("a query behind: {name}"),
            good,
            Answered(1),
        ));
        let bad = record(header, &quic);
        let dropped = Dropped(netproxy::DroppedFrame::Udp);
        all.push(technique(format!("QUIC behind: {name}"), bad, dropped));
    }
    let nothing = record([0; 10], &[]);
    let malformed = Dropped(netproxy::DroppedFrame::Malformed);
    all.push(technique(
        "a header and no frame".to_owned(),
        nothing,
        malformed.clone(),
    ));
    let jumbo = record([0; 10], &[0; 14 + 65535]);
    let spoofed = Dropped(netproxy::DroppedFrame::Spoofed);
    all.push(technique("the longest frame".to_owned(), jumbo, spoofed));
    let offloads = [4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff].to_vec();
    all.push(technique(
        "a driver that takes all offloads".to_owned(),
        offloads,
        Silence,
    ));
    // What follows in this state, and at the end of it, is checked by a guest that takes none.
    let none = [4, 0, 0, 0, 0, 0, 0, 0].to_vec();
    all.push(technique(
        "a driver that takes none".to_owned(),
        none,
        Silence,
    ));
    all
}

in_every_state!(techniques);

/// A length that no record has ends the link, and with it the network: it fails closed.
#[test]
fn what_is_no_record_ends_the_network() {
    let mut lengths: Vec<u32> = vec![0, 1, 3, 5, 9, 10 + 14 + 65535 + 1, 1 << 24, u32::MAX];
    lengths.extend((16..32).map(|bit| 1 << bit).filter(|len| *len > 65559));
    for len in lengths {
        let mut bench = Bench::in_state(State::Fresh);
        assert!(bench.guest.send_raw(&len.to_le_bytes()));
        // Nothing is seen until the link is closed.
        assert_eq!(bench.guest.until(|_| None::<()>), None);
        assert!(!bench.guest.turn(), "a record of {len} bytes");
        assert_eq!(bench.counts().queries, 0);
    }
}
