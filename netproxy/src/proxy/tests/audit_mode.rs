//! `mode = "audit"`: what is recognised before it is let through, and how it is told.

use super::*;

/// Says what connections turn out to be, and carries none: what they are to is public, and the tests have nothing that is.
struct Recognising {
    proxy: Rc<Proxy<Everything>>,
    tell: Sender<String>,
}

impl Gate for Recognising {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let target = self.proxy.target(&guest);
        if self
            .proxy
            .engine()
            .schemes(&target.host, target.port)
            .is_empty()
        {
            drop(self.tell.send("refused".to_owned()));
            return;
        }
        guest.accept();
        let seen = self.proxy.recognise(&guest, &target).await;
        let line = seen.map_or_else(|why| why.to_string(), |scheme| scheme.to_string());
        drop(self.tell.send(line));
    }

    fn dns(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.proxy.dns(query)
    }

    fn dropped(&self, _: DroppedFrame) {}
}

/// A guest whose connections are only recognised.
fn recognising(policy: &str) -> (Guest, Receiver<String>) {
    let (tell, told) = channel();
    let engine = engine(policy);
    let (guest, _) = testkit::guest(async move |link| {
        let resolver = Everything("127.0.0.1".parse().unwrap());
        let lines = Box::new(Lines(channel().0));
        let own = Box::new(|| Ok(HostAddresses::default()));
        let proxy = Rc::new(Proxy::new(engine, resolver, own, lines));
        let gate = Rc::new(Recognising { proxy, tell });
        egress::serve(link, &GuestNetwork::new(Network::default()), gate).await
    })
    .unwrap();
    (guest, told)
}

#[test]
fn what_is_let_through_is_known_on_the_ports_of_the_web_and_named_on_the_others() {
    let (mut guest, told) = recognising(
        "mode = \"audit\"\n[[deny]]\nhost = \"evil.example\"\n[[deny]]\nhost = \"half.example\"\nports = [443]\n",
    );
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_vec();
    let (ours, other, ssh) = (
        hello("a.example"),
        hello("b.example"),
        b"SSH-2.0-x\r\n".to_vec(),
    );
    let neither = "neither TLS nor HTTP, which is all that is allowed";
    let another = "TLS for another name: b.example";
    for (port, bytes, expected) in [
        (443, &ours, "https"),
        (80, &ours, "https"),
        (8443, &ours, "https"),
        (80, &request, "http"),
        (443, &request, "http"),
        (8080, &request, "http"),
        (443, &other, another),
        (80, &other, another),
        (8443, &other, another),
        (
            443,
            &hello("192.0.2.1"),
            "TLS that does not say for which name",
        ),
        (8443, &hello("192.0.2.1"), "tcp"),
        (443, &ssh, neither),
        (80, &ssh, neither),
        (22, &ssh, "tcp"),
        // The server speaks first.
        (25, &Vec::new(), "tcp"),
    ] {
        let address = guest.resolve("a.example").unwrap();
        let connection = guest.connect(SocketAddrV4::new(address, port));
        assert!(guest.send(connection, bytes), "{port}");
        let told = guest.until(|_| told.try_recv().ok()).unwrap();
        assert_eq!(
            told,
            expected,
            "{port} {:?}",
            bytes.escape_ascii().to_string()
        );
    }
    assert_eq!(guest.resolve("evil.example"), None);
    let half = guest.resolve("half.example").unwrap();
    for (port, expected) in [(443, "refused"), (22, "tcp")] {
        let connection = guest.connect(SocketAddrV4::new(half, port));
        guest.send(connection, &ssh);
        assert_eq!(
            guest.until(|_| told.try_recv().ok()).unwrap(),
            expected,
            "{port}"
        );
    }
}

#[test]
fn addresses_that_are_not_public_are_denied_and_never_dialled() {
    let (server, reached) = echo();
    let mut bench = Bench::new("mode = \"audit\"\n[[deny]]\nhost = \"evil.example\"\n");
    let port = server.port();
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1"] {
        let to = SocketAddrV4::new(address.parse().unwrap(), port);
        let connection = bench.guest.connect(to);
        assert!(!bench.guest.is_connected(connection), "{address}");
        let why = "no rule allows it, and audit mode is for public names and addresses";
        assert_eq!(bench.told(), format!("{to}: {why}"));
    }
    // The name is public and its address is not.
    let connection = bench.connect("a.example", port);
    assert!(!bench.guest.is_connected(connection));
    assert!(bench.told().contains("127.0.0.1 may not be dialled"));
    for (name, why) in [
        ("evil.example", "a rule denies it"),
        (
            "localhost",
            "no rule allows it, and audit mode is for public names and addresses",
        ),
    ] {
        assert_eq!(bench.guest.resolve(name), None);
        assert_eq!(bench.told(), format!("{name}: {why}"));
    }
    assert!(reached.try_recv().is_err());
}

#[test]
fn what_only_the_mode_lets_through_says_why_and_which_rule_is_missing() {
    let engine = engine("mode = \"audit\"\n[[allow]]\nhost = \"a.example\"\n");
    let own = Box::new(|| Ok(HostAddresses::default()));
    let resolver = Everything("127.0.0.1".parse().unwrap());
    let proxy = Proxy::new(engine, resolver, own, Box::new(Lines(channel().0)));
    let target = |name: &str| Target {
        number: 1,
        host: Host::Name(HostName::parse(name).unwrap()),
        port: 443,
        held: None,
        once: Rc::default(),
        via: Via::Itself,
    };
    let audited = |name: &str| {
        let flow = proxy.flow(&target(name), Scheme::Https, None);
        let why = Why::Policy(flow.ruling.audited?);
        let denial = proxy.denial(&target(name), Some(Scheme::Https), None, why);
        Some((denial.why.to_string(), denial.rule.unwrap()))
    };
    let (why, rule) = audited("b.example").unwrap();
    assert_eq!(why, "no rule allows this host");
    assert_eq!(rule, "allow = [{ host = \"b.example\" }]");
    assert_eq!(audited("a.example"), None);
    // The rule that a denial names is one that lets it through.
    let address = Target {
        host: Host::Address("8.8.8.8".parse().unwrap()),
        ..target("b.example")
    };
    let denial = proxy.denial(&address, None, None, Why::Policy(Reason::Host));
    let rule = "allow = [{ host = \"8.8.8.8\", scheme = \"tcp\", ports = [443] }]";
    assert_eq!(denial.rule.as_deref(), Some(rule));
}

/// What only the mode lets through is carried and told. A service is the one thing that the tests can reach; the repository's policy leaves it out.
#[test]
fn what_only_the_mode_lets_through_is_carried_and_told() {
    let (server, echoed) = echo();
    let services = service("a.host", server, "tcp", 7) + &service("b.host", server, "http", 80);
    let policy = format!("mode = \"audit\"\n{services}");
    let repository = "[[allow]]\nhost = \"x.example\"\n";
    let own = || Ok(HostAddresses::default());
    let mut bench = Bench::of(engine_within(&policy, repository), own);
    let connection = bench.connect("a.host", 7);
    assert!(bench.guest.send(connection, b"hello"));
    assert_eq!(bench.guest.receive(connection, 5), b"hello");
    bench.guest.finish(connection);
    assert_eq!(bench.guest.receive_all(connection).1, Some(End::Finished));
    assert_eq!(echoed.recv().unwrap(), 5);
    let why = "the repository's policy does not allow it";
    for line in [
        "1: a.host:7 opened by test:2",
        &format!("a.host:7 audited: {why}"),
        "a.host:7 tcp: 5 sent, 5 received",
    ] {
        assert_eq!(bench.told(), line);
    }
    let connection = bench.connect("b.host", 80);
    let request = b"GET /x HTTP/1.1\r\nHost: b.host\r\n\r\n";
    assert!(bench.guest.send(connection, request));
    for line in [
        "2: b.host:80 opened by test:7",
        "b.host:80 GET /x",
        &format!("b.host:80 audited: {why}"),
    ] {
        assert_eq!(bench.told(), line);
    }
    // The same policy in enforce mode.
    let mut bench = Bench::of(engine_within(&services, repository), own);
    assert_eq!(bench.guest.resolve("a.host"), None);
    assert_eq!(bench.told(), "a.host: no rule allows this host");
}
