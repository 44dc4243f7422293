//! The gate between a guest without a machine and a server on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy does not know `all(test, unix)`"
)]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::egress::{self, GuestNetwork};
use crate::frame::DroppedFrame;
use crate::gateway::Network;
use crate::relay::Meter;
use crate::testkit::{self, Connection, End, Guest};

const PORT: u16 = 80;

/// Lets only GET and POST through, and nothing below `/secret`.
struct Rules(SocketAddr);

impl Judge for Rules {
    fn judge(&self, method: &str, path: &str) -> Result<(), Refused> {
        if path.starts_with("/secret") || !["GET", "POST"].contains(&method) {
            return Err(Refused::Policy(Denied {
                reason: "no rule".into(),
                rule: Some(format!("allow {method} {path}")),
            }));
        }
        Ok(())
    }

    fn permit(&self, method: &str, path: &str) -> Result<(), Refused> {
        self.judge(method, path)
    }

    fn misdirected(&self, _: &Refused) {}

    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let stream = tokio::net::TcpStream::connect(self.0).await?;
            Ok(Metered::new(stream, Meter::default()))
        })
    }
}

impl egress::Gate for Rules {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let upstream = Judge::connect(&*self).await.unwrap();
        guest.accept();
        let authority = Authority {
            name: HostName::parse("a.example").unwrap(),
            port: PORT,
        };
        // What went wrong is the guest's business.
        drop(serve(guest, upstream, authority, self, true).await);
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

/// A server that answers each request with its path, and tells the heads that it saw. It ends a connection after `/bye`.
fn server() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                while let Some(head) = head(&mut stream, &mut bytes) {
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    let body = format!("this is {path}");
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nKeep-Alive: x\r\n\r\n{body}",
                        body.len()
                    );
                    // First: who has the answer looks whether it was told.
                    tell.send(head).unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                    if path == "/bye" {
                        return;
                    }
                }
            });
        }
    });
    (address, told)
}

/// The next head from a stream. Bodies have the length that they say.
fn head(stream: &mut std::net::TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut piece = [0; 1000];
        match stream.read(&mut piece).ok()? {
            0 => return None,
            len => bytes.extend_from_slice(&piece[..len]),
        }
    };
    let head = String::from_utf8(bytes.drain(..end).collect()).unwrap();
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    while bytes.len() < length.unwrap_or(0) {
        let mut piece = [0; 1000];
        let len = stream.read(&mut piece).ok()?;
        bytes.extend_from_slice(&piece[..len]);
    }
    bytes.drain(..length.unwrap_or(0));
    Some(head)
}

fn guest(server: SocketAddr) -> Guest {
    let (guest, _) = testkit::guest(async move |link| {
        let rules = Rc::new(Rules(server));
        egress::serve(link, &GuestNetwork::new(Network::default()), rules)
            .await
            .unwrap();
    })
    .unwrap();
    guest
}

fn connect(guest: &mut Guest) -> Connection {
    let connection = guest.connect(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), PORT));
    assert!(guest.is_connected(connection));
    connection
}

/// The status of the answer to a request on a connection of its own, and whether it reached the server.
fn status(request: &str) -> (String, bool) {
    let (address, told) = server();
    let mut guest = guest(address);
    let connection = connect(&mut guest);
    assert!(guest.send(connection, request.as_bytes()));
    let answer = String::from_utf8(guest.receive(connection, 1)).unwrap();
    let status = answer.split(' ').nth(1).unwrap_or("none").to_owned();
    (status, told.try_recv().is_ok())
}

#[test]
fn what_is_for_this_host_and_allowed_gets_there_and_nothing_else_does() {
    for (request, expected, arrives) in [
        ("GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n", "200", true),
        (
            "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "200",
            true,
        ),
        (
            "POST /x HTTP/1.1\r\nHost: A.example.\r\nContent-Length: 2\r\n\r\nhi",
            "200",
            true,
        ),
        ("GET /x HTTP/1.0\r\n\r\n", "200", true),
        ("GET /x HTTP/1.1\r\n\r\n", "421", false),
        ("GET /x HTTP/1.1\r\nHost: b.example\r\n\r\n", "421", false),
        (
            "GET /x HTTP/1.1\r\nHost: a.example:8080\r\n\r\n",
            "421",
            false,
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "421",
            false,
        ),
        (
            "GET http://b.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "421",
            false,
        ),
        (
            "GET /secret/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "403",
            false,
        ),
        (
            "DELETE /x HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "403",
            false,
        ),
        (
            "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "405",
            false,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "none", false),
        (
            "GET /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "400",
            false,
        ),
        ("GET /x HTTP/1.1\r\nHost : a.example\r\n\r\n", "400", false),
        ("GET /x\0 HTTP/1.1\r\nHost: a.example\r\n\r\n", "400", false),
        ("nonsense\r\n\r\n", "400", false),
    ] {
        assert_eq!(
            status(request),
            (expected.to_owned(), arrives),
            "{request:?}"
        );
    }
}

#[test]
fn every_request_on_a_connection_is_judged() {
    let (address, told) = server();
    let mut guest = guest(address);
    let connection = connect(&mut guest);
    for round in 0..100 {
        let request = format!("GET /{round} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(guest.send(connection, request.as_bytes()));
        let expected = format!("this is /{round}");
        let answer = read_answer(&mut guest, connection);
        assert!(answer.ends_with(&expected), "{answer}");
        let denied = format!("GET /secret/{round} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(guest.send(connection, denied.as_bytes()));
        let answer = read_answer(&mut guest, connection);
        assert!(
            answer.contains("403") && answer.contains("allow GET /secret/"),
            "{answer}"
        );
        let other = "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n";
        assert!(guest.send(connection, other.as_bytes()));
        assert!(read_answer(&mut guest, connection).contains("421"));
    }
    let seen: Vec<String> = told.try_iter().collect();
    assert_eq!(seen.len(), 100);
    assert!(
        seen.iter()
            .all(|head| !head.contains("secret") && head.contains("host: a.example")),
        "{seen:?}"
    );
}

#[test]
fn a_refusal_is_json_for_who_takes_that() {
    let (address, _told) = server();
    let mut guest = guest(address);
    let connection = connect(&mut guest);
    for (accept, is_json) in [
        ("application/json", true),
        ("text/html, Application/JSON; q=0.5", true),
        ("application/problem+json", true),
        ("*/*", false),
        (
            "text/html,application/xhtml+xml,application/xml;q=0.9",
            false,
        ),
    ] {
        let request =
            format!("GET /secret/\"x HTTP/1.1\r\nHost: a.example\r\nAccept: {accept}\r\n\r\n");
        assert!(guest.send(connection, request.as_bytes()));
        let answer = read_answer(&mut guest, connection);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "), "{answer}");
        assert_eq!(head.contains("application/json"), is_json, "{answer}");
        if is_json {
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["destination"], "a.example:80");
            assert_eq!(body["reason"], "no rule");
            assert_eq!(body["rule"], "allow GET /secret/\"x");
        } else {
            assert!(body.contains("a.example:80") && body.contains("allow GET /secret/\"x"));
        }
    }
}

/// One answer whose length it says.
fn read_answer(guest: &mut Guest, connection: Connection) -> String {
    let mut all = Vec::new();
    loop {
        let more = guest.receive(connection, 1);
        assert!(!more.is_empty(), "{}", String::from_utf8_lossy(&all));
        all.extend(more);
        let text = String::from_utf8(all.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() >= length.unwrap() {
            return text;
        }
    }
}

#[test]
fn headers_of_one_connection_stay_there() {
    let (address, told) = server();
    let mut guest = guest(address);
    let connection = connect(&mut guest);
    let request = "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade, X-Hop\r\nX-Hop: 1\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\nAccept: y\r\n\r\n";
    assert!(guest.send(connection, request.as_bytes()));
    let answer = read_answer(&mut guest, connection);
    assert!(!answer.to_lowercase().contains("keep-alive"), "{answer}");
    let head = told.recv().unwrap().to_lowercase();
    assert!(head.contains("accept: y"), "{head}");
    for gone in ["x-hop", "upgrade", "proxy-authorization"] {
        assert!(!head.contains(gone), "{head}");
    }
}

#[test]
fn a_server_that_ends_its_connection_is_connected_to_again() {
    let (address, told) = server();
    let mut guest = guest(address);
    let connection = connect(&mut guest);
    for path in ["/bye", "/again"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n");
        assert!(guest.send(connection, request.as_bytes()));
        let answer = read_answer(&mut guest, connection);
        assert!(answer.ends_with(path), "{answer}");
        told.recv().unwrap();
        // The end is to be seen before the next request is sent.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server that says this to whatever it is asked, and then goes on as told.
fn saying(said: Vec<u8>, then: fn(std::net::TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let said = said.clone();
            std::thread::spawn(move || {
                if head(&mut stream, &mut Vec::new()).is_some() && stream.write_all(&said).is_ok() {
                    then(stream);
                }
            });
        }
    });
    address
}

/// What a guest gets from such a server.
fn answer_of(said: &[u8], then: fn(std::net::TcpStream)) -> (String, Option<End>) {
    let mut guest = guest(saying(said.to_vec(), then));
    let connection = connect(&mut guest);
    let request = b"GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    assert!(guest.send(connection, request));
    let (bytes, end) = guest.receive_all(connection);
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

fn reset(stream: std::net::TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn goes_on(mut stream: std::net::TcpStream) {
    while stream.write_all(b"xxxxxxxxxxxxxxxx").is_ok() {}
}

fn goes_on_with_headers(mut stream: std::net::TcpStream) {
    while stream.write_all(b"X: y\r\n").is_ok() {}
}

#[test]
fn a_server_that_misbehaves_is_told_or_broken_off_and_never_waited_for() {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    for (said, then) in [
        (&b""[..], drop as fn(_)),
        (b"", reset),
        (b"nonsense\r\n\r\n", drop),
        (b"HTTP/1.1 200 OK\r\nX: ", goes_on),
        (b"HTTP/1.1 200 OK\r\n", goes_on_with_headers),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", drop),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            drop,
        ),
    ] {
        let (answer, end) = answer_of(said, then);
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        assert_eq!(end, Some(End::Finished));
    }
    for then in [drop as fn(_), reset] {
        let (answer, end) = answer_of(begun, then);
        // What was said is passed on; that it is not all of it shows in its length.
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(!answer.contains("502") && end.is_some(), "{answer}");
    }
}

#[test]
fn what_a_guest_has_given_up_is_given_up_upstream() {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    for said in [&b""[..], begun, b"HTTP/1.1 100 Continue\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut guest = guest(listener.local_addr().unwrap());
        let connection = connect(&mut guest);
        let request = b"GET /x HTTP/1.1\r\nHost: a.example\r\n\r\n";
        assert!(guest.send(connection, request));
        let (mut server, _) = listener.accept().unwrap();
        head(&mut server, &mut Vec::new()).unwrap();
        server.write_all(said).unwrap();
        // It waits for as long as the guest does.
        let wait = |server: &mut std::net::TcpStream, limit| {
            server.set_read_timeout(Some(limit)).unwrap();
            server.read(&mut [0]).map_err(|error| error.kind())
        };
        let early = wait(&mut server, Duration::from_millis(500));
        assert_eq!(early, Err(io::ErrorKind::WouldBlock), "{said:?}");
        guest.abort(connection);
        let late = wait(&mut server, Duration::from_secs(5));
        assert_ne!(late, Err(io::ErrorKind::WouldBlock), "{said:?}");
    }
}
