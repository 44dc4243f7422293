//! A policy that changes while something is under way.

use std::net::SocketAddrV4;
use std::time::Duration;

use netproxy::testkit::{Connection, End};

use crate::bench::{Bench, State};
use crate::craft;

/// A fresh bench, and a policy that has nothing of what its own has.
fn bench() -> (Bench, &'static str) {
    (Bench::in_state(State::Fresh), "")
}

fn connect(bench: &mut Bench, port: u16) -> Connection {
    let to = SocketAddrV4::new(bench.address_of("a.host"), port);
    let connection = bench.guest.connect(to);
    assert!(bench.guest.is_connected(connection));
    connection
}

/// What the guest says only after the policy was replaced reaches nobody, whatever it had begun before. (P07)
#[test]
fn what_waits_for_its_first_bytes_is_broken_by_a_new_policy() {
    let hello = craft::hello(&[craft::sni("a.host")]);
    let request = b"GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec();
    // Each of them may meet the proxy in either order, so often enough.
    for (port, first) in [(443, hello), (80, request)] {
        let (mut bench, nothing) = bench();
        bench.allowed_works();
        let waiting: Vec<Connection> = (0..20).map(|_| connect(&mut bench, port)).collect();
        let before = bench.counts();
        bench.replace(nothing);
        for connection in waiting {
            // It is broken without a word; what is said all the same goes nowhere.
            bench.guest.send(connection, &first);
            let (heard, end) = bench.guest.receive_all(connection);
            assert_eq!((heard, end), (Vec::new(), Some(End::Reset)), "port {port}");
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(bench.counts(), before, "port {port}");
    }
}

/// As above, and what is under way already: not a byte more. (P07)
#[test]
fn what_is_carried_is_broken_by_a_new_policy() {
    for (port, first) in [
        (7, b"hello".to_vec()),
        (443, craft::hello(&[craft::sni("a.host")])),
    ] {
        let (mut bench, nothing) = bench();
        let carried: Vec<Connection> = (0..20)
            .map(|_| {
                let connection = connect(&mut bench, port);
                assert!(bench.guest.send(connection, &first));
                assert_eq!(bench.guest.receive(connection, first.len()), first);
                connection
            })
            .collect();
        let before = bench.counts();
        bench.replace(nothing);
        for connection in carried {
            bench.guest.send(connection, b"more");
            let (heard, end) = bench.guest.receive_all(connection);
            assert_eq!((heard, end), (Vec::new(), Some(End::Reset)), "port {port}");
        }
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(bench.counts(), before, "port {port}");
    }
}

/// Each request is judged by the policy of its moment, also of a connection that was good so far. (H04, P07)
#[test]
fn a_request_is_judged_by_the_new_policy() {
    let (mut bench, _) = bench();
    let connection = connect(&mut bench, 80);
    let get = b"GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n";
    assert!(bench.guest.send(connection, get));
    assert!(
        bench
            .guest
            .receive(connection, 1)
            .starts_with(b"HTTP/1.1 200")
    );
    let policy = bench.sinks.policy()
        + "[[deny]]\nhost = \"a.host\"\nscheme = \"http\"\nports = [80]\nmethods = [\"GET\"]\n";
    bench.replace(&policy);
    let before = bench.counts();
    assert!(bench.guest.send(connection, get));
    let heard = bench.guest.receive(connection, 1);
    assert!(heard.windows(4).any(|part| part == b" 403"), "{heard:?}");
    assert_eq!(bench.counts(), before);
}

/// A policy that does not parse is none: the one before goes on, and what it denies stays denied. (P05)
#[test]
fn policies_that_are_broken_are_none() {
    for text in [
        "mode = \"off\"",
        "mode = \"audit\"\nmode = \"enforce\"",
        "[[allow]]",
        "[[allow]]\nhost = \"*\"",
        "[[allow]]\nhost = \"**\"",
        "[[allow]]\nhost = \"\"",
        "[[allow]]\nhost = \"*.com\"",
        "[[allow]]\nhost = \"*.co.uk\"",
        "[[allow]]\nhost = \"*.github.io\"",
        "[[allow]]\nhost = \"a.*.example\"",
        "[[allow]]\nhost = \"a*.example\"",
        "[[allow]]\nhost = \"127.0.0.1\"\nscheme = \"tcp\"\nports = [1]",
        "[[allow]]\nhost = \"::ffff:127.0.0.1\"\nscheme = \"tcp\"\nports = [1]",
        "[[allow]]\nhost = \"169.254.169.254\"\nscheme = \"tcp\"\nports = [80]",
        "[[allow]]\nhost = \"0x7f.1\"",
        "[[allow]]\nhost = \"2130706433\"",
        "[[allow]]\nhost = \"a.example\"\nports = []",
        "[[allow]]\nhost = \"a.example\"\nports = [0]",
        "[[allow]]\nhost = \"a.example\"\nports = [70000]",
        "[[allow]]\nhost = \"a.example\"\nports = \"443\"",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"any\"",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"tcp\"",
        "[[allow]]\nhost = \"a.example\"\nunknown = 1",
        "[[allow]]\nhost = \"a.example\"\nhost = \"b.example\"",
        "[[allow]]\nhost = \"a.example:443\"",
        "[[allow]]\nhost = \"https://a.example\"",
        "[[allow]]\nhost = \"a.example/x\"",
        "[[allow]]\nhost = \"a.example\"\npaths = [\"/x\"]",
        "[[allow]]\nhost = \"a.example\"\nmethods = [\"GET\"]",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\npaths = [\"x\"]",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\npaths = [\"/a/../b\"]",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\npaths = [\"/%61\"]",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\nmethods = [\"get\"]",
        "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\nmethods = []",
        "allow = []",
        "[[deny]]\nhost = \"*\"",
        "[[deny]]",
        "[[service]]\nname = \"a\"",
        "[[service]]\nname = \"*.a\"\naddress = \"127.0.0.1:1\"",
        "[[service]]\nname = \"a\"\naddress = \"93.184.215.14:1\"",
        "[[service]]\nname = \"a\"\naddress = \"169.254.169.254:80\"",
        "[[service]]\nname = \"a\"\naddress = \"0.0.0.0:80\"",
        "[[service]]\nname = \"a\"\naddress = \"localhost:80\"",
        "[[service]]\nname = \"127.0.0.1\"\naddress = \"127.0.0.1:80\"",
        "[allow]\nhost = \"a.example\"",
        "[[allows]]\nhost = \"a.example\"",
        "= 1",
        "\0",
        "[[allow]]\nhost = \"a.example\" # \u{0}",
        "[[allow]]\nhost = 'a.example\nscheme = \"tcp\"",
    ] {
        use netproxy::policy::{Abilities, Engine, Layers, Origin, Policy};
        let compiled = Policy::parse(text.as_bytes(), Origin::new("test")).and_then(|policy| {
            let layers = Layers {
                sandbox: Some(policy),
                ..Layers::default()
            };
            let abilities = Abilities {
                intercepts_tls: false,
            };
            let is_public = |address| netproxy::address::check(address).is_ok();
            Engine::compile(&layers, abilities, is_public)
        });
        assert!(compiled.is_err(), "{text:?} is a policy");
    }
}
