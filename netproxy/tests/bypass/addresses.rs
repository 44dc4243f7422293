//! Connections to addresses that no name was resolved to, and names whose addresses may not be dialled.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use crate::bench::Bench;
use crate::table::{Attack, Technique, Verdict, in_every_state};

/// IPv4 addresses that mean something somewhere: none may be dialled, however the guest came by it.
const SPECIAL: [(&str, &str, [u8; 4]); 40] = [
    ("P01", "loopback", [127, 0, 0, 1]),
    ("P01", "loopback, another", [127, 1, 2, 3]),
    ("P01", "loopback, the last", [127, 255, 255, 254]),
    ("P11", "systemd-resolved", [127, 0, 0, 53]),
    (
        "P11",
        "metadata of EC2, GCP and Azure",
        [169, 254, 169, 254],
    ),
    ("P11", "metadata of ECS tasks", [169, 254, 170, 2]),
    ("P11", "resolver of EC2", [169, 254, 169, 253]),
    ("P11", "time of EC2", [169, 254, 169, 123]),
    ("P01", "link-local, the last", [169, 254, 255, 255]),
    ("P11", "platform of Azure", [168, 63, 129, 16]),
    ("P11", "metadata of Alibaba", [100, 100, 100, 200]),
    ("P11", "metadata of Oracle", [192, 0, 0, 192]),
    ("P01", "RFC 1918, 10", [10, 0, 0, 1]),
    ("P11", "host of an emulated guest", [10, 0, 2, 2]),
    ("P01", "RFC 1918, 172, the first", [172, 16, 0, 0]),
    ("P11", "bridge of Docker", [172, 17, 0, 1]),
    ("P01", "RFC 1918, 172, the last", [172, 31, 255, 255]),
    ("P11", "router at home", [192, 168, 1, 1]),
    ("P11", "host of Docker Desktop", [192, 168, 65, 2]),
    ("P01", "carriers', the first", [100, 64, 0, 0]),
    ("P01", "carriers', the last", [100, 127, 255, 255]),
    ("P11", "another sandbox's guest", [100, 64, 0, 6]),
    ("P10", "the guest itself", [100, 64, 0, 2]),
    ("P11", "the gateway", [100, 64, 0, 1]),
    ("P01", "documentation, 1", [192, 0, 2, 1]),
    ("P01", "documentation, 2", [198, 51, 100, 1]),
    ("P01", "documentation, 3", [203, 0, 113, 1]),
    ("P01", "protocols, PCP anycast", [192, 0, 0, 9]),
    ("P01", "protocols, DS-Lite", [192, 0, 0, 2]),
    ("P01", "AS112", [192, 175, 48, 1]),
    ("P01", "AMT", [192, 52, 193, 1]),
    ("P01", "6to4 relay", [192, 88, 99, 1]),
    (
        "P01",
        "the pool's first, which is never given",
        [198, 18, 0, 0],
    ),
    (
        "P01",
        "the pool's last, which is never given",
        [198, 19, 255, 255],
    ),
    ("P10", "of the pool and never given", [198, 18, 77, 77]),
    ("P01", "class E", [240, 0, 0, 1]),
    ("P01", "class E, the last but one", [255, 255, 255, 254]),
    ("P01", "this network", [0, 0, 0, 1]),
    ("P01", "this network, the last", [0, 255, 255, 255]),
    ("P03", "the host's own network", [44, 0, 0, 17]),
];

/// Public ones that no rule names.
const PUBLIC: [(&str, &str, [u8; 4]); 5] = [
    ("D06", "a public resolver, DNS over HTTPS", [1, 1, 1, 1]),
    ("D06", "another public resolver", [8, 8, 8, 8]),
    ("D06", "a third public resolver", [9, 9, 9, 9]),
    ("P01", "an address of a server", [93, 184, 215, 14]),
    ("P01", "beside the private ones", [172, 32, 0, 1]),
];

/// IPv6 addresses that carry the loopback or the metadata service, or are no public unicast.
const V6: [(&str, &str); 34] = [
    ("unspecified", "::"),
    ("loopback", "::1"),
    ("mapped loopback", "::ffff:127.0.0.1"),
    ("mapped metadata", "::ffff:169.254.169.254"),
    ("mapped private", "::ffff:10.0.0.1"),
    ("mapped public", "::ffff:93.184.215.14"),
    ("compatible loopback", "::127.0.0.1"),
    ("compatible metadata", "::169.254.169.254"),
    ("translated loopback", "::ffff:0:127.0.0.1"),
    ("NAT64 loopback", "64:ff9b::127.0.0.1"),
    ("NAT64 metadata", "64:ff9b::a9fe:a9fe"),
    ("NAT64 local", "64:ff9b:1::a9fe:a9fe"),
    ("NAT64 public", "64:ff9b::93.184.215.14"),
    ("6to4 loopback", "2002:7f00:1::1"),
    ("6to4 metadata", "2002:a9fe:a9fe::1"),
    ("6to4 private", "2002:c0a8:101::1"),
    ("Teredo to the loopback", "2001:0:7f00:1::80ff:fffe"),
    ("Teredo from the metadata service", "2001::5601:5601"),
    ("ISATAP loopback", "2606:4700::5efe:127.0.0.1"),
    ("ISATAP unique", "2606:4700::200:5efe:10.0.0.1"),
    ("link-local", "fe80::1"),
    ("link-local, the last", "febf::1"),
    ("site-local", "fec0::1"),
    ("unique local", "fd00::1"),
    ("metadata of EC2", "fd00:ec2::254"),
    ("metadata of GCP", "fd20:ce::254"),
    ("multicast, all nodes", "ff02::1"),
    ("multicast, global", "ff0e::1"),
    ("documentation", "2001:db8::1"),
    ("documentation, new", "3fff::1"),
    ("discard", "100::1"),
    ("benchmarking", "2001:2::1"),
    ("segment routing", "5f00::1"),
    ("outside of what is assigned", "4000::1"),
];

/// Several at once, none of which is good.
const MIXED: [(&str, &[&str]); 6] = [
    ("no address", &[]),
    ("both families of the loopback", &["127.0.0.1", "::1"]),
    ("sixteen private ones before", &["10.0.0.1"; 17]),
    ("private behind mapped", &["::ffff:127.0.0.1", "10.0.0.1"]),
    ("the same one twice", &["127.0.0.1", "127.0.0.1"]),
    (
        "synthetic ones",
        &["198.18.0.1", "198.18.0.2", "100.64.0.1"],
    ),
];

pub(crate) fn techniques(bench: &Bench) -> Vec<Technique> {
    let port = bench.sinks.forbidden.port();
    let connect = |row, name: String, address: Ipv4Addr, port| {
        let attack = Attack::Connect(SocketAddrV4::new(address, port));
        Technique::new(row, name, attack, Verdict::Reset)
    };
    let answers = |row, name: String, answers: Vec<IpAddr>| {
        Technique::new(row, name, Attack::Answers(answers), Verdict::Reset)
    };
    let mut all = Vec::new();
    for (row, name, octets) in SPECIAL {
        let address = Ipv4Addr::from(octets);
        all.push(connect(row, format!("connect: {name}"), address, port));
        let by_name = format!("a name's address: {name}");
        all.push(answers("D03", by_name, vec![address.into()]));
    }
    for (row, name, octets) in PUBLIC {
        let name = format!("connect without a name: {name}");
        all.push(connect(row, name, octets.into(), 443));
    }
    for (name, octets) in [
        ("broadcast", [255, 255, 255, 255]),
        ("multicast, all systems", [224, 0, 0, 1]),
        ("multicast, mDNS", [224, 0, 0, 251]),
        ("nothing", [0, 0, 0, 0]),
    ] {
        let address = Ipv4Addr::from(octets).into();
        all.push(answers(
            "D03",
            format!("a name's address: {name}"),
            vec![address],
        ));
    }
    for (name, address) in V6 {
        let address: Ipv6Addr = address.parse().unwrap();
        let name = format!("a name's IPv6 address: {name}");
        all.push(answers("P01", name, vec![address.into()]));
    }
    for (name, list) in MIXED {
        let list = list.iter().map(|address| address.parse().unwrap());
        all.push(answers(
            "D04",
            format!("several addresses: {name}"),
            list.collect(),
        ));
    }
    if let Some(stale) = bench.stale {
        for port in [7, 80, 443, port] {
            let name = format!("an address that stood for a name, port {port}");
            let name = name.replace(&bench.sinks.forbidden.port().to_string(), "of the server");
            all.push(connect("P07", name, stale, port));
        }
    }
    all
}

in_every_state!(techniques);
