//! A transport that moves the content of files itself, from and to many pieces, as a device does with a guest's pages; and that the server
//! gives the same answers through it.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use fsshare::abi::{Opcode, ROOT_ID, wire};
use fsshare::transfer::{FileReply, Reader, Writer, repeat};
use fsshare::{Error, Rules};
use libc::{O_RDONLY, O_RDWR, O_WRONLY};
use zerocopy::IntoBytes;

use super::client::{Reply, Share, request, text};

/// Most pieces in one system call, so that most transfers take several.
const AT_ONCE: usize = 3;

/// Bytes that are moved in pieces of some length, and a position in them.
pub(crate) struct Pieces {
    bytes: Vec<u8>,
    len: usize,
    at: usize,
}

impl Pieces {
    pub(crate) fn of(bytes: &[u8], len: usize) -> Self {
        Self {
            bytes: bytes.to_vec(),
            len,
            at: 0,
        }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The next `limit` bytes where they are, as far as one call takes them.
    fn next(&mut self, limit: usize) -> Vec<&mut [u8]> {
        let first = self.len - self.at % self.len;
        let end = self.bytes.len().min(self.at + limit);
        let rest = &mut self.bytes[self.at..end];
        let (first, others) = rest.split_at_mut(first.min(rest.len()));
        let pieces = std::iter::once(first).chain(others.chunks_mut(self.len));
        pieces.take(AT_ONCE).collect()
    }

    fn read_from_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        limit: usize,
    ) -> io::Result<usize> {
        let mut slices: Vec<_> = self.next(limit).into_iter().map(IoSliceMut::new).collect();
        let moved = rustix::io::preadv(file, &mut slices, offset)?;
        self.at += moved;
        Ok(moved)
    }
}

impl Reader for Pieces {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let part = self.bytes.get(self.at..self.at + buffer.len());
        buffer.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        self.at += buffer.len();
        Ok(())
    }

    fn write_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<usize> {
        repeat(offset, len, |offset, left| {
            let slices = self.next(left);
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let moved = rustix::io::pwritev(file, &slices, offset)?;
            self.at += moved;
            Ok(moved)
        })
    }
}

impl Writer for Pieces {
    fn available(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let place = self.bytes.get_mut(self.at..self.at + bytes.len());
        place
            .ok_or(io::ErrorKind::WriteZero)?
            .copy_from_slice(bytes);
        self.at += bytes.len();
        Ok(())
    }

    fn send_file(&mut self, reply: &FileReply<'_>) -> io::Result<usize> {
        let begin = self.at;
        self.at += FileReply::HEAD_LEN;
        let (head, len) =
            reply.read_by(|file, offset, left| self.read_from_file(file, offset, left));
        let end = std::mem::replace(&mut self.at, begin);
        self.write_all(head.as_bytes())?;
        self.at = end;
        Ok(FileReply::HEAD_LEN + len)
    }
}

/// What a guest sees of a number of requests, and what the file holds then.
type Seen = (Vec<Reply>, Vec<u8>);

/// Lengths of pieces.
const LENGTHS: [usize; 5] = [1, 7, 80, 4096, 1 << 21];

/// Does the same through slices and through pieces of any length.
fn assert_same(share: impl Fn() -> Share, act: impl Fn(&Share) -> Seen) {
    let expected = act(&share());
    assert!(expected.0.iter().any(Result::is_err) && expected.0.iter().any(Result::is_ok));
    for len in LENGTHS {
        let seen = act(&share().in_pieces(Some(len)));
        assert_eq!(seen.0.len(), expected.0.len());
        for (index, (seen, expected)) in seen.0.iter().zip(&expected.0).enumerate() {
            assert!(
                seen == expected,
                "request {index} in pieces of {len}: {seen:?}"
            );
        }
        assert!(seen.1 == expected.1, "the file after pieces of {len}");
    }
}

fn with_a_small_limit() -> Share {
    let share = Share::with(|config| config.limits.max_write = 8192);
    fs::write(share.root.join("f"), pattern(10_000)).unwrap();
    share
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// The file `f`, and a handle on it.
fn open(share: &Share, flags: i32) -> (u64, u64) {
    let node = share.walk("f");
    (node, share.open(node, flags).unwrap())
}

fn seen(share: &Share, replies: Vec<Reply>) -> Seen {
    (replies, fs::read(share.root.join("f")).unwrap())
}

fn written(reply: Reply<u32>) -> Reply {
    reply.map(|size| size.as_bytes().to_vec())
}

const ENDS: [u64; 8] = [
    0,
    1,
    9_999,
    10_000,
    1 << 40,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    u64::MAX,
];

#[test]
fn reads_are_the_same_in_pieces() {
    assert_same(with_a_small_limit, |share| {
        let (node, fh) = open(share, O_RDONLY);
        let mut replies = vec![
            share.read(node, fh + 1, 0, 10),
            share.read(ROOT_ID, fh, 0, 10),
        ];
        for offset in ENDS {
            for size in [0, 1, 100, 8192, 8193, u32::MAX] {
                replies.push(share.read(node, fh, offset, size));
            }
        }
        let body = wire::ReadIn {
            fh,
            offset: 9_950,
            size: 100,
            ..Default::default()
        };
        for room in [16, 17, 66, 115, 116, 117, 5000] {
            replies.push(share.raw(Opcode::Read as u32, node, body.as_bytes(), room));
        }
        let (node, fh) = open(share, O_WRONLY);
        replies.push(share.read(node, fh, 0, 10));
        seen(share, replies)
    });
}

#[test]
fn writes_are_the_same_in_pieces() {
    assert_same(with_a_small_limit, |share| {
        let (node, fh) = open(share, O_RDWR);
        let mut replies = vec![
            written(share.write(node, fh + 1, 0, b"x")),
            written(share.write(ROOT_ID, fh, 0, b"x")),
            written(share.write(ROOT_ID, fh + 1, 0, &pattern(1 << 20))),
            written(share.write(node, fh, 9_000, &pattern(8192))),
            written(share.write(node, fh, 17_192, &pattern(5))),
        ];
        for offset in ENDS.into_iter().filter(|offset| *offset != 1 << 40) {
            for len in [0, 1, 100, 8193, 100_000] {
                replies.push(written(share.write(node, fh, offset, &pattern(len))));
            }
        }
        for size in [0, 2, 4, u32::MAX] {
            let body = wire::WriteIn {
                fh,
                size,
                ..Default::default()
            };
            replies.push(share.ask(Opcode::Write, node, &body, b"abc"));
            let half = &body.as_bytes()[..20];
            replies.push(share.call(Opcode::Write, node, half));
        }
        let (node, fh) = open(share, O_RDONLY);
        replies.push(written(share.write(node, fh, 0, b"x")));
        seen(share, replies)
    });
}

#[test]
fn refusals_are_the_same_in_pieces() {
    let read_only = || {
        let share = Share::read_only();
        fs::write(share.root.join("f"), "content").unwrap();
        share
    };
    assert_same(read_only, |share| {
        let (node, fh) = open(share, O_RDONLY);
        let write = written(share.write(node, fh, 0, b"x"));
        assert_eq!(write, Err(libc::EROFS));
        seen(share, vec![write, share.read(node, fh, 0, 10)])
    });
    let protected = || {
        let mut rules = Rules::default();
        rules.protect("kept").unwrap();
        let share = Share::with(|config| config.rules = rules);
        fs::write(share.root.join("f"), "content").unwrap();
        share
    };
    assert_same(protected, |share| {
        // A handle that is older than what protects its file.
        let (node, fh) = open(share, O_RDWR);
        let before = written(share.write(node, fh, 0, b"C"));
        fs::hard_link(share.root.join("f"), share.root.join("kept")).unwrap();
        share.lookup(ROOT_ID, "kept").unwrap();
        let after = written(share.write(node, fh, 0, b"x"));
        assert_eq!(after, Err(libc::EPERM));
        seen(share, vec![before, after, share.read(node, fh, 0, 10)])
    });
    let unopened = || {
        let share = Share::unopened(|_| ());
        fs::write(share.root.join("f"), "content").unwrap();
        share
    };
    assert_same(unopened, |share| {
        let refused = written(share.write(2, 1, 0, b"x"));
        share.init();
        let found = share.call(Opcode::Lookup, ROOT_ID, &text("f"));
        seen(share, vec![refused, found.map(|_| Vec::new())])
    });
}

#[test]
fn a_write_that_states_another_length_is_refused_in_pieces() {
    let share = with_a_small_limit();
    let (node, fh) = open(&share, O_RDWR);
    let share = share.in_pieces(Some(7));
    for (claimed, added) in [(1, 0), (0, 1), (u32::MAX, 0), (0, 1 << 20)] {
        let body = wire::WriteIn {
            fh,
            size: 3_u32.saturating_add(claimed),
            ..Default::default()
        };
        let mut bytes = request(
            Opcode::Write as u32,
            9,
            node,
            &[body.as_bytes(), b"abc"].concat(),
        );
        let len = 83_u32.saturating_add(claimed);
        bytes[..4].copy_from_slice(len.as_bytes());
        bytes.resize(bytes.len() + added, 0);
        let (outcome, reply) = share.handle(&bytes, 100);
        assert_eq!(outcome.unwrap(), 16);
        assert_eq!(reply[4..8], (-libc::EINVAL).to_le_bytes());
        assert!(reply[16..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(fs::read(share.root.join("f")).unwrap(), pattern(10_000));
}

#[test]
fn nothing_but_the_reply_is_written_in_pieces() {
    let share = with_a_small_limit();
    let (node, fh) = open(&share, O_RDONLY);
    let share = share.in_pieces(Some(7));
    for (fh, offset, expected) in [(fh, 9_990, 26), (fh, 10_000, 16), (fh + 1, 0, 16)] {
        let body = wire::ReadIn {
            fh,
            offset,
            size: 64,
            ..Default::default()
        };
        let bytes = request(Opcode::Read as u32, 9, node, body.as_bytes());
        let (outcome, reply) = share.handle(&bytes, 80);
        assert_eq!(outcome.unwrap(), expected);
        assert_eq!(reply[..4], (expected as u32).to_le_bytes());
        assert!(reply[expected..].iter().all(|byte| *byte == 0));
        let (outcome, reply) = share.handle(&bytes, 15);
        assert!(matches!(outcome, Err(Error::NoRoom { available: 15 })));
        assert_eq!(reply, [0; 15]);
    }
}
