//! Questions to the resolver: nothing the guest asks may cause a question outside.

use crate::bench::Bench;
use crate::table::{Attack, Technique, Verdict, in_every_state};

const A: u16 = 1;
const FORMERR: Verdict = Verdict::Code(1, 0);
const REFUSED: Verdict = Verdict::Code(5, 0);
const NO_DATA: Verdict = Verdict::Code(0, 0);
const FOUND: Verdict = Verdict::Code(0, 1);

/// A query with these labels.
fn query(labels: &[&[u8]], kind: u16, class: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label);
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend(class.to_be_bytes());
    query
}

fn ask(name: &str, kind: u16) -> Vec<u8> {
    let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
    query(&labels, kind, 1)
}

/// The query for `a.host`, which is allowed, with some bytes changed.
fn changed(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut query = ask("a.host", A);
    for (at, byte) in changes {
        query[*at] = *byte;
    }
    query
}

/// The query for `a.host` with more behind it.
fn followed(changes: &[(usize, u8)], behind: &[u8]) -> Vec<u8> {
    [changed(changes), behind.to_vec()].concat()
}

/// Names that are none of the policy's.
const NAMES: [(&str, &str, &str); 38] = [
    ("D01", "not allowed", "evil.host"),
    ("D01", "what was allowed before", "stale.evil.host"),
    (
        "D01",
        "data in a label of a denied name",
        "4d5a900003000000040000.evil.test",
    ),
    ("D01", "data in base32", "mzxw6ytboi.t.evil.test"),
    ("D01", "below an allowed name", "data.a.host"),
    ("P06", "an allowed name as a beginning", "a.host.evil.test"),
    (
        "P06",
        "an allowed name as an ending without its dot",
        "xa.host",
    ),
    ("P06", "the name below which all is allowed", "w.example"),
    ("P06", "without the dot before it", "xw.example"),
    ("P06", "the star itself", "*.w.example"),
    ("P06", "the ending of an allowed name", "host"),
    ("P02", "decimal octets", "127.0.0.1"),
    ("P02", "one number", "2130706433"),
    ("P02", "hexadecimal", "0x7f000001"),
    ("P02", "hexadecimal parts", "0x7f.0.0.0x1"),
    ("P02", "octal", "0177.0.0.1"),
    ("P02", "short", "127.1"),
    ("P02", "the metadata service", "169.254.169.254"),
    ("P02", "the metadata service as a number", "2852039166"),
    (
        "P02",
        "the metadata service in octal",
        "0251.0376.0251.0376",
    ),
    (
        "P02",
        "an address below an allowed name",
        "127.0.0.1.w.example.0x1",
    ),
    ("P11", "localhost", "localhost"),
    ("P11", "localhost.localdomain", "localhost.localdomain"),
    ("P11", "Google's metadata", "metadata.google.internal"),
    ("P11", "Docker's host", "host.docker.internal"),
    ("P11", "Kubernetes", "kubernetes.default.svc"),
    ("D06", "mDNS", "printer.local"),
    ("D06", "DNS over HTTPS", "dns.google"),
    ("D06", "another DNS over HTTPS", "cloudflare-dns.com"),
    ("D06", "the canary of Firefox", "use-application-dns.net"),
    (
        "D06",
        "discovery of encrypted resolvers",
        "_dns.resolver.arpa",
    ),
    ("D06", "DNS64's prefix", "ipv4only.arpa"),
    ("D07", "punycode of ASCII", "xn--a-.host"),
    ("D07", "punycode without an end", "xn--.host"),
    ("D07", "a Cyrillic letter as punycode", "xn--80a.host"),
    ("D07", "a hyphen before", "-a.host"),
    ("P02", "wildcard services", "127.0.0.1.nip.io"),
    ("P10", "the address of a synthetic name", "198.18.0.1"),
];

/// Labels that some program would make into `a` of `a.host`.
const LABELS: [(&str, &str, &[&[u8]]); 17] = [
    ("P04", "NUL behind", &[b"a\0", b"host"]),
    (
        "P04",
        "NUL and more behind",
        &[b"a.host\0", b"evil", b"test"],
    ),
    ("P04", "CR LF within", &[b"a\r\n", b"host"]),
    ("P04", "a space before", &[b" a", b"host"]),
    ("P04", "a tab", &[b"a\t", b"host"]),
    ("P04", "an at sign", &[b"evil@a", b"host"]),
    ("P04", "a slash", &[b"a/", b"host"]),
    ("P04", "a hash", &[b"a#", b"host"]),
    ("P04", "a percent escape", &[b"%61", b"host"]),
    ("P04", "a backslash", &[b"a\\", b"host"]),
    ("D05", "a dot in a label", &[b"a.host"]),
    ("D05", "a dot in the last label", &[b"x", b"w.example"]),
    (
        "D07",
        "a full-width letter",
        &["\u{ff41}".as_bytes(), b"host"],
    ),
    ("D07", "a Cyrillic letter", &["\u{430}".as_bytes(), b"host"]),
    (
        "D07",
        "an ideographic full stop",
        &["a\u{3002}host".as_bytes()],
    ),
    ("D07", "a soft hyphen", &["a\u{ad}".as_bytes(), b"host"]),
    ("D05", "bytes that are no text", &[b"\xff\xfe", b"host"]),
];

/// Types other than A of a name that is allowed: none says anything, and none is asked for elsewhere.
const TYPES: [(&str, &str, u16); 14] = [
    ("D04", "NS", 2),
    ("D04", "CNAME", 5),
    ("D04", "SOA", 6),
    ("D01", "NULL, as tunnels use it", 10),
    ("D04", "PTR", 12),
    ("D04", "MX", 15),
    ("D01", "TXT", 16),
    ("D04", "AAAA", 28),
    ("D04", "SRV", 33),
    ("D04", "NAPTR", 35),
    ("D04", "SVCB", 64),
    ("D04", "HTTPS, which has keys for an encrypted hello", 65),
    ("D05", "AXFR", 252),
    ("D05", "an unknown type", 65280),
];

#[rustfmt::skip] // one row a line
fn messages() -> Vec<(&'static str, &'static str, Vec<u8>, Verdict)> {
    let compressed = |name: &[u8]| [&ask("a.host", A)[..12], name, &[0, 1, 0, 1]].concat();
    let second = [b"\x04evil\x04host\0\0\x01\0\x01".as_slice()].concat();
    let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0];
    let subnet = [
        0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 11, 0, 8, 0, 7, 0, 1, 24, 0, 127, 0, 0,
    ];
    let labels_63 = [[b'x'; 63].as_slice(); 5];
    vec![
        ("D05", "a whole good query", ask("a.host", A), FOUND),
        ("D05", "in capitals", ask("A.HoSt", A), FOUND),
        ("D02", "below an allowed wildcard", ask("secret-data.w.example", A), FOUND),
        ("D05", "ANY gets one record", ask("a.host", 255), FOUND),
        ("D05", "a response, which is not answered", changed(&[(2, 0x81)]), Verdict::Silence),
        ("D05", "opcode IQUERY", changed(&[(2, 0x09)]), Verdict::Code(4, 0)),
        ("D05", "opcode STATUS", changed(&[(2, 0x11)]), Verdict::Code(4, 0)),
        ("D05", "opcode NOTIFY", changed(&[(2, 0x21)]), Verdict::Code(4, 0)),
        ("D05", "opcode UPDATE", changed(&[(2, 0x29)]), Verdict::Code(4, 0)),
        ("D05", "no question", changed(&[(5, 0)]), FORMERR),
        ("D05", "two questions", followed(&[(5, 2)], &second), FORMERR),
        ("D05", "a second question that is not counted", followed(&[], &second), FORMERR),
        ("D05", "questions without end", changed(&[(4, 0xff)]), FORMERR),
        ("D05", "an answer in a query", followed(&[(7, 1)], &second), FORMERR),
        ("D05", "an authority in a query", followed(&[(9, 1)], &second), FORMERR),
        ("D05", "a pointer to itself", compressed(b"\xc0\x0c"), FORMERR),
        ("D05", "a pointer forwards", compressed(b"\xc0\xff"), FORMERR),
        ("D05", "pointers in a circle", compressed(b"\xc0\x0e\xc0\x0c"), FORMERR),
        ("D05", "a pointer into the header", compressed(b"\xc0\x00"), FORMERR),
        ("D05", "a label type that is reserved", compressed(b"\x80a\0"), FORMERR),
        ("D05", "a label without end", compressed(b"\x3fa"), FORMERR),
        ("D05", "a name over 255 octets", query(&labels_63, A, 1), FORMERR),
        ("D05", "a query cut in its header", ask("a.host", A)[..11].to_vec(), Verdict::Silence),
        ("D05", "a query cut in its name", ask("a.host", A)[..15].to_vec(), FORMERR),
        ("D05", "an empty query", Vec::new(), Verdict::Silence),
        ("D05", "bytes behind", followed(&[], b"data"), FORMERR),
        ("D05", "longer than any query", followed(&[], &[0; 1300]), FORMERR),
        ("D05", "class CHAOS", query(&[b"version", b"bind"], 16, 3), REFUSED),
        ("D05", "class ANY", query(&[b"a", b"host"], A, 255), REFUSED),
        ("D05", "EDNS", followed(&[(11, 1)], &opt), FOUND),
        ("D05", "EDNS with a client's subnet", followed(&[(11, 1)], &subnet), FOUND),
        ("D05", "two OPT records", followed(&[(11, 2)], &[opt, opt].concat()), FORMERR),
        ("P11", "the loopback backwards", ask("1.0.0.127.in-addr.arpa", 12), Verdict::NoName),
        ("D01", "a denied name, TXT", ask("data.evil.test", 16), Verdict::NoName),
        ("D01", "a denied name, NULL", ask("data.evil.test", 10), Verdict::NoName),
        ("D04", "a denied name, HTTPS", ask("evil.test", 65), Verdict::NoName),
        ("D05", "the root", query(&[], 2, 1), NO_DATA),
    ]
}

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let technique = |row, name: String, query, verdict| {
        Technique::new(row, name, Attack::Query(query), verdict)
    };
    let mut all = Vec::new();
    for (row, name, asked) in NAMES {
        let name = format!("ask for a name: {name}");
        all.push(technique(row, name, ask(asked, A), Verdict::NoName));
    }
    for (row, name, labels) in LABELS {
        let name = format!("ask for labels: {name}");
        all.push(technique(row, name, query(labels, A, 1), Verdict::NoName));
    }
    for (row, name, kind) in TYPES {
        let name = format!("ask for type {name}");
        all.push(technique(row, name, ask("a.host", kind), NO_DATA));
    }
    for (row, name, query, verdict) in messages() {
        all.push(technique(row, format!("ask: {name}"), query, verdict));
    }
    let over_tcp: Vec<Technique> = all.iter().filter_map(over_tcp).collect();
    all.extend(over_tcp);
    all
}

/// The same over TCP.
fn over_tcp(technique: &Technique) -> Option<Technique> {
    let Attack::Query(query) = &technique.attack else {
        return None;
    };
    Some(Technique {
        name: format!("over TCP, {}", technique.name),
        attack: Attack::QueryOverTcp(query.clone()),
        expected: technique.expected.clone(),
        row: technique.row,
    })
}

in_every_state!(techniques);

/// A tunnel's worth of questions (iodine, dnscat): none gets out, and the table of names is not filled by those that are denied.
#[test]
fn ten_thousand_questions_ask_nobody() {
    let mut bench = Bench::in_state(crate::bench::State::Fresh);
    for round in 0..40_u32 {
        let replies = bench.exchange(|bench| {
            for number in 0..250_u32 {
                let label = format!("{:08x}", (round << 8 | number).wrapping_mul(0x9e37_79b9));
                let query = ask(&format!("{label}.t.evil.test"), 16);
                bench
                    .guest
                    .send_frame(&crate::craft::to_resolver(22_000, &query));
            }
        });
        assert_eq!(replies.len(), 250);
        assert!(replies.iter().all(|frame| frame[45] & 15 == 3));
    }
    assert_eq!(bench.counts().queries, 0);
    bench.allowed_works();
}
