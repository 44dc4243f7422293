//! Connections by a proxy of the host's network, which resolves names: here public ones can be reached.

use super::*;
use crate::stack::MAX_OPENING;

/// A proxy that connects everything to one server, and tells what it was asked.
pub(super) fn proxy_to(server: SocketAddr) -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((mut near, _)) = listener.accept() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(near.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            tell.send(head.lines().next().unwrap_or_default().to_owned())
                .unwrap();
            if head.contains("refused.example") {
                near.write_all(b"HTTP/1.1 403 No\r\n\r\n").unwrap();
                continue;
            }
            near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            let far = std::net::TcpStream::connect(server).unwrap();
            let (near2, far2) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            let carry = |mut from: std::net::TcpStream, mut to: std::net::TcpStream| {
                std::thread::spawn(move || {
                    drop(io::copy(&mut from, &mut to));
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            };
            carry(near, far);
            carry(far2, near2);
        }
    });
    (port, told)
}

fn bench(policy: &str, port: u16, no_proxy: &'static str) -> Bench {
    let own = || Ok(HostAddresses::default());
    Bench::set_up(engine(policy), own, move |proxy| {
        let upstream = UpstreamProxy::new(&format!("http://127.0.0.1:{port}"), no_proxy);
        proxy.by(Some(upstream.unwrap()))
    })
}

#[test]
fn what_is_allowed_goes_by_it_and_is_judged_as_ever() {
    let (server, _) = echo();
    let (port, asked) = proxy_to(server);
    let policy = "[[allow]]\nhost = \"a.example\"\n[[allow]]\nhost = \"b.example\"\nscheme = \"tcp\"\nports = [22]\n[[allow]]\nhost = \"refused.example\"\n";
    let mut bench = bench(policy, port, "");
    let connection = bench.connect("a.example", 443);
    assert!(bench.guest.is_connected(connection));
    let hello = hello("a.example");
    assert!(bench.guest.send(connection, &hello));
    assert_eq!(bench.guest.receive(connection, hello.len()), hello);
    assert_eq!(asked.recv().unwrap(), "CONNECT a.example:443 HTTP/1.1");
    assert_eq!(bench.told(), "1: a.example:443 opened by test:1 somewhere");
    bench.guest.abort(connection);
    bench.told();
    let connection = bench.connect("a.example", 443);
    assert!(bench.guest.is_connected(connection));
    bench.guest.send(connection, &self::hello("c.example"));
    assert_eq!(
        bench.guest.receive_all(connection),
        (Vec::new(), Some(End::Reset))
    );
    assert_eq!(
        bench.told(),
        "a.example:443: TLS for another name: c.example"
    );
    assert_eq!(asked.recv().unwrap(), "CONNECT a.example:443 HTTP/1.1");
    let connection = bench.connect("b.example", 22);
    assert!(bench.guest.send(connection, b"SSH-2.0-x\r\n"));
    assert_eq!(bench.guest.receive(connection, 11), b"SSH-2.0-x\r\n");
    assert_eq!(asked.recv().unwrap(), "CONNECT b.example:22 HTTP/1.1");
    bench.told();
    let connection = bench.connect("refused.example", 443);
    assert!(!bench.guest.is_connected(connection));
    assert_eq!(
        bench.told(),
        "refused.example:443: the upstream proxy refuses the connection, with status 403"
    );
    assert_eq!(
        asked.recv().unwrap(),
        "CONNECT refused.example:443 HTTP/1.1"
    );
}

#[test]
fn no_more_are_opened_at_a_time_than_may_be_also_by_the_proxy_at_the_gateway() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let mut bench = bench("[[allow]]\nhost = \"a.example\"\n", port, "");
    let gateway = bench.guest.network().gateway;
    let to = SocketAddrV4::new(gateway, PROXY_PORT);
    let mut open = || {
        let connection = bench.guest.connect(to);
        assert!(bench.guest.is_connected(connection));
        connection
    };
    let (waiting, refused) = ((0..MAX_OPENING).map(|_| open()).collect::<Vec<_>>(), open());
    let head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    for connection in waiting.iter().chain([&refused]) {
        assert!(bench.guest.send(*connection, head));
    }
    let (answer, _) = bench.guest.receive_all(refused);
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{answer:?}");
    drop(silent);
}

#[test]
fn what_is_denied_or_not_public_or_an_exception_does_not() {
    let (server, _) = echo();
    let (port, asked) = proxy_to(server);
    let allowed = ["a.example", "x.internal", "direct.example"]
        .map(|name| format!("[[allow]]\nhost = \"{name}\"\n"));
    let policy = allowed.concat() + &service("a.host", server, "tcp", 7);
    let mut bench = bench(&policy, port, "direct.example");
    for (to, why) in [
        ("1.1.1.1:443", "no rule allows this host"),
        ("127.0.0.1:443", "no rule allows this host"),
    ] {
        let connection = bench.guest.connect(to.parse().unwrap());
        assert!(!bench.guest.is_connected(connection));
        assert_eq!(bench.told(), format!("{to}: {why}"));
    }
    for (name, port, why) in [
        ("a.example", 80, "no rule allows this port of the host"),
        (
            "x.internal",
            443,
            "only public names are asked of the upstream proxy",
        ),
        // As without it: resolved here, where every name is at loopback.
        ("direct.example", 443, "127.0.0.1 may not be dialled"),
    ] {
        let connection = bench.connect(name, port);
        assert!(!bench.guest.is_connected(connection));
        let told = bench.told();
        assert!(told.starts_with(&format!("{name}:{port}: {why}")), "{told}");
    }
    let connection = bench.connect("a.host", 7);
    assert!(bench.guest.send(connection, b"hello"));
    assert_eq!(bench.guest.receive(connection, 5), b"hello");
    assert!(asked.try_recv().is_err(), "it was asked");
}
