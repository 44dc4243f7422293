//! FUSE requests (`include/uapi/linux/fuse.h`) out of an input.

use crate::Input;

/// Number, bytes of its fixed structure, and names behind it, of every operation.
const OPERATIONS: &[(u32, usize, usize)] = &[
    (1, 0, 1),   // LOOKUP
    (2, 8, 0),   // FORGET
    (3, 16, 0),  // GETATTR
    (4, 88, 0),  // SETATTR
    (5, 0, 0),   // READLINK
    (6, 0, 2),   // SYMLINK
    (8, 16, 1),  // MKNOD
    (9, 8, 1),   // MKDIR
    (10, 0, 1),  // UNLINK
    (11, 0, 1),  // RMDIR
    (12, 8, 2),  // RENAME
    (13, 8, 1),  // LINK
    (14, 8, 0),  // OPEN
    (15, 40, 0), // READ
    (16, 40, 0), // WRITE
    (17, 0, 0),  // STATFS
    (18, 24, 0), // RELEASE
    (20, 16, 0), // FSYNC
    (21, 8, 2),  // SETXATTR
    (22, 8, 1),  // GETXATTR
    (23, 8, 0),  // LISTXATTR
    (24, 0, 1),  // REMOVEXATTR
    (25, 24, 0), // FLUSH
    (26, 64, 0), // INIT
    (27, 8, 0),  // OPENDIR
    (28, 40, 0), // READDIR
    (29, 24, 0), // RELEASEDIR
    (30, 16, 0), // FSYNCDIR
    (31, 48, 0), // GETLK
    (32, 48, 0), // SETLK
    (33, 48, 0), // SETLKW
    (34, 8, 0),  // ACCESS
    (35, 16, 1), // CREATE
    (36, 8, 0),  // INTERRUPT
    (37, 16, 0), // BMAP
    (38, 0, 0),  // DESTROY
    (39, 32, 0), // IOCTL
    (42, 8, 0),  // BATCH_FORGET
    (43, 32, 0), // FALLOCATE
    (44, 40, 0), // READDIRPLUS
    (45, 16, 2), // RENAME2
    (46, 24, 0), // LSEEK
    (47, 56, 0), // COPY_FILE_RANGE
    (50, 8, 0),  // SYNCFS
    (51, 16, 1), // TMPFILE
    (52, 24, 0), // STATX
];

const NAMES: &[&[u8]] = &[
    b"file",
    b"dir",
    b"link",
    b"new",
    b"other",
    b"user.x",
    b"..",
    b".",
    b"",
    b"../secret",
    b"/",
    b"outside",
    b"security.x",
];

/// Bytes of a request's head.
const HEAD: usize = 40;

/// Numbers that the server gave out: nodes and open files.
#[derive(Clone, Debug)]
pub struct Known {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            nodes: vec![1],
            handles: vec![0],
        }
    }
}

/// A request with the id `unique` to answer to.
pub fn request(input: &mut Input<'_>, known: &Known, unique: u64) -> Vec<u8> {
    let pick = input.u8();
    let (opcode, fixed, names) = match OPERATIONS.get(usize::from(pick)) {
        Some(operation) => *operation,
        None if pick < 0xf0 => OPERATIONS[usize::from(pick) % OPERATIONS.len()],
        None => (input.u32(), input.below(64), 0),
    };
    let mut body = structure(input, known, fixed);
    for _ in 0..names {
        name(input, &mut body);
    }
    if matches!(opcode, 16 | 21 | 42) || names == 0 && input.u8() >= 0xf8 {
        body.extend(input.blob());
    }
    head(opcode, unique, number(input, &known.nodes), &body)
}

/// INIT of a client that speaks 7.41 and wants the features `flags`.
pub fn init(flags: u64) -> Vec<u8> {
    let mut body = [
        7_u32,
        41,
        1 << 16,
        u32::try_from(flags & 0xffff_ffff).unwrap_or(0) | 1 << 30,
    ]
    .map(u32::to_le_bytes)
    .concat();
    body.extend(u32::try_from(flags >> 32).unwrap_or(0).to_le_bytes());
    body.resize(64, 0);
    head(26, 1, 0, &body)
}

fn head(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEAD + body.len()).unwrap_or(u32::MAX);
    let mut request = [len.to_le_bytes(), opcode.to_le_bytes()].concat();
    request.extend(unique.to_le_bytes());
    request.extend(node.to_le_bytes());
    request.resize(HEAD, 0);
    request.extend(body);
    request
}

/// The fixed structure. Most begin with an open file or a node; the rest is few bits that are set, or noise.
fn structure(input: &mut Input<'_>, known: &Known, len: usize) -> Vec<u8> {
    let kind = input.u8();
    let mut bytes = if kind & 1 == 0 {
        vec![0; len]
    } else {
        input.bytes(len).to_vec()
    };
    bytes.resize(len, 0);
    for _ in 0..kind >> 1 & 7 {
        let at = usize::from(input.u8()) % len.max(1);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = input.u8();
        }
    }
    if kind & 0x30 != 0 {
        put(
            &mut bytes,
            0,
            if kind & 0x10 == 0 {
                number(input, &known.nodes)
            } else {
                number(input, &known.handles)
            },
        );
    }
    // COPY_FILE_RANGE names a second node and file.
    if kind & 0x40 != 0 {
        put(&mut bytes, 16, number(input, &known.nodes));
        put(&mut bytes, 24, number(input, &known.handles));
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn number(input: &mut Input<'_>, known: &[u64]) -> u64 {
    match input.u8() {
        0xff => input.u64(),
        index => known[usize::from(index) % known.len()],
    }
}

fn name(input: &mut Input<'_>, body: &mut Vec<u8>) {
    let kind = input.u8();
    match NAMES.get(usize::from(kind)) {
        Some(name) => body.extend(*name),
        None if kind < 0xe0 => body.extend(NAMES[usize::from(kind) % 5]),
        None => body.extend(input.blob()),
    }
    if kind != 0xff {
        body.push(0);
    }
}

impl Known {
    /// Checks the form of a reply to `unique` and keeps the numbers in it, whatever they mean: the server must cope with a
    /// node's number in the place of a file's.
    ///
    /// # Panics
    /// It is none.
    pub fn learn(&mut self, unique: u64, reply: &[u8]) {
        if reply.is_empty() {
            return;
        }
        let word = |at: usize| {
            reply
                .get(at..at + 4)
                .map(|word| u32::from_le_bytes(word.try_into().expect("4 bytes")))
        };
        let long = |at: usize| {
            reply
                .get(at..at + 8)
                .map(|long| u64::from_le_bytes(long.try_into().expect("8 bytes")))
        };
        assert_eq!(
            word(0).and_then(|len| usize::try_from(len).ok()),
            Some(reply.len()),
            "the stated length"
        );
        assert_eq!(long(8), Some(unique), "an answer to somebody else");
        let error = word(4).expect("a head").cast_signed();
        assert!((-4095..=0).contains(&error), "error {error}");
        assert!(error == 0 || reply.len() == 16, "an error with content");
        // An entry is 128 bytes and CREATE has the open file behind it; an opened file is 16 bytes.
        let (node, handle) = match reply.len() - 16 {
            16 => (None, long(16)),
            128 => (long(16), None),
            144 => (long(16), long(144)),
            _ => (None, None),
        };
        self.nodes.extend(node);
        self.handles.extend(handle);
    }
}
