//! Packets and configuration of virtio-vsock (virtio 1.3, sections 5.10.4 and 5.10.6).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a packet's header.
pub const HEADER_LEN: usize = 44;
/// The context id of the host (section 5.10.4).
pub const HOST_CID: u64 = 2;
/// The `type` of a byte stream (section 5.10.6), the only one that this device has.
pub const STREAM: u16 = 1;

/// What a packet is about (section 5.10.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Op {
    /// Asks for a connection.
    Request = 1,
    /// Grants it.
    Response = 2,
    /// Ends a connection at once, or refuses it.
    Reset = 3,
    /// Says what the sender will not do any more; see [`Halves`].
    Shutdown = 4,
    /// Carries bytes.
    ReadWrite = 5,
    /// Only tells the sender's credit.
    CreditUpdate = 6,
    /// Asks for the receiver's credit.
    CreditRequest = 7,
}

impl Op {
    const ALL: [Self; 7] = [
        Self::Request,
        Self::Response,
        Self::Reset,
        Self::Shutdown,
        Self::ReadWrite,
        Self::CreditUpdate,
        Self::CreditRequest,
    ];

    /// The operation of a code, `None` when the specification has none of it.
    #[must_use]
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.code() == code)
    }

    /// Its code in a header.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

bitflags::bitflags! {
    /// The directions that a peer has closed: the flags of a [`Op::Shutdown`] (section 5.10.6.6).
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub struct Halves: u32 {
        /// It will receive no more.
        const RECEIVE = 1;
        /// It will send no more.
        const SEND = 2;
    }
}

/// A packet's header in native integers. Any value can come from a guest.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Header {
    /// Context id of the sender.
    pub src_cid: u64,
    /// Context id of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes behind the header.
    pub len: u32,
    /// Kind of socket; [`STREAM`] is the only one known.
    pub kind: u16,
    /// Code of the [`Op`].
    pub op: u16,
    /// Of a shutdown: [`Halves`].
    pub flags: u32,
    /// Bytes of the sender's receive buffer.
    pub buf_alloc: u32,
    /// Bytes that ever left the sender's receive buffer, modulo 2^32.
    pub fwd_cnt: u32,
}

/// The header as it lies in memory.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    src_cid: U64,
    dst_cid: U64,
    src_port: U32,
    dst_port: U32,
    len: U32,
    kind: U16,
    op: U16,
    flags: U32,
    buf_alloc: U32,
    fwd_cnt: U32,
}

impl Header {
    /// Reads a header.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let raw: Raw = zerocopy::transmute!(*bytes);
        Self {
            src_cid: raw.src_cid.get(),
            dst_cid: raw.dst_cid.get(),
            src_port: raw.src_port.get(),
            dst_port: raw.dst_port.get(),
            len: raw.len.get(),
            kind: raw.kind.get(),
            op: raw.op.get(),
            flags: raw.flags.get(),
            buf_alloc: raw.buf_alloc.get(),
            fwd_cnt: raw.fwd_cnt.get(),
        }
    }

    /// Writes the header.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        zerocopy::transmute!(Raw {
            src_cid: self.src_cid.into(),
            dst_cid: self.dst_cid.into(),
            src_port: self.src_port.into(),
            dst_port: self.dst_port.into(),
            len: self.len.into(),
            kind: self.kind.into(),
            op: self.op.into(),
            flags: self.flags.into(),
            buf_alloc: self.buf_alloc.into(),
            fwd_cnt: self.fwd_cnt.into(),
        })
    }

    /// The reset that answers this packet, addressed back to where it came from.
    #[must_use]
    pub fn reset(&self) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: Op::Reset.code(),
            ..Self::default()
        }
    }
}

/// The configuration space: the guest's context id.
#[must_use]
pub fn config(guest_cid: u64) -> [u8; 8] {
    guest_cid.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_place() {
        let mut bytes = [0; HEADER_LEN];
        for (index, byte) in (1..).zip(&mut bytes) {
            *byte = index;
        }
        let header = Header::parse(&bytes);
        let expected = Header {
            src_cid: 0x0807_0605_0403_0201,
            dst_cid: 0x100f_0e0d_0c0b_0a09,
            src_port: 0x1413_1211,
            dst_port: 0x1817_1615,
            len: 0x1c1b_1a19,
            kind: 0x1e1d,
            op: 0x201f,
            flags: 0x2423_2221,
            buf_alloc: 0x2827_2625,
            fwd_cnt: 0x2c2b_2a29,
        };
        assert_eq!(header, expected);
        assert_eq!(header.emit(), bytes);
    }

    #[test]
    fn operations_have_the_codes_of_the_specification() {
        let codes = [
            (1, Op::Request),
            (2, Op::Response),
            (3, Op::Reset),
            (4, Op::Shutdown),
            (5, Op::ReadWrite),
            (6, Op::CreditUpdate),
            (7, Op::CreditRequest),
        ];
        for code in 0..=u16::MAX {
            let known = codes
                .iter()
                .find(|(known, _)| *known == code)
                .map(|(_, op)| *op);
            assert_eq!(Op::from_code(code), known, "{code}");
        }
    }

    #[test]
    fn a_reset_goes_back_to_where_the_packet_came_from() {
        let packet = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 10,
            dst_port: 20,
            len: 5,
            kind: 9,
            op: 77,
            flags: 1,
            buf_alloc: 1,
            fwd_cnt: 1,
        };
        let reset = packet.reset();
        assert_eq!((reset.src_cid, reset.dst_cid), (2, 3));
        assert_eq!((reset.src_port, reset.dst_port), (20, 10));
        assert_eq!((reset.kind, reset.op, reset.len), (9, 3, 0));
    }
}
