//! Every address there is, on loopback: in a network namespace of its own, where one server answers at all addresses of both families, a name's
//! addresses change with every question, and what was dialled is what the server says that it was.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use netproxy::address;
use netproxy::testkit::End;

use crate::bench::{Bench, OWN, Sinks, State};
use crate::craft;
use crate::server::{Answers, Origin, Sink};
use crate::table;

const INSIDE: &str = "NETPROXY_BYPASS_WORLD";
/// A world in which every address is this machine's.
const EVERYWHERE: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && \
                          ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"";
/// A world whose way out ends in a sink, which counts what comes. Nothing is sent there by itself: the next hop is known, and IPv6 has no way.
const SINK: &str = "ip link set lo up && ip link add outside type veth peer name sink && \
                    for device in outside sink; do echo 1 > /proc/sys/net/ipv6/conf/$device/disable_ipv6; done && \
                    ip addr add 9.9.9.2/24 dev outside && ip link set outside up && ip link set sink up && \
                    ip route add default via 9.9.9.1 && \
                    ip neigh add 9.9.9.1 lladdr 02:00:00:00:00:01 dev outside && exec \"$0\" \"$@\"";

/// Runs the test of this name again in a world of its own, which is made so. False: this is it.
fn in_a_world(name: &str, make: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let unshare = |command: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--net", "sh", "-c", command]);
        unshare
    };
    let possible = unshare(&make.replace("exec", ":")).output();
    if !possible.is_ok_and(|done| done.status.success()) {
        // Beside the harness, which keeps what a test that passes says to itself.
        let line = format!("SKIP {name}: no network namespace can be had here\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return true;
    }
    let done = unshare(make)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    println!("{said}");
    assert!(done.status.success() && said.contains("1 passed"), "{said}");
    true
}

/// One server at all addresses; it tells at which it was reached.
fn everywhere() -> (u16, Receiver<IpAddr>) {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let at = stream.local_addr().unwrap().ip().to_canonical();
            tell.send(at).unwrap();
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    stream.write_all(&byte).unwrap();
                }
            });
        }
    });
    (port, told)
}

fn bench(port: u16) -> Bench {
    let rule =
        |host: &str| format!("[[allow]]\nhost = \"{host}\"\nscheme = \"tcp\"\nports = [{port}]\n");
    with_policy(&(rule("rebind.example") + &rule("93.184.215.14")))
}

fn with_policy(policy: &str) -> Bench {
    let sinks = Sinks {
        forbidden: Sink::new(),
        tcp: Sink::new(),
        tls: Sink::new(),
        http: Origin::new(),
        resolver: Arc::<Answers>::default(),
    };
    Bench::new(Arc::new(sinks), policy)
}

/// Connects to the name, whose addresses are these: the address that was dialled, if one was.
fn dialled(
    bench: &mut Bench,
    port: u16,
    told: &Receiver<IpAddr>,
    answers: &[IpAddr],
) -> Option<IpAddr> {
    bench.sinks.resolver.answer(answers);
    let to = SocketAddrV4::new(bench.address_of("rebind.example"), port);
    let connection = bench.guest.connect(to);
    if !bench.guest.is_connected(connection) {
        // Nothing came late either: what is told is in the order of what was accepted.
        return told.try_recv().ok();
    }
    assert!(bench.guest.send(connection, b"x"));
    assert_eq!(bench.guest.receive(connection, 1), b"x");
    bench.guest.finish(connection);
    assert_eq!(bench.guest.receive_all(connection).1, Some(End::Finished));
    told.recv_timeout(Duration::from_secs(10)).ok()
}

/// The same with bytes that are known to be neither TLS nor HTTP at once.
fn carried(bench: &mut Bench, to: SocketAddrV4) -> bool {
    let banner = b"SSH-2.0-x\r\n";
    let connection = bench.guest.connect(to);
    if !bench.guest.is_connected(connection) {
        return false;
    }
    assert!(bench.guest.send(connection, banner));
    assert_eq!(bench.guest.receive(connection, banner.len()), banner);
    bench.guest.abort(connection);
    true
}

fn parsed(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Addresses that are never dialled.
const BAD: [&str; 27] = [
    "127.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.2.1",
    "168.63.129.16",
    "::",
    "::1",
    "fe80::1",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:93.184.215.14",
    "64:ff9b::7f00:1",
    "64:ff9b::5db8:d70e",
    "2002:7f00:1::1",
    "2001:0:7f00:1::1",
    "2606:4700::5efe:127.0.0.1",
    "ff02::1",
    "2001:db8::1",
    "::127.0.0.1",
];

/// Row D04: what is public of a mixed answer is dialled, and nothing else ever is.
#[test]
fn of_mixed_answers_only_what_is_public_is_dialled() {
    if in_a_world(
        "world::of_mixed_answers_only_what_is_public_is_dialled",
        EVERYWHERE,
    ) {
        return;
    }
    let (port, told) = everywhere();
    let mut bench = bench(port);
    let public = parsed(&[
        "93.184.215.14",
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1",
        "2a00:1450::5",
    ]);
    for address in &public {
        assert_eq!(
            dialled(&mut bench, port, &told, &[*address]),
            Some(*address)
        );
    }
    let bad = parsed(&BAD);
    let own = IpAddr::from(OWN);
    for other in bad.iter().chain([&own]) {
        assert_eq!(dialled(&mut bench, port, &told, &[*other]), None, "{other}");
        for address in &public {
            for answers in [[*other, *address], [*address, *other]] {
                assert_eq!(
                    dialled(&mut bench, port, &told, &answers),
                    Some(*address),
                    "{answers:?}"
                );
            }
        }
    }
    // Behind as many as are looked at there is nothing.
    let mut behind = vec![bad[0]; netproxy::dial::MAX_ADDRESSES];
    behind.push(public[0]);
    assert_eq!(dialled(&mut bench, port, &told, &behind), None);
    println!("{} answers", (bad.len() + 1) * 11 + 6);
}

/// Row D03: the answer changes with every question, and what was checked is what is dialled.
#[test]
fn a_name_that_is_rebound_a_thousand_times_leads_to_nothing_private() {
    if in_a_world(
        "world::a_name_that_is_rebound_a_thousand_times_leads_to_nothing_private",
        EVERYWHERE,
    ) {
        return;
    }
    let (port, told) = everywhere();
    let mut bench = bench(port);
    let (public, private) = (
        parsed(&["93.184.215.14"]),
        parsed(&["169.254.169.254", "127.0.0.1"]),
    );
    let mut reached = 0;
    for round in 0..1000 {
        let answers = if round % 2 == 0 { &public } else { &private };
        let at = dialled(&mut bench, port, &told, answers);
        reached += usize::from(at.is_some());
        assert!(at.is_none_or(|at| address::check(at).is_ok()), "{at:?}");
    }
    assert_eq!((reached, bench.counts().queries), (500, 1000));
}

/// Rows P01 and P03 without a name, where every address would answer: by policy a guest reaches the one that a rule has, and no other.
#[test]
fn of_all_addresses_only_the_one_of_the_rule_answers() {
    if in_a_world(
        "world::of_all_addresses_only_the_one_of_the_rule_answers",
        EVERYWHERE,
    ) {
        return;
    }
    let (port, told) = everywhere();
    let mut bench = bench(port);
    let allowed = SocketAddrV4::new([93, 184, 215, 14].into(), port);
    let connection = bench.guest.connect(allowed);
    assert!(bench.guest.is_connected(connection));
    assert_eq!(told.recv().unwrap(), IpAddr::from(*allowed.ip()));
    let mut tried = 0;
    for first in 0..=223_u8 {
        for rest in [[0, 0, 1], [184, 215, 14], [255, 255, 254]] {
            let address = [first, rest[0], rest[1], rest[2]].into();
            let to = SocketAddrV4::new(address, port);
            // The guest's own stack does not connect to itself or to nobody.
            if to == allowed || address.is_broadcast() {
                continue;
            }
            let connection = bench.guest.connect(to);
            assert!(!bench.guest.is_connected(connection), "{to}");
            bench.guest.abort(connection);
            tried += 1;
        }
    }
    assert!(told.try_recv().is_err());
    assert_eq!(bench.counts().queries, 0);
    println!("{tried} addresses");
}

/// Audit mode lets through what is public, by name and without one, and that only.
#[test]
fn in_audit_mode_what_is_public_answers_and_nothing_else() {
    if in_a_world(
        "world::in_audit_mode_what_is_public_answers_and_nothing_else",
        EVERYWHERE,
    ) {
        return;
    }
    let (port, told) = everywhere();
    let policy =
        "mode = \"audit\"\n[[deny]]\nhost = \"evil.example\"\n[[deny]]\nhost = \"8.8.4.4\"\n";
    let mut bench = with_policy(policy);
    let at = |bench: &mut Bench, answer: &[IpAddr]| {
        bench.sinks.resolver.answer(answer);
        let address = bench.address_of("any.example");
        let is_carried = carried(bench, SocketAddrV4::new(address, port));
        let at = told.try_recv().ok();
        assert_eq!(is_carried, at.is_some(), "{answer:?}");
        at
    };
    for address in parsed(&["93.184.215.14", "2606:4700::1"]) {
        assert_eq!(at(&mut bench, &[address]), Some(address));
    }
    for address in parsed(&BAD).iter().chain([&IpAddr::from(OWN)]) {
        assert_eq!(at(&mut bench, &[*address]), None, "{address}");
    }
    for name in [
        "evil.example",
        "localhost",
        "x.local",
        "router",
        "x.internal",
    ] {
        assert_eq!(bench.guest.resolve(name), None, "{name}");
    }
    let own = address::Subnet::new(OWN.into(), 24).unwrap();
    let own = address::HostAddresses::new([own]);
    let (mut reached, mut refused) = (0, 0);
    let ends = [[0, 0, 1], [8, 4, 4], [255, 255, 254]];
    let all = (1..=223_u8).flat_map(|first| ends.map(|end| [first, end[0], end[1], end[2]]));
    let bad = parsed(&BAD)
        .into_iter()
        .filter_map(|address| match address {
            // The guest's own stack does not connect to nobody or to all.
            IpAddr::V4(v4) => (!v4.is_unspecified() && !v4.is_broadcast()).then_some(v4),
            IpAddr::V6(_) => None,
        });
    for address in all.map(Ipv4Addr::from).chain(bad) {
        let to = SocketAddrV4::new(address, port);
        let is_public = own.check(address.into()).is_ok();
        let expected = is_public && address.octets() != [8, 8, 4, 4];
        assert_eq!(carried(&mut bench, to), expected, "{to}");
        let at = told.try_recv().ok();
        assert_eq!(at, expected.then(|| address.into()), "{to}");
        reached += usize::from(expected);
        refused += usize::from(!expected);
    }
    assert!(reached > 500 && refused > 15, "{reached} {refused}");
    println!("{reached} addresses answer, {refused} do not");
}

/// Packets that came to the sink, and packets of IPv6 for which there was no way.
fn seen_outside() -> (u64, u64) {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let sink = devices
        .lines()
        .find(|line| line.trim_start().starts_with("sink:"));
    let packets = sink.unwrap().split_whitespace().nth(2).unwrap();
    let counts = std::fs::read_to_string("/proc/thread-self/net/snmp6").unwrap();
    let lost = counts
        .lines()
        .find(|line| line.starts_with("Ip6OutNoRoutes"));
    let lost = lost.unwrap().split_whitespace().nth(1).unwrap();
    (packets.parse().unwrap(), lost.parse().unwrap())
}

/// Whatever a guest tries, in whichever state: not a packet and not a query leaves the host.
#[test]
fn not_a_packet_leaves_the_host() {
    if in_a_world("world::not_a_packet_leaves_the_host", SINK) {
        return;
    }
    let before = seen_outside();
    for state in State::ALL {
        table::run(state, crate::addresses::techniques);
        table::run(state, crate::dns::techniques);
        table::run(state, crate::frames::techniques);
        table::run(state, crate::http::techniques);
        table::run(state, crate::link::techniques);
        table::run(state, crate::proxy::techniques);
        table::run(state, crate::tcp::techniques);
        table::run(state, crate::tls::techniques);
    }
    assert_eq!(seen_outside(), before);
    // It would have been seen.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.send_to(b"x", "8.8.8.8:53").unwrap();
    let somewhere = "1.1.1.1:443".parse().unwrap();
    TcpStream::connect_timeout(&somewhere, Duration::from_millis(100)).unwrap_err();
    let six = UdpSocket::bind("[::]:0").unwrap();
    six.send_to(b"x", "[2606:4700::1]:53").unwrap_err();
    let (packets, lost) = seen_outside();
    assert!(packets >= before.0 + 2, "{packets}");
    assert!(lost > before.1, "{lost}");
}

/// Kibibytes of memory that this process has.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB");
    kibibytes.unwrap().parse().unwrap()
}

/// A scan of ports and addresses: each attempt is refused at once, nothing is kept of it, and what is allowed goes on meanwhile.
#[test]
fn a_hundred_thousand_attempts_leave_nothing_behind() {
    if in_a_world(
        "world::a_hundred_thousand_attempts_leave_nothing_behind",
        SINK,
    ) {
        return;
    }
    let outside = seen_outside();
    let mut bench = Bench::in_state(State::Fresh);
    bench.allowed_works();
    bench.forget_told();
    let round = |bench: &mut Bench, number: u32| {
        for attempt in 0..250_u32 {
            let at = number * 250 + attempt;
            let [_, b, c, d] = at.to_be_bytes();
            let syn = craft::Tcp {
                from: 1024 + u16::try_from(attempt).unwrap(),
                to: u16::try_from(at % 65_535 + 1).unwrap(),
                sequence: at,
                flags: craft::SYN,
                ..craft::Tcp::default()
            };
            bench.guest.send_frame(&syn.frame([93, b, c, d].into()));
        }
        let mut told = 0;
        while told < 250 {
            bench.guest.turn();
            told += bench.told().len();
        }
        told
    };
    // The buffers of as many as wait at a time are made in the first of them.
    let mut refused: usize = (0..200).map(|number| round(&mut bench, number)).sum();
    let before = resident();
    refused += (200..400)
        .map(|number| round(&mut bench, number))
        .sum::<usize>();
    let grown = resident().saturating_sub(before);
    assert_eq!(refused, 100_000);
    assert!(grown < 8 << 10, "{grown} KiB more");
    bench.allowed_works();
    assert_eq!(seen_outside(), outside);
    assert_eq!(bench.forbidden_reached(), Vec::<String>::new());
}
