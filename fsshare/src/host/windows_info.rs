//! What the kernel of Windows says of files, read from the bytes that it says it in ([MS-FSCC] 2.4 and 2.5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::listing::Listed;
use super::{Attributes, Identity, Kind, Layer, NewTime, Space, Time, reparse, windows_names};
use crate::errno::Errno;

/// `FILE_ATTRIBUTE_READONLY`.
pub(super) const READ_ONLY: u32 = 0x1;
/// `FILE_ATTRIBUTE_DIRECTORY`.
const DIRECTORY: u32 = 0x10;
/// `FILE_ATTRIBUTE_NORMAL`: no other one.
pub(super) const NORMAL: u32 = 0x80;
/// `FILE_ATTRIBUTE_REPARSE_POINT`.
const REPARSE_POINT: u32 = 0x400;

/// Ticks of 100 ns in a second.
const TICKS: i64 = 10_000_000;
/// Seconds from 1601, where Windows begins to count, to 1970.
const EPOCH: i64 = 11_644_473_600;

/// Unit of `Attributes::blocks`, bytes.
const BLOCK: u64 = 512;
/// Preferred size of I/O, bytes.
const IO_SIZE: u32 = 4096;
/// Longest name, bytes: the guest's longest, not the host's.
const LONGEST_NAME: u64 = 255;

/// `FILE_BASIC_INFORMATION`, `FILE_STANDARD_INFORMATION` and `FILE_INTERNAL_INFORMATION`, one behind the other.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct All {
    basic: Basic,
    allocation: u64,
    end: u64,
    links: u32,
    is_leaving: u8,
    is_directory: u8,
    padding: [u8; 2],
    index: u64,
}

/// `FILE_BASIC_INFORMATION`. To set it, zero keeps what is there.
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Basic {
    created: i64,
    accessed: i64,
    modified: i64,
    changed: i64,
    attributes: u32,
    padding: u32,
}

/// `FILE_ATTRIBUTE_TAG_INFORMATION`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Tag {
    pub(super) attributes: u32,
    tag: u32,
}

/// `FILE_FS_FULL_SIZE_INFORMATION`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FullSize {
    total: u64,
    available: u64,
    free: u64,
    sectors: u32,
    sector: u32,
}

/// `FILE_FS_VOLUME_INFORMATION`, up to the volume's number.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Volume {
    created: i64,
    pub(super) serial: u32,
    label: u32,
}

/// `FILE_ID_BOTH_DIR_INFORMATION`, up to the name.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Entry {
    next: u32,
    place: u32,
    times: [i64; 4],
    end: u64,
    allocation: u64,
    attributes: u32,
    name_len: u32,
    /// Of a reparse point its tag.
    extra: u32,
    short_len: u8,
    padding: u8,
    short: [u16; 12],
    more_padding: u16,
    index: u64,
}

/// The first bytes of an answer as what they are.
pub(super) fn read<T: FromBytes>(answer: &[u8]) -> Result<T, Errno> {
    T::read_from_prefix(answer)
        .map(|(value, _)| value)
        .map_err(|_| Errno::EIO)
}

impl Tag {
    /// What the file is. One that leads to another place is not to be had.
    pub(super) fn kind(self) -> Result<Kind, Errno> {
        kind(self.attributes, self.tag)
    }
}

fn kind(attributes: u32, tag: u32) -> Result<Kind, Errno> {
    if attributes & REPARSE_POINT != 0 {
        reparse::kind(tag)
    } else if attributes & DIRECTORY != 0 {
        Ok(Kind::Directory)
    } else {
        Ok(Kind::Regular)
    }
}

/// Type and permissions. Windows has none of the latter that a guest would understand, but for one attribute of files. Whether a file is a
/// program is not for it to say, so each may be.
fn mode(kind: Kind, attributes: u32) -> u32 {
    match kind {
        Kind::Regular if attributes & READ_ONLY != 0 => 0o100_555,
        Kind::Regular => 0o100_755,
        Kind::Directory => 0o040_755,
        Kind::Symlink => 0o120_777,
        Kind::Special => 0o140_755,
    }
}

impl All {
    /// The attributes of what is a `kind` in that volume. It belongs to whoever the guest takes for its owner.
    pub(super) fn attributes(&self, kind: Kind, volume: u32) -> Attributes {
        Attributes {
            identity: Identity {
                device: (0, volume),
                inode: self.index,
            },
            mode: mode(kind, self.basic.attributes),
            links: self.links,
            uid: 0,
            gid: 0,
            size: self.end,
            blocks: self.allocation.div_ceil(BLOCK),
            io_size: IO_SIZE,
            accessed: time(self.basic.accessed),
            modified: time(self.basic.modified),
            changed: time(self.basic.changed),
            born: Some(time(self.basic.created)),
            layer: Layer::Only,
        }
    }
}

/// The words of an answer about one file, for its three parts.
pub(super) const PARTS: [usize; 3] = [
    size_of::<Basic>() / size_of::<u64>(),
    3, // FILE_STANDARD_INFORMATION
    1, // FILE_INTERNAL_INFORMATION
];

impl Basic {
    /// Sets times; `now` is the present one.
    pub(super) fn of_times(
        accessed: NewTime,
        modified: NewTime,
        now: std::time::SystemTime,
    ) -> Result<Self, Errno> {
        let one = |new| match new {
            NewTime::Keep => Ok(0),
            NewTime::At(at) => ticks(at).ok_or(Errno::EINVAL),
            NewTime::Now => {
                let since = now
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default();
                let now = Time {
                    seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    nanos: since.subsec_nanos(),
                };
                ticks(now).ok_or(Errno::EINVAL)
            }
        };
        Ok(Self {
            accessed: one(accessed)?,
            modified: one(modified)?,
            ..Self::default()
        })
    }

    /// Makes a file with these attributes read-only or not.
    pub(super) fn of_permissions(attributes: u32, mode: u32) -> Self {
        let others = attributes & !(READ_ONLY | NORMAL);
        let attributes = others | new_attributes(mode) & READ_ONLY;
        Self {
            attributes: if attributes == 0 { NORMAL } else { attributes },
            ..Self::default()
        }
    }
}

/// The attributes of a new file.
pub(super) fn new_attributes(mode: u32) -> u32 {
    if mode & 0o222 == 0 { READ_ONLY } else { NORMAL }
}

impl FullSize {
    pub(super) fn space(&self) -> Space {
        let block = u64::from(self.sectors).saturating_mul(self.sector.into());
        Space {
            blocks: self.total,
            free: self.free,
            available: self.available,
            // Not told, as on other file systems without a table of them.
            inodes: 0,
            inodes_free: 0,
            io_size: block,
            block_size: block,
            longest_name: LONGEST_NAME,
        }
    }
}

fn time(ticks: i64) -> Time {
    let nanos = ticks.rem_euclid(TICKS) * 100;
    Time {
        seconds: ticks.div_euclid(TICKS) - EPOCH,
        nanos: u32::try_from(nanos).unwrap_or(0),
    }
}

/// `None` if Windows cannot say that time: zero and below have other meanings.
fn ticks(time: Time) -> Option<i64> {
    let seconds = time.seconds.checked_add(EPOCH)?.checked_mul(TICKS)?;
    let ticks = seconds.checked_add(i64::from(time.nanos / 100))?;
    (ticks > 0).then_some(ticks)
}

/// One entry of a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: Vec<u16>,
    pub(super) index: u64,
    kind: Option<Kind>,
    /// Where the next entry begins, counted from this one; 0 for none.
    pub(super) next: usize,
}

/// The entry at the beginning of `answer`.
pub(super) fn entry(answer: &[u8]) -> Result<Found, Errno> {
    let head: Entry = read(answer)?;
    let len = usize::try_from(head.name_len).map_err(|_| Errno::EIO)?;
    let name = answer
        .get(size_of::<Entry>()..)
        .and_then(|rest| rest.get(..len));
    let units = name.ok_or(Errno::EIO)?.chunks_exact(2);
    Ok(Found {
        name: units.map(read).collect::<Result<_, _>>()?,
        index: head.index,
        kind: kind(head.attributes, head.extra).ok(),
        next: usize::try_from(head.next).map_err(|_| Errno::EIO)?,
    })
}

impl Found {
    /// The entry for the guest, unless it could not ask for it.
    pub(super) fn listed(&self) -> Option<Listed> {
        Some(Listed {
            ino: self.index,
            kind: mode(self.kind?, 0) >> 12,
            name: windows_names::to_guest(&self.name)?.into_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that the kernel would answer with.
    fn entry_bytes(name: &str, attributes: u32, tag: u32) -> Vec<u8> {
        let mut bytes = vec![0; 104];
        let units: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        bytes[56..60].copy_from_slice(&attributes.to_le_bytes());
        bytes[60..64].copy_from_slice(&u32::try_from(units.len()).unwrap().to_le_bytes());
        bytes[64..68].copy_from_slice(&tag.to_le_bytes());
        bytes[96..104].copy_from_slice(&77_u64.to_le_bytes());
        bytes.extend(units);
        bytes
    }

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<Basic>(), 40);
        assert_eq!(size_of::<All>(), 72);
        assert_eq!(PARTS.iter().sum::<usize>() * 8, size_of::<All>());
        assert_eq!(size_of::<FullSize>(), 32);
        assert_eq!(size_of::<Entry>(), 104);
    }

    #[test]
    fn entries_are_read_with_their_types() {
        for (name, attributes, tag, kind) in [
            ("a", NORMAL, 0, Some(8)),
            ("d", DIRECTORY, 0, Some(4)),
            ("l", REPARSE_POINT, 0xA000_000C, Some(10)),
            ("s", REPARSE_POINT, 0x8000_0023, Some(12)),
            ("m", REPARSE_POINT | DIRECTORY, 0xA000_0003, None),
            ("nul", NORMAL, 0, None),
            ("x.", NORMAL, 0, None),
        ] {
            let found = entry(&entry_bytes(name, attributes, tag)).unwrap();
            let listed = found.listed();
            assert_eq!(listed.as_ref().map(|entry| entry.kind), kind, "{name}");
            if let Some(listed) = listed {
                assert_eq!((listed.ino, listed.name), (77, name.into()));
            }
        }
    }

    #[test]
    fn an_entry_that_is_cut_off_is_an_error() {
        let whole = entry_bytes("name", NORMAL, 0);
        for len in 0..whole.len() {
            assert_eq!(entry(whole.get(..len).unwrap()), Err(Errno::EIO), "{len}");
        }
    }

    /// Bytes with some numbers in them.
    fn bytes(len: usize, parts: &[(usize, u64, usize)]) -> Vec<u8> {
        let mut bytes = vec![0; len];
        for (at, value, size) in parts {
            bytes[*at..at + size].copy_from_slice(&value.to_le_bytes()[..*size]);
        }
        bytes
    }

    #[test]
    fn attributes_are_read_where_the_kernel_writes_them() {
        let time = |seconds: u64| (seconds + EPOCH.cast_unsigned()) * TICKS.cast_unsigned();
        let answer = bytes(
            256,
            &[
                (0, time(1), 8),
                (8, time(2), 8),
                (16, time(3), 8),
                (24, time(4), 8),
                (32, READ_ONLY.into(), 4),
                (40, 4097, 8),
                (48, 1234, 8),
                (56, 2, 4),
                (64, 0x0005_0000_0000_0007, 8),
            ],
        );
        let all: All = read(&answer).unwrap();
        let attributes = all.attributes(Kind::Regular, 9);
        assert_eq!(attributes.identity.inode, 0x0005_0000_0000_0007);
        assert_eq!(attributes.identity.device, (0, 9));
        assert_eq!((attributes.size, attributes.blocks), (1234, 9));
        assert_eq!((attributes.links, attributes.mode), (2, 0o100_555));
        let seconds = [
            attributes.born.unwrap(),
            attributes.accessed,
            attributes.modified,
            attributes.changed,
        ];
        assert_eq!(seconds.map(|time| time.seconds), [1, 2, 3, 4]);
        assert!(read::<All>(answer.get(..71).unwrap()).is_err());
    }

    #[test]
    fn sizes_of_a_volume_are_read_where_the_kernel_writes_them() {
        let parts = [
            (0, 100, 8),
            (8, 40, 8),
            (16, 50, 8),
            (24, 8, 4),
            (28, 512, 4),
        ];
        let space = read::<FullSize>(&bytes(32, &parts)).unwrap().space();
        assert_eq!((space.blocks, space.available, space.free), (100, 40, 50));
        assert_eq!((space.block_size, space.inodes), (4096, 0));
        let volume: Volume = read(&bytes(32, &[(8, 0xABCD, 4)])).unwrap();
        assert_eq!(volume.serial, 0xABCD);
    }

    #[test]
    fn what_is_no_reparse_point_is_what_it_seems() {
        for (attributes, tag, expected) in [
            (NORMAL, 0, Ok(Kind::Regular)),
            (NORMAL, 0xA000_000C, Ok(Kind::Regular)),
            (DIRECTORY, 0, Ok(Kind::Directory)),
            (DIRECTORY | REPARSE_POINT, 0xA000_000C, Ok(Kind::Symlink)),
            (DIRECTORY | REPARSE_POINT, 0xA000_0003, Err(Errno::EXDEV)),
            (REPARSE_POINT, 0x9000_001A, Ok(Kind::Special)),
        ] {
            let parts = [(0, attributes.into(), 4), (4, tag, 4)];
            let read = read::<Tag>(&bytes(8, &parts)).unwrap();
            assert_eq!(read.kind(), expected, "{tag:x}");
        }
    }

    #[test]
    fn times_go_there_and_back() {
        for (seconds, nanos) in [
            (0, 0),
            (1, 999_999_900),
            (-1, 500),
            (-EPOCH, 100),
            (1 << 35, 7_00),
        ] {
            let there = Time { seconds, nanos };
            assert_eq!(ticks(there).map(time), Some(there));
        }
        for (seconds, nanos) in [(-EPOCH, 0), (-EPOCH - 1, 0), (i64::MIN, 0), (i64::MAX, 0)] {
            assert_eq!(ticks(Time { seconds, nanos }), None);
        }
    }

    #[test]
    fn times_that_are_kept_are_zero() {
        let at = NewTime::At(Time {
            seconds: 0,
            nanos: 0,
        });
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
        let basic = Basic::of_times(NewTime::Keep, at, now).unwrap();
        assert_eq!((basic.accessed, basic.modified), (0, EPOCH * TICKS));
        let basic = Basic::of_times(NewTime::Now, NewTime::Keep, now).unwrap();
        assert_eq!((basic.accessed, basic.modified), ((EPOCH + 1) * TICKS, 0));
    }

    #[test]
    fn of_permissions_one_attribute_remains() {
        const HIDDEN: u32 = 2;
        for (before, mode, after) in [
            (NORMAL, 0o644, NORMAL),
            (NORMAL, 0o444, READ_ONLY),
            (READ_ONLY, 0o644, NORMAL),
            (READ_ONLY | HIDDEN, 0o644, HIDDEN),
            (HIDDEN, 0o555, HIDDEN | READ_ONLY),
        ] {
            assert_eq!(Basic::of_permissions(before, mode).attributes, after);
        }
        assert_eq!(mode(Kind::Regular, new_attributes(0o444)), 0o100_555);
        assert_eq!(mode(Kind::Regular, new_attributes(0o600)), 0o100_755);
    }
}
