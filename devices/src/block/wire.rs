//! The bytes of a block request and of the configuration (virtio 1.3 section 5.2).
//!
//! No I/O. Whatever a driver sends becomes a [`Request`] whose extents are inside the disk, or a
//! [`Status`] that refuses it.

use virtio_bindings::virtio_blk as consts;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::virtio::Reader;

/// Bytes of a sector; the unit of all positions, whatever the disk's block size is.
pub const SECTOR: u64 = 512;

/// Ranges that one discard or write-zeroes request may name.
pub const MAX_RANGES: u32 = 8;

/// Sectors of one range to discard: 1 GiB.
pub const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Sectors of one range to zero: 16 MiB, because a host may have to write them.
pub const MAX_ZEROES_SECTORS: u32 = 1 << 15;

/// Bytes that one request may read or write: 64 MiB. Buffers may overlap, so that a request can be
/// larger than RAM, and a pause waits for the request at hand.
pub const MAX_REQUEST_BYTES: u64 = 64 << 20;

/// Bytes of one buffer of a request; as many as a queue has stay below [`MAX_REQUEST_BYTES`].
pub const MAX_SEGMENT_BYTES: u32 = 256 << 10;

/// Bytes of the answer to `GET_ID`.
pub const ID_BYTES: usize = consts::VIRTIO_BLK_ID_BYTES as usize;

/// How a request ended: its last writable byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Status {
    /// It was carried out.
    Ok = 0,
    /// It was not: outside the disk, malformed, refused, or the host failed.
    IoError = 1,
    /// There is no such request here.
    Unsupported = 2,
}

/// A part of the disk, inside it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

impl Extent {
    /// `len` bytes from `sector` on, on a disk of `capacity` bytes; whole sectors only.
    fn new(sector: u64, len: u64, capacity: u64) -> Result<Self, Status> {
        let offset = sector.checked_mul(SECTOR).ok_or(Status::IoError)?;
        let end = offset.checked_add(len).ok_or(Status::IoError)?;
        if end > capacity || !len.is_multiple_of(SECTOR) {
            return Err(Status::IoError);
        }
        Ok(Self { offset, len })
    }
}

/// A range to zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Zeroes {
    /// Where.
    pub extent: Extent,
    /// The space may be given back to the host.
    pub may_unmap: bool,
}

/// A request that can be carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// Read into the writable buffers.
    In(Extent),
    /// Write from the readable buffers.
    Out(Extent),
    /// Make all finished writes durable.
    Flush,
    /// Write the disk's identity.
    GetId,
    /// These ranges are no longer needed.
    Discard(Vec<Extent>),
    /// These ranges shall read as zeros.
    WriteZeroes(Vec<Zeroes>),
}

/// The disk, as far as a request is checked against it.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes, whole sectors.
    pub capacity: u64,
    /// It refuses writes.
    pub read_only: bool,
}

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Range {
    sector: U64,
    sectors: U32,
    flags: U32,
}

impl Range {
    fn extent(&self, max: u32, disk: Disk) -> Result<Extent, Status> {
        let sectors = self.sectors.get();
        if sectors > max {
            return Err(Status::IoError);
        }
        Extent::new(
            self.sector.get(),
            u64::from(sectors) * SECTOR,
            disk.capacity,
        )
    }
}

impl Request {
    /// Reads a request. `reader` is left at the data to write, if any; `room` is how many bytes
    /// can be read into.
    ///
    /// # Errors
    /// The status to answer with.
    pub fn parse(reader: &mut Reader<'_>, room: usize, disk: Disk) -> Result<Self, Status> {
        let header: Header = reader.read_obj().map_err(|_| Status::IoError)?;
        let bytes = |count: usize| u64::try_from(count).map_err(|_| Status::IoError);
        let extent = |len| {
            if len > MAX_REQUEST_BYTES {
                return Err(Status::IoError);
            }
            Extent::new(header.sector.get(), len, disk.capacity)
        };
        match header.kind.get() {
            consts::VIRTIO_BLK_T_IN => extent(bytes(room)?).map(Self::In),
            consts::VIRTIO_BLK_T_FLUSH => Ok(Self::Flush),
            consts::VIRTIO_BLK_T_GET_ID => Ok(Self::GetId),
            consts::VIRTIO_BLK_T_OUT
            | consts::VIRTIO_BLK_T_DISCARD
            | consts::VIRTIO_BLK_T_WRITE_ZEROES
                if disk.read_only =>
            {
                Err(Status::IoError)
            }
            consts::VIRTIO_BLK_T_OUT => extent(bytes(reader.remaining())?).map(Self::Out),
            consts::VIRTIO_BLK_T_DISCARD => {
                ranges(reader, |range| discard(range, disk)).map(Self::Discard)
            }
            consts::VIRTIO_BLK_T_WRITE_ZEROES => {
                ranges(reader, |range| zeroes(range, disk)).map(Self::WriteZeroes)
            }
            _ => Err(Status::Unsupported),
        }
    }
}

/// Reads the ranges of a request; all are checked before any is acted on.
fn ranges<T>(
    reader: &mut Reader<'_>,
    parse: impl Fn(&Range) -> Result<T, Status>,
) -> Result<Vec<T>, Status> {
    let count = reader.remaining() / size_of::<Range>();
    let whole = reader.remaining() == count * size_of::<Range>();
    if !whole || count == 0 || u32::try_from(count).map_or(true, |count| count > MAX_RANGES) {
        return Err(Status::IoError);
    }
    let range = |_| parse(&reader.read_obj().map_err(|_| Status::IoError)?);
    (0..count).map(range).collect()
}

fn discard(range: &Range, disk: Disk) -> Result<Extent, Status> {
    if range.flags.get() != 0 {
        return Err(Status::Unsupported);
    }
    range.extent(MAX_DISCARD_SECTORS, disk)
}

fn zeroes(range: &Range, disk: Disk) -> Result<Zeroes, Status> {
    let flags = range.flags.get();
    if flags & !consts::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0 {
        return Err(Status::Unsupported);
    }
    Ok(Zeroes {
        extent: range.extent(MAX_ZEROES_SECTORS, disk)?,
        may_unmap: flags != 0,
    })
}

/// `struct virtio_blk_config` up to and with the write-zeroes limits.
#[derive(Clone, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Config {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    geometry: [u8; 4],
    blk_size: U32,
    topology: [u8; 8],
    writeback: u8,
    unused: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    padding: [u8; 3],
}

impl Config {
    pub(super) fn new(disk: Disk, queue_size: u16) -> Self {
        let mut config = Self {
            capacity: U64::new(disk.capacity / SECTOR),
            size_max: U32::new(MAX_SEGMENT_BYTES),
            // A header and a status byte go with the data.
            seg_max: U32::new(u32::from(queue_size).saturating_sub(2)),
            blk_size: U32::new(512),
            ..Self::default()
        };
        if !disk.read_only {
            config.max_discard_sectors = U32::new(MAX_DISCARD_SECTORS);
            config.max_discard_seg = U32::new(MAX_RANGES);
            // In sectors: a page, the smallest hole that file systems make.
            config.discard_sector_alignment = U32::new(8);
            config.max_write_zeroes_sectors = U32::new(MAX_ZEROES_SECTORS);
            config.max_write_zeroes_seg = U32::new(MAX_RANGES);
            config.write_zeroes_may_unmap = 1;
        }
        config
    }
}

/// The feature bits of a block device.
pub(super) fn features(disk: Disk) -> u64 {
    use consts::{
        VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
        VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
    };
    let always = [
        VIRTIO_BLK_F_SIZE_MAX,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_FLUSH,
    ];
    let access: &[u32] = if disk.read_only {
        &[VIRTIO_BLK_F_RO]
    } else {
        &[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]
    };
    always
        .iter()
        .chain(access)
        .fold(0, |bits, bit| bits | 1 << bit)
}
