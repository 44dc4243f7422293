//! The guest's wire as a byte stream: what the machine's network device and this crate say to each other over one socket.
//!
//! Each record is its length (32 bits, little endian, of what follows) and then either a frame behind a [`VnetHeader`], as a TAP device with
//! `IFF_VNET_HDR` has it, or an [`Offloads`], with which the device says that a driver started. A record of any other length, or a longer one than
//! [`LONGEST_RECORD`], ends the link: the other side is a worker of ours, so it is broken, or broken into.

use std::num::NonZeroU16;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An Ethernet header and the longest IPv4 packet.
pub const LONGEST_FRAME: usize = 14 + 65535;
/// Bytes of a frame's header.
pub const HEADER_LEN: usize = size_of::<VnetHeader>();
/// The longest record, without its length.
pub const LONGEST_RECORD: usize = HEADER_LEN + LONGEST_FRAME;
/// Bytes of a record's length.
pub const LENGTH_LEN: usize = 4;

const NEEDS_CHECKSUM: u8 = 1;
const SEGMENT_TCP_V4: u8 = 1;

/// `struct virtio_net_hdr` (virtio 1.3, section 5.1.6) without its count of buffers.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct VnetHeader {
    flags: u8,
    segmentation: u8,
    header_len: U16,
    segment_len: U16,
    checksum_start: U16,
    checksum_offset: U16,
}

impl VnetHeader {
    /// A TCP segment in IPv4 whose checksum is the receiver's to finish: of the pseudo header alone is it summed so far. It is to be taken for
    /// several with `segment` bytes of content each, if that is given. Places are counted from the frame's beginning.
    #[must_use]
    pub fn tcp_v4(tcp_at: u16, content_at: u16, segment: Option<NonZeroU16>) -> Self {
        Self {
            flags: NEEDS_CHECKSUM,
            segmentation: segment.map_or(0, |_| SEGMENT_TCP_V4),
            header_len: content_at.into(),
            segment_len: segment.map_or(0, NonZeroU16::get).into(),
            checksum_start: tcp_at.into(),
            checksum_offset: 16.into(),
        }
    }
}

/// What the guest's driver takes: sent by the device when a driver starts, and again for each that does. Connections of
/// the one before are gone with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Frames whose TCP checksum is not finished.
    pub checksum: bool,
    /// TCP segments that are longer than the wire's frames.
    pub segmentation: bool,
}

impl Offloads {
    /// The record, with its length.
    #[must_use]
    pub fn emit(self) -> [u8; 8] {
        let bits = u32::from(self.checksum) | u32::from(self.segmentation) << 1;
        let mut record = [0; 8];
        record[0] = 4;
        record[4..].copy_from_slice(&bits.to_le_bytes());
        record
    }
}

/// A record, without its length.
#[derive(Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A driver started.
    Started(Offloads),
    /// A frame. Its header says nothing that the receiver needs: it checks no checksums and cuts nothing.
    Frame(&'a [u8]),
}

/// The stream is none of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network device sent a record of {0} bytes, which there is not")]
pub struct BrokenLink(pub usize);

/// Takes one record off the beginning of `bytes`. `None`: it is not whole yet.
///
/// # Errors
///
/// There is no record of its length.
pub fn split(bytes: &[u8]) -> Result<Option<(Record<'_>, &[u8])>, BrokenLink> {
    Ok(split_raw(bytes)?.map(|(record, rest)| (read(record), rest)))
}

/// A record as it is, and what comes behind it.
pub type Split<'a> = (&'a [u8], &'a [u8]);

/// As [`split`], but the record as it is: a frame behind its header, or four bytes of something else.
///
/// # Errors
///
/// As [`split`].
pub fn split_raw(bytes: &[u8]) -> Result<Option<Split<'_>>, BrokenLink> {
    let Ok((len, rest)) = U32::ref_from_prefix(bytes) else {
        return Ok(None);
    };
    let len = usize::try_from(len.get()).unwrap_or(usize::MAX);
    if len != size_of::<U32>() && !(HEADER_LEN..=LONGEST_RECORD).contains(&len) {
        return Err(BrokenLink(len));
    }
    Ok(rest.split_at_checked(len))
}

fn read(record: &[u8]) -> Record<'_> {
    if let Ok(bits) = U32::ref_from_bytes(record) {
        let bits = bits.get();
        return Record::Started(Offloads {
            checksum: bits & 1 != 0,
            segmentation: bits & 2 != 0,
        });
    }
    Record::Frame(record.get(HEADER_LEN..).unwrap_or_default())
}

/// Adds a record with a frame of `len` bytes to `out`, and gives the frame to be filled.
pub fn push(out: &mut Vec<u8>, header: VnetHeader, len: usize) -> &mut [u8] {
    let record = HEADER_LEN + len;
    let record_len = u32::try_from(record).unwrap_or(u32::MAX);
    out.extend_from_slice(&record_len.to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    let at = out.len();
    out.resize(at + len, 0);
    out.get_mut(at..).unwrap_or_default()
}

/// Replaces the header of the record that begins at `at` of `out`.
pub(crate) fn set_header(out: &mut [u8], at: usize, header: VnetHeader) {
    let place = out.get_mut(at + LENGTH_LEN..).unwrap_or_default();
    // A record is always longer than its header.
    let _ = header.write_to_prefix(place);
}
