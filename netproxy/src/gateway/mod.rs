//! The only other machine on the guest's network: it answers ARP, DHCP and pings itself.

mod dhcp;

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv4Packet, Icmpv4Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use crate::link::{self, VnetHeader};

pub(crate) use dhcp::answer as answer_dhcp;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;
/// Pings get no more than this back.
const MAX_ECHO: usize = 1500 - IPV4_LEN;

/// The guest's network: two machines, of which the gateway is this crate.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// The guest's hardware address.
    pub guest_hardware: EthernetAddress,
    /// The gateway's hardware address.
    pub gateway_hardware: EthernetAddress,
    /// The guest's address.
    pub guest: Ipv4Addr,
    /// The gateway's address, where the resolver is too.
    pub gateway: Ipv4Addr,
    /// Bits of both addresses that are the network's.
    pub prefix_len: u8,
    /// Longest IPv4 packet on the wire, in bytes.
    pub mtu: NonZeroU16,
}

impl Default for Network {
    /// Addresses from the range for carriers' networks (RFC 6598): neither homes nor companies use them, so a guest that has either's
    /// inside (a VPN, Docker's bridges) sees no clash.
    fn default() -> Self {
        Self {
            guest_hardware: EthernetAddress([0x02, 0xcf, 0, 0, 0, 2]),
            gateway_hardware: EthernetAddress([0x02, 0xcf, 0, 0, 0, 1]),
            guest: Ipv4Addr::new(100, 64, 0, 2),
            gateway: Ipv4Addr::new(100, 64, 0, 1),
            prefix_len: 30,
            mtu: NonZeroU16::new(1500).unwrap_or(NonZeroU16::MAX),
        }
    }
}

/// Frames from the gateway to the guest, each a record of the link.
#[derive(Debug)]
pub(crate) struct Outbox<'o> {
    pub(crate) network: &'o Network,
    pub(crate) out: &'o mut Vec<u8>,
}

impl Outbox<'_> {
    /// Answers who has the gateway's address.
    pub(crate) fn arp_reply(&mut self) {
        let network = self.network;
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: network.gateway_hardware,
            source_protocol_addr: network.gateway,
            target_hardware_addr: network.guest_hardware,
            target_protocol_addr: network.guest,
        };
        let payload = self.ethernet(
            VnetHeader::default(),
            EthernetProtocol::Arp,
            reply.buffer_len(),
        );
        reply.emit(&mut ArpPacket::new_unchecked(payload));
    }

    /// Answers a ping. A request that is too long, or whose checksum is wrong, gets nothing.
    pub(crate) fn echo_reply(&mut self, request: &[u8]) {
        let checksums = ChecksumCapabilities::default();
        let Ok(packet) = Icmpv4Packet::new_checked(request) else {
            return;
        };
        let Ok(Icmpv4Repr::EchoRequest {
            ident,
            seq_no,
            data,
        }) = Icmpv4Repr::parse(&packet, &checksums)
        else {
            return;
        };
        let reply = Icmpv4Repr::EchoReply {
            ident,
            seq_no,
            data,
        };
        if reply.buffer_len() > MAX_ECHO {
            return;
        }
        let to = self.network.guest;
        let payload = self.ipv4(to, IpProtocol::Icmp, reply.buffer_len());
        reply.emit(&mut Icmpv4Packet::new_unchecked(payload), &checksums);
    }

    /// A datagram from a port of the gateway's.
    pub(crate) fn udp(&mut self, from: u16, to: Ipv4Addr, port: u16, content: &[u8]) {
        let source = IpAddress::Ipv4(self.network.gateway);
        let header = UdpRepr {
            src_port: from,
            dst_port: port,
        };
        let payload = self.ipv4(to, IpProtocol::Udp, UDP_LEN + content.len());
        header.emit(
            &mut UdpPacket::new_unchecked(payload),
            &source,
            &IpAddress::Ipv4(to),
            content.len(),
            |room| room.copy_from_slice(content),
            &ChecksumCapabilities::default(),
        );
    }

    fn ipv4(&mut self, to: Ipv4Addr, protocol: IpProtocol, len: usize) -> &mut [u8] {
        let header = Ipv4Repr {
            src_addr: self.network.gateway,
            dst_addr: to,
            next_header: protocol,
            payload_len: len,
            hop_limit: 64,
        };
        let packet = self.ethernet(
            VnetHeader::default(),
            EthernetProtocol::Ipv4,
            IPV4_LEN + len,
        );
        header.emit(
            &mut Ipv4Packet::new_unchecked(&mut *packet),
            &ChecksumCapabilities::default(),
        );
        packet.get_mut(IPV4_LEN..).unwrap_or_default()
    }

    /// Room for `len` bytes in a frame to the guest.
    pub(crate) fn ethernet(
        &mut self,
        vnet: VnetHeader,
        ethertype: EthernetProtocol,
        len: usize,
    ) -> &mut [u8] {
        let header = EthernetRepr {
            src_addr: self.network.gateway_hardware,
            dst_addr: self.network.guest_hardware,
            ethertype,
        };
        let frame = link::push(self.out, vnet, ETHERNET_LEN + len);
        header.emit(&mut EthernetFrame::new_unchecked(&mut *frame));
        frame.get_mut(ETHERNET_LEN..).unwrap_or_default()
    }

    /// Gives the frame at `at` another header, now that it is filled.
    pub(crate) fn set_header(&mut self, at: usize, header: VnetHeader) {
        link::set_header(self.out, at, header);
    }
}
