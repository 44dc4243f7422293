//! A share behind its device: requests of the mock driver, in descriptors of any length.

use std::fs::{self, File};
use std::sync::Arc;

use devices::fs::Fs;
use devices::testkit::{Driver, Response};
use fsshare::abi::{InitFlags, Opcode, ROOT_ID, wire};
use tempfile::TempDir;
use zerocopy::{FromBytes, IntoBytes};

use super::*;

/// The first request queue.
const REQUESTS: usize = 1;
const HEAD: usize = size_of::<wire::OutHeader>();

/// Is told nothing that matters.
#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn refused(&self, _: &fsshare::Refusal) {}
}

struct Guest {
    driver: Driver,
    place: TempDir,
}

/// Buffers of `len` bytes, `total` in all.
fn buffers(total: usize, len: usize) -> Vec<usize> {
    let whole = std::iter::repeat_n(len, total / len);
    whole.chain([total % len]).filter(|len| *len > 0).collect()
}

impl Guest {
    fn new(read_only: bool) -> Self {
        Self::with(&[read_only])
    }

    /// A device with so many shares, in directories by their numbers; which of them are read-only.
    fn with(read_only: &[bool]) -> Self {
        let place = TempDir::new().unwrap();
        let plans: Vec<_> = read_only.iter().copied().map(plan).collect();
        let policy = Policy {
            rules: Rules::default(),
            hard_links: HardLinkPolicy::default(),
            quota: Quota::default(),
            servers: read_only.len(),
            observer: Arc::new(Nobody),
        };
        let places = (1..).zip(&plans).map(|(number, plan)| {
            let root = place.path().join(number.to_string());
            fs::create_dir(&root).unwrap();
            fs::write(root.join("f"), pattern(20_000)).unwrap();
            let places = Places {
                root: File::open(root).unwrap().into(),
                changes: None,
                journal: None,
            };
            (places, plan)
        });
        let backend = Backend::new(places.collect(), &policy).unwrap();
        let device = Fs::new("work", 2, Arc::new(backend)).unwrap();
        let driver = Driver::running(Box::new(device));
        let mut guest = Self { driver, place };
        let init = wire::InitIn {
            major: 7,
            minor: 41,
            flags: InitFlags::SUBMOUNTS.low(),
            ..wire::InitIn::default()
        };
        let answer = guest.ask(Opcode::Init, 0, &[init.as_bytes()], &[200]);
        assert_eq!(status(&answer), 0);
        guest
    }

    /// Sends a request whose body is in these buffers, with these for the reply.
    fn ask(&mut self, opcode: Opcode, nodeid: u64, body: &[&[u8]], room: &[usize]) -> Response {
        let len = body.iter().map(|part| part.len()).sum();
        let head = head(opcode, nodeid, len);
        let parts = [&[head.as_bytes()], body].concat();
        self.driver.request(REQUESTS, &parts, room)
    }

    fn lookup(&mut self, parent: u64, name: &[u8]) -> u64 {
        let answer = self.ask(Opcode::Lookup, parent, &[name, b"\0"], &[200]);
        assert_eq!(status(&answer), 0);
        let (entry, _) = wire::EntryOut::read_from_prefix(&answer.data[HEAD..]).unwrap();
        entry.nodeid
    }

    /// The file's node, and a handle on it.
    fn open(&mut self, flags: u32) -> (u64, u64) {
        let node = self.lookup(ROOT_ID, b"f");
        let answer = self.try_open(node, flags);
        let (open, _) = wire::OpenOut::read_from_prefix(&answer.data[HEAD..]).unwrap();
        assert_eq!(status(&answer), 0);
        (node, open.fh)
    }

    fn try_open(&mut self, node: u64, flags: u32) -> Response {
        let open = wire::OpenIn {
            flags,
            open_flags: 0,
        };
        self.ask(Opcode::Open, node, &[open.as_bytes()], &[64])
    }

    /// Reads `size` bytes into buffers of `len` bytes, of which the first is for the head.
    fn read(&mut self, (node, fh): (u64, u64), offset: u64, size: usize, len: usize) -> Response {
        let read = wire::ReadIn {
            fh,
            offset,
            size: size.try_into().unwrap(),
            ..wire::ReadIn::default()
        };
        let room = buffers(HEAD + size, len);
        self.ask(Opcode::Read, node, &[read.as_bytes()], &room)
    }

    fn write(&mut self, (node, fh): (u64, u64), offset: u64, data: &[u8], len: usize) -> Response {
        let write = wire::WriteIn {
            fh,
            offset,
            size: data.len().try_into().unwrap(),
            ..wire::WriteIn::default()
        };
        let mut body = vec![write.as_bytes()];
        body.extend(data.chunks(len));
        self.ask(Opcode::Write, node, &body, &[HEAD + 8])
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.place.path().join("1/f")).unwrap()
    }
}

fn plan(read_only: bool) -> SharePlan {
    SharePlan {
        place: Vec::new(),
        read_only,
        cache: ShareCache::Auto,
        owner: (0, 0),
    }
}

/// The head of a request whose body has `len` bytes.
fn head(opcode: Opcode, nodeid: u64, len: usize) -> wire::InHeader {
    wire::InHeader {
        len: (size_of::<wire::InHeader>() + len).try_into().unwrap(),
        opcode: opcode as u32,
        unique: 7,
        nodeid,
        ..wire::InHeader::default()
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// The error number of a reply, negative; its head must say what the device says.
fn status(answer: &Response) -> i32 {
    let (head, _) = wire::OutHeader::read_from_prefix(&answer.data).unwrap();
    assert_eq!((head.len, head.unique), (answer.written, 7));
    head.error
}

/// Lengths of buffers: whole pages, and so short ones that a transfer takes several system calls.
const LENGTHS: [usize; 3] = [4096, 1000, 97];

#[test]
fn what_is_read_lies_behind_the_head_whatever_the_buffers_are() {
    let mut guest = Guest::new(true);
    let file = guest.open(0);
    let content = pattern(20_000);
    for len in LENGTHS {
        for (offset, size) in [(0, 16_000), (19_990, 16_000), (19_990, 10), (0, 0)] {
            let answer = guest.read(file, offset, size, len);
            let from = usize::try_from(offset).unwrap();
            let expected = &content[from..content.len().min(from + size)];
            assert_eq!(status(&answer), 0);
            let end = HEAD + expected.len();
            assert_eq!(&answer.data[HEAD..end], expected, "{offset} {size} {len}");
            assert!(answer.data[end..].iter().all(|byte| *byte == 0xaa));
            assert_eq!(answer.data.len(), HEAD + size);
        }
        for (file, offset) in [((file.0, file.1 + 1), 0), (file, 1 << 63), (file, u64::MAX)] {
            let answer = guest.read(file, offset, 10_000, len);
            assert!([-libc::EBADF, -libc::EINVAL].contains(&status(&answer)));
            assert_eq!(answer.written, 16);
            assert!(answer.data[HEAD..].iter().all(|byte| *byte == 0xaa));
        }
    }
    let answer = guest.write(file, 0, b"x", 1);
    assert_eq!(status(&answer), -libc::EROFS);
    assert_eq!(guest.content(), content);
}

#[test]
fn what_the_host_refuses_to_read_is_an_error_and_no_content() {
    let mut guest = Guest::new(false);
    let file = guest.open(1);
    let answer = guest.read(file, 0, 10_000, 97);
    assert_eq!((status(&answer), answer.written), (-libc::EBADF, 16));
    assert!(answer.data[HEAD..].iter().all(|byte| *byte == 0xaa));
    let file = guest.open(0);
    let answer = guest.write(file, 0, &pattern(100), 7);
    assert_eq!((status(&answer), answer.written), (-libc::EBADF, 16));
    assert_eq!(guest.content(), pattern(20_000));
}

#[test]
fn what_is_written_comes_from_every_buffer() {
    let mut guest = Guest::new(false);
    let file = guest.open(2);
    let mut expected = guest.content();
    for (round, len) in LENGTHS.into_iter().enumerate() {
        let data: Vec<u8> = pattern(16_001).iter().map(|byte| byte ^ 0x55).collect();
        let from = 15_000 + 3 * round;
        let answer = guest.write(file, from as u64, &data, len);
        assert_eq!(status(&answer), 0);
        assert_eq!(answer.data[HEAD..HEAD + 4], 16_001_u32.to_le_bytes());
        expected.resize(from + data.len(), 0);
        expected[from..].copy_from_slice(&data);
        assert!(guest.content() == expected, "in buffers of {len}");
    }
    for offset in [i64::MAX as u64, u64::MAX] {
        let answer = guest.write(file, offset, &pattern(100), 7);
        assert_eq!(status(&answer), -libc::EFBIG);
    }
    assert!(guest.content() == expected);
}

#[test]
fn several_shares_are_entries_of_their_device() {
    let mut guest = Guest::with(&[true, false, true]);
    for (name, errno) in [(b"1", libc::EROFS), (b"2", 0), (b"3", libc::EROFS)] {
        let root = guest.lookup(ROOT_ID, name);
        assert_ne!(root, ROOT_ID);
        let file = guest.lookup(root, b"f");
        let opened = guest.try_open(file, 2);
        assert_eq!(status(&opened), -errno, "{name:?}");
    }
    // Of a single one the device's root is the share.
    let mut alone = Guest::new(true);
    let none = alone.ask(Opcode::Lookup, ROOT_ID, &[b"1\0"], &[200]);
    assert_eq!(status(&none), -libc::ENOENT);
    alone.lookup(ROOT_ID, b"f");
}

#[test]
fn requests_on_two_queues_at_once_do_not_get_mixed_up() {
    let mut guest = Guest::new(true);
    let (node, fh) = guest.open(0);
    let content = pattern(20_000);
    let place = guest.driver.alloc(0);
    for round in 0..500 {
        guest.driver.rewind(place);
        let replies = [(REQUESTS, round), (REQUESTS + 1, 10_000 - round)].map(|(queue, from)| {
            let read = wire::ReadIn {
                fh,
                offset: from,
                size: 9_000,
                ..wire::ReadIn::default()
            };
            let head = head(Opcode::Read, node, size_of::<wire::ReadIn>());
            let request = [head.as_bytes(), read.as_bytes()].concat();
            let request = guest.driver.readable(&request);
            let reply = guest.driver.writable(HEAD + 9_000);
            guest.driver.push(queue, 0, &[request, reply]);
            (queue, usize::try_from(from).unwrap(), reply)
        });
        for (queue, ..) in replies {
            guest.driver.kick(queue);
        }
        for (queue, from, reply) in replies {
            let written = guest.driver.wait_used(queue).len;
            let data = guest.driver.bytes(reply);
            let answer = Response { written, data };
            assert_eq!(status(&answer), 0);
            assert!(answer.data[HEAD..] == content[from..from + 9_000]);
        }
    }
}
