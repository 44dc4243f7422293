//! Reader and writer against a plain vector.

use proptest::prelude::*;
use vm_memory::VolatileSlice;

use super::*;

/// A step of a reader or writer: how many bytes, and by which way.
type Step = (usize, u8);

/// A queue with one chain: readable buffers of `lens`, then writable ones of the same. All are
/// apart, so that writing past a buffer shows.
fn chain_of(lens: &[u32]) -> (Bench, Vec<u8>) {
    let mut bench = Bench::new(256);
    let mut content = Vec::new();
    let mut index = 0;
    for flags in [0, Descriptor::WRITE] {
        for len in lens {
            let address = BUFFER + u64::from(index) * 0x100;
            let data: Vec<u8> = (0..*len)
                .map(|i| u8::try_from((u32::from(index) * 31 + i) % 256).unwrap())
                .collect();
            bench.ram.write_slice(&data, GuestAddress(address)).unwrap();
            if flags == 0 {
                content.extend(data);
            }
            let last = usize::from(index) + 1 == 2 * lens.len();
            let next = if last { 0 } else { Descriptor::NEXT };
            let descriptor = Descriptor {
                address,
                len: *len,
                flags: flags | next,
                next: index + 1,
            };
            bench.ring.set_descriptor(index, descriptor);
            index += 1;
        }
    }
    bench.ring.push(0);
    (bench, content)
}

fn written(bench: &Bench, lens: &[u32]) -> Vec<u8> {
    let first = u64::try_from(lens.len()).unwrap();
    let parts = (first..).zip(lens).map(|(index, len)| {
        let mut data = vec![0; usize::try_from(*len).unwrap()];
        let address = GuestAddress(BUFFER + index * 0x100);
        bench.ram.read_slice(&mut data, address).unwrap();
        data
    });
    parts.flatten().collect()
}

fn copy_out(slices: &[VolatileSlice<'_>], data: &mut Vec<u8>) -> usize {
    slices
        .iter()
        .map(|slice| {
            let mut part = vec![0; slice.len()];
            slice.copy_to(&mut part);
            data.extend(part);
            slice.len()
        })
        .sum()
}

proptest! {
    #[test]
    fn a_reader_gives_the_buffers_in_order(
        lens in prop::collection::vec(0_u32..40, 1..20),
        steps in prop::collection::vec((0_usize..60, 0_u8..4), 0..20),
    ) {
        let (bench, content) = chain_of(&lens);
        let mut queue = bench.queue();
        let chain = queue.pop().unwrap().unwrap();
        let mut reader = chain.reader();
        let mut rest = content.as_slice();
        for (count, way) in steps {
            prop_assert_eq!(reader.remaining(), rest.len());
            let there = count.min(rest.len());
            let mut data = vec![0; count];
            match way {
                0 => prop_assert_eq!(reader.read(&mut data), there),
                1 => {
                    let result = reader.read_exact(&mut data);
                    let missing = count - there;
                    prop_assert_eq!(result.err(), (missing > 0).then_some(ShortBuffer { missing }));
                    if missing > 0 { continue; }
                }
                2 => {
                    data.clear();
                    let done = reader.drain_with(count, |slices| {
                        Ok::<_, ()>(copy_out(slices, &mut data))
                    });
                    prop_assert_eq!(done, Ok(there));
                }
                _ => {
                    let Ok((mut first, second)) = reader.clone().split_at(count) else {
                        prop_assert!(count > rest.len());
                        continue;
                    };
                    prop_assert_eq!(first.remaining(), count);
                    first.read_exact(&mut data).unwrap();
                    reader = second;
                }
            }
            prop_assert_eq!(&data[..there], &rest[..there]);
            rest = &rest[there..];
        }
    }

    #[test]
    fn a_writer_fills_the_buffers_in_order_and_nothing_else(
        lens in prop::collection::vec(0_u32..40, 1..20),
        steps in prop::collection::vec((0_usize..60, 0_u8..4), 0..20),
    ) {
        let (bench, _) = chain_of(&lens);
        let before = written(&bench, &lens);
        let mut queue = bench.queue();
        let chain = queue.pop().unwrap().unwrap();
        let expected = write_steps(chain.writer(), &steps, before);
        chain.finish(0).unwrap();
        prop_assert_eq!(written(&bench, &lens), expected);
    }
}

/// Does `steps`, and returns what the buffers must hold then if they held `content`.
fn write_steps(mut writer: Writer<'_>, steps: &[Step], mut content: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    for (round, (count, way)) in (1_u8..).zip(steps) {
        let count = *count;
        let room = content.len() - at;
        assert_eq!(writer.available(), room);
        let there = count.min(room);
        let data = vec![round; count];
        match way {
            0 => assert_eq!(writer.write(&data), there),
            1 if count > room => {
                let missing = count - room;
                assert_eq!(writer.write_all(&data), Err(ShortBuffer { missing }));
                continue;
            }
            1 => writer.write_all(&data).unwrap(),
            2 => {
                let fill = |slices: &[VolatileSlice<'_>]| {
                    let bytes = slices.iter().map(|slice| {
                        slice.copy_from(&vec![round; slice.len()]);
                        slice.len()
                    });
                    Ok::<_, ()>(bytes.sum())
                };
                assert_eq!(writer.fill_with(count, fill), Ok(there));
            }
            _ => {
                let total = room;
                let (mut first, second) = writer.split_at(there).unwrap();
                first.write_all(&data[..there]).unwrap();
                assert_eq!((first.available(), second.available()), (0, total - there));
                writer = second;
            }
        }
        content[at..at + there].fill(round);
        at += there;
    }
    content
}

#[test]
fn a_backend_that_does_less_moves_the_position_by_that() {
    let (bench, content) = chain_of(&[10, 10]);
    let mut queue = bench.queue();
    let chain = queue.pop().unwrap().unwrap();
    let (mut reader, mut writer) = (chain.reader(), chain.writer());
    assert_eq!(reader.drain_with(15, |_| Ok::<_, ()>(12)), Ok(12));
    assert_eq!(
        reader.drain_with(15, |_| Err::<usize, _>("host")),
        Err("host")
    );
    assert_eq!(reader.remaining(), 8);
    let mut data = [0; 2];
    reader.read_exact(&mut data).unwrap();
    assert_eq!(data, content[12..14]);
    assert_eq!(writer.fill_with(15, |_| Ok::<_, ()>(usize::MAX)), Ok(15));
    assert_eq!((writer.available(), writer.written()), (5, 15));
}

#[test]
fn no_bytes_means_that_none_are_left() {
    let mut lens = [0; 100];
    lens[99] = 5;
    let (bench, _) = chain_of(&lens);
    let mut queue = bench.queue();
    let chain = queue.pop().unwrap().unwrap();
    let (mut reader, mut writer) = (chain.reader(), chain.writer());
    let count = |slices: &[VolatileSlice<'_>]| Ok::<_, ()>(slices.iter().map(|s| s.len()).sum());
    assert_eq!(reader.drain_with(9, count), Ok(5));
    assert_eq!(writer.fill_with(9, count), Ok(5));
    assert_eq!(reader.drain_with(9, count), Ok(0));
}

/// Repeats `step` until it moves nothing, and says how much it moved each time.
#[cfg(unix)]
fn each(mut step: impl FnMut(u64) -> std::io::Result<usize>) -> Vec<usize> {
    let (mut moved, mut offset) = (Vec::new(), 0);
    loop {
        match step(offset).unwrap() {
            0 => return moved,
            count => {
                moved.push(count);
                offset += u64::try_from(count).unwrap();
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn files_are_written_and_read_where_the_buffers_are() {
    use std::os::fd::AsFd as _;
    // Of buffers that are apart, one call takes as many as it has places for.
    for (lens, calls) in [
        (vec![10], vec![10]),
        (vec![7; 64], vec![448]),
        (vec![7; 65], vec![448, 7]),
        ((1..101).collect(), vec![2080, 2970]),
    ] {
        let (bench, content) = chain_of(&lens);
        let mut queue = bench.queue();
        let chain = queue.pop().unwrap().unwrap();
        let (mut reader, mut writer) = (chain.reader(), chain.writer());
        let file = tempfile::tempfile().unwrap();
        let moved = each(|at| reader.write_to_file(file.as_fd(), at, usize::MAX));
        assert_eq!(moved, calls);
        assert_eq!(file.metadata().unwrap().len(), content.len() as u64);
        let moved = each(|at| writer.read_from_file(file.as_fd(), at, usize::MAX));
        assert_eq!(moved, calls);
        drop(chain);
        assert_eq!(written(&bench, &lens), content);
    }
}

#[cfg(unix)]
#[test]
fn a_transfer_with_a_file_moves_the_position_by_what_was_moved() {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileExt as _;
    let lens = [3; 10];
    let (bench, content) = chain_of(&lens);
    let before = written(&bench, &lens);
    let mut queue = bench.queue();
    let chain = queue.pop().unwrap().unwrap();
    let (mut reader, mut writer) = (chain.reader(), chain.writer());
    let file = tempfile::tempfile().unwrap();
    let closed = std::io::pipe().unwrap().0;
    assert!(reader.write_to_file(closed.as_fd(), 0, 4).is_err());
    assert!(writer.read_from_file(closed.as_fd(), 0, 4).is_err());
    assert!(writer.read_from_file(file.as_fd(), u64::MAX, 4).is_err());
    assert_eq!(
        (reader.remaining(), writer.available(), writer.written()),
        (30, 30, 0)
    );
    reader.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(reader.write_to_file(file.as_fd(), 2, 8).unwrap(), 8);
    assert_eq!(reader.remaining(), 18);
    let mut there = [1; 10];
    file.read_exact_at(&mut there, 0).unwrap();
    assert_eq!((&there[..2], &there[2..]), (&[0; 2][..], &content[4..12]));
    // The file ends before the room does.
    writer.reserve(5).unwrap().write_all(b"head!").unwrap();
    assert_eq!(writer.read_from_file(file.as_fd(), 2, 25).unwrap(), 8);
    assert_eq!(writer.read_from_file(file.as_fd(), 10, 17).unwrap(), 0);
    assert_eq!((writer.available(), writer.written()), (17, 13));
    drop(chain);
    let expected = [b"head!", &content[4..12], &before[13..]].concat();
    assert_eq!(written(&bench, &lens), expected);
}

#[test]
fn a_reserved_place_is_written_later_and_counts_at_once() {
    let (bench, _) = chain_of(&[6, 6]);
    let mut queue = bench.queue();
    let chain = queue.pop().unwrap().unwrap();
    let mut writer = chain.writer();
    writer.write_all(b"ab").unwrap();
    let mut place = writer.reserve(5).unwrap();
    assert_eq!((writer.written(), writer.available()), (7, 5));
    writer.write_all(b"xyz").unwrap();
    assert_eq!((place.written(), place.available()), (0, 5));
    assert_eq!(place.write(b"12345678"), 5);
    assert_eq!(writer.reserve(3).unwrap_err(), ShortBuffer { missing: 1 });
    assert_eq!((writer.written(), writer.available()), (10, 2));
    drop(chain);
    assert_eq!(written(&bench, &[6, 6])[..10], *b"ab12345xyz");
}

#[test]
fn objects_are_little_endian_and_whole_or_not_at_all() {
    use zerocopy::little_endian::U32;
    let (bench, content) = chain_of(&[6]);
    let mut queue = bench.queue();
    let chain = queue.pop().unwrap().unwrap();
    let (mut reader, mut writer) = (chain.reader(), chain.writer());
    let object: U32 = reader.read_obj().unwrap();
    assert_eq!(object.get().to_le_bytes(), content[..4]);
    assert_eq!(reader.read_obj::<U32>(), Err(ShortBuffer { missing: 2 }));
    assert_eq!(reader.remaining(), 2);
    writer.write_obj(&U32::new(0x0403_0201)).unwrap();
    assert!(writer.write_obj(&U32::new(0)).is_err());
    assert_eq!(writer.written(), 4);
    drop(chain);
    assert_eq!(written(&bench, &[6])[..4], [1, 2, 3, 4]);
}
