//! The proxy that guests can name, and names asked for over TCP.

use super::*;

/// A server of plain HTTP that tells the heads of its requests.
fn web() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        tell.send(String::from_utf8(std::mem::take(&mut head)).unwrap())
                            .unwrap();
                        stream
                            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                            .unwrap();
                    }
                }
            });
        }
    });
    (address, told)
}

impl Bench {
    /// A connection to a port of the gateway's.
    fn at_gateway(&mut self, port: u16) -> Connection {
        let gateway = self.guest.network().gateway;
        let connection = self.guest.connect(SocketAddrV4::new(gateway, port));
        assert!(self.guest.is_connected(connection), "{port}");
        connection
    }

    /// All that the proxy says to this, and how it ends.
    fn proxied(&mut self, said: &[u8]) -> (String, Option<End>) {
        let connection = self.at_gateway(PROXY_PORT);
        assert!(self.guest.send(connection, said));
        let (all, end) = self.guest.receive_all(connection);
        self.guest.abort(connection);
        (String::from_utf8(all).unwrap(), end)
    }
}

const STANDS: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn connect(to: &str) -> Vec<u8> {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\nProxy-Authorization: Basic eDp5\r\n\r\n")
        .into_bytes()
}

#[test]
fn a_tunnel_carries_what_is_allowed_also_what_comes_with_its_head() {
    let (server, told) = echo();
    let mut bench = Bench::new(&service("a.host", server, "tcp", 7));
    for name in ["a.host", "A.HOST."] {
        let connection = bench.at_gateway(PROXY_PORT);
        let mut said = connect(&format!("{name}:7"));
        said.extend(b"early");
        assert!(bench.guest.send(connection, &said));
        let expected = [STANDS, b"early"].concat();
        assert_eq!(bench.guest.receive(connection, expected.len()), expected);
        assert!(bench.guest.send(connection, b" and late"));
        assert_eq!(bench.guest.receive(connection, 9), b" and late");
        bench.guest.finish(connection);
        assert_eq!(told.recv().unwrap(), 14);
        assert!(bench.told().ends_with("a.host:7 opened by test:1"));
        assert_eq!(bench.told(), "a.host:7 tcp: 14 sent, 14 received");
    }
    // By the address that stands for it.
    let address = bench.guest.resolve("a.host").unwrap();
    let connection = bench.at_gateway(PROXY_PORT);
    let said = connect(&format!("{address}:7"));
    assert!(bench.guest.send(connection, &said));
    assert_eq!(bench.guest.receive(connection, STANDS.len()), STANDS);
    assert!(bench.told().ends_with("a.host:7 opened by test:1"));
}

#[test]
fn what_is_denied_is_told_and_nothing_is_dialled() {
    let (server, reached) = echo();
    let port = server.port();
    let policy = service("a.host", server, "tcp", 7)
        + "[[allow]]\nhost = \"b.example\"\n[[deny]]\nhost = \"evil.example\"\n";
    let mut bench = Bench::new(&policy);
    for (said, status, told) in [
        (
            connect("c.example:443"),
            403,
            "c.example:443: no rule allows this host",
        ),
        (
            connect("a.host:8"),
            403,
            "a.host:8: no rule allows this port of the host",
        ),
        (
            connect("evil.example:443"),
            403,
            "evil.example:443: a rule denies it",
        ),
        (
            connect(&format!("127.0.0.1:{port}")),
            403,
            &format!("127.0.0.1:{port}: no rule allows this host"),
        ),
        (
            connect("[::1]:80"),
            403,
            "[::1]:80: no rule allows this host",
        ),
        (
            connect("100.64.0.1:3128"),
            403,
            "100.64.0.1:3128: no rule allows this host",
        ),
        // Every name is at 127.0.0.1 here.
        (
            connect("b.example:443"),
            502,
            "b.example:443: 127.0.0.1 may not be dialled",
        ),
        (
            b"GET http://b.example:443/ HTTP/1.1\r\nHost: b.example:443\r\n\r\n".to_vec(),
            403,
            "b.example:443: no rule allows this scheme on this port of the host",
        ),
        (
            b"GET http://a.host:7/ HTTP/1.1\r\nHost: a.host:7\r\n\r\n".to_vec(),
            403,
            "a.host:7: no rule allows this scheme on this port of the host",
        ),
    ] {
        let (answer, end) = bench.proxied(&said);
        let begin = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&begin), "{told}: {answer}");
        assert_eq!(end, Some(End::Finished));
        let line = bench.told();
        assert!(line.starts_with(told), "{line}");
        let reason = told.split_once(": ").unwrap().1;
        assert!(answer.contains(reason), "{answer}");
    }
    let (answer, _) = bench.proxied(&connect("c.example:443"));
    assert!(
        answer.ends_with("to allow it, add: allow = [{ host = \"c.example\" }]\n"),
        "{answer}"
    );
    for said in [
        "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "GET https://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
        "CONNECT b.example HTTP/1.1\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let (answer, end) = bench.proxied(said.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{said}: {answer}");
        assert_eq!(end, Some(End::Finished));
    }
    assert!(reached.try_recv().is_err());
}

#[test]
fn a_tunnel_is_for_the_name_that_tls_in_it_is_for() {
    let (server, reached) = echo();
    let mut bench = Bench::new(&service("a.host", server, "https", 443));
    let connection = bench.at_gateway(PROXY_PORT);
    assert!(bench.guest.send(connection, &connect("a.host:443")));
    assert_eq!(bench.guest.receive(connection, STANDS.len()), STANDS);
    assert!(bench.guest.send(connection, &hello("b.example")));
    assert_eq!(
        bench.guest.receive_all(connection),
        (Vec::new(), Some(End::Reset))
    );
    assert_eq!(bench.told(), "a.host:443: TLS for another name: b.example");
    assert_eq!(reached.recv().unwrap(), 0);
    let connection = bench.at_gateway(PROXY_PORT);
    let hello = hello("a.host");
    let said = [connect("a.host:443"), hello.clone()].concat();
    assert!(bench.guest.send(connection, &said));
    let expected = [STANDS, &hello].concat();
    assert_eq!(bench.guest.receive(connection, expected.len()), expected);
}

#[test]
fn each_request_is_judged_and_has_a_connection_of_its_own() {
    let (server, asked) = web();
    let policy = service("a.host", server, "http", 80)
        + "[[deny]]\nhost = \"a.host\"\nscheme = \"http\"\npaths = [\"/secret/**\"]\n";
    let mut bench = Bench::new(&policy);
    let request = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n\r\n")
            .into_bytes()
    };
    let (answer, end) = bench.proxied(&request("http://a.host/x?y=z", "a.host"));
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"),
        "{answer}"
    );
    assert_eq!(end, Some(End::Finished));
    assert_eq!(
        asked.recv().unwrap(),
        "GET /x?y=z HTTP/1.1\r\nhost: a.host\r\n\r\n"
    );
    for (target, host, status) in [
        ("http://a.host/secret/x", "a.host", 403),
        ("http://a.host/x", "b.host", 421),
    ] {
        let (answer, _) = bench.proxied(&request(target, host));
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    // The second request on a connection is nobody's: it may be for another host.
    let both = [
        request("http://a.host/1", "a.host"),
        request("http://a.host/2", "a.host"),
    ];
    let (answer, _) = bench.proxied(&both.concat());
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(asked.recv().unwrap().starts_with("GET /1 "));
    // Within a tunnel it is as it is without one.
    let connection = bench.at_gateway(PROXY_PORT);
    let mut said = connect("a.host:80");
    said.extend(request("/secret/y", "a.host"));
    assert!(bench.guest.send(connection, &said));
    let begin = [STANDS, b"HTTP/1.1 403 "].concat();
    let answer = bench.guest.receive(connection, begin.len());
    assert!(answer.starts_with(&begin), "{}", answer.escape_ascii());
    assert!(asked.try_recv().is_err(), "a request too many");
}

/// A query for an address, as it is on a stream.
fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len().try_into().unwrap());
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    let len = u16::try_from(message.len()).unwrap();
    [&len.to_be_bytes(), message.as_slice()].concat()
}

/// The answer on a stream without its length.
fn answer(guest: &mut Guest, connection: Connection) -> Vec<u8> {
    let mut all = guest.receive(connection, 2);
    let rest = all.split_off(2);
    let len = u16::from_be_bytes(all.try_into().unwrap());
    assert_eq!(rest.len(), usize::from(len), "an answer is one segment");
    rest
}

#[test]
fn names_are_answered_for_over_tcp_as_over_udp() {
    let mut bench = Bench::new("[[allow]]\nhost = \"a.example\"\n");
    let address = bench.guest.resolve("a.example").unwrap();
    let connection = bench.at_gateway(53);
    for _ in 0..3 {
        assert!(bench.guest.send(connection, &query("a.example")));
        let answer = answer(&mut bench.guest, connection);
        assert_eq!(&answer[..4], [0x12, 0x34, 0x85, 0x80]);
        assert!(answer.ends_with(&address.octets()), "{answer:?}");
        assert!(bench.guest.send(connection, &query("b.example")));
        let answer = self::answer(&mut bench.guest, connection);
        assert_eq!(&answer[..4], [0x12, 0x34, 0x85, 0x83]);
        assert_eq!(bench.told(), "b.example: no rule allows this host");
    }
    // What is no question ends it.
    for said in [
        vec![0, 0],
        vec![0, 12, 0x12, 0x34, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0],
    ] {
        let connection = bench.at_gateway(53);
        assert!(bench.guest.send(connection, &said));
        assert_eq!(
            bench.guest.receive_all(connection),
            (Vec::new(), Some(End::Finished)),
            "{said:?}"
        );
    }
}

#[test]
fn no_more_ask_for_names_over_tcp_than_the_cap() {
    let mut bench = Bench::new("");
    let all: Vec<_> = (0..crate::dns_stream::MAX_DNS_STREAMS)
        .map(|_| bench.at_gateway(53))
        .collect();
    let gateway = bench.guest.network().gateway;
    let beyond = bench.guest.connect(SocketAddrV4::new(gateway, 53));
    assert!(!bench.guest.is_connected(beyond));
    assert_eq!(bench.told(), "100.64.0.1:53: no rule allows this host");
    bench.guest.finish(all[0]);
    bench.guest.receive_all(all[0]);
    bench.at_gateway(53);
}
