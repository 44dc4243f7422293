//! Any octets at all: no panic, and every answer is one that `see` lets pass.

use proptest::prelude::*;

use super::wire::{ask, ask_labels, query, with_opt};
use super::{longest_name, see};

fn good_queries() -> Vec<Vec<u8>> {
    vec![
        ask("api.example.com", 1),
        ask("xn--bcher-kva.example", 28),
        ask("denied.example.com", 65),
        ask("", 2),
        ask(&longest_name(), 1),
        ask_labels(&[b"a\0.\r\n", b"example", b"com"]),
        query(b"\x03api\xc0\x06", 1, 1),
        with_opt(
            ask("api.example.com", 1),
            4096,
            0,
            0x8000,
            b"\x00\x0a\x00\x0812345678",
        ),
        with_opt(
            ask("_acme.example", 255),
            0,
            1,
            0,
            b"\x00\x08\x00\x07\x00\x01\x18\x00\x0a\x00\x00",
        ),
    ]
}

/// Octets that mean something somewhere in a message.
fn octet() -> impl Strategy<Value = u8> {
    prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![
            0, 1, 2, 3, 12, 41, 63, 64, 0x80, 0xc0, 0xff, b'.', b'-', b'a'
        ]),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    /// What is from the first place on, again at the end.
    Repeat(prop::sample::Index),
    /// A compression pointer.
    Point(prop::sample::Index, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        8 => (place(), octet()).prop_map(|(at, octet)| Change::Set(at, octet)),
        2 => (place(), octet()).prop_map(|(at, octet)| Change::Insert(at, octet)),
        2 => place().prop_map(Change::Remove),
        1 => place().prop_map(Change::Cut),
        1 => place().prop_map(Change::Repeat),
        2 => (place(), octet()).prop_map(|(at, octet)| Change::Point(at, octet)),
    ]
}

fn apply(query: &mut Vec<u8>, change: &Change) {
    if query.is_empty() {
        return;
    }
    let length = query.len();
    match change {
        Change::Set(at, octet) => query[at.index(length)] = *octet,
        Change::Insert(at, octet) => query.insert(at.index(length), *octet),
        Change::Remove(at) => drop(query.remove(at.index(length))),
        Change::Cut(at) => query.truncate(at.index(length)),
        Change::Repeat(at) => query.extend_from_within(at.index(length)..),
        Change::Point(at, octet) => {
            let at = at.index(length);
            query.splice(at..length.min(at + 2), [0xc0, *octet]);
        }
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec(change(), 1..6);
    (prop::sample::select(good_queries()), changes).prop_map(|(mut query, changes)| {
        for change in &changes {
            apply(&mut query, change);
        }
        query
    })
}

/// A query of any labels, of any octets, with any type and class.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let label = prop::collection::vec(octet(), 1..20);
    let labels = prop::collection::vec(label, 0..8);
    (labels, any::<u16>(), 0..3_u16).prop_map(|(labels, kind, class)| {
        let labels: Vec<&[u8]> = labels.iter().map(Vec::as_slice).collect();
        query(&super::wire::name_of(&labels), kind, class)
    })
}

fn any_octets() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(octet(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn any_octets_are_survived(query in any_octets()) {
        see(&query);
    }

    #[test]
    fn any_name_is_survived(query in any_name()) {
        see(&query);
    }

    #[test]
    fn mutated_queries_are_survived(query in mutated()) {
        see(&query);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000_000))]

    #[test]
    #[ignore = "ten million queries: minutes in a release build"]
    fn many_mutated_queries_are_survived(query in mutated()) {
        see(&query);
    }
}
