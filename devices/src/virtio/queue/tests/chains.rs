//! Descriptor chains, sound and hostile.

use super::*;

/// A walk as section 2.7.5 words it, with a list of what was visited: the slow reference.
fn reference(table: &[Descriptor], head: u16) -> Option<Vec<(u64, u32, bool)>> {
    let mut visited = Vec::new();
    let mut list = Vec::new();
    let mut index = head;
    loop {
        let descriptor = table.get(usize::from(index))?;
        if visited.contains(&index) {
            return None;
        }
        visited.push(index);
        let write = descriptor.flags & Descriptor::WRITE != 0;
        list.push((descriptor.address, descriptor.len, write));
        if descriptor.flags & Descriptor::NEXT == 0 {
            break;
        }
        index = descriptor.next;
    }
    let first_writable = list.iter().position(|(.., write)| *write);
    let ordered = first_writable.is_none_or(|at| list[at..].iter().all(|(.., write)| *write));
    ordered.then_some(list)
}

#[test]
fn v01_all_graphs_of_four_descriptors() {
    let bench = Bench::new(4);
    // A descriptor ends the chain or goes to one of four, or past the table; either direction.
    let kinds: Vec<_> = [None, Some(0), Some(1), Some(2), Some(3), Some(4)]
        .into_iter()
        .flat_map(|next| [(next, 0), (next, Descriptor::WRITE)])
        .collect();
    let count = kinds.len();
    for graph in 0..count.pow(4) {
        let table: Vec<_> = (0..4_u16)
            .map(|index| {
                let (next, direction) = kinds[graph / count.pow(u32::from(index)) % count];
                Descriptor {
                    address: BUFFER + u64::from(index) * 16,
                    len: u32::from(index) + 1,
                    flags: direction | next.map_or(0, |_| Descriptor::NEXT),
                    next: next.unwrap_or(0),
                }
            })
            .collect();
        for (index, descriptor) in (0..).zip(&table) {
            bench.ring.set_descriptor(index, *descriptor);
        }
        for head in 0..4 {
            let walked = walk(&bench.ram, &bench.state, head).ok();
            assert_eq!(walked, reference(&table, head), "graph {graph} head {head}");
        }
    }
}

#[test]
fn v02_every_head_and_every_next() {
    let bench = Bench::new(256);
    for head in 0..=u16::MAX {
        let expected = QueueError::DescriptorIndex {
            index: head,
            count: 256,
        };
        let walked = walk(&bench.ram, &bench.state, head);
        assert_eq!(walked.err(), (head >= 256).then_some(expected));
    }
    for next in 0..=u16::MAX {
        let flags = Descriptor::NEXT;
        let first = Descriptor {
            flags,
            next,
            ..readable(1)
        };
        bench.ring.set_descriptor(0, first);
        let walked = walk(&bench.ram, &bench.state, 0);
        assert_eq!(walked.is_ok(), (1..256).contains(&next), "{next}");
    }
}

#[test]
fn v03_boundary_lattice_of_addresses_and_lengths() {
    let bench = Bench::new(4);
    let (end, second) = (RAM, 2 * RAM);
    let addresses = [
        0,
        1,
        end - 1,
        end,
        end + 1,
        second - 1,
        second,
        second + RAM - 1,
    ]
    .into_iter()
    .chain([second + RAM, 1 << 32, 1 << 63, u64::MAX - 1, u64::MAX]);
    let lengths = [
        0,
        1,
        2,
        0xfff,
        0x1000,
        1 << 19,
        1 << 20,
        (1 << 20) + 1,
        u32::MAX,
    ];
    for address in addresses {
        for len in lengths {
            let inside = |start: u64| {
                let last = address.checked_add(u64::from(len));
                address >= start && last.is_some_and(|last| last <= start + RAM)
            };
            let fits = len == 0 || inside(0) || inside(second);
            for flags in [0, Descriptor::WRITE] {
                let descriptor = Descriptor {
                    address,
                    len,
                    flags,
                    next: 0,
                };
                bench.ring.set_descriptor(0, descriptor);
                let walked = walk(&bench.ram, &bench.state, 0);
                assert_eq!(walked.is_ok(), fits, "{len:#x} bytes at {address:#x}");
            }
        }
    }
}

#[test]
fn v03_a_chain_has_less_than_4_gib() {
    let size = 1 << 32;
    let ram = GuestRam::new(&[RamRange { start: 0, size }]).unwrap();
    let ring = Ring::new(&ram, 0, 4);
    let state = QueueState {
        size: 4,
        descriptors: ring.descriptors,
        available: ring.available,
        used: ring.used,
        ..QueueState::default()
    };
    let half = |next, len| Descriptor {
        address: 0,
        len,
        flags: if next == 0 { 0 } else { Descriptor::NEXT },
        next,
    };
    ring.set_descriptor(0, half(1, 1 << 31));
    ring.set_descriptor(1, half(0, (1 << 31) - 1));
    assert!(walk(&ram, &state, 0).is_ok());
    ring.set_descriptor(1, half(0, 1 << 31));
    assert_eq!(walk(&ram, &state, 0), Err(QueueError::ChainBytes));
}

/// A queue whose descriptor 0 is readable and goes on to 1, which `table` replaces.
fn with_table(table: Descriptor, indirect: bool) -> Result<Vec<(u64, u32, bool)>, QueueError> {
    let mut bench = Bench::new(4);
    bench.state.indirect = indirect;
    let ram = &bench.ram;
    // Tables: 4 sound descriptors at BUFFER, a loop at +0x100, an indirect one at +0x200.
    let link = |next, flags| Descriptor {
        flags,
        next,
        ..writable(8)
    };
    let next = Descriptor::NEXT | Descriptor::WRITE;
    let descriptors = [
        (0x000, link(1, next)),
        (0x010, link(3, next)),
        (0x030, link(0, Descriptor::WRITE)),
        (0x100, link(0, next)),
        (0x200, link(0, Descriptor::INDIRECT)),
        (0x300, link(4, next)),
    ];
    for (offset, descriptor) in descriptors {
        let at = GuestAddress(BUFFER + offset);
        ram.write_slice(&descriptor.to_bytes(), at).unwrap();
    }
    let first = Descriptor {
        flags: Descriptor::NEXT,
        next: 1,
        ..readable(5)
    };
    bench.ring.set_descriptor(0, first);
    bench.ring.set_descriptor(1, table);
    walk(ram, &bench.state, 0)
}

fn table(offset: u64, len: u32) -> Descriptor {
    Descriptor {
        address: BUFFER + offset,
        len,
        flags: Descriptor::INDIRECT,
        next: 0,
    }
}

#[test]
fn v08_a_sound_indirect_table_after_a_direct_descriptor() {
    let write = Descriptor {
        flags: Descriptor::INDIRECT | Descriptor::WRITE,
        ..table(0, 64)
    };
    for descriptor in [table(0, 64), write] {
        let list = with_table(descriptor, true).unwrap();
        let buffer = (BUFFER, 8, true);
        assert_eq!(list, [(BUFFER, 5, false), buffer, buffer, buffer]);
    }
}

#[test]
fn v08_hostile_indirect_tables() {
    let next = Descriptor {
        flags: Descriptor::INDIRECT | Descriptor::NEXT,
        ..table(0, 64)
    };
    let outside = Descriptor {
        address: RAM - 32,
        ..table(0, 64)
    };
    let wraps = Descriptor {
        address: u64::MAX - 15,
        ..table(0, 64)
    };
    let range = |address| QueueError::Range { address, len: 64 };
    let past = |index, count| QueueError::DescriptorIndex { index, count };
    for (name, descriptor, expected) in [
        ("empty", table(0, 0), QueueError::IndirectLength(0)),
        ("no multiple", table(0, 63), QueueError::IndirectLength(63)),
        ("with a next", next, QueueError::Indirect),
        ("nested", table(0x200, 16), QueueError::Indirect),
        ("loop", table(0x100, 16), QueueError::ChainLength),
        ("next past it", table(0x000, 48), past(3, 3)),
        ("next past the end", table(0x300, 64), past(4, 4)),
        ("into the hole", outside, range(RAM - 32)),
        ("wraps", wraps, range(u64::MAX - 15)),
    ] {
        assert_eq!(with_table(descriptor, true), Err(expected), "{name}");
    }
    let refused = with_table(table(0, 64), false);
    assert_eq!(refused, Err(QueueError::Indirect), "not negotiated");
    let huge = with_table(table(0, !15), true);
    assert!(matches!(huge, Err(QueueError::Range { .. })));
}

#[test]
fn v15_descriptors_that_point_at_the_ring_itself() {
    let mut bench = Bench::new(4);
    let mut queue = bench.queue();
    for (address, len) in [
        (bench.ring.descriptors, 64),
        (bench.ring.available, 14),
        (bench.ring.used, 38),
    ] {
        let descriptor = Descriptor {
            address,
            len,
            ..writable(0)
        };
        bench.ring.set_descriptor(0, descriptor);
        bench.ring.push(0);
        let before = queue.state();
        let chain = queue.pop().unwrap().unwrap();
        chain.writer().write_all(&[0xff; 14]).unwrap();
        chain.finish(14).unwrap();
        let after = queue.state();
        assert_eq!(after.next_avail, before.next_avail + 1);
        assert_eq!(after.next_used, before.next_used + 1);
        // The driver repairs what it had destroyed.
        bench.ring.set_available_index(after.next_avail);
    }
    bench.ring.push(0);
    assert!(queue.pop().is_ok());
}

#[test]
fn v07_a_driver_that_rewrites_descriptors_meanwhile() {
    use std::sync::atomic::AtomicBool;
    const ROUNDS: usize = 20_000;
    let mut bench = Bench::new(4);
    bench.state.indirect = true;
    let flipper = bench.ring.clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let lens = [0, 8, 64, 0x1000, u32::MAX];
            let addresses = [BUFFER, RAM - 4, RAM, u64::MAX, 0x1000];
            let mut turn = 0_usize;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let flags = u16::try_from(turn % 8).unwrap();
                let descriptor = Descriptor {
                    address: addresses[turn % 5],
                    len: lens[turn / 5 % 5],
                    flags,
                    next: u16::try_from(turn % 5).unwrap(),
                };
                flipper.set_descriptor(u16::try_from(turn % 4).unwrap(), descriptor);
            }
        });
        let mut queue = bench.queue();
        let mut data = vec![0; 0x2000];
        for _ in 0..ROUNDS {
            bench.ring.push(0);
            // An inconsistent chain is an error; a consistent one stays what was checked.
            if let Ok(Some(chain)) = queue.pop() {
                let (mut reader, mut writer) = (chain.reader(), chain.writer());
                let there = reader.remaining();
                assert_eq!(reader.read(&mut data), there.min(data.len()));
                let room = writer.available();
                assert_eq!(writer.write(&data), room.min(data.len()));
                chain.finish(0).unwrap();
            }
            bench.ring.set_available_index(queue.state().next_avail);
        }
        done.store(true, Ordering::Relaxed);
    });
}
