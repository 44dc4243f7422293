//! smoltcp's device for one call: a segment in, segments to the outbox.

use std::num::{NonZeroU16, NonZeroUsize};

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, TcpPacket};

use crate::gateway::Outbox;
use crate::link::{Offloads, VnetHeader};

const ETHERNET_LEN: u16 = 14;
/// With this much waiting for the guest, connections wait with theirs. What a segment of the guest's is answered at once goes beyond it.
pub(crate) const MAX_WAITING: usize = 256 << 10;
/// The longest IPv4 packet.
const LONGEST_PACKET: NonZeroUsize = match NonZeroUsize::new(65535) {
    Some(len) => len,
    None => NonZeroUsize::MIN,
};

pub(super) struct Wire<'w, 'o> {
    incoming: Option<&'w [u8]>,
    offloads: Offloads,
    outbox: &'w mut Outbox<'o>,
}

impl<'w, 'o> Wire<'w, 'o> {
    pub(super) fn new(
        incoming: Option<&'w [u8]>,
        offloads: Offloads,
        outbox: &'w mut Outbox<'o>,
    ) -> Self {
        Self {
            incoming,
            offloads,
            outbox,
        }
    }

    fn outgoing<'a>(&'a mut self) -> Outgoing<'a, 'o> {
        Outgoing {
            finishes_checksum: !self.offloads.checksum,
            segment: None,
            outbox: self.outbox,
        }
    }
}

impl<'w, 'o> Device for Wire<'w, 'o> {
    type RxToken<'a>
        = Incoming<'w>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a, 'o>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'w>, Outgoing<'_, 'o>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), self.outgoing()))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_, 'o>> {
        (self.outbox.out.len() < MAX_WAITING).then(|| self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.outbox.network.mtu.get().into();
        // What the guest sends crossed nothing but memory; what is sent is finished by the token.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::None;
        if self.offloads.segmentation && self.offloads.checksum {
            capabilities.segmentation.tcpv4 = Some(LONGEST_PACKET);
        }
        capabilities
    }
}

pub(super) struct Incoming<'w>(&'w [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Outgoing<'a, 'o> {
    finishes_checksum: bool,
    segment: Option<NonZeroU16>,
    outbox: &'a mut Outbox<'o>,
}

impl TxToken for Outgoing<'_, '_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        // Its checksum and its segments' length are known when it is filled.
        let at = self.outbox.out.len();
        let packet = self
            .outbox
            .ethernet(VnetHeader::default(), EthernetProtocol::Ipv4, len);
        let result = fill(packet);
        let header = finish(packet, self.finishes_checksum, self.segment);
        self.outbox.set_header(at, header);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta.segmentation_offload_size;
    }
}

/// Gives a packet its checksum, or the beginning of it.
fn finish(packet: &mut [u8], is_whole: bool, segment: Option<NonZeroU16>) -> VnetHeader {
    let Ok(mut ip) = Ipv4Packet::new_checked(packet) else {
        return VnetHeader::default();
    };
    if ip.next_header() != IpProtocol::Tcp {
        return VnetHeader::default();
    }
    let (from, to, ip_len) = (ip.src_addr(), ip.dst_addr(), u16::from(ip.header_len()));
    let content = ip.payload_mut();
    let len = content.len();
    let mut tcp = TcpPacket::new_unchecked(content);
    if is_whole {
        tcp.fill_checksum(&from.into(), &to.into());
        return VnetHeader::default();
    }
    tcp.set_checksum(pseudo_header(from.to_bits(), to.to_bits(), len));
    let tcp_at = ETHERNET_LEN + ip_len;
    VnetHeader::tcp_v4(tcp_at, tcp_at + u16::from(tcp.header_len()), segment)
}

/// The sum over the pseudo header (RFC 9293, section 3.1), not complemented.
fn pseudo_header(from: u32, to: u32, len: usize) -> u16 {
    let words = [
        from >> 16,
        from & 0xffff,
        to >> 16,
        to & 0xffff,
        6,
        u32::try_from(len).unwrap_or(0),
    ];
    let sum: u32 = words.iter().sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0xffff)
}
