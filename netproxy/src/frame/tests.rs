use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use super::{DroppedFrame, Packet, parse};
use crate::gateway::Network;

const OTHER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// A frame of the guest's with an IPv4 packet in it.
fn ipv4(to: Ipv4Addr, protocol: u8, content: &[u8]) -> Vec<u8> {
    let network = Network::default();
    let mut frame = ethernet(0x0800);
    let len = u16::try_from(20 + content.len()).unwrap().to_be_bytes();
    frame.extend([0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend(network.guest.octets());
    frame.extend(to.octets());
    frame.extend(content);
    frame
}

fn ethernet(ethertype: u16) -> Vec<u8> {
    let network = Network::default();
    let addresses = [network.gateway_hardware.0, network.guest_hardware.0].concat();
    [addresses, ethertype.to_be_bytes().to_vec()].concat()
}

fn udp(from: u16, to: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + content.len()).unwrap();
    let words = [from, to, len, 0];
    let header = words.iter().flat_map(|word| word.to_be_bytes());
    header.chain(content.iter().copied()).collect()
}

fn tcp(from: u16, to: u16, flags: u8) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [ports, vec![0; 8], vec![0x50, flags, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

fn arp(operation: u8, target: Ipv4Addr) -> Vec<u8> {
    let network = Network::default();
    let mut frame = ethernet(0x0806);
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(network.guest_hardware.0);
    frame.extend(network.guest.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn changed(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

#[test]
fn what_the_gateway_answers_is_known() {
    let network = Network::default();
    let gateway = network.gateway;
    let syn = ipv4(OTHER, 6, &tcp(1000, 443, 2));
    let Ok(Packet::Tcp(segment)) = parse(&syn, &network) else {
        panic!("{:?}", parse(&syn, &network))
    };
    assert_eq!(
        (segment.from, segment.to),
        (1000, SocketAddrV4::new(OTHER, 443))
    );
    assert!(segment.opens);
    assert_eq!(segment.ip, &syn[14..]);
    // What pads a short frame is no part of the packet.
    let padded = [syn.clone(), vec![0; 6]].concat();
    assert_eq!(parse(&padded, &network), parse(&syn, &network));
    for (frame, packet) in [
        (arp(1, gateway), Packet::WhoIsGateway),
        (
            ipv4(gateway, 17, &udp(4000, 53, b"q")),
            Packet::Dns {
                from: 4000,
                query: b"q",
            },
        ),
        (
            ipv4(Ipv4Addr::BROADCAST, 17, &udp(68, 67, b"d")),
            Packet::Dhcp(b"d"),
        ),
        (ipv4(gateway, 17, &udp(68, 67, b"d")), Packet::Dhcp(b"d")),
        (
            ipv4(gateway, 1, &[8, 0, 0, 0, 0, 1, 0, 1]),
            Packet::Echo(&[8, 0, 0, 0, 0, 1, 0, 1]),
        ),
    ] {
        assert_eq!(parse(&frame, &network), Ok(packet), "{frame:x?}");
    }
}

#[test]
fn segments_open_connections_only_by_a_plain_syn() {
    let network = Network::default();
    for flags in 0..=0xff_u8 {
        let frame = ipv4(OTHER, 6, &tcp(1000, 443, flags));
        let Ok(Packet::Tcp(segment)) = parse(&frame, &network) else {
            panic!("{flags:#x}")
        };
        // SYN, and none of ACK, RST and FIN.
        assert_eq!(segment.opens, flags & 0b1_0111 == 0b0_0010, "{flags:#x}");
    }
}

#[test]
fn everything_else_goes_nowhere() {
    let network = Network::default();
    let syn = ipv4(OTHER, 6, &tcp(1000, 443, 2));
    for (what, frame, why) in [
        ("nothing", vec![], DroppedFrame::Malformed),
        ("half a header", syn[..13].to_vec(), DroppedFrame::Malformed),
        ("no packet", syn[..14].to_vec(), DroppedFrame::Malformed),
        (
            "half a segment",
            syn[..40].to_vec(),
            DroppedFrame::Malformed,
        ),
        (
            "another sender",
            changed(syn.clone(), 11, 9),
            DroppedFrame::Spoofed,
        ),
        (
            "a group's sender",
            changed(syn.clone(), 6, 3),
            DroppedFrame::Spoofed,
        ),
        (
            "another receiver",
            changed(syn.clone(), 5, 9),
            DroppedFrame::NotForGateway,
        ),
        (
            "a group",
            changed(syn.clone(), 0, 0x33),
            DroppedFrame::NotForGateway,
        ),
        (
            "a VLAN",
            changed(changed(syn.clone(), 12, 0x81), 13, 0),
            DroppedFrame::EtherType,
        ),
        (
            "IPv6",
            changed(changed(syn.clone(), 12, 0x86), 13, 0xdd),
            DroppedFrame::EtherType,
        ),
        (
            "IPv6 in IPv4's frame",
            changed(syn.clone(), 14, 0x65),
            DroppedFrame::Malformed,
        ),
        (
            "longer than it is",
            changed(syn.clone(), 16, 1),
            DroppedFrame::Malformed,
        ),
        (
            "a header of 16",
            changed(syn.clone(), 14, 0x44),
            DroppedFrame::Malformed,
        ),
        (
            "options",
            changed(syn.clone(), 14, 0x46),
            DroppedFrame::Options,
        ),
        (
            "a first fragment",
            changed(syn.clone(), 20, 0x20),
            DroppedFrame::Fragment,
        ),
        (
            "a later fragment",
            changed(syn.clone(), 21, 1),
            DroppedFrame::Fragment,
        ),
        (
            "another address",
            changed(syn.clone(), 29, 9),
            DroppedFrame::Spoofed,
        ),
        (
            "a port of zero",
            ipv4(OTHER, 6, &tcp(1000, 0, 2)),
            DroppedFrame::Malformed,
        ),
        (
            "from port zero",
            ipv4(OTHER, 6, &tcp(0, 443, 2)),
            DroppedFrame::Malformed,
        ),
    ] {
        assert_eq!(parse(&frame, &network), Err(why), "{what}");
    }
}

#[test]
fn nothing_but_questions_to_the_gateway_goes_there() {
    let network = Network::default();
    let gateway = network.gateway;
    let query = ipv4(gateway, 17, &udp(4000, 53, b"q"));
    let ping = ipv4(gateway, 1, &[8, 0, 0, 0, 0, 1, 0, 1]);
    for (what, frame, why) in [
        (
            "to all",
            ipv4(Ipv4Addr::BROADCAST, 6, &tcp(1, 2, 2)),
            DroppedFrame::NotForGateway,
        ),
        (
            "to many",
            ipv4(Ipv4Addr::new(224, 0, 0, 1), 6, &tcp(1, 2, 2)),
            DroppedFrame::NotForGateway,
        ),
        (
            "to nobody",
            ipv4(Ipv4Addr::UNSPECIFIED, 6, &tcp(1, 2, 2)),
            DroppedFrame::NotForGateway,
        ),
        (
            "another resolver",
            changed(query.clone(), 33, 9),
            DroppedFrame::Udp,
        ),
        (
            "mDNS",
            ipv4(Ipv4Addr::new(224, 0, 0, 251), 17, &udp(5353, 5353, b"q")),
            DroppedFrame::Udp,
        ),
        (
            "QUIC",
            ipv4(OTHER, 17, &udp(4000, 443, b"q")),
            DroppedFrame::Udp,
        ),
        (
            "a DHCP server",
            ipv4(Ipv4Addr::BROADCAST, 17, &udp(67, 68, b"d")),
            DroppedFrame::Udp,
        ),
        (
            "half a datagram",
            changed(query.clone(), 39, 200),
            DroppedFrame::Malformed,
        ),
        (
            "a ping for others",
            changed(ping.clone(), 33, 9),
            DroppedFrame::Icmp,
        ),
        (
            "a redirect",
            changed(ping.clone(), 34, 5),
            DroppedFrame::Icmp,
        ),
        (
            "a coded ping",
            changed(ping.clone(), 35, 1),
            DroppedFrame::Icmp,
        ),
        (
            "an announcement",
            arp(2, gateway),
            DroppedFrame::NotForGateway,
        ),
        (
            "who has the guest's",
            arp(1, network.guest),
            DroppedFrame::NotForGateway,
        ),
        (
            "ARP for another",
            changed(arp(1, gateway), 27, 9),
            DroppedFrame::Spoofed,
        ),
        (
            "half of ARP",
            arp(1, gateway)[..30].to_vec(),
            DroppedFrame::Malformed,
        ),
    ] {
        assert_eq!(parse(&frame, &network), Err(why), "{what}");
    }
}

#[test]
fn a_guest_without_an_address_may_ask_for_one_and_nothing_else() {
    let network = Network::default();
    let from_nowhere = |mut frame: Vec<u8>| {
        frame[26..30].fill(0);
        frame
    };
    let ask = from_nowhere(ipv4(Ipv4Addr::BROADCAST, 17, &udp(68, 67, b"d")));
    assert_eq!(parse(&ask, &network), Ok(Packet::Dhcp(b"d")));
    for other in [
        ipv4(network.gateway, 17, &udp(4000, 53, b"q")),
        ipv4(OTHER, 6, &tcp(1000, 443, 2)),
        ipv4(network.gateway, 1, &[8, 0, 0, 0, 0, 1, 0, 1]),
    ] {
        assert_eq!(
            parse(&from_nowhere(other), &network),
            Err(DroppedFrame::Spoofed)
        );
    }
}

#[test]
fn only_three_protocols_of_all_get_anywhere() {
    let network = Network::default();
    for to in [OTHER, network.gateway] {
        let passed = (0..=255).filter(|&protocol| {
            let packet = parse(&ipv4(to, protocol, &[0; 64]), &network).map(drop);
            packet != Err(DroppedFrame::Protocol)
        });
        assert_eq!(passed.collect::<Vec<u8>>(), [1, 6, 17]);
    }
}

#[test]
fn no_udp_port_but_two_gets_anywhere() {
    let network = Network::default();
    for to in [OTHER, network.gateway, Ipv4Addr::BROADCAST] {
        for port in 0..=u16::MAX {
            let frame = ipv4(to, 17, &udp(4000, port, b"x"));
            let is_dns = to == network.gateway && port == 53;
            assert_eq!(parse(&frame, &network).is_ok(), is_dns, "{to}:{port}");
        }
    }
}

proptest! {
    #[test]
    fn no_frame_is_too_odd(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&frame, &Network::default());
    }

    /// Frames that are nearly right get further in.
    #[test]
    fn no_change_of_a_frame_is_too_odd(
        protocol in prop::sample::select(vec![1_u8, 6, 17, 0]),
        changes in prop::collection::vec((14_usize..80, any::<u8>()), 0..6),
        cut in 0_usize..100,
    ) {
        let mut frame = ipv4(Network::default().gateway, protocol, &[0x50; 60]);
        for (at, byte) in changes {
            frame[at] = byte;
        }
        frame.truncate(cut);
        if let Ok(Packet::Tcp(segment)) = parse(&frame, &Network::default()) {
            prop_assert!(segment.ip.len() <= frame.len() - 14);
        }
    }
}
