use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

fn numbered(number: usize) -> HostName {
    name(&format!("h{number}.example"))
}

/// A pool of as many addresses as a prefix of so many bits has.
fn small(length: u8) -> Names {
    Names::new(Pool::new(Ipv4Addr::new(10, 1, 0, 0), length).unwrap())
}

#[test]
fn a_name_keeps_its_address_and_both_are_found_by_the_other() {
    let (mut names, now) = (Names::new(Pool::default()), Instant::now());
    let a = names.give(&name("a.example"), now).unwrap();
    let b = names.give(&name("b.example"), now).unwrap();
    assert_eq!(a, Ipv4Addr::new(198, 18, 0, 1));
    assert_ne!(a, b);
    assert_eq!(names.give(&name("A.example."), now + REST * 9), Some(a));
    assert_eq!(names.name_of(a), Some(&name("a.example")));
    assert_eq!(names.name_of(b), Some(&name("b.example")));
    assert_eq!(names.address_of(&name("b.example")), Some(b));
    assert_eq!(names.address_of(&name("c.example")), None);
    assert_eq!(names.len(), 2);
}

#[test]
fn an_address_that_was_not_given_stands_for_nothing() {
    let (mut names, now) = (Names::new(Pool::default()), Instant::now());
    assert!(names.is_empty());
    names.give(&name("a.example"), now);
    for address in [
        [198, 18, 0, 0],
        [198, 18, 0, 2],
        [198, 19, 255, 255],
        [198, 20, 0, 1],
        [10, 18, 0, 1],
        [127, 0, 0, 1],
        [0, 0, 0, 1],
    ] {
        assert_eq!(names.name_of(address.into()), None, "{address:?}");
        assert!(names.hold(address.into()).is_none(), "{address:?}");
    }
}

#[test]
fn two_tables_do_not_know_each_other() {
    let (mut one, mut other) = (small(24), small(24));
    let now = Instant::now();
    for number in 0..100 {
        one.give(&numbered(number), now);
    }
    let address = other.give(&name("b.example"), now).unwrap();
    assert_eq!(one.name_of(address), Some(&numbered(0)));
    assert_eq!(other.name_of(address), Some(&name("b.example")));
}

#[test]
fn a_full_table_waits_until_an_address_has_rested() {
    let (mut names, now) = (small(30), Instant::now());
    let a = names.give(&name("a.example"), now);
    let b = names.give(&name("b.example"), now + SECOND);
    let c = name("c.example");
    assert_eq!(names.give(&c, now + SECOND), None);
    assert_eq!(names.give(&c, now + REST - SECOND), None);
    // What was refused is not half there.
    assert_eq!(names.address_of(&c), None);
    assert_eq!(names.len(), 2);

    assert_eq!(names.give(&c, now + REST), a);
    assert_eq!(names.address_of(&name("a.example")), None);
    assert_eq!(names.name_of(a.unwrap()), Some(&c));
    assert_eq!(names.address_of(&name("b.example")), b);
}

#[test]
fn the_name_that_was_asked_for_the_longest_ago_goes_first() {
    let (mut names, now) = (small(30), Instant::now());
    let a = names.give(&name("a.example"), now);
    let b = names.give(&name("b.example"), now + SECOND);
    names.give(&name("a.example"), now + SECOND * 2);
    let later = now + REST * 2;
    assert_eq!(names.give(&name("c.example"), later), b);
    assert_eq!(names.address_of(&name("a.example")), a);
    assert_eq!(names.give(&name("d.example"), later), a);
    assert_eq!(names.give(&name("e.example"), later), None);
}

#[test]
fn an_answer_makes_the_address_rest_anew() {
    let (mut names, now) = (small(30), Instant::now());
    names.give(&name("a.example"), now);
    names.give(&name("b.example"), now);
    for name in ["a.example", "b.example"].map(name) {
        names.give(&name, now + REST - SECOND);
    }
    let c = name("c.example");
    assert_eq!(names.give(&c, now + REST), None);
    assert_eq!(names.give(&c, now + REST * 2 - SECOND * 2), None);
    assert!(names.give(&c, now + REST * 2 - SECOND).is_some());
}

#[test]
fn a_held_address_keeps_its_name() {
    let (mut names, now) = (small(30), Instant::now());
    let a = names.give(&name("a.example"), now).unwrap();
    let b = names.give(&name("b.example"), now).unwrap();
    let held = names.hold(a).unwrap();
    let also_held = held.clone();
    assert_eq!(held.name(), &name("a.example"));

    let later = now + REST * 100;
    assert_eq!(names.give(&name("c.example"), later), Some(b));
    assert_eq!(names.give(&name("d.example"), later), None);
    drop(held);
    assert_eq!(names.give(&name("d.example"), later + REST - SECOND), None);
    assert_eq!(names.name_of(a), Some(&name("a.example")));
    drop(also_held);
    let freed = names.give(&name("d.example"), later + REST * 2);
    assert!(freed.is_some());
    assert!(names.give(&name("e.example"), later + REST * 2).is_some());
    assert_eq!(names.address_of(&name("a.example")), None);
}

#[test]
fn a_hold_does_not_pass_to_the_next_name() {
    let (mut names, now) = (small(30), Instant::now());
    let a = names.give(&name("a.example"), now).unwrap();
    drop(names.hold(a));
    names.give(&name("b.example"), now);
    let later = now + REST;
    assert_eq!(names.give(&name("c.example"), later), Some(a));
    let held = names.hold(a).unwrap();
    assert_eq!(held.name(), &name("c.example"));
}

#[test]
fn when_all_are_held_nothing_is_given_and_the_search_ends() {
    let (mut names, now) = (small(24), Instant::now());
    let mut held = Vec::new();
    while let Some(address) = names.give(&numbered(held.len()), now) {
        held.extend(names.hold(address));
    }
    assert_eq!(held.len(), 254);
    assert_eq!(names.give(&name("other.example"), now + REST * 2), None);
    for (number, held) in held.iter().enumerate() {
        assert_eq!(held.name(), &numbered(number));
        assert!(names.address_of(held.name()).is_some());
    }
}

#[test]
fn names_are_no_more_than_their_cap() {
    let (mut names, now) = (Names::new(Pool::default()), Instant::now());
    for number in 0..MAX_NAMES {
        assert!(names.give(&numbered(number), now).is_some(), "{number}");
    }
    assert_eq!(names.give(&numbered(MAX_NAMES), now), None);
    for number in 0..MAX_NAMES {
        let next = numbered(MAX_NAMES + number);
        assert!(names.give(&next, now + REST).is_some(), "{number}");
    }
    assert_eq!(names.len(), MAX_NAMES);
    assert_eq!(names.by_name.len(), MAX_NAMES);
    assert_eq!(names.oldest.len(), MAX_NAMES);
    assert_eq!(names.address_of(&numbered(0)), None);
}

#[test]
fn time_that_goes_backwards_shortens_no_rest() {
    let (mut names, now) = (small(30), Instant::now());
    let late = now + REST;
    names.give(&name("a.example"), late);
    names.give(&name("b.example"), late);
    names.give(&name("a.example"), now);
    names.give(&name("b.example"), now);
    let c = name("c.example");
    assert_eq!(names.give(&c, now), None);
    assert_eq!(names.give(&c, late + REST - SECOND), None);
    assert!(names.give(&c, late + REST).is_some());
}

#[test]
fn an_address_rests_longer_than_an_answer_may_be_remembered() {
    assert!(REST >= SECOND * crate::dns::TTL * 2);
}

#[derive(Clone, Debug)]
enum Step {
    Give(usize),
    Hold(usize),
    Release(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..12_usize).prop_map(Step::Give),
        2 => (0..12_usize).prop_map(Step::Hold),
        2 => (0..12_usize).prop_map(Step::Release),
        2 => (0..400_u64).prop_map(Step::Wait),
    ]
}

/// What must hold, written down from outside: every answer that was ever given, and when.
#[derive(Default)]
struct Witness {
    given: HashMap<Ipv4Addr, (HostName, Instant)>,
    held: Vec<HeldName>,
}

impl Witness {
    fn saw(&mut self, address: Ipv4Addr, name: &HostName, now: Instant) {
        if let Some((before, when)) = self.given.get(&address)
            && before != name
        {
            assert!(now.duration_since(*when) >= REST, "{address} reused");
            assert!(self.held.iter().all(|held| held.name() != before));
        }
        self.given.insert(address, (name.clone(), now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_sequence_breaks_what_holds(steps in prop::collection::vec(step(), 1..200)) {
        let (mut names, mut now) = (small(29), Instant::now());
        let mut witness = Witness::default();
        for step in steps {
            match step {
                Step::Give(number) => {
                    let name = numbered(number);
                    if let Some(address) = names.give(&name, now) {
                        witness.saw(address, &name, now);
                        prop_assert_eq!(names.name_of(address), Some(&name));
                        prop_assert_eq!(names.address_of(&name), Some(address));
                    }
                }
                Step::Hold(number) => {
                    let address = names.address_of(&numbered(number));
                    witness.held.extend(address.and_then(|address| names.hold(address)));
                }
                Step::Release(number) => {
                    let name = numbered(number);
                    witness.held.retain(|held| held.name() != &name);
                }
                Step::Wait(seconds) => now += SECOND * u32::try_from(seconds).unwrap(),
            }
            prop_assert!(names.len() <= 6);
            prop_assert_eq!(names.by_name.len(), names.len());
            prop_assert_eq!(names.oldest.len(), names.len());
            for held in &witness.held {
                let address = names.address_of(held.name());
                prop_assert!(address.is_some());
            }
        }
    }
}
