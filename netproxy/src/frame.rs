//! What a guest's frame is, or why it goes nowhere.
//!
//! Everything that is not named here is refused: other protocols, fragments, options, other senders. Nothing is put together from parts
//! and nothing is passed on.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv4Message, Icmpv4Packet, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket,
};

use crate::gateway::Network;

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DNS: u16 = 53;

/// What a guest asks by one frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// Who has the gateway's address?
    WhoIsGateway,
    /// A DHCP message to any server.
    Dhcp(&'a [u8]),
    /// A DNS query to the gateway, from this port.
    Dns { from: u16, query: &'a [u8] },
    /// An ICMP echo request to the gateway, without its IP header.
    Echo(&'a [u8]),
    /// A segment of TCP, with its IP header.
    Tcp(Segment<'a>),
}

/// A TCP segment of the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// Which of the guest's ports it is from.
    pub(crate) from: u16,
    pub(crate) to: SocketAddrV4,
    /// It asks for a new connection.
    pub(crate) opens: bool,
    /// The IPv4 packet, as long as its header says.
    pub(crate) ip: &'a [u8],
}

/// Why a frame goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DroppedFrame {
    /// Shorter than its headers, or with lengths that contradict each other.
    #[error("malformed")]
    Malformed,
    /// From another hardware or network address than the guest's.
    #[error("from an address that is not the guest's")]
    Spoofed,
    /// To another machine on the guest's network, of which there is none, or to a group of them.
    #[error("to nobody on the guest's network")]
    NotForGateway,
    /// IPv6, a VLAN, or anything else that is neither ARP nor IPv4.
    #[error("neither ARP nor IPv4")]
    EtherType,
    /// A part of an IPv4 packet.
    #[error("a fragment")]
    Fragment,
    /// An IPv4 packet with options (source routes among them).
    #[error("with IPv4 options")]
    Options,
    /// UDP that is neither DHCP nor DNS to the gateway.
    #[error("UDP that is neither DHCP nor DNS to the gateway")]
    Udp,
    /// ICMP that is no echo request to the gateway.
    #[error("ICMP that is no echo request to the gateway")]
    Icmp,
    /// Another protocol over IPv4.
    #[error("neither TCP, UDP nor ICMP")]
    Protocol,
}

/// What `frame` is.
///
/// # Errors
///
/// Why it goes nowhere.
pub(crate) fn parse<'a>(frame: &'a [u8], network: &Network) -> Result<Packet<'a>, DroppedFrame> {
    let ethernet = EthernetFrame::new_checked(frame).map_err(|_| DroppedFrame::Malformed)?;
    if ethernet.src_addr() != network.guest_hardware {
        return Err(DroppedFrame::Spoofed);
    }
    let to = ethernet.dst_addr();
    if to != network.gateway_hardware && to != EthernetAddress::BROADCAST {
        return Err(DroppedFrame::NotForGateway);
    }
    match ethernet.ethertype() {
        EthernetProtocol::Arp => parse_arp(ethernet.payload(), network),
        EthernetProtocol::Ipv4 => parse_ipv4(ethernet.payload(), network),
        _ => Err(DroppedFrame::EtherType),
    }
}

fn parse_arp<'a>(payload: &[u8], network: &Network) -> Result<Packet<'a>, DroppedFrame> {
    let packet = ArpPacket::new_checked(payload).map_err(|_| DroppedFrame::Malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(|_| DroppedFrame::Malformed)?
    else {
        return Err(DroppedFrame::Malformed);
    };
    if source_hardware_addr != network.guest_hardware {
        return Err(DroppedFrame::Spoofed);
    }
    if operation != ArpOperation::Request || target_protocol_addr != network.gateway {
        return Err(DroppedFrame::NotForGateway);
    }
    Ok(Packet::WhoIsGateway)
}

fn parse_ipv4<'a>(payload: &'a [u8], network: &Network) -> Result<Packet<'a>, DroppedFrame> {
    let packet = Ipv4Packet::new_checked(payload).map_err(|_| DroppedFrame::Malformed)?;
    if packet.version() != 4 {
        return Err(DroppedFrame::Malformed);
    }
    if packet.more_frags() || packet.frag_offset() != 0 {
        return Err(DroppedFrame::Fragment);
    }
    if packet.header_len() != 20 {
        return Err(DroppedFrame::Options);
    }
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let content = packet.payload();
    // A guest that asks for its address has none yet.
    if from != network.guest && !from.is_unspecified() {
        return Err(DroppedFrame::Spoofed);
    }
    if from.is_unspecified() && packet.next_header() != IpProtocol::Udp {
        return Err(DroppedFrame::Spoofed);
    }
    match packet.next_header() {
        IpProtocol::Udp => parse_udp(content, from, to, network),
        IpProtocol::Icmp if to == network.gateway => parse_icmp(content),
        IpProtocol::Icmp => Err(DroppedFrame::Icmp),
        IpProtocol::Tcp => {
            let ip = payload
                .get(..usize::from(packet.total_len()))
                .unwrap_or_default();
            parse_tcp(content, to, ip)
        }
        _ => Err(DroppedFrame::Protocol),
    }
}

fn parse_udp<'a>(
    content: &'a [u8],
    from: Ipv4Addr,
    to: Ipv4Addr,
    network: &Network,
) -> Result<Packet<'a>, DroppedFrame> {
    let packet = UdpPacket::new_checked(content).map_err(|_| DroppedFrame::Malformed)?;
    let ports = (packet.src_port(), packet.dst_port());
    let is_to_gateway = to == network.gateway;
    match ports {
        (DHCP_CLIENT, DHCP_SERVER) if is_to_gateway || to.is_broadcast() => {
            Ok(Packet::Dhcp(packet.payload()))
        }
        _ if from.is_unspecified() => Err(DroppedFrame::Spoofed),
        (from, DNS) if is_to_gateway && from != 0 => Ok(Packet::Dns {
            from,
            query: packet.payload(),
        }),
        _ => Err(DroppedFrame::Udp),
    }
}

fn parse_icmp(content: &[u8]) -> Result<Packet<'_>, DroppedFrame> {
    let packet = Icmpv4Packet::new_checked(content).map_err(|_| DroppedFrame::Malformed)?;
    if packet.msg_type() != Icmpv4Message::EchoRequest || packet.msg_code() != 0 {
        return Err(DroppedFrame::Icmp);
    }
    Ok(Packet::Echo(content))
}

fn parse_tcp<'a>(content: &[u8], to: Ipv4Addr, ip: &'a [u8]) -> Result<Packet<'a>, DroppedFrame> {
    let packet = TcpPacket::new_checked(content).map_err(|_| DroppedFrame::Malformed)?;
    if to.is_multicast() || to.is_broadcast() || to.is_unspecified() {
        return Err(DroppedFrame::NotForGateway);
    }
    let (from, port) = (packet.src_port(), packet.dst_port());
    if from == 0 || port == 0 {
        return Err(DroppedFrame::Malformed);
    }
    Ok(Packet::Tcp(Segment {
        from,
        to: SocketAddrV4::new(to, port),
        opens: packet.syn() && !packet.ack() && !packet.rst() && !packet.fin(),
        ip,
    }))
}

#[cfg(test)]
mod tests;
