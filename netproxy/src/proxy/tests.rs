//! A guest without a machine, a policy, and servers on loopback that count what reaches them.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy does not know `all(test, unix)`"
)]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::egress::{self, GuestNetwork};
use crate::gateway::Network;
use crate::policy::{Abilities, Layers, Origin, Policy};
use crate::relay::Carried;
use crate::testkit::{self, Connection, End, Guest};

mod audit_mode;
mod consent;
mod explicit;
mod intercept;
mod quotas;
mod upstream;

/// Every name is at one address.
struct Everything(IpAddr);

impl Resolver for Everything {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        Ok(vec![self.0])
    }
}

/// Says in a line what it was told.
struct Lines(Sender<String>);

impl Observer for Lines {
    fn opened(&self, flow: &Flow) {
        let rule = flow.ruling.rule.as_ref().unwrap();
        let (number, to, from) = (flow.number, &flow.destination, &rule.place);
        // By a proxy nobody here knows the address.
        let unknown = match flow.address {
            Some(_) => "",
            None => " somewhere",
        };
        drop(
            self.0
                .send(format!("{number}: {to} opened by {from}{unknown}")),
        );
    }

    fn requested(&self, flow: &Flow, (method, target): (&str, &str), _: &Decision<'_>) {
        let request = Request::new(method, target);
        drop(self.0.send(format!("{} {request}", flow.destination)));
    }

    fn denied(&self, denial: &Denial) {
        let request = denial.request.as_ref().map(|request| format!(" {request}"));
        let by = denial.decided_by.as_ref();
        let by = by.map(|rule| format!(" ({})", rule.text));
        let line = format!(
            "{}{}: {}{}",
            denial.destination,
            request.unwrap_or_default(),
            denial.why,
            by.unwrap_or_default()
        );
        // A test that has seen enough does not listen any more.
        drop(self.0.send(line));
    }

    fn audited(&self, denial: &Denial) {
        let line = format!("{} audited: {}", denial.destination, denial.why);
        drop(self.0.send(line));
    }

    fn ended(&self, flow: &Flow, carried: Carried, _: Duration) {
        let Carried { sent, received } = carried;
        let line = format!(
            "{} {}: {sent} sent, {received} received",
            flow.destination, flow.scheme
        );
        drop(self.0.send(line));
    }

    fn dropped(&self, _: DroppedFrame) {}
}

fn engine(policy: &str) -> Engine {
    engine_within(policy, "")
}

/// Where the repository has a policy, too.
fn engine_within(policy: &str, repository: &str) -> Engine {
    compile(policy, repository, false)
}

fn compile(policy: &str, repository: &str, intercepts_tls: bool) -> Engine {
    let parse = |text: &str, origin| Policy::parse(text.as_bytes(), Origin::new(origin));
    let layers = Layers {
        sandbox: Some(parse(policy, "test").unwrap()),
        repository: Some(parse(repository, "repository").unwrap()),
        ..Layers::default()
    };
    let is_public = |address| crate::address::check(address).is_ok();
    Engine::compile(&layers, Abilities { intercepts_tls }, is_public).unwrap()
}

struct Bench {
    guest: Guest,
    told: Receiver<String>,
    /// Another policy for the proxy.
    policies: tokio::sync::mpsc::UnboundedSender<String>,
}

impl Bench {
    fn new(policy: &str) -> Self {
        Self::beside(policy, || Ok(HostAddresses::default()))
    }

    /// On a host with these addresses.
    fn beside(policy: &str, own: fn() -> io::Result<HostAddresses>) -> Self {
        Self::of(engine(policy), own)
    }

    fn of(engine: Engine, own: fn() -> io::Result<HostAddresses>) -> Self {
        Self::set_up(engine, own, |proxy| proxy)
    }

    fn set_up(
        engine: Engine,
        own: fn() -> io::Result<HostAddresses>,
        change: impl FnOnce(Proxy<Everything>) -> Proxy<Everything> + Send + 'static,
    ) -> Self {
        let (tell, told) = channel();
        let (policies, mut next) = tokio::sync::mpsc::unbounded_channel::<String>();
        let (guest, _) = testkit::guest(async move |link| {
            let resolver = Everything("127.0.0.1".parse().unwrap());
            let lines = Box::new(Lines(tell));
            let proxy = Proxy::new(engine, resolver, Box::new(own), lines);
            let proxy = Rc::new(change(proxy));
            let network = GuestNetwork::new(Network::default());
            let served = egress::serve(link, &network, Rc::clone(&proxy));
            tokio::pin!(served);
            loop {
                tokio::select! {
                    _ = &mut served => return,
                    Some(policy) = next.recv() => proxy.replace(self::engine(&policy)),
                }
            }
        })
        .unwrap();
        Self {
            guest,
            told,
            policies,
        }
    }

    /// A connection to a name, which has to have an address.
    fn connect(&mut self, name: &str, port: u16) -> Connection {
        let address = self.guest.resolve(name).unwrap();
        self.guest.connect(SocketAddrV4::new(address, port))
    }

    fn told(&self) -> String {
        self.told.recv_timeout(Duration::from_secs(10)).unwrap()
    }
}

/// A server that sends back what it gets until the other side ends, and tells how much it was.
fn echo() -> (SocketAddr, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                let (mut piece, mut all) = ([0; 4096], 0);
                while let Ok(len @ 1..) = stream.read(&mut piece) {
                    all += len;
                    if stream.write_all(&piece[..len]).is_err() {
                        break;
                    }
                }
                let _ = tell.send(all);
            });
        }
    });
    (address, told)
}

fn service(name: &str, address: SocketAddr, scheme: &str, port: u16) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nscheme = \"{scheme}\"\nports = [{port}]\n"
    )
}

/// What a TLS client says first.
fn hello(name: &str) -> Vec<u8> {
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn without_a_policy_there_is_nothing() {
    let mut bench = Bench::new("");
    assert_eq!(bench.guest.resolve("a.example"), None);
    assert_eq!(bench.told(), "a.example: no rule allows this host");
    for address in [
        "1.1.1.1:443",
        "127.0.0.1:80",
        "198.18.0.1:443",
        "100.64.0.1:80",
        "169.254.169.254:80",
    ] {
        let connection = bench.guest.connect(address.parse().unwrap());
        assert!(!bench.guest.is_connected(connection), "{address}");
        assert_eq!(bench.told(), format!("{address}: no rule allows this host"));
    }
}

#[test]
fn names_resolve_that_can_be_allowed_and_no_others() {
    let mut bench =
        Bench::new("[[allow]]\nhost = \"a.example\"\n[[allow]]\nhost = \"*.b.example\"\n");
    for (name, is_there) in [
        ("a.example", true),
        ("A.EXAMPLE", true),
        ("x.a.example", false),
        ("b.example", false),
        ("x.b.example", true),
        ("x.y.b.example", true),
        ("xb.example", false),
        ("example", false),
    ] {
        assert_eq!(bench.guest.resolve(name).is_some(), is_there, "{name}");
    }
    let (one, other) = (
        bench.guest.resolve("a.example"),
        bench.guest.resolve("x.b.example"),
    );
    assert_ne!(one, other);
}

#[test]
fn what_is_allowed_is_carried() {
    let (server, told) = echo();
    let mut bench = Bench::new(&service("a.host", server, "tcp", 7));
    let connection = bench.connect("a.host", 7);
    assert!(bench.guest.is_connected(connection));
    assert!(bench.guest.send(connection, b"hello"));
    assert_eq!(bench.guest.receive(connection, 5), b"hello");
    bench.guest.finish(connection);
    assert_eq!(
        bench.guest.receive_all(connection),
        (Vec::new(), Some(End::Finished))
    );
    assert_eq!(told.recv().unwrap(), 5);
    assert_eq!(bench.told(), "1: a.host:7 opened by test:1");
    assert_eq!(bench.told(), "a.host:7 tcp: 5 sent, 5 received");
    let other = bench.connect("a.host", 8);
    assert!(!bench.guest.is_connected(other));
    assert_eq!(
        bench.told(),
        "a.host:8: no rule allows this port of the host"
    );
}

#[test]
fn a_name_that_leads_to_the_host_leads_nowhere() {
    let (server, told) = echo();
    let port = server.port();
    let mut bench = Bench::new(&format!(
        "[[allow]]\nhost = \"a.example\"\nscheme = \"tcp\"\nports = [{port}]\n"
    ));
    let connection = bench.connect("a.example", port);
    assert!(!bench.guest.is_connected(connection));
    assert!(bench.told().contains("127.0.0.1 may not be dialled"));
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn tls_is_for_the_name_that_the_connection_is_to() {
    let (server, told) = echo();
    let policy = service("a.host", server, "https", 443) + &service("b.host", server, "https", 443);
    let mut bench = Bench::new(&policy);
    let connection = bench.connect("a.host", 443);
    let sent = hello("a.host");
    assert!(bench.guest.send(connection, &sent));
    assert_eq!(bench.guest.receive(connection, sent.len()), sent);
    bench.guest.finish(connection);
    assert_eq!(bench.guest.receive_all(connection).1, Some(End::Finished));
    assert_eq!(told.recv().unwrap(), sent.len());
    assert_eq!(bench.told(), "1: a.host:443 opened by test:1");
    let len = sent.len();
    assert_eq!(
        bench.told(),
        format!("a.host:443 https: {len} sent, {len} received")
    );
    for (bytes, why) in [
        (hello("b.host"), "TLS for another name: b.host"),
        (hello("192.0.2.1"), "TLS that does not say for which name"),
        (
            b"GET / HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec(),
            "no rule allows this scheme on this port of the host",
        ),
        (
            b"SSH-2.0-x\r\n".to_vec(),
            "neither TLS nor HTTP, which is all that is allowed",
        ),
    ] {
        let connection = bench.connect("a.host", 443);
        assert!(bench.guest.send(connection, &bytes));
        assert_eq!(
            bench.guest.receive_all(connection),
            (Vec::new(), Some(End::Reset))
        );
        assert_eq!(bench.told(), format!("a.host:443: {why}"));
        assert_eq!(told.recv().unwrap(), 0, "{why}");
    }
}

#[test]
fn requests_are_judged_by_method_and_path() {
    let (server, _told) = echo();
    let policy = service("a.host", server, "http", 80)
        + "[[deny]]\nhost = \"a.host\"\nscheme = \"http\"\npaths = [\"/secret/**\"]\n";
    let mut bench = Bench::new(&policy);
    let connection = bench.connect("a.host", 80);
    assert!(bench.guest.send(
        connection,
        b"GET /secret/x?key=value HTTP/1.1\r\nHost: a.host\r\n\r\n"
    ));
    let answer = String::from_utf8(bench.guest.receive(connection, 1)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(bench.told(), "1: a.host:80 opened by test:1");
    assert_eq!(
        bench.told(),
        "a.host:80 GET /secret/x?key=: a rule denies it \
         (deny = [{ host = \"a.host\", scheme = \"http\", paths = [\"/secret/**\"] }])"
    );
    assert!(
        bench
            .guest
            .send(connection, b"GET / HTTP/1.1\r\nHost: b.host\r\n\r\n")
    );
    let answer = String::from_utf8(bench.guest.receive(connection, 1)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
    assert_eq!(
        bench.told(),
        "a.host:80: a request for another host than the connection is to"
    );
}

#[test]
fn a_new_policy_ends_what_it_does_not_allow() {
    let (server, told) = echo();
    let policy = service("a.host", server, "tcp", 7);
    let mut bench = Bench::new(&(policy.clone() + &service("b.host", server, "tcp", 7)));
    let connections = ["a.host", "b.host"].map(|name| bench.connect(name, 7));
    for connection in connections {
        assert!(bench.guest.send(connection, b"x"));
        assert_eq!(bench.guest.receive(connection, 1), b"x");
    }
    assert_eq!(bench.told(), "1: a.host:7 opened by test:1");
    assert_eq!(bench.told(), "2: b.host:7 opened by test:6");
    bench.policies.send(policy).unwrap();
    assert_eq!(
        bench.guest.receive_all(connections[1]),
        (Vec::new(), Some(End::Reset))
    );
    assert_eq!(bench.told(), "b.host:7 tcp: 1 sent, 1 received");
    assert_eq!(bench.told(), "b.host:7: no rule allows this host");
    assert_eq!(told.recv().unwrap(), 1);
    assert!(bench.guest.send(connections[0], b"y"));
    assert_eq!(bench.guest.receive(connections[0], 1), b"y");
    assert_eq!(bench.guest.resolve("b.host"), None);
}

#[test]
fn plain_requests_are_told_and_what_they_carry_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut request, mut byte) = (Vec::new(), [0]);
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            request.extend(byte);
        }
        stream.write_all(answer).unwrap();
        // Until the other side ends.
        let _ = stream.read(&mut byte);
        request.len()
    });
    let mut bench = Bench::new(&service("a.host", server, "http", 80));
    let connection = bench.connect("a.host", 80);
    let request = b"GET /x?token=secret HTTP/1.1\r\nHost: a.host\r\n\r\n";
    assert!(bench.guest.send(connection, request));
    assert!(!bench.guest.receive(connection, 1).is_empty());
    bench.guest.finish(connection);
    bench.guest.receive_all(connection);
    assert_eq!(bench.told(), "1: a.host:80 opened by test:1");
    assert_eq!(bench.told(), "a.host:80 GET /x?token=");
    let (sent, received) = (served.join().unwrap(), answer.len());
    let counted = format!("a.host:80 http: {sent} sent, {received} received");
    assert_eq!(bench.told(), counted);
}

#[test]
fn what_the_guest_leaves_open_is_told_when_it_goes() {
    let (server, _told) = echo();
    let mut bench = Bench::new(&service("a.host", server, "tcp", 7));
    let connection = bench.connect("a.host", 7);
    assert!(bench.guest.send(connection, b"x"));
    assert_eq!(bench.guest.receive(connection, 1), b"x");
    drop(bench.guest);
    let told: Vec<_> = bench.told.iter().collect();
    assert_eq!(
        told,
        [
            "1: a.host:7 opened by test:1",
            "a.host:7 tcp: 1 sent, 1 received"
        ]
    );
}

#[test]
fn without_knowing_the_hosts_addresses_nothing_is_dialled() {
    let policy = "[[allow]]\nhost = \"1.1.1.1\"\nscheme = \"tcp\"\nports = [7]\n\
                  [[allow]]\nhost = \"a.example\"\n";
    let mut bench = Bench::beside(policy, || Err(io::ErrorKind::PermissionDenied.into()));
    let connections = [
        bench.guest.connect("1.1.1.1:7".parse().unwrap()),
        bench.connect("a.example", 443),
    ];
    for connection in connections {
        assert!(!bench.guest.is_connected(connection));
        let told = bench.told();
        assert!(
            told.ends_with("this host's own addresses cannot be told: permission denied"),
            "{told}"
        );
    }
}

#[test]
fn a_refused_request_is_told_how_it_could_be_allowed() {
    let policy = "[[allow]]\nhost = \"a.example\"\nscheme = \"http\"\nmethods = [\"GET\"]\n";
    let engine = engine(policy);
    let host = Host::Name(HostName::parse("a.example").unwrap());
    let rule = suggestion(&engine, &host, 80, Scheme::Http, Some(("POST", "/x"))).unwrap();
    assert!(!rule.contains('\n') && rule.contains("POST"), "{rule}");
    let parsed = Policy::parse(rule.as_bytes(), Origin::new("test"));
    assert!(parsed.is_ok(), "{rule}");
}
