use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::testkit::{Descriptor, Driver, Response};

const SECTORS: u64 = 64;
const BYTES: usize = 512 * 64;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

/// A disk in memory that moves few bytes at a time, counts flushes and can fail.
#[derive(Clone)]
struct Memory {
    content: Arc<Mutex<Vec<u8>>>,
    flushes: Arc<Mutex<usize>>,
    read_only: bool,
    fails: bool,
}

impl Memory {
    fn new() -> Self {
        let content = (0..64).flat_map(|sector| [sector; 512]).collect();
        Self {
            content: Arc::new(Mutex::new(content)),
            flushes: Arc::default(),
            read_only: false,
            fails: false,
        }
    }

    fn content(&self) -> Vec<u8> {
        self.content.lock().unwrap().clone()
    }

    fn check(&self) -> io::Result<()> {
        if self.fails {
            Err(io::Error::other("disk"))
        } else {
            Ok(())
        }
    }
}

impl BlockBackend for Memory {
    fn bytes(&self) -> u64 {
        SECTORS * 512
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check()?;
        let at = usize::try_from(offset).unwrap();
        let first = into.iter().find(|slice| !slice.is_empty()).unwrap();
        let count = first.len().min(100);
        first.copy_from(&self.content()[at..at + count]);
        Ok(count)
    }

    fn write_at(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.check()?;
        let at = usize::try_from(offset).unwrap();
        let first = from.iter().find(|slice| !slice.is_empty()).unwrap();
        let count = first.len().min(100);
        first.copy_to(&mut self.content.lock().unwrap()[at..at + count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        *self.flushes.lock().unwrap() += 1;
        self.check()
    }

    fn discard(&mut self, extent: Extent) -> io::Result<()> {
        self.write_zeroes(extent, true)
    }

    fn write_zeroes(&mut self, extent: Extent, may_unmap: bool) -> io::Result<()> {
        self.check()?;
        let at = usize::try_from(extent.offset).unwrap();
        let len = usize::try_from(extent.len).unwrap();
        self.content.lock().unwrap()[at..at + len].fill(if may_unmap { 0xdd } else { 0 });
        Ok(())
    }
}

crate::device_contract_tests!(|| Block::new(Memory::new(), "contract"));

fn driver(disk: impl BlockBackend) -> Driver {
    Driver::running(Box::new(Block::new(disk, "disk-0")))
}

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

/// The status byte and what was read.
fn result(mut response: Response) -> (u8, Vec<u8>) {
    let status = response.data.pop().unwrap();
    (status, response.data)
}

fn write(driver: &mut Driver, kind: u32, sector: u64, data: &[u8]) -> u8 {
    let response = driver.request(0, &[&header(kind, sector), data], &[1]);
    if response.written != 0 {
        assert_eq!(response.written, 1);
    }
    result(response).0
}

fn read(driver: &mut Driver, sector: u64, bytes: usize) -> (u8, Vec<u8>) {
    result(driver.request(0, &[&header(IN, sector)], &[bytes, 1]))
}

#[test]
fn reads_and_writes_reach_the_disk() {
    let disk = Memory::new();
    let mut driver = driver(disk.clone());
    assert_eq!(
        read(&mut driver, 3, 1024),
        (0, disk.content()[1536..2560].to_vec())
    );
    let data: Vec<u8> = (0..=255).cycle().take(1024).collect();
    assert_eq!(write(&mut driver, OUT, 62, &data), 0);
    assert_eq!(disk.content()[62 * 512..], data);
    assert_eq!(read(&mut driver, 62, 1024), (0, data));
    assert!(driver.line.take());
}

#[test]
fn any_split_of_a_request_into_buffers_is_the_same() {
    let mut driver = driver(Memory::new());
    let head = header(IN, 1);
    let (first, second) = head.split_at(5);
    let response = driver.request(0, &[first, second], &[7, 500, 5, 1]);
    assert_eq!(
        (response.written, result(response)),
        (513, (0, vec![1; 512]))
    );
    // The status byte at the end of the data's buffer.
    let response = driver.request(0, &[&head], &[513]);
    assert_eq!(result(response), (0, vec![1; 512]));
    let data = vec![9; 512];
    let out = [&header(OUT, 1)[..], &data].concat();
    assert_eq!(driver.request(0, &[&out], &[1]).data, [0]);
    assert_eq!(read(&mut driver, 1, 512), (0, data));
}

#[test]
fn v11_boundary_lattice_of_sectors_and_lengths() {
    let disk = Memory::new();
    let before = disk.content();
    let mut driver = driver(disk.clone());
    let sectors = [0, 1, SECTORS - 1, SECTORS, SECTORS + 1]
        .into_iter()
        .chain([
            1 << 54,
            (1 << 55) - 1,
            1 << 55,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
        ]);
    for sector in sectors {
        for bytes in [0, 1, 511, 512, 513, 1024, BYTES, BYTES + 512] {
            let whole = bytes % 512 == 0;
            let count = u64::try_from(bytes / 512).unwrap();
            let inside = sector.checked_add(count).is_some_and(|end| end <= SECTORS);
            let expected = if whole && inside { 0 } else { 1 };
            let case = format!("{bytes} bytes at {sector}");
            assert_eq!(read(&mut driver, sector, bytes).0, expected, "{case}");
            if expected == 1 {
                assert_eq!(
                    write(&mut driver, OUT, sector, &vec![0x77; bytes]),
                    1,
                    "{case}"
                );
            }
        }
    }
    assert_eq!(disk.content(), before);
}

/// A large disk without content, which moves all that it is asked to at once.
struct Endless;

impl BlockBackend for Endless {
    fn bytes(&self) -> u64 {
        1 << 40
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, into: &[VolatileSlice<'_>], _: u64) -> io::Result<usize> {
        Ok(into.iter().map(VolatileSlice::len).sum())
    }

    fn write_at(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize> {
        self.read_at(from, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&mut self, _: Extent) -> io::Result<()> {
        Ok(())
    }

    fn write_zeroes(&mut self, _: Extent, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// The same buffer again and again makes a request as large as the chain is long.
#[test]
fn requests_are_bounded_although_buffers_may_overlap() {
    let mut driver = driver(Endless);
    let (read, write) = (header(IN, 0), header(OUT, 0));
    let (read, write) = (driver.readable(&read), driver.readable(&write));
    let buffer = driver.writable(8 << 20);
    let sector = driver.writable(512);
    let status = driver.writable(1);
    let of = |buffer: Descriptor, flags| Descriptor { flags, ..buffer };
    for (extra, expected) in [(None, 0), (Some(sector), 1)] {
        for (head, flags) in [(read, Descriptor::WRITE), (write, 0)] {
            let mut chain = vec![head];
            chain.extend([of(buffer, flags); 8]);
            chain.extend(extra.map(|sector| of(sector, flags)));
            chain.push(status);
            driver.push(0, 0, &chain);
            driver.kick(0);
            driver.wait_used(0);
            assert_eq!(driver.bytes(status), [expected], "{extra:?}");
        }
    }
    let announced = u64::from(wire::MAX_SEGMENT_BYTES) * u64::from(QUEUE_SIZE - 2);
    assert!(announced <= wire::MAX_REQUEST_BYTES);
}

#[test]
fn v11_ranges_are_checked_before_any_is_acted_on() {
    let disk = Memory::new();
    let before = disk.content();
    let mut driver = driver(disk.clone());
    let good = range(0, 1, 0);
    let max = wire::MAX_DISCARD_SECTORS;
    for (name, payload, status) in [
        ("none", vec![], 1),
        ("half a range", good[..8].to_vec(), 1),
        ("a range and a half", [&good[..], &good[..8]].concat(), 1),
        ("too many", good.repeat(9), 1),
        (
            "past the end",
            [good.clone(), range(SECTORS, 1, 0)].concat(),
            1,
        ),
        ("across the end", range(SECTORS - 1, 2, 0), 1),
        ("overflow", range(u64::MAX, u32::MAX, 0), 1),
        ("overflow in bytes", range(1 << 55, 1, 0), 1),
        ("too long", range(0, max + 1, 0), 1),
        ("unknown flag", [good.clone(), range(0, 1, 2)].concat(), 2),
    ] {
        assert_eq!(write(&mut driver, DISCARD, 0, &payload), status, "{name}");
        assert_eq!(
            write(&mut driver, WRITE_ZEROES, 0, &payload),
            status,
            "{name}"
        );
    }
    // Unmapping is a flag of the other request.
    assert_eq!(write(&mut driver, DISCARD, 0, &range(0, 1, 1)), 2);
    assert_eq!(disk.content(), before);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    let disk = Memory::new();
    let mut driver = driver(disk.clone());
    let two = [range(1, 1, 0), range(3, 2, 1)].concat();
    assert_eq!(write(&mut driver, WRITE_ZEROES, 0, &two), 0);
    assert_eq!(write(&mut driver, DISCARD, 0, &range(63, 1, 0)), 0);
    let content = disk.content();
    for (sector, byte) in [
        (0, 0),
        (1, 0),
        (2, 2),
        (3, 0xdd),
        (4, 0xdd),
        (5, 5),
        (63, 0xdd),
    ] {
        assert_eq!(
            content[sector * 512..][..512],
            [byte; 512],
            "sector {sector}"
        );
    }
}

#[test]
fn flush_identity_and_unknown_requests() {
    let disk = Memory::new();
    let mut driver = driver(disk.clone());
    assert_eq!(write(&mut driver, FLUSH, 0, &[]), 0);
    assert_eq!(*disk.flushes.lock().unwrap(), 1);
    let response = driver.request(0, &[&header(GET_ID, 0)], &[20, 1]);
    assert_eq!(
        result(response),
        (0, b"disk-0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec())
    );
    let response = driver.request(0, &[&header(GET_ID, 0)], &[4, 1]);
    assert_eq!(result(response), (0, b"disk".to_vec()));
    for kind in [2, 3, 5, 14, 15, 26, u32::MAX] {
        assert_eq!(write(&mut driver, kind, 0, &[]), 2, "{kind}");
    }
}

#[test]
fn v09_malformed_requests_come_back_and_the_queue_goes_on() {
    let mut driver = driver(Memory::new());
    // No status byte, no header, half a header, header in the wrong direction.
    assert_eq!(driver.request(0, &[&header(IN, 0)], &[]).written, 0);
    assert_eq!(driver.request(0, &[], &[1]).data, [1]);
    assert_eq!(driver.request(0, &[&[0; 15]], &[1]).data, [1]);
    assert_eq!(driver.request(0, &[], &[16, 512, 1]).data.last(), Some(&1));
    for _ in 0..600 {
        assert_eq!(driver.request(0, &[], &[]).written, 0);
    }
    assert_eq!(read(&mut driver, 1, 512).0, 0);
}

#[test]
fn a_failing_host_is_an_io_error_for_the_driver() {
    let disk = Memory {
        fails: true,
        ..Memory::new()
    };
    let mut driver = driver(disk);
    let response = driver.request(0, &[&header(IN, 0)], &[512, 1]);
    assert_eq!(response.written, 0, "nothing was read");
    assert_eq!(result(response).0, 1);
    for (kind, data) in [
        (OUT, vec![0; 512]),
        (FLUSH, vec![]),
        (DISCARD, range(0, 1, 0)),
    ] {
        assert_eq!(write(&mut driver, kind, 0, &data), 1);
    }
}

#[test]
fn without_the_flush_feature_writes_are_durable_at_once() {
    let disk = Memory::new();
    let mut driver = driver(disk.clone());
    assert_eq!(write(&mut driver, OUT, 0, &[0; 512]), 0);
    assert_eq!(*disk.flushes.lock().unwrap(), 0);
    driver.init(!(1 << VIRTIO_BLK_F_FLUSH));
    assert_eq!(write(&mut driver, OUT, 0, &[0; 512]), 0);
    assert_eq!(*disk.flushes.lock().unwrap(), 1);
    assert_eq!(read(&mut driver, 0, 512).0, 0);
    assert_eq!(*disk.flushes.lock().unwrap(), 1);
}

#[test]
fn v11_a_read_only_disk_says_so_and_refuses_writes_unasked() {
    let disk = Memory {
        read_only: true,
        ..Memory::new()
    };
    let before = disk.content();
    let mut driver = driver(disk.clone());
    assert_eq!(
        driver.offered() & 0xffff,
        1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9
    );
    // With and without the driver's knowledge.
    for wanted in [u64::MAX, !(1 << 5)] {
        driver.init(wanted);
        assert_eq!(write(&mut driver, OUT, 0, &[0; 512]), 1);
        assert_eq!(write(&mut driver, DISCARD, 0, &range(0, 1, 0)), 1);
        assert_eq!(write(&mut driver, WRITE_ZEROES, 0, &range(0, 1, 0)), 1);
        assert_eq!(read(&mut driver, 2, 512), (0, vec![2; 512]));
    }
    assert_eq!(disk.content(), before);
}

#[test]
fn configuration_has_the_fields_at_their_offsets() {
    let device = Block::new(Memory::new(), "");
    let word = |offset| {
        let mut data = [0; 4];
        device.read_config(offset, &mut data);
        u32::from_le_bytes(data)
    };
    for (name, offset, expected) in [
        ("capacity", 0, 64),
        ("capacity, high", 4, 0),
        ("size_max", 8, wire::MAX_SEGMENT_BYTES),
        ("seg_max", 12, 254),
        ("blk_size", 20, 512),
        ("max_discard_sectors", 36, wire::MAX_DISCARD_SECTORS),
        ("max_discard_seg", 40, wire::MAX_RANGES),
        ("discard_sector_alignment", 44, 8),
        ("max_write_zeroes_sectors", 48, wire::MAX_ZEROES_SECTORS),
        ("max_write_zeroes_seg", 52, wire::MAX_RANGES),
        ("write_zeroes_may_unmap", 56, 1),
        ("past the end", 60, 0),
    ] {
        assert_eq!(word(offset), expected, "{name}");
    }
    assert_eq!(device.model().config_len, 60);
}

proptest! {
    #[test]
    fn any_request_leaves_the_disk_inside_its_bounds_and_the_device_alive(
        kind in prop_oneof![0_u32..16, any::<u32>()],
        sector in prop_oneof![0..SECTORS + 2, any::<u64>()],
        payload in prop::collection::vec(any::<u8>(), 0..100),
        room in 0_usize..1100,
    ) {
        // `Memory` panics on an access outside itself, which ends the thread without an answer.
        let mut driver = driver(Memory::new());
        let response = driver.request(0, &[&header(kind, sector), &payload], &[room]);
        if let Some(status) = response.data.last() {
            prop_assert!(*status <= 2);
        }
        prop_assert_eq!(read(&mut driver, 0, 512).0, 0);
    }
}

fn file(bytes: &[u8]) -> (tempfile::NamedTempFile, File) {
    let mut named = tempfile::NamedTempFile::new().unwrap();
    named.write_all(bytes).unwrap();
    let file = named.reopen().unwrap();
    (named, file)
}

#[test]
fn a_file_is_a_raw_disk() {
    let (named, file) = file(&[7; 4096 * 4]);
    let disk = FileDisk::new(file, DiskAccess::ReadWrite).unwrap();
    let mut driver = driver(disk);
    assert_eq!(read(&mut driver, 31, 512), (0, vec![7; 512]));
    assert_eq!(write(&mut driver, OUT, 8, &[8; 1024]), 0);
    assert_eq!(write(&mut driver, FLUSH, 0, &[]), 0);
    assert_eq!(write(&mut driver, DISCARD, 0, &range(24, 8, 0)), 0);
    let zeroes = [range(0, 1, 0), range(16, 3, 1)].concat();
    assert_eq!(write(&mut driver, WRITE_ZEROES, 0, &zeroes), 0);
    let content = std::fs::read(named.path()).unwrap();
    assert_eq!(content.len(), 4096 * 4, "a disk keeps its size");
    for (sector, byte) in [
        (0, 0),
        (1, 7),
        (8, 8),
        (9, 8),
        (10, 7),
        (16, 0),
        (18, 0),
        (19, 7),
    ] {
        assert_eq!(
            content[sector * 512..][..512],
            [byte; 512],
            "sector {sector}"
        );
    }
}

#[test]
fn zeros_are_written_where_holes_cannot_be_made() {
    let (named, file) = file(&[7; 512 * 300]);
    let disk = FileDisk::new(file, DiskAccess::ReadWrite).unwrap();
    disk.fill(Extent {
        offset: 512,
        len: 512 * 298,
    })
    .unwrap();
    let content = std::fs::read(named.path()).unwrap();
    assert_eq!(content.len(), 512 * 300);
    assert!(content.iter().enumerate().all(|(at, byte)| {
        let outside = !(512..512 * 299).contains(&at);
        *byte == if outside { 7 } else { 0 }
    }));
}

#[test]
fn v12_a_disk_stays_raw_whatever_its_first_sector_says() {
    let magics: [&[u8]; 5] = [
        b"QFI\xfb\0\0\0\x03",
        b"KDMV",
        b"conectix",
        b"vhdxfile",
        b"<<< ",
    ];
    for magic in magics {
        let (named, file) = file(&[0; 4096]);
        let disk = FileDisk::new(file, DiskAccess::ReadWrite).unwrap();
        let mut sector = magic.to_vec();
        sector.resize(512, 0);
        assert_eq!(write(&mut driver(disk), OUT, 0, &sector), 0);
        for _ in 0..3 {
            let again = FileDisk::new(named.reopen().unwrap(), DiskAccess::ReadWrite).unwrap();
            assert_eq!(again.bytes(), 4096);
            assert_eq!(read(&mut driver(again), 0, 512), (0, sector.clone()));
        }
    }
}

#[test]
fn files_that_cannot_be_disks_are_refused() {
    for (bytes, error) in [(0, true), (1, true), (511, true), (512, false), (513, true)] {
        let (_named, file) = file(&vec![0; bytes]);
        let result = FileDisk::new(file, DiskAccess::ReadWrite);
        assert_eq!(result.is_err(), error, "{bytes}");
        if let Err(error) = result {
            assert!(error.to_string().contains("resize the file"), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn v11_the_file_of_a_read_only_disk_must_be_open_for_reading_only() {
    let (named, writable) = file(&[0; 512]);
    let refused = FileDisk::new(writable, DiskAccess::ReadOnly);
    assert!(matches!(refused, Err(DiskError::Writable)));
    let file = File::open(named.path()).unwrap();
    let disk = FileDisk::new(file, DiskAccess::ReadOnly).unwrap();
    assert_eq!(write(&mut driver(disk), OUT, 0, &[1; 512]), 1);
    assert_eq!(std::fs::read(named.path()).unwrap(), [0; 512]);
}
