use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Instant;

use super::*;
use crate::names::{Names, Pool};

mod cases;
mod mutations;
mod spellings;
mod wire;

use wire::Reply;

/// 253 characters, which are 255 octets on the wire.
fn longest_name() -> String {
    let label = "a".repeat(63);
    let name = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(name.len(), 253);
    name
}

/// A zone of a few names. It notes what it was asked.
struct Few {
    names: HashMap<String, Ipv4Addr>,
    asked: Vec<String>,
}

impl Few {
    fn new() -> Self {
        let longest = longest_name();
        let names = [
            ("api.example.com", 1),
            ("xn--bcher-kva.example", 2),
            ("_acme.example", 3),
            ("single", 4),
            (&longest, 5),
        ];
        let address = |last| Ipv4Addr::new(198, 18, 0, last);
        Self {
            names: names
                .map(|(name, last)| (name.to_owned(), address(last)))
                .into(),
            asked: Vec::new(),
        }
    }
}

impl Zone for Few {
    fn resolve(&mut self, name: &HostName) -> Answer {
        self.asked.push(name.to_string());
        match self.names.get(name.as_str()) {
            Some(address) => Answer::Address(*address),
            None if name.as_str() == "busy.example" => Answer::Unavailable,
            None => Answer::Denied,
        }
    }
}

/// What an answer is, told apart by nothing but its octets.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// There is none.
    Dropped,
    /// A header with this code, and nothing else.
    Header(u8),
    /// The question and this code (with EDNS's part of it), no records.
    Code(u16),
    /// 198.18.0.x.
    Address(u8),
    /// `HINFO` in place of all there is.
    Minimal,
    NoData,
    NxDomain,
}

/// Answers `query`, checks what must hold for every answer whatever was asked, and says what it was.
fn see(query: &[u8]) -> Seen {
    let mut zone = Few::new();
    let Some(octets) = answer(query, &mut zone) else {
        assert!(query.len() < 12 || query[2] & 0x80 != 0, "query dropped");
        assert!(zone.asked.is_empty());
        return Seen::Dropped;
    };
    assert!(octets.len() <= 512, "{} octets", octets.len());
    let reply = Reply::parse(&octets);
    check_header(query, &octets);
    if reply.question.is_empty() {
        assert_eq!(octets.len(), 12);
        assert!(zone.asked.is_empty());
        return Seen::Header(octets[3] & 0x0f);
    }
    // Byte for byte.
    assert_eq!(reply.question, &query[12..12 + reply.question.len()]);
    check_asked(&reply, &zone.asked);
    check_opt(query, &reply);
    classify(&reply)
}

fn check_header(query: &[u8], reply: &[u8]) {
    assert_eq!(reply[..2], query[..2], "id");
    assert_eq!(reply[2] & 0xf9, 0x80 | query[2] & 0x79, "QR, opcode, RD");
    assert_eq!(reply[2] & 0x02, 0, "TC");
    assert_eq!(reply[3] & 0x80, 0x80, "RA");
    assert_eq!(reply[3] & 0x60, 0, "Z, AD");
    assert_eq!(reply[3] & 0x10, query[3] & 0x10, "CD");
}

/// Policy was asked about the name of the question and no other: same octets on the wire, but for the case of letters.
fn check_asked(reply: &Reply, asked: &[String]) {
    assert!(asked.len() <= 1);
    for name in asked {
        let mut wire = wire::name(name);
        wire.extend_from_slice(&reply.question[reply.question.len() - 4..]);
        assert!(wire.eq_ignore_ascii_case(&reply.question), "{name}");
        assert_eq!(name, &name.to_ascii_lowercase());
    }
}

fn check_opt(query: &[u8], reply: &Reply) {
    let asked = reply.question.len() + 12 < query.len();
    assert_eq!(reply.opt.is_some(), asked, "OPT if and only if asked");
    if let Some(opt) = &reply.opt {
        assert_eq!(opt.class, LONGEST_QUERY);
        assert_eq!(opt.ttl & 0x00ff_7fff, 0, "version 0, no flag but DO");
        assert!(opt.data.is_empty());
        let asked = u32::from(query[12 + reply.question.len() + 7]);
        assert_eq!(opt.ttl >> 8 & 0x80, asked & 0x80, "DO");
    }
}

fn classify(reply: &Reply) -> Seen {
    let types = |records: &[wire::Record]| -> Vec<u16> {
        records.iter().map(|record| record.kind).collect()
    };
    let (answers, authorities) = (types(&reply.answers), types(&reply.authorities));
    match (reply.code, answers.as_slice(), authorities.as_slice()) {
        (0, [1], []) => {
            let record = &reply.answers[0];
            assert_eq!((record.class, record.ttl), (1, TTL));
            assert_eq!(record.name, reply.asked_name());
            let [198, 18, 0, last] = record.data[..] else {
                panic!("{:?} is none of the zone's", record.data);
            };
            Seen::Address(last)
        }
        (0, [13], []) => {
            assert_eq!(reply.answers[0].data, b"\x07RFC8482\x00");
            Seen::Minimal
        }
        (0, [], [6]) => {
            check_soa(reply);
            Seen::NoData
        }
        (3, [], [6]) => {
            check_soa(reply);
            Seen::NxDomain
        }
        (code, [], []) => Seen::Code(code),
        other => panic!("an answer of no known kind: {other:?}"),
    }
}

/// RFC 2308: the negative answer is of an ancestor's zone, and both numbers that say how long it holds are the same.
fn check_soa(reply: &Reply) {
    let soa = &reply.authorities[0];
    assert!(reply.asked_name().ends_with(&soa.name));
    assert_eq!((soa.class, soa.ttl), (1, NEGATIVE_TTL));
    assert_eq!(soa.data.len(), 22);
    assert_eq!(soa.data[18..], NEGATIVE_TTL.to_be_bytes());
}

#[test]
fn an_answer_is_these_octets() {
    let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03aPi\x07exAmple\x03cOm\x00\x00\x01\x00\x01";
    let expected = b"\x12\x34\x85\x80\x00\x01\x00\x01\x00\x00\x00\x00\x03aPi\x07exAmple\x03cOm\x00\x00\x01\x00\x01\
        \xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc6\x12\x00\x01";
    assert_eq!(answer(query, &mut Few::new()).unwrap(), expected);
}

#[test]
fn a_denial_is_these_octets() {
    let query =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04evil\x04test\x00\x00\x01\x00\x01";
    let expected = b"\x12\x34\x85\x83\x00\x01\x00\x00\x00\x01\x00\x00\x04evil\x04test\x00\x00\x01\x00\x01\
        \xc0\x11\x00\x06\x00\x01\x00\x00\x00\x05\x00\x16\x00\x00\x00\x00\x00\x01\x00\x00\x0e\x10\x00\x00\x02\x58\
        \x00\x01\x51\x80\x00\x00\x00\x05";
    assert_eq!(answer(query, &mut Few::new()).unwrap(), expected);
}

#[test]
fn the_longest_answer_is_as_long_as_is_said() {
    let query = wire::with_opt(wire::ask(&longest_name(), 28), 512, 0, 0, &[]);
    assert_eq!(answer(&query, &mut Few::new()).unwrap().len(), 316);
}

/// The table of addresses behind a rule, as a sandbox has it.
struct Ruled {
    names: Names,
    now: Instant,
}

impl Zone for Ruled {
    fn resolve(&mut self, name: &HostName) -> Answer {
        if !name.as_str().ends_with(".example.com") {
            return Answer::Denied;
        }
        self.names
            .give(name, self.now)
            .map_or(Answer::Unavailable, Answer::Address)
    }
}

#[test]
fn names_that_are_not_allowed_leave_no_trace() {
    let mut zone = Ruled {
        names: Names::new(Pool::default()),
        now: Instant::now(),
    };
    // What a tunnel asks (attack D01): data as labels beneath a name that is not allowed.
    for number in 0..10_000_u64 {
        let data = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let query = wire::ask(&format!("{data:016x}.tunnel.test"), 16);
        let reply = Reply::parse(&answer(&query, &mut zone).unwrap());
        assert_eq!((reply.code, reply.answers.len()), (3, 0));
    }
    assert!(zone.names.is_empty());

    let query = wire::ask("API.example.com", 1);
    let reply = Reply::parse(&answer(&query, &mut zone).unwrap());
    let address: [u8; 4] = reply.answers[0].data[..].try_into().unwrap();
    let held = zone.names.hold(address.into()).unwrap();
    assert_eq!(held.name().as_str(), "api.example.com");
}

#[test]
fn a_full_table_is_a_failure_and_not_a_denial() {
    let mut zone = Ruled {
        names: Names::new(Pool::new(Ipv4Addr::new(10, 0, 0, 0), 30).unwrap()),
        now: Instant::now(),
    };
    let mut code = |name: &str| {
        let octets = answer(&wire::ask(name, 1), &mut zone).unwrap();
        Reply::parse(&octets).code
    };
    let codes = ["a", "b", "c", "a"].map(|label| code(&format!("{label}.example.com")));
    assert_eq!(codes, [0, 0, 2, 0]);
}

#[test]
#[ignore = "measures, and a debug build says nothing"]
fn answers_a_second() {
    let queries = [
        wire::ask("api.example.com", 1),
        wire::ask("api.example.com", 28),
        wire::ask("denied.example.com", 1),
        wire::with_opt(wire::ask("aPi.eXample.com", 1), 1232, 0, 0, &[]),
    ];
    for query in &queries {
        let mut zone = Few::new();
        let start = Instant::now();
        for _ in 0..1_000_000 {
            zone.asked.clear();
            assert!(answer(query, &mut zone).is_some());
        }
        println!("{:.0} a second", 1e6 / start.elapsed().as_secs_f64());
    }
}
