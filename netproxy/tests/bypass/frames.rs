//! Frames: whatever is no ARP, DHCP, DNS or ping to the gateway, and no TCP, goes nowhere, and nothing of it leaves the host.

use std::net::Ipv4Addr;

use netproxy::DroppedFrame::{
    EtherType, Fragment, Icmp, Malformed, NotForGateway, Options, Protocol, Spoofed, Udp,
};

use crate::bench::Bench;
use crate::craft::{
    self, GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, SYN, Tcp, ethernet, frame, icmp, ipv4, packet,
    udp,
};
use crate::table::Verdict::{Answered, Dropped, Silence};
use crate::table::{Attack, Technique, Verdict, in_every_state};

const SERVER: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

type Row = (&'static str, &'static str, Vec<u8>, Verdict);

fn syn() -> Vec<u8> {
    Tcp {
        from: 1000,
        to: 443,
        flags: SYN,
        ..Tcp::default()
    }
    .bytes()
}

/// A SYN to a server in a packet with another header.
fn syn_with(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    frame(0x0800, &packet(SERVER, 6, &syn(), change))
}

#[rustfmt::skip] // one row a line
fn ethernets() -> Vec<Row> {
    let ip = packet(SERVER, 6, &syn(), |_| {});
    let tagged = [&[0, 7, 8, 0], &ip[..]].concat();
    let twice = [&[0, 7, 0x81, 0, 0, 8, 8, 0], &ip[..]].concat();
    let v6 = [&[0x60, 0, 0, 0, 0, 20, 6, 64], &[0x20; 32][..], &syn()].concat();
    vec![
        ("N05", "a VLAN tag", frame(0x8100, &tagged), Dropped(EtherType)),
        ("N05", "a service VLAN tag", frame(0x88a8, &tagged), Dropped(EtherType)),
        ("N05", "two VLAN tags", frame(0x8100, &twice), Dropped(EtherType)),
        ("N01", "IPv6", frame(0x86dd, &v6), Dropped(EtherType)),
        ("N01", "IPv6 as IPv4", frame(0x0800, &v6), Dropped(Malformed)),
        ("N01", "MPLS", frame(0x8847, &tagged), Dropped(EtherType)),
        ("N01", "PPPoE", frame(0x8864, &ip), Dropped(EtherType)),
        ("N01", "LLDP", frame(0x88cc, &[2, 7, 4]), Dropped(EtherType)),
        ("N01", "EAPOL", frame(0x888e, &[1, 1, 0, 0]), Dropped(EtherType)),
        ("N01", "RARP", frame(0x8035, &[0; 28]), Dropped(EtherType)),
        ("N01", "a length of IEEE 802.3", frame(0x0040, &ip), Dropped(EtherType)),
        ("N05", "another sender", ethernet(GATEWAY_MAC, OTHER_MAC, 0x0800, &ip), Dropped(Spoofed)),
        ("N05", "the gateway as sender", ethernet(GATEWAY_MAC, GATEWAY_MAC, 0x0800, &ip), Dropped(Spoofed)),
        ("N05", "a group as sender", ethernet(GATEWAY_MAC, [3; 6], 0x0800, &ip), Dropped(Spoofed)),
        ("N05", "another machine", ethernet(OTHER_MAC, GUEST_MAC, 0x0800, &ip), Dropped(NotForGateway)),
        ("N05", "the guest's own machine", ethernet(GUEST_MAC, GUEST_MAC, 0x0800, &ip), Dropped(NotForGateway)),
        ("N05", "a group of machines", ethernet([1, 0, 0x5e, 0, 0, 1], GUEST_MAC, 0x0800, &ip), Dropped(NotForGateway)),
        ("N01", "an empty frame", Vec::new(), Dropped(Malformed)),
        ("N01", "a frame of one byte", vec![2], Dropped(Malformed)),
        ("N01", "a header and nothing", frame(0x0800, &[]), Dropped(Malformed)),
        ("N01", "a header cut short", frame(0x0800, &[])[..13].to_vec(), Dropped(Malformed)),
    ]
}

#[rustfmt::skip] // one row a line
fn packets() -> Vec<Row> {
    let options = |bytes: &[u8]| {
        let mut ip = packet(SERVER, 6, &[], |_| {});
        ip[0] = 0x45 + u8::try_from(bytes.len() / 4).unwrap();
        ip.extend(bytes);
        ip.extend(syn());
        let len = u16::try_from(ip.len()).unwrap().to_be_bytes();
        ip[2..4].copy_from_slice(&len);
        frame(0x0800, &ip)
    };
    vec![
        ("N02", "a first fragment", syn_with(|ip| ip[6] = 0x20), Dropped(Fragment)),
        ("N02", "a last fragment", syn_with(|ip| ip[7] = 3), Dropped(Fragment)),
        ("N02", "a fragment within the header of TCP", syn_with(|ip| ip[7] = 1), Dropped(Fragment)),
        ("N02", "a fragment behind the longest packet", syn_with(|ip| ip[6..8].copy_from_slice(&[0x1f, 0xff])), Dropped(Fragment)),
        ("N02", "a fragment that may not be one", syn_with(|ip| ip[6] = 0x60), Dropped(Fragment)),
        ("N01", "a loose source route", options(&[131, 7, 4, 10, 0, 0, 1, 0]), Dropped(Options)),
        ("N01", "a strict source route", options(&[137, 7, 4, 127, 0, 0, 1, 0]), Dropped(Options)),
        ("N01", "a record of the route", options(&[7, 7, 4, 0, 0, 0, 0, 0]), Dropped(Options)),
        ("N01", "a router alert", options(&[148, 4, 0, 0]), Dropped(Options)),
        ("N01", "nothing but padding as options", options(&[1, 1, 1, 0]), Dropped(Options)),
        ("N01", "version 5", syn_with(|ip| ip[0] = 0x55), Dropped(Malformed)),
        ("N01", "version 0", syn_with(|ip| ip[0] = 0x05), Dropped(Malformed)),
        ("N01", "a header of 16 bytes", syn_with(|ip| ip[0] = 0x44), Dropped(Malformed)),
        ("N01", "a header longer than the packet", syn_with(|ip| ip[0] = 0x4f), Dropped(Malformed)),
        ("N01", "a length beyond the frame", syn_with(|ip| ip[2] = 0xff), Dropped(Malformed)),
        ("N01", "a length below the header", syn_with(|ip| ip[2..4].copy_from_slice(&[0, 19])), Dropped(Malformed)),
        ("N05", "another sender's address", syn_with(|ip| ip[12..16].copy_from_slice(&[100, 64, 0, 3])), Dropped(Spoofed)),
        ("N05", "the gateway's address as sender", syn_with(|ip| ip[12..16].copy_from_slice(&GATEWAY.octets())), Dropped(Spoofed)),
        ("N05", "the loopback as sender", syn_with(|ip| ip[12..16].copy_from_slice(&[127, 0, 0, 1])), Dropped(Spoofed)),
        ("N05", "a group as sender's address", syn_with(|ip| ip[12..16].copy_from_slice(&[224, 0, 0, 1])), Dropped(Spoofed)),
        ("N05", "no address as sender, TCP", syn_with(|ip| ip[12..16].fill(0)), Dropped(Spoofed)),
        ("N05", "all as sender", syn_with(|ip| ip[12..16].fill(255)), Dropped(Spoofed)),
        ("N05", "TCP to all", ipv4(Ipv4Addr::BROADCAST, 6, &syn()), Dropped(NotForGateway)),
        ("N05", "TCP to a group", ipv4([224, 0, 0, 251].into(), 6, &syn()), Dropped(NotForGateway)),
        ("N05", "TCP to nothing", ipv4(Ipv4Addr::UNSPECIFIED, 6, &syn()), Dropped(NotForGateway)),
        ("N01", "TCP cut short", ipv4(SERVER, 6, &syn()[..19]), Dropped(Malformed)),
        ("N01", "TCP with a header beyond its end", ipv4(SERVER, 6, &tcp_with(|tcp| tcp[12] = 0xf0)), Dropped(Malformed)),
        ("N01", "TCP with a header of nothing", ipv4(SERVER, 6, &tcp_with(|tcp| tcp[12] = 0)), Dropped(Malformed)),
        ("N01", "TCP from port 0", ipv4(SERVER, 6, &tcp_with(|tcp| tcp[..2].fill(0))), Dropped(Malformed)),
        ("N01", "TCP to port 0", ipv4(SERVER, 6, &tcp_with(|tcp| tcp[2..4].fill(0))), Dropped(Malformed)),
    ]
}

fn tcp_with(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut segment = syn();
    change(&mut segment);
    segment
}

/// Which protocols there are beside TCP, UDP and ICMP: none of the 253 is let through.
fn protocols() -> Vec<Technique> {
    (0..=255_u8)
        .filter(|number| ![1, 6, 17].contains(number))
        .map(|number| {
            let name = format!("protocol {number} over IPv4");
            let frame = ipv4(SERVER, number, &[0; 40]);
            Technique::new("N06", name, Attack::Frame(frame), Dropped(Protocol))
        })
        .collect()
}

#[rustfmt::skip] // one row a line
fn datagrams() -> Vec<Row> {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x04host\0\0\x01\0\x01";
    let to = |address, port, content: &[u8]| ipv4(address, 17, &udp(5000, port, content));
    let long = |len: u16| {
        let mut datagram = udp(5000, 53, query);
        datagram[4..6].copy_from_slice(&len.to_be_bytes());
        ipv4(GATEWAY, 17, &datagram)
    };
    vec![
        ("N07", "QUIC", to(SERVER, 443, &[0xc0; 1200]), Dropped(Udp)),
        ("N07", "QUIC to the gateway", to(GATEWAY, 443, &[0xc0; 1200]), Dropped(Udp)),
        ("D06", "DNS to another server", to(RESOLVER, 53, query), Dropped(Udp)),
        ("D06", "DNS over QUIC", to(RESOLVER, 853, query), Dropped(Udp)),
        ("D06", "mDNS", to([224, 0, 0, 251].into(), 5353, query), Dropped(Udp)),
        ("D06", "mDNS to the gateway", to(GATEWAY, 5353, query), Dropped(Udp)),
        ("D06", "LLMNR", to([224, 0, 0, 252].into(), 5355, query), Dropped(Udp)),
        ("D06", "NetBIOS names to all", to(Ipv4Addr::BROADCAST, 137, query), Dropped(Udp)),
        ("D06", "DNS to all", to(Ipv4Addr::BROADCAST, 53, query), Dropped(Udp)),
        ("N07", "NTP", to(SERVER, 123, &[0x23; 48]), Dropped(Udp)),
        ("N07", "STUN", to(SERVER, 3478, &[0, 1, 0, 0]), Dropped(Udp)),
        ("N07", "WireGuard", to(SERVER, 51820, &[1; 148]), Dropped(Udp)),
        ("N07", "VXLAN", to(SERVER, 4789, &[8; 50]), Dropped(Udp)),
        ("N07", "SSDP", to([239, 255, 255, 250].into(), 1900, b"M-SEARCH"), Dropped(Udp)),
        ("N07", "syslog", to(GATEWAY, 514, b"<1>x"), Dropped(Udp)),
        ("N07", "TFTP", to(GATEWAY, 69, b"\0\x01x\0octet\0"), Dropped(Udp)),
        ("N07", "the metadata service", to([169, 254, 169, 254].into(), 80, b"x"), Dropped(Udp)),
        ("N07", "port 0", to(GATEWAY, 0, b"x"), Dropped(Udp)),
        ("N07", "DNS from port 0", ipv4(GATEWAY, 17, &udp(0, 53, query)), Dropped(Udp)),
        ("N01", "a datagram shorter than it says", long(500), Dropped(Malformed)),
        ("N01", "a datagram shorter than its header", long(7), Dropped(Malformed)),
        ("N01", "a datagram cut short", ipv4(GATEWAY, 17, &[0, 53, 0, 53]), Dropped(Malformed)),
        ("N05", "DNS without an address", frame(0x0800, &packet(GATEWAY, 17, &udp(5000, 53, query), |ip| ip[12..16].fill(0))), Dropped(Spoofed)),
        ("N05", "a DHCP server", ipv4(Ipv4Addr::BROADCAST, 17, &udp(67, 68, &dhcp(2, 5, &[], GUEST_MAC))), Dropped(Udp)),
        ("N01", "a wrong sum of a good query, which crossed no wire", to(GATEWAY, 53, query), Answered(1)),
    ]
}

/// A message of DHCP (RFC 2131).
fn dhcp(operation: u8, kind: u8, options: &[u8], hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![operation, 1, 6, 0, 0x12, 0x34, 0x56, 0x78];
    message.resize(28, 0);
    message.extend(hardware);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    message.extend(options);
    message.push(255);
    message
}

#[rustfmt::skip] // one row a line
fn dhcps() -> Vec<Row> {
    let from = |message: Vec<u8>| {
        let datagram = udp(68, 67, &message);
        let ip = packet(Ipv4Addr::BROADCAST, 17, &datagram, |ip| ip[12..16].fill(0));
        ethernet([0xff; 6], GUEST_MAC, 0x0800, &ip)
    };
    let discover = |options: &[u8]| from(dhcp(1, 1, options, GUEST_MAC));
    let request = |options: &[u8]| from(dhcp(1, 3, options, GUEST_MAC));
    let too_long: Vec<u8> = (0..200).flat_map(|_| [12, 1, b'x']).collect();
    vec![
        ("N05", "DHCP: discover", discover(&[]), Answered(1)),
        ("N05", "DHCP: another's address is asked for, which is refused", request(&[50, 4, 10, 0, 0, 9]), Answered(1)),
        ("N05", "DHCP: another server is asked", request(&[50, 4, 100, 64, 0, 2, 54, 4, 10, 0, 0, 1]), Silence),
        ("N05", "DHCP: another machine asks", from(dhcp(1, 1, &[], OTHER_MAC)), Silence),
        ("N05", "DHCP: an offer", from(dhcp(2, 2, &[], GUEST_MAC)), Silence),
        ("N05", "DHCP: an acknowledgement", from(dhcp(2, 5, &[], GUEST_MAC)), Silence),
        ("N05", "DHCP: decline", from(dhcp(1, 4, &[50, 4, 100, 64, 0, 2], GUEST_MAC)), Silence),
        ("N05", "DHCP: release", from(dhcp(1, 7, &[], GUEST_MAC)), Silence),
        ("N05", "DHCP: an unknown kind", from(dhcp(1, 99, &[], GUEST_MAC)), Silence),
        ("N05", "DHCP: static routes and a proxy are asked for", discover(&[55, 4, 121, 33, 249, 252]), Answered(1)),
        ("N05", "DHCP: a name and updates of DNS", discover(&[12, 4, b'e', b'v', b'i', b'l', 81, 5, 1, 0, 0, b'x', b'y']), Answered(1)),
        ("N05", "DHCP: options in other fields", discover(&[52, 1, 3]), Answered(1)),
        ("N05", "DHCP: a relay's option", discover(&[82, 4, 1, 2, 0, 1]), Answered(1)),
        ("N05", "DHCP: many options", discover(&too_long), Answered(1)),
        ("N01", "DHCP: an option beyond the end", from(cut(dhcp(1, 1, &[12, 200], GUEST_MAC))), Answered(1)),
        ("N01", "DHCP: without its cookie", from(dhcp(1, 1, &[], GUEST_MAC)[..236].to_vec()), Silence),
        ("N01", "DHCP: nothing", from(Vec::new()), Silence),
    ]
}

fn cut(mut message: Vec<u8>) -> Vec<u8> {
    message.pop();
    message
}

#[rustfmt::skip] // one row a line
fn arps() -> Vec<Row> {
    let guest = (GUEST_MAC, GUEST);
    let mut short = craft::arp(1, guest, GATEWAY);
    short.truncate(40);
    let mut other_hardware = craft::arp(1, guest, GATEWAY);
    other_hardware[15] = 6;
    vec![
        ("N05", "ARP: who has the gateway", craft::arp(1, guest, GATEWAY), Answered(1)),
        ("N05", "ARP: who has another", craft::arp(1, guest, SERVER), Dropped(NotForGateway)),
        ("N05", "ARP: who has the guest", craft::arp(1, guest, GUEST), Dropped(NotForGateway)),
        ("N05", "ARP: another machine asks", craft::arp(1, (OTHER_MAC, GUEST), GATEWAY), Dropped(Spoofed)),
        ("N05", "ARP: the gateway itself asks", craft::arp(1, (GATEWAY_MAC, GATEWAY), GATEWAY), Dropped(Spoofed)),
        ("N05", "ARP: the guest is the gateway", craft::arp(2, (GUEST_MAC, GATEWAY), GATEWAY), Dropped(NotForGateway)),
        ("N05", "ARP: the guest is the gateway, to all", craft::arp(2, (GUEST_MAC, GATEWAY), GUEST), Dropped(NotForGateway)),
        ("N05", "ARP: the guest is a server", craft::arp(2, (GUEST_MAC, SERVER), GATEWAY), Dropped(NotForGateway)),
        ("N05", "ARP: reverse", craft::arp(3, guest, GATEWAY), Dropped(NotForGateway)),
        ("N01", "ARP: other hardware", other_hardware, Dropped(Malformed)),
        ("N01", "ARP: cut short", short, Dropped(Malformed)),
    ]
}

fn icmps() -> Vec<Technique> {
    let technique =
        |name: String, frame, verdict| Technique::new("N06", name, Attack::Frame(frame), verdict);
    // What is within is a packet, as for those that tell of one.
    let within = packet(SERVER, 6, &syn(), |_| {});
    let content = [&[0; 4], &within[..28]].concat();
    let mut all = Vec::new();
    for kind in (0..=255_u8).filter(|kind| *kind != 8) {
        let frame = ipv4(GATEWAY, 1, &icmp(kind, 0, &content));
        all.push(technique(
            format!("ICMP {kind} to the gateway"),
            frame,
            Dropped(Icmp),
        ));
    }
    for (name, to) in [
        ("a server", SERVER),
        ("all", Ipv4Addr::BROADCAST),
        ("the loopback", Ipv4Addr::LOCALHOST),
    ] {
        let frame = ipv4(to, 1, &icmp(8, 0, b"tunnel in a ping"));
        all.push(technique(format!("a ping to {name}"), frame, Dropped(Icmp)));
    }
    let mut wrong = icmp(8, 0, &[0; 8]);
    wrong[2] ^= 1;
    for (name, message, verdict) in [
        ("a ping with a code", icmp(8, 1, &[0; 8]), Dropped(Icmp)),
        ("a ping with a wrong sum", wrong, Silence),
        (
            "a ping longer than a frame",
            icmp(8, 0, &[0; 3000]),
            Silence,
        ),
        ("a ping cut short", icmp(8, 0, &[]), Dropped(Malformed)),
        ("a ping", icmp(8, 0, &[0; 8]), Answered(1)),
    ] {
        all.push(technique(
            name.to_owned(),
            ipv4(GATEWAY, 1, &message),
            verdict,
        ));
    }
    all
}

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let rows = [ethernets(), packets(), datagrams(), dhcps(), arps()];
    let mut all: Vec<Technique> = rows
        .into_iter()
        .flatten()
        .map(|(row, name, frame, verdict)| {
            Technique::new(row, format!("frame: {name}"), Attack::Frame(frame), verdict)
        })
        .collect();
    all.extend(protocols());
    all.extend(icmps());
    all
}

in_every_state!(techniques);

/// Row N07 as it is written: each port, of the gateway, of a server and of the metadata service.
#[test]
fn no_port_of_udp_leads_anywhere() {
    let mut bench = Bench::in_state(crate::bench::State::Fresh);
    for to in [GATEWAY, SERVER, Ipv4Addr::new(169, 254, 169, 254)] {
        for ports in (0..=u16::MAX).collect::<Vec<_>>().chunks(4096) {
            bench.forget_told();
            let answered = bench.exchange(|bench| {
                for port in ports {
                    let frame = ipv4(to, 17, &udp(5000, *port, b"x"));
                    bench.guest.send_frame(&frame);
                }
            });
            // Port 53 of the gateway takes it for a query, which it is not.
            let others = ports.len() - usize::from(to == GATEWAY && ports.contains(&53));
            assert_eq!((answered.len(), bench.told().len()), (0, others), "{to}");
        }
    }
    assert_eq!(bench.counts().queries, 0);
    bench.allowed_works();
}
