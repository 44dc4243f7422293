//! The rings: indices, completion, notifications and interrupts.

use super::*;

#[test]
fn impossible_rings_are_refused() {
    let bench = Bench::new(8);
    type Change = fn(&mut QueueState);
    let cases: [(Change, QueueError); 8] = [
        (|s| s.size = 0, QueueError::Size(0)),
        (|s| s.size = 6, QueueError::Size(6)),
        (|s| s.size = 0xffff, QueueError::Size(0xffff)),
        (|s| s.descriptors += 8, QueueError::Alignment(0x1008)),
        (|s| s.available += 1, QueueError::Alignment(0x2001)),
        (|s| s.used += 2, QueueError::Alignment(0x3002)),
        (
            |s| s.used = RAM - 64,
            QueueError::Range {
                address: RAM - 64,
                len: 70,
            },
        ),
        (
            |s| s.descriptors = u64::MAX - 15,
            QueueError::Range {
                address: u64::MAX - 15,
                len: 128,
            },
        ),
    ];
    for (change, expected) in cases {
        let mut state = bench.state;
        change(&mut state);
        let queue = LiveQueue::new(&bench.ram, state, &bench.interrupt);
        assert_eq!(queue.err(), Some(expected));
    }
}

#[test]
fn v05_all_available_indices() {
    let mut bench = Bench::new(16);
    for start in [0, 7, 0xfff8] {
        bench.state.next_avail = start;
        for delta in 0..=u16::MAX {
            let index = start.wrapping_add(delta);
            bench.ring.set_available_index(index);
            let expected = QueueError::AvailableIndex { index, next: start };
            let mut queue = bench.queue();
            assert_eq!(
                queue.has_available().err(),
                (delta > 16).then_some(expected)
            );
        }
    }
}

#[test]
fn chains_come_in_order_and_go_to_the_used_ring() {
    let mut bench = Bench::new(4);
    // Across the wrap of both indices.
    (bench.state.next_avail, bench.state.next_used) = (0xfffe, 0xfffe);
    bench.ring.set_available_index(0xfffe);
    bench.ring.next_used = 0xfffe;
    let mut queue = bench.queue();
    for round in 0..6_u32 {
        queue.begin_turn();
        let head = u16::try_from(round % 3).unwrap();
        bench.ring.set_descriptor(head, writable(8));
        bench.ring.push(head);
        let chain = queue.pop().unwrap().unwrap();
        assert_eq!(chain.head(), head);
        chain.finish(round).unwrap();
        let used = bench.ring.pop_used().unwrap();
        assert_eq!((used.id, used.len), (u32::from(head), round));
        assert!(queue.pop().unwrap().is_none());
    }
    assert_eq!(queue.state().next_used, 4);
}

#[test]
fn a_device_cannot_claim_more_than_there_was_room_for() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    bench.push(1);
    queue.pop().unwrap().unwrap().finish(9).unwrap();
    assert_eq!(bench.ring.pop_used().unwrap().len, 8);
}

#[test]
fn v09_a_dropped_chain_goes_back_with_nothing_written() {
    let mut bench = Bench::new(2);
    let mut queue = bench.queue();
    for round in 0..10 {
        bench.push(2);
        while let Some(chain) = queue.pop().unwrap() {
            drop(chain);
        }
        let used = [bench.ring.pop_used(), bench.ring.pop_used()];
        let ids = used.map(|used| used.map(|used| (used.id, used.len)));
        assert_eq!(ids, [Some((0, 0)), Some((1, 0))], "round {round}");
        queue.begin_turn();
    }
}

#[test]
fn v04_the_same_head_twice_is_two_completions_one_after_the_other() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    bench.ring.set_descriptor(0, writable(8));
    for _ in 0..3 {
        bench.ring.push(0);
    }
    let mut count = 0;
    while let Some(chain) = queue.pop().unwrap() {
        assert_eq!(chain.head(), 0);
        chain.finish(0).unwrap();
        count += 1;
    }
    assert_eq!((count, bench.ring.used_index()), (3, 3));
}

#[test]
fn a_chain_that_is_put_back_comes_again() {
    let mut bench = Bench::new(2);
    let mut queue = bench.queue();
    bench.push(2);
    for _ in 0..10 {
        let chain = queue.pop().unwrap().unwrap();
        assert_eq!(chain.head(), 0);
        chain.put_back();
    }
    assert_eq!(queue.state(), bench.state);
    assert!(!queue.is_starved(), "what was put back does not count");
    assert_eq!(bench.ring.used_index(), 0);
}

#[test]
fn v10_a_turn_ends_after_one_queue_full() {
    let mut bench = Bench::new(2);
    let mut queue = bench.queue();
    bench.push(2);
    let mut taken = 0;
    while let Some(chain) = queue.pop().unwrap() {
        chain.finish(0).unwrap();
        taken += 1;
        bench.push(1);
    }
    assert_eq!(taken, 2);
    assert!(queue.is_starved());
    queue.begin_turn();
    assert!(!queue.is_starved());
    assert!(queue.pop().unwrap().is_some());
}

#[test]
fn v16_flags_ask_for_notifications_only_when_the_queue_is_empty() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    assert!(queue.pop().unwrap().is_none());
    assert_eq!(bench.ring.used_flags(), 0);
    bench.push(1);
    queue.pop().unwrap().unwrap().finish(0).unwrap();
    assert_eq!(bench.ring.used_flags(), 1);
    assert!(!queue.has_available().unwrap());
    assert_eq!(bench.ring.used_flags(), 0);
}

#[test]
fn v16_event_index_asks_for_the_next_chain_only() {
    let mut bench = Bench::new(4);
    bench.state.event_idx = true;
    let mut queue = bench.queue();
    bench.push(2);
    queue.pop().unwrap().unwrap().finish(0).unwrap();
    assert_eq!(bench.ring.available_event(), 0, "still busy");
    queue.pop().unwrap().unwrap().finish(0).unwrap();
    assert!(queue.pop().unwrap().is_none());
    assert_eq!(bench.ring.available_event(), 2);
    assert_eq!(bench.ring.used_flags(), 0, "must not be used");
}

#[test]
fn v16_interrupts_follow_the_drivers_wish() {
    // (event index negotiated, driver's flags, driver's used event, chains) -> interrupt.
    for (event_idx, flags, event, chains, expected) in [
        (false, 0, 0, 1, true),
        (false, 1, 0, 1, false),
        (false, 0, 0, 0, false),
        (true, 1, 0, 1, true),
        (true, 0, 1, 1, false),
        (true, 0, 1, 2, true),
        (true, 0, 2, 2, false),
        (true, 0, 0xffff, 2, false),
        (true, 0, 0, 0, false),
    ] {
        let mut bench = Bench::new(4);
        bench.state.event_idx = event_idx;
        let mut queue = bench.queue();
        bench.ring.set_available_flags(flags);
        bench.ring.set_used_event(event);
        bench.push(chains);
        while let Some(chain) = queue.pop().unwrap() {
            chain.finish(0).unwrap();
        }
        queue.signal().unwrap();
        let case = (event_idx, flags, event, chains);
        assert_eq!(bench.line.take(), expected, "{case:?}");
        queue.signal().unwrap();
        assert!(!bench.line.take(), "{case:?}: signalled twice");
    }
}

#[test]
fn passing_an_index_wraps() {
    for (event, old, new, expected) in [
        (5, 5, 6, true),
        (5, 4, 5, false),
        (5, 6, 7, false),
        (0xffff, 0xfffe, 0, true),
        (0, 0xfffe, 0, false),
        (0, 0xfffe, 1, true),
        (3, 3, 3, false),
    ] {
        assert_eq!(passes(event, old, new), expected, "{event} {old} {new}");
    }
}

#[test]
fn room_in_several_chains_is_counted_without_taking_them() {
    let mut bench = Bench::new(8);
    let mut queue = bench.queue();
    bench.push(3);
    // Eight bytes each.
    for (len, most, expected) in [
        (0, 8, Some(1)),
        (8, 8, Some(1)),
        (9, 8, Some(2)),
        (24, 8, Some(3)),
        (24, 3, Some(3)),
        (25, 8, None),
        (25, 3, Some(0)),
        (9, 1, Some(0)),
    ] {
        let found = queue.chains_for(len, most).unwrap();
        assert_eq!(found, expected, "{len} bytes in {most} chains");
    }
    assert_eq!(queue.state().next_avail, 0);
    bench.push(1);
    assert_eq!(queue.chains_for(25, 8).unwrap(), Some(4));
}

#[test]
fn who_waits_for_more_chains_is_notified_of_the_next() {
    let mut bench = Bench::new(8);
    bench.state.event_idx = true;
    let mut queue = bench.queue();
    bench.push(3);
    assert_eq!(queue.chains_for(25, 8).unwrap(), None);
    // The driver notifies when it adds the fourth.
    assert_eq!(bench.ring.available_event(), 3);
    bench.push(1);
    assert_eq!(queue.chains_for(25, 8).unwrap(), Some(4));
    assert_eq!(bench.ring.available_event(), 3);
}

#[test]
fn chains_beyond_the_turns_budget_are_left_for_the_next() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    bench.push(4);
    queue.pop().unwrap().unwrap().finish(0).unwrap();
    bench.push(1);
    assert_eq!(queue.chains_for(32, 8).unwrap(), None);
    assert!(queue.is_starved());
    queue.begin_turn();
    assert_eq!(queue.chains_for(32, 8).unwrap(), Some(4));
}

#[test]
fn chains_that_belong_together_are_seen_together() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    bench.push(3);
    queue.pop().unwrap().unwrap().finish_with_next(8).unwrap();
    queue.pop().unwrap().unwrap().finish_with_next(7).unwrap();
    assert_eq!(bench.ring.used_index(), 0);
    queue.pop().unwrap().unwrap().finish(6).unwrap();
    assert_eq!(bench.ring.used_index(), 3);
    let lengths = [(); 3].map(|()| bench.ring.pop_used().unwrap().len);
    assert_eq!(lengths, [8, 7, 6]);
}
