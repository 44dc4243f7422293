//! A policy that changes while something is under way.

use std::net::SocketAddrV4;
use std::time::Duration;

use netproxy::testkit::{Connection, End};

use crate::bench::{Bench, State};
use crate::craft;
use crate::server::TLS_GREETING;

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
                let expected = match port {
                    443 => [TLS_GREETING, &first].concat(),
                    _ => first.clone(),
                };
                assert_eq!(bench.guest.receive(connection, expected.len()), expected);
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

/// How long what [`asks_again`] asks is, in its record.
const ANSWER_LEN: usize = 5 + 4 + 2 + 32 + 18;

/// A server of TLS that asks for another first message, and then tells what it gets.
fn asks_again() -> (std::net::SocketAddr, std::sync::mpsc::Receiver<Vec<u8>>) {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut piece = [0; 4096];
            let len = stream.read(&mut piece).unwrap_or(0);
            assert!(len > 0, "no first message");
            // SHA-256 of "HelloRetryRequest" in place of the random number (RFC 8446, section 4.1.3).
            let random = b"\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91\
                           \xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c";
            let rest = [0, 0x13, 1, 0, 0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 2, 0, 23];
            let body = [&[3, 3][..], random, &rest].concat();
            let message = [&[2], &craft::sized::<3>(&body)[..]].concat();
            stream
                .write_all(&craft::record(22, [3, 3], &message))
                .unwrap();
            let mut all = Vec::new();
            while let Ok(len @ 1..) = stream.read(&mut piece) {
                all.extend_from_slice(&piece[..len]);
                if all.len() > 100 {
                    break;
                }
            }
            drop(stream.write_all(b"over"));
            tell.send(all).unwrap();
        }
    });
    (address, told)
}

/// A server goes by the name of the second message if it asked for one, so that must be the connection's, too. (H06)
#[test]
fn a_second_first_message_is_for_the_same_name() {
    let (address, told) = asks_again();
    let sinks = Bench::in_state(State::Fresh).sinks;
    let policy = crate::bench::service("a.host", address, "https", 443);
    let mut bench = Bench::new(sinks, &policy);
    let hello = |name: &str| craft::hello(&[craft::sni(name)]);
    let change = craft::record(20, [3, 3], &[1]);
    let early = craft::record(23, [3, 3], &[7; 40]);
    let hidden = craft::hello(&[craft::sni("a.host"), craft::extension(0xfe0d, &[1])]);
    let in_bytes: Vec<u8> = craft::hello_message(&[craft::sni("evil.host")])
        .iter()
        .flat_map(|byte| craft::record(22, [3, 3], &[*byte]))
        .collect();
    let right = [&early[..], &change, &hello("a.host")].concat();
    for (second, carried) in [
        (hello("a.host"), hello("a.host")),
        (right.clone(), right),
        (hello("evil.host"), Vec::new()),
        ([&change[..], &hello("evil.host")].concat(), change.clone()),
        (
            [&early[..], &change, &in_bytes].concat(),
            [&early[..], &change].concat(),
        ),
        (hidden, Vec::new()),
        (hello("x").split_off(9), Vec::new()),
    ] {
        let connection = connect(&mut bench, 443);
        assert!(bench.guest.send(connection, &hello("a.host")));
        // The whole of its answer: a client says nothing before.
        let answer = bench.guest.receive(connection, ANSWER_LEN);
        assert_eq!((answer.len(), answer.first()), (ANSWER_LEN, Some(&22)));
        bench.guest.send(connection, &second);
        let is_right = carried == second;
        let (heard, end) = bench.guest.receive_all(connection);
        let expected = if is_right {
            (b"over".to_vec(), Some(End::Finished))
        } else {
            (Vec::new(), Some(End::Reset))
        };
        assert_eq!((heard, end), expected);
        bench.guest.finish(connection);
        assert_eq!(told.recv().unwrap(), carried);
    }
}

/// What got as far as the server is told, also where it goes no further.
#[test]
fn a_connection_that_breaks_behind_its_first_message_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let policy = crate::bench::service("a.host", listener.local_addr().unwrap(), "https", 443);
    let mut bench = Bench::new(Bench::in_state(State::Fresh).sinks, &policy);
    let connection = connect(&mut bench, 443);
    assert!(
        bench
            .guest
            .send(connection, &craft::hello(&[craft::sni("a.host")]))
    );
    // With bytes that it has not read, so that it is a reset.
    let (server, _) = listener.accept().unwrap();
    server.peek(&mut [0]).unwrap();
    drop(server);
    assert_eq!(
        bench.guest.receive_all(connection),
        (Vec::new(), Some(End::Reset))
    );
    assert!(matches!(bench.wait_told(), crate::bench::Told::Ended));
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
