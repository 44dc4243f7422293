//! The queue against rust-vmm's `virtio-queue`, on the same memory.

use proptest::prelude::*;
use virtio_queue::{Queue, QueueT as _};

use super::*;

const SIZE: u16 = 8;

fn oracle(state: &QueueState) -> Queue {
    let mut queue = Queue::new(state.size).unwrap();
    queue.try_set_size(state.size).unwrap();
    let address = GuestAddress;
    queue
        .try_set_desc_table_address(address(state.descriptors))
        .unwrap();
    queue
        .try_set_avail_ring_address(address(state.available))
        .unwrap();
    queue
        .try_set_used_ring_address(address(state.used))
        .unwrap();
    queue.set_event_idx(state.event_idx);
    queue.set_ready(true);
    queue
}

/// The descriptors of a chain as the other implementation sees them, if they are a sound chain: it
/// ends an unsound one silently, and leaves addresses and order to the device.
fn sound_chain(queue: &mut Queue, ram: &GuestRam) -> Option<Vec<(u64, u32, bool)>> {
    let chain = queue.pop_descriptor_chain(&**ram)?;
    let list: Vec<_> = chain.collect();
    let ended = list.last().is_some_and(|last| !last.has_next());
    let in_ram = list.iter().all(|descriptor| {
        let len = u64::from(descriptor.len());
        len == 0 || state::check_range(ram, descriptor.addr().0, len).is_ok()
    });
    let ordered = list.is_sorted_by_key(|descriptor| descriptor.is_write_only());
    let short = list.len() <= usize::from(SIZE);
    (ended && in_ram && ordered && short).then(|| {
        let buffer =
            |d: &virtio_queue::desc::split::Descriptor| (d.addr().0, d.len(), d.is_write_only());
        list.iter().map(buffer).collect()
    })
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => BUFFER..BUFFER + 0x1000,
        1 => Just(RAM - 8),
        1 => any::<u64>(),
    ]
}

fn descriptor() -> impl Strategy<Value = Descriptor> {
    let flags = prop_oneof![2 => Just(0_u16), 4 => Just(1), 2 => Just(2), 4 => Just(3)];
    let len = prop_oneof![8 => 0_u32..64, 1 => any::<u32>()];
    (address(), len, flags, 0..SIZE + 1).prop_map(|(address, len, flags, next)| Descriptor {
        address,
        len,
        flags,
        next,
    })
}

/// Where indirect tables are: entries of `descriptor()`, all in RAM.
const TABLE: u64 = RAM / 4;

fn indirect() -> impl Strategy<Value = Descriptor> {
    (0_u64..4, 1_u32..5).prop_map(|(first, count)| Descriptor {
        address: TABLE + 16 * first,
        len: 16 * count,
        flags: Descriptor::INDIRECT,
        next: 0,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_same_chains_are_sound(
        direct in prop::collection::vec(prop_oneof![5 => descriptor(), 1 => indirect()], 8),
        table in prop::collection::vec(descriptor(), 8),
        head in 0..SIZE + 1,
    ) {
        let mut bench = Bench::new(SIZE);
        bench.state.indirect = true;
        for (index, descriptor) in (0..).zip(&direct) {
            bench.ring.set_descriptor(index, *descriptor);
        }
        for (index, descriptor) in (0..).zip(&table) {
            let at = GuestAddress(TABLE + 16 * index);
            bench.ram.write_slice(&descriptor.to_bytes(), at).unwrap();
        }
        bench.ring.push(head);
        let theirs = sound_chain(&mut oracle(&bench.state), &bench.ram);
        prop_assert_eq!(walk(&bench.ram, &bench.state, head).ok(), theirs);
    }

    #[test]
    fn rings_interrupts_and_notifications_are_the_same(
        event_idx: bool,
        start: u16,
        steps in prop::collection::vec((0_u16..4, 0_u16..4, any::<u16>()), 1..40),
    ) {
        let mut ours = Bench::new(SIZE);
        let mut theirs = Bench::new(SIZE);
        for bench in [&mut ours, &mut theirs] {
            (bench.state.event_idx, bench.state.next_avail) = (event_idx, start);
            bench.state.next_used = start;
            bench.ring.next_used = start;
            bench.ring.set_available_index(start);
        }
        let mut queue = ours.queue();
        let mut other = oracle(&theirs.state);
        other.set_next_avail(start);
        other.set_next_used(start);
        for (push, pop, event) in steps {
            queue.begin_turn();
            let room = SIZE - ours.ring.next_avail.wrapping_sub(queue.state().next_avail);
            for bench in [&mut ours, &mut theirs] {
                bench.push(push.min(room));
                // Near the used index, so that it matters.
                bench.ring.set_used_event(bench.ring.used_index().wrapping_add(event % 4));
            }
            let mut finished = 0;
            for _ in 0..pop {
                let mine = queue.pop().unwrap();
                let head = mine.as_ref().map(Chain::head);
                let chain = other.pop_descriptor_chain(&*theirs.ram);
                prop_assert_eq!(head, chain.map(|chain| chain.head_index()));
                if let (Some(chain), Some(head)) = (mine, head) {
                    chain.finish(5).unwrap();
                    other.add_used(&*theirs.ram, head, 5).unwrap();
                    finished += 1;
                }
            }
            queue.signal().unwrap();
            let wanted = other.needs_notification(&*theirs.ram).unwrap();
            prop_assert_eq!(ours.line.take(), wanted && finished > 0);
            prop_assert_eq!(ours.ring.used_index(), theirs.ring.used_index());
            let more = queue.has_available().unwrap();
            prop_assert_eq!(more, other.enable_notification(&*theirs.ram).unwrap());
            if event_idx && !more {
                prop_assert_eq!(ours.ring.available_event(), theirs.ring.available_event());
            }
        }
        loop {
            let used = ours.ring.pop_used();
            prop_assert_eq!(used, theirs.ring.pop_used());
            if used.is_none() { break; }
        }
    }
}
