use std::sync::Mutex;

use proptest::prelude::*;

use super::DoorbellSpace::{Mmio, Pio};
use super::*;

/// Remembers writes, and answers reads with its number and the offset.
#[derive(Default)]
struct Recorder {
    number: u8,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

fn answer(number: u8, offset: u64) -> u8 {
    number.wrapping_add(u8::try_from(offset % 256).unwrap())
}

impl BusDevice for Recorder {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(answer(self.number, offset));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.writes.lock().unwrap().push((offset, data.to_vec()));
    }
}

fn device(number: u8) -> Arc<Recorder> {
    Arc::new(Recorder {
        number,
        ..Recorder::default()
    })
}

fn read(bus: &Bus, address: u64, width: usize) -> Vec<u8> {
    let mut data = vec![0; width];
    bus.mmio_read(address, &mut data);
    data
}

#[test]
fn accesses_reach_the_device_at_their_offset() {
    let (low, high) = (device(1), device(100));
    let mut builder = BusBuilder::new();
    builder.insert(Mmio, 0x2000, 0x100, high.clone()).unwrap();
    builder.insert(Mmio, 0x1000, 0x1000, low.clone()).unwrap();
    let bus = builder.build();
    for (address, width, expected) in [
        (0x1000, 1, 1),
        (0x1010, 4, 17),
        (0x1fff, 1, 0),
        (0x2000, 8, 100),
        (0x20ff, 1, 99),
        (0x0fff, 1, 0xff),
        (0x2100, 4, 0xff),
        (u64::MAX, 1, 0xff),
        // An access that leaves a window is at nothing.
        (0x0ffe, 4, 0xff),
        (0x1ffe, 4, 0xff),
        (0x20fd, 4, 0xff),
    ] {
        assert_eq!(
            read(&bus, address, width),
            vec![expected; width],
            "{address:#x}"
        );
        bus.mmio_write(address, &vec![0; width]);
    }
    let offsets = |device: &Recorder| {
        let writes = device.writes.lock().unwrap();
        writes
            .iter()
            .map(|(offset, data)| (*offset, data.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(offsets(&low), [(0, 1), (0x10, 4), (0xfff, 1)]);
    assert_eq!(offsets(&high), [(0, 8), (0xff, 1)]);
}

#[test]
fn ports_and_memory_are_apart() {
    let mut builder = BusBuilder::new();
    builder.insert(Pio, 0x3f8, 8, device(5)).unwrap();
    builder.insert(Pio, 0xffff, 1, device(6)).unwrap();
    let bus = builder.build();
    let mut data = [0];
    for (port, expected) in [(0x3f8, 5), (0x3ff, 12), (0x400, 0xff), (0xffff, 6)] {
        bus.pio_read(port, &mut data);
        assert_eq!(data, [expected], "{port:#x}");
    }
    assert_eq!(read(&bus, 0x3f8, 1), [0xff]);
    bus.pio_write(0x80, &[0]);
}

#[test]
fn windows_that_overlap_or_leave_the_space_are_refused() {
    let mut builder = BusBuilder::new();
    builder.insert(Mmio, 0x1000, 0x1000, device(0)).unwrap();
    for (base, size) in [
        (0x1000, 1),
        (0x1fff, 1),
        (0, 0x1001),
        (0xfff, 2),
        (0, 0x8000),
    ] {
        let result = builder.insert(Mmio, base, size, device(0));
        assert_eq!(result, Err(BusError::Overlap { base, size }));
    }
    for (space, base, size) in [
        (Mmio, 0x5000, 0),
        (Mmio, u64::MAX, 2),
        (Mmio, 2, u64::MAX),
        (Pio, 0x1_0000, 1),
        (Pio, 0xffff, 2),
    ] {
        let result = builder.insert(space, base, size, device(0));
        assert_eq!(result, Err(BusError::Window { base, size }));
    }
    for (base, size) in [(0xfff, 1), (0x2000, 0x1000), (u64::MAX, 1)] {
        assert_eq!(builder.insert(Mmio, base, size, device(0)), Ok(()));
    }
}

#[test]
fn doorbells_take_only_the_writes_that_fit() {
    let target = device(0);
    let events: Vec<_> = (0..3).map(|_| Event::new().unwrap()).collect();
    let mut builder = BusBuilder::new();
    builder.insert(Mmio, 0, 0x1000, target.clone()).unwrap();
    builder.doorbell(Mmio, 0x50, 4, Some(0), &events[0]);
    builder.doorbell(Mmio, 0x50, 4, Some(1), &events[1]);
    builder.doorbell(Mmio, 0x60, 2, None, &events[2]);
    let bus = builder.build();
    let mut passed = 0;
    for (address, data, rung) in [
        (0x50, &[0, 0, 0, 0][..], Some(0)),
        (0x50, &[1, 0, 0, 0], Some(1)),
        (0x50, &[2, 0, 0, 0], None),
        (0x50, &[0, 0], None),
        (0x50, &[0; 8], None),
        (0x51, &[0; 4], None),
        (0x60, &[9, 9], Some(2)),
        (0x60, &[9], None),
    ] {
        bus.mmio_write(address, data);
        let signalled = events.iter().position(Event::take);
        assert_eq!(signalled, rung, "{data:?} at {address:#x}");
        passed += usize::from(rung.is_none());
    }
    assert_eq!(target.writes.lock().unwrap().len(), passed);
    bus.pio_write(0x50, &[0; 4]);
    assert!(!events[0].take(), "another address space");
}

#[test]
fn the_first_access_is_remembered() {
    let bus = BusBuilder::new().build();
    assert_eq!(bus.first_access(), None);
    bus.pio_write(0x80, &[1]);
    let first = bus.first_access().unwrap();
    bus.mmio_write(0, &[1]);
    assert_eq!(bus.first_access(), Some(first));
}

proptest! {
    #[test]
    fn any_set_of_windows_answers_like_a_list(
        windows in prop::collection::vec((0_u64..256, 0_u64..32), 0..24),
    ) {
        let mut builder = BusBuilder::new();
        let mut list: Vec<(u64, u64, u8)> = Vec::new();
        for (number, (base, size)) in (1..).zip(windows) {
            let apart = |(other, len, _): &(u64, u64, u8)| base + size <= *other || other + len <= base;
            let fits = size > 0 && list.iter().all(apart);
            let inserted = builder.insert(Mmio, base, size, device(number));
            prop_assert_eq!(inserted.is_ok(), fits);
            if fits { list.push((base, size, number)); }
        }
        let bus = builder.build();
        for address in 0..300 {
            let hit = list.iter().find(|(base, size, _)| (*base..base + size).contains(&address));
            let expected = hit.map_or(0xff, |(base, _, number)| answer(*number, address - base));
            prop_assert_eq!(read(&bus, address, 1), vec![expected]);
        }
    }
}
