//! Block requests through a real queue, on a disk of a few sectors.
#![no_main]

use std::io;

use cofferdam_fuzz::{Input, driver::Driver, rings};
use devices::block::{Block, BlockBackend, Extent};
use libfuzzer_sys::fuzz_target;
use vm_memory::VolatileSlice;

const SECTORS: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let bits = input.u8();
    let disk = Disk {
        content: vec![0x5a; SECTORS * 512],
        read_only: bits & 1 != 0,
        whole: bits & 2 == 0,
    };
    let mut driver = Driver::new(Box::new(Block::new(disk, "fuzz")));
    driver.start(u64::from(input.u32()), 1);
    while !input.is_empty() {
        if input.below(2) == 0 {
            let requests: Vec<_> = (0..=input.below(4)).map(|_| request(&mut input)).collect();
            let chains: Vec<_> = requests
                .iter()
                .map(|(bytes, room)| (bytes.as_slice(), *room))
                .collect();
            driver.request(0, &chains);
        } else {
            driver.offer(0, &mut input);
            rings::put(&driver.ram, rings::DATA, input.blob());
        }
        driver.turn();
    }
});

/// A header with a plausible kind and sector, and what follows it.
fn request(input: &mut Input<'_>) -> (Vec<u8>, u32) {
    let kind = u32::from(input.choose(&[0_u8, 1, 4, 8, 11, 13, 2, 255]));
    let sector = if input.u8() < 0xf0 {
        u64::from(input.u8() % 80)
    } else {
        input.u64()
    };
    let mut bytes = [kind.to_le_bytes(), input.array::<4>()].concat();
    bytes.extend(sector.to_le_bytes());
    let room = u32::from(input.u16() & 0x7ff);
    match kind {
        11 | 13 => (0..input.below(10)).for_each(|_| bytes.extend(range(input))),
        _ => bytes.extend([0x77].repeat(512 * input.below(2))),
    }
    bytes.extend(input.bytes(input.clone().below(8)));
    bytes.truncate(0x400);
    (bytes, room)
}

fn range(input: &mut Input<'_>) -> Vec<u8> {
    if input.u8() >= 0xf0 {
        return input.array::<16>().to_vec();
    }
    let (sector, count, flags) = (input.u8() % 80, input.u8() % 80, input.u8() % 3);
    [
        u64::from(sector).to_le_bytes(),
        (u64::from(count) | u64::from(flags) << 32).to_le_bytes(),
    ]
    .concat()
}

/// A disk in memory that trusts nothing it is asked.
struct Disk {
    content: Vec<u8>,
    read_only: bool,
    /// Transfers all that it is asked; else a part.
    whole: bool,
}

impl Disk {
    fn part(&mut self, extent: Extent) -> &mut [u8] {
        assert!(!self.read_only, "a write reached a read-only disk");
        let start = usize::try_from(extent.offset).expect("inside the disk");
        let len = usize::try_from(extent.len).expect("inside the disk");
        &mut self.content[start..start + len]
    }

    fn some(&self, len: usize) -> usize {
        if self.whole { len } else { len.min(100) }
    }
}

impl BlockBackend for Disk {
    fn bytes(&self) -> u64 {
        u64::try_from(self.content.len()).expect("a small disk")
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut at = usize::try_from(offset).expect("inside the disk");
        let Some(slice) = into.iter().find(|slice| !slice.is_empty()) else {
            return Ok(0);
        };
        let len = self.some(slice.len());
        slice
            .subslice(0, len)
            .expect("a part")
            .copy_from(&self.content[at..at + len]);
        at += len;
        assert!(at <= self.content.len());
        Ok(len)
    }

    fn write_at(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        let Some(slice) = from.iter().find(|slice| !slice.is_empty()) else {
            return Ok(0);
        };
        let len = self.some(slice.len());
        let part = self.part(Extent {
            offset,
            len: u64::try_from(len).expect("small"),
        });
        slice.subslice(0, len).expect("a part").copy_to(part);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, extent: Extent) -> io::Result<()> {
        self.part(extent).fill(0);
        Ok(())
    }

    fn write_zeroes(&mut self, extent: Extent, _may_unmap: bool) -> io::Result<()> {
        self.part(extent).fill(0);
        Ok(())
    }
}
