//! Queries one by one, and what each gets.

use super::wire::{ask, ask_labels, name, opt, query, with, with_opt, with_record};
use super::{Seen, longest_name, see};

const A: u16 = 1;
const FORMERR: Seen = Seen::Header(1);
const NOTIMP: Seen = Seen::Header(4);
const SERVFAIL: Seen = Seen::Code(2);
const REFUSED: Seen = Seen::Code(5);
const BADVERS: Seen = Seen::Code(16);

type Case = (String, Vec<u8>, Seen);

/// What there is to ask, and the name that there is.
fn known(kind: u16) -> Vec<u8> {
    ask("api.example.com", kind)
}

fn types() -> Vec<Case> {
    let mut cases = vec![
        ("A".to_owned(), known(A), Seen::Address(1)),
        ("ANY".to_owned(), known(255), Seen::Minimal),
    ];
    // NS, CNAME, SOA, PTR, HINFO, MX, TXT, AAAA, SRV, NAPTR, DNAME, OPT, DS, RRSIG, NSEC, DNSKEY, TLSA, SVCB, HTTPS, TKEY, TSIG, IXFR,
    // AXFR, MAILB, MAILA, URI, CAA, and some that nobody has.
    for kind in [
        0, 2, 5, 6, 10, 12, 13, 15, 16, 28, 29, 33, 35, 38, 39, 41, 43, 46, 47, 48, 52, 64, 65, 99,
        249, 250, 251, 252, 253, 254, 256, 257, 32768, 65280, 65535,
    ] {
        cases.push((format!("type {kind}"), known(kind), Seen::NoData));
    }
    for kind in [1, 2, 5, 6, 12, 15, 16, 28, 33, 64, 65, 252, 255, 65535] {
        let denied = ask("denied.example.com", kind);
        cases.push((format!("denied, type {kind}"), denied, Seen::NxDomain));
    }
    cases
}

fn names() -> Vec<Case> {
    let expected = [
        ("", Seen::NoData),
        ("single", Seen::Address(4)),
        ("_acme.example", Seen::Address(3)),
        ("busy.example", SERVFAIL),
        ("example.com", Seen::NxDomain),
        ("com", Seen::NxDomain),
        ("x.api.example.com", Seen::NxDomain),
        ("api.example.com.evil.test", Seen::NxDomain),
        ("notapi.example.com", Seen::NxDomain),
        ("localhost", Seen::NxDomain),
        ("printer.local", Seen::NxDomain),
        ("metadata.google.internal", Seen::NxDomain),
        ("use-application-dns.net", Seen::NxDomain),
        ("_dns.resolver.arpa", Seen::NxDomain),
        ("ipv4only.arpa", Seen::NxDomain),
        ("1.0.18.198.in-addr.arpa", Seen::NxDomain),
        ("127.0.0.1", Seen::NxDomain),
        ("2130706433", Seen::NxDomain),
        ("0x7f.1", Seen::NxDomain),
        ("198.18.0.1", Seen::NxDomain),
        ("*.example.com", Seen::NxDomain),
        ("*", Seen::NxDomain),
        ("-.example.com", Seen::NxDomain),
        ("xn--.example", Seen::NxDomain),
    ];
    let mut cases: Vec<Case> = expected
        .into_iter()
        .map(|(name, seen)| (name.to_owned(), ask(name, A), seen))
        .collect();
    let longest = longest_name();
    cases.push(("255 octets".into(), ask(&longest, A), Seen::Address(5)));
    let denied = format!("c{}", &longest[1..]);
    cases.push(("255 octets, denied".into(), ask(&denied, A), Seen::NxDomain));
    let shorter = &longest[..longest.len() - 1];
    cases.push(("254 octets, denied".into(), ask(shorter, A), Seen::NxDomain));
    cases.push(("256 octets".into(), ask(&format!("{longest}b"), A), FORMERR));
    cases
}

/// In one label, between two labels of a name that exists: what must not become that name.
fn octets() -> Vec<Case> {
    let mut cases = Vec::new();
    for octet in
        (0..=255_u8).filter(|octet| !octet.is_ascii_alphanumeric() && !b"-_".contains(octet))
    {
        let joined = [b"api".as_slice(), &[octet], b"example"].concat();
        let query = ask_labels(&[&joined, b"com"]);
        cases.push((format!("api {octet:#x} example"), query, Seen::NxDomain));
        let trailing = [b"com".as_slice(), &[octet]].concat();
        let query = ask_labels(&[b"api", b"example", &trailing]);
        cases.push((format!("com {octet:#x}"), query, Seen::NxDomain));
    }
    let whole = ask_labels(&[b"api.example.com"]);
    cases.push(("dots within one label".into(), whole, Seen::NxDomain));
    let cut = ask_labels(&[b"api", b"example", b"com", b"\0", b"evil", b"test"]);
    cases.push(("NUL as a label".into(), cut, Seen::NxDomain));
    cases
}

fn headers() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in 0..12 {
        let cut = known(A)[..length].to_vec();
        cases.push((format!("{length} octets"), cut, Seen::Dropped));
    }
    for flags in [0x80, 0x81, 0x84, 0xa8, 0xff] {
        let reply = with(known(A), 2, flags);
        cases.push((format!("an answer, {flags:#x}"), reply, Seen::Dropped));
    }
    cases.push((
        "an answer, header only".into(),
        with(known(A), 2, 0x80)[..12].to_vec(),
        Seen::Dropped,
    ));
    for opcode in 1..16 {
        let query = with(known(A), 2, opcode << 3 | 1);
        cases.push((format!("opcode {opcode}"), query, NOTIMP));
    }
    cases.push((
        "opcode 4, header only".into(),
        with(known(A), 2, 0x20)[..12].to_vec(),
        NOTIMP,
    ));
    // RD, AA, TC; RA, Z, AD, CD and any code: of no meaning in a query.
    for flags in [0x00, 0x01, 0x02, 0x04, 0x07] {
        cases.push((
            format!("flags {flags:#x}"),
            with(known(A), 2, flags),
            Seen::Address(1),
        ));
    }
    for flags in [0x80, 0x40, 0x20, 0x10, 0x0f, 0xff] {
        cases.push((
            format!("more flags {flags:#x}"),
            with(known(A), 3, flags),
            Seen::Address(1),
        ));
    }
    cases
}

fn classes() -> Vec<Case> {
    // CS, CH, HS, NONE, ANY, and IN as mDNS asks.
    [0, 2, 3, 4, 254, 255, 0x8001, 65535]
        .into_iter()
        .map(|class| {
            let query = query(&name("api.example.com"), A, class);
            (format!("class {class}"), query, REFUSED)
        })
        .collect()
}

fn counts() -> Vec<Case> {
    let question = &known(A)[12..];
    let twice = with([known(A).as_slice(), question].concat(), 5, 2);
    let none = with(known(A)[..12].to_vec(), 5, 0);
    let more = |at| with(known(A), at, 1);
    vec![
        ("no question".into(), none.clone(), FORMERR),
        (
            "no question, with OPT".into(),
            with_opt(none, 1232, 0, 0, &[]),
            FORMERR,
        ),
        (
            "a question that is not counted".into(),
            with(known(A), 5, 0),
            FORMERR,
        ),
        ("two questions".into(), twice.clone(), FORMERR),
        (
            "two questions, one counted".into(),
            with(twice, 5, 1),
            FORMERR,
        ),
        (
            "one question, two counted".into(),
            with(known(A), 5, 2),
            FORMERR,
        ),
        ("257 counted".into(), more(4), FORMERR),
        (
            "65,535 counted".into(),
            with(with(known(A), 4, 255), 5, 255),
            FORMERR,
        ),
        ("an answer counted".into(), more(7), FORMERR),
        ("256 answers counted".into(), more(6), FORMERR),
        ("an authority counted".into(), more(9), FORMERR),
        ("256 authorities counted".into(), more(8), FORMERR),
        ("an additional counted".into(), more(11), FORMERR),
        ("256 additionals counted".into(), more(10), FORMERR),
        (
            "one octet behind".into(),
            [known(A), vec![0]].concat(),
            FORMERR,
        ),
        (
            "another query behind".into(),
            [known(A), known(A)].concat(),
            FORMERR,
        ),
        (
            "longer than is read".into(),
            [known(A), vec![0; 1232]].concat(),
            FORMERR,
        ),
        (
            "64 KiB".into(),
            [known(A), vec![0; 65_000]].concat(),
            FORMERR,
        ),
    ]
}

/// Questions whose name is wrong on the wire.
fn malformed() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ("a pointer to itself", b"\xc0\x0c".as_slice()),
        ("a pointer forwards", b"\xc0\x20"),
        ("a pointer beyond the end", b"\xff\xff"),
        ("two pointers in a circle", b"\xc0\x0e\xc0\x0c"),
        ("a label and a pointer to it", b"\x03api\xc0\x0c"),
        ("a label and a pointer to the pointer", b"\x03api\xc0\x10"),
        ("a pointer into the header, at its zeros", b"\xc0\x06"),
        ("a label and a pointer into the header", b"\x03api\xc0\x06"),
        ("a pointer to the id", b"\xc0\x00"),
        ("a pointer to the flags, a label of one", b"\xc0\x02"),
        ("label type 01", b"\x43api\x00"),
        ("label type 10", b"\x83api\x00"),
        (
            "a label of 64",
            b"\x40aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00",
        ),
        ("bit string label", b"\x41\x08\xff\x00"),
        ("a label longer than the rest", b"\x3fapi\x00"),
        ("no end", b"\x03api\x07example"),
    ]
    .into_iter()
    .map(|(what, name)| (what.to_owned(), query(name, A, 1), FORMERR))
    .collect();
    // Every place where a good query can be cut.
    for length in 12..known(A).len() {
        cases.push((
            format!("cut to {length}"),
            known(A)[..length].to_vec(),
            FORMERR,
        ));
    }
    let labels = vec![b"a".as_slice(); 127];
    cases.push(("127 labels".into(), ask_labels(&labels), Seen::NxDomain));
    let labels = vec![b"a".as_slice(); 128];
    cases.push(("128 labels".into(), ask_labels(&labels), FORMERR));
    cases
}

/// Zeros that an option says to ignore (RFC 7830), of so many octets with it.
fn padding(octets: u16) -> Vec<u8> {
    let mut option = vec![0, 12];
    option.extend_from_slice(&(octets - 4).to_be_bytes());
    option.resize(octets.into(), 0);
    option
}

fn edns() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [0, 511, 512, 1232, 4096, 65535] {
        let query = with_opt(known(A), size, 0, 0, &[]);
        cases.push((format!("size {size}"), query, Seen::Address(1)));
    }
    for version in [1, 2, 255] {
        let query = with_opt(known(A), 1232, version, 0, &[]);
        cases.push((format!("version {version}"), query, BADVERS));
    }
    let options: [(&str, &[u8]); 6] = [
        ("a cookie", b"\x00\x0a\x00\x0812345678"),
        ("a subnet", b"\x00\x08\x00\x07\x00\x01\x18\x00\x0a\x00\x00"),
        (
            "padding",
            b"\x00\x0c\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("NSID", b"\x00\x03\x00\x00"),
        ("an unknown option", b"\xfd\xe9\x00\x01a"),
        ("two options", b"\x00\x03\x00\x00\xfd\xe9\x00\x00"),
    ];
    for (what, data) in options {
        let query = with_opt(known(A), 1232, 0, 0x8000, data);
        cases.push((what.to_owned(), query, Seen::Address(1)));
    }
    let long = |octets: u16| with_opt(known(A), 1232, 0, 0, &padding(octets - 33 - 11));
    let mut rest: Vec<(&str, Vec<u8>, Seen)> = vec![
        (
            "of a query as long as is read",
            long(1232),
            Seen::Address(1),
        ),
        ("of a query longer than that", long(1233), FORMERR),
        (
            "DO",
            with_opt(known(A), 1232, 0, 0x8000, &[]),
            Seen::Address(1),
        ),
        (
            "unknown flags",
            with_opt(known(A), 1232, 0, 0x7fff, &[]),
            Seen::Address(1),
        ),
        ("AAAA", with_opt(known(28), 1232, 0, 0, &[]), Seen::NoData),
        (
            "denied",
            with_opt(ask("a.test", A), 1232, 0, 0, &[]),
            Seen::NxDomain,
        ),
        (
            "the longest",
            with_opt(ask(&longest_name(), 28), 512, 0, 0, &[]),
            Seen::NoData,
        ),
    ];
    let two = with_opt(with_opt(known(A), 1232, 0, 0, &[]), 1232, 0, 0, &[]);
    let uncounted = [known(A), opt(1232, 0, 0, &[])].concat();
    let named = [b"\x01a".as_slice(), &opt(1232, 0, 0, &[])].concat();
    let pointed = [b"\xc0\x03".as_slice(), &opt(1232, 0, 0, &[])[1..]].concat();
    let beyond = with(opt(1232, 0, 0, &[]), 10, 1);
    let address = b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x01\x02\x03\x04";
    let key = b"\x01k\x00\x00\xfa\x00\xff\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    rest.extend([
        ("two", two, FORMERR),
        ("not counted", uncounted, FORMERR),
        ("with a name", with_record(known(A), &named), FORMERR),
        (
            "with a pointer to a zero",
            with_record(known(A), &pointed),
            FORMERR,
        ),
        (
            "longer than the rest",
            with_record(known(A), &beyond),
            FORMERR,
        ),
        (
            "an address instead",
            with_record(known(A), address),
            FORMERR,
        ),
        ("a signature instead", with_record(known(A), key), FORMERR),
        (
            "half an option",
            with_opt(known(A), 1232, 0, 0, b"\x00\x0a\x00"),
            FORMERR,
        ),
    ]);
    cases.extend(
        rest.into_iter()
            .map(|(what, query, seen)| (format!("OPT: {what}"), query, seen)),
    );
    cases
}

fn run(cases: Vec<Case>) {
    for (what, query, expected) in cases {
        assert_eq!(see(&query), expected, "{what}");
    }
}

#[test]
fn there_are_addresses_and_nothing_else() {
    run(types());
}

#[test]
fn names_are_known_or_do_not_exist() {
    run(names());
}

#[test]
fn no_octet_becomes_another() {
    run(octets());
}

#[test]
fn headers_are_answered_as_they_deserve() {
    run(headers());
    run(classes());
    run(counts());
}

#[test]
fn malformed_names_are_malformed() {
    run(malformed());
}

#[test]
fn edns_is_answered_by_edns() {
    run(edns());
}
