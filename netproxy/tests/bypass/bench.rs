//! A guest, its policy, and what it could reach.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use netproxy::dial::DialError;
use netproxy::egress::GuestNetwork;
use netproxy::gateway::Network;
use netproxy::policy::{Abilities, Decision, Engine, Layers, Origin as From, Policy};
use netproxy::proxy::{Denial, Flow, Observer, PROXY_PORT, Proxy, Why};
use netproxy::relay::Carried;
use netproxy::testkit::{self, Connection, Guest};
use netproxy::{DroppedFrame, HostAddresses, Subnet, egress};

use crate::craft;
use crate::server::{Answers, Counting, Origin, Sink, TLS_GREETING};
use crate::table::{Counts, Verdict};

/// What has happened before a technique is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing.
    Fresh,
    /// Another policy allowed what is forbidden now, and it was reached.
    Reloaded,
    /// The guest's driver has started again.
    DriverRestarted,
    /// There was another worker, whose policy allowed what is forbidden now, and it was reached. The guest remembers its addresses.
    WorkerRestarted,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [
        Self::Fresh,
        Self::Reloaded,
        Self::DriverRestarted,
        Self::WorkerRestarted,
    ];
}

/// What a proxy tells.
#[derive(Debug)]
pub(crate) enum Told {
    Denied,
    /// It was dialled, and nobody answered: on this host, now.
    Unreachable,
    Dropped(DroppedFrame),
    Ended,
}

/// A network of the host's that is public.
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(44, 0, 0, 0);

pub(crate) struct Sinks {
    /// What no technique may reach: under another policy it is `evil.host`.
    pub(crate) forbidden: Sink,
    pub(crate) tcp: Sink,
    pub(crate) tls: Sink,
    pub(crate) http: Origin,
    pub(crate) resolver: Arc<Answers>,
}

pub(crate) struct Bench {
    pub(crate) guest: Guest,
    pub(crate) sinks: Arc<Sinks>,
    /// What once was the address of `evil.host`, if there was one.
    pub(crate) stale: Option<Ipv4Addr>,
    told: Receiver<Told>,
    policies: tokio::sync::mpsc::UnboundedSender<String>,
    /// What the forbidden server saw while it was allowed.
    allowed_then: (usize, usize),
    echoes: u16,
}

impl Bench {
    pub(crate) fn in_state(state: State) -> Self {
        let sinks = Arc::new(Sinks {
            forbidden: Sink::new(),
            tcp: Sink::new(),
            tls: Sink::greeting(TLS_GREETING),
            http: Origin::new(),
            resolver: Arc::default(),
        });
        let narrow = sinks.policy();
        let wide = narrow.clone() + &sinks.wider();
        match state {
            State::Fresh => Self::new(sinks, &narrow),
            State::Reloaded => {
                let mut bench = Self::new(sinks, &wide);
                let held = bench.reach_forbidden();
                bench.replace(&narrow);
                assert!(bench.guest.receive_all(held).1.is_some(), "it goes on");
                bench
            }
            State::DriverRestarted => {
                let mut bench = Self::new(sinks, &narrow);
                bench.allowed_works();
                bench.guest.restart_driver();
                bench
            }
            State::WorkerRestarted => {
                let mut first = Self::new(Arc::clone(&sinks), &wide);
                // So that the next worker gives the same address to nobody.
                for number in 0..9 {
                    first.address_of(&format!("x{number}.w.example"));
                }
                first.reach_forbidden();
                let (stale, allowed_then) = (first.stale, first.sinks.forbidden.seen());
                drop(first);
                Self {
                    stale,
                    allowed_then,
                    ..Self::new(sinks, &narrow)
                }
            }
        }
    }

    /// A connection to the proxy at the gateway.
    pub(crate) fn connect_to_proxy(&mut self) -> Connection {
        let gateway = self.guest.network().gateway;
        let connection = self.guest.connect(SocketAddrV4::new(gateway, PROXY_PORT));
        assert!(self.guest.is_connected(connection), "the proxy");
        connection
    }

    /// A tunnel of the proxy's, which stands.
    pub(crate) fn tunnel(&mut self, name: &str, port: u16) -> Connection {
        const STANDS: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
        let connection = self.connect_to_proxy();
        let head = format!("CONNECT {name}:{port} HTTP/1.1\r\n\r\n");
        assert!(self.guest.send(connection, head.as_bytes()));
        assert_eq!(self.guest.receive(connection, STANDS.len()), STANDS);
        connection
    }

    pub(crate) fn new(sinks: Arc<Sinks>, policy: &str) -> Self {
        let (tell, told) = channel();
        let (policies, mut next) = tokio::sync::mpsc::unbounded_channel::<String>();
        let engine = engine(policy);
        let resolver = Counting(Arc::clone(&sinks.resolver));
        let (guest, _) = testkit::guest(async move |link| {
            let own = || -> io::Result<HostAddresses> {
                let subnet = Subnet::new(OWN.into(), 24).map_err(io::Error::other)?;
                Ok(HostAddresses::new([subnet]))
            };
            let tells = Box::new(Tells(tell));
            let proxy = Rc::new(Proxy::new(engine, resolver, Box::new(own), tells));
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
            sinks,
            stale: None,
            told,
            policies,
            allowed_then: (0, 0),
            echoes: 0,
        }
    }

    /// Decides by `policy` when this returns.
    pub(crate) fn replace(&mut self, policy: &str) {
        // A name that only this policy has tells when it is in force.
        let marker = format!("[[allow]]\nhost = \"marker{}.example\"\n", self.echoes);
        let name = format!("marker{}.example", self.echoes);
        self.echoes += 1;
        self.policies.send(format!("{policy}{marker}")).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while self.guest.resolve(&name).is_none() {
            assert!(Instant::now() < end, "the policy is not replaced");
        }
    }

    /// Reaches the forbidden server while it is allowed, which shows that it counts; the connection is left open.
    fn reach_forbidden(&mut self) -> Connection {
        let address = self.address_of("evil.host");
        let connection = self.guest.connect(SocketAddrV4::new(address, 7));
        assert!(self.guest.send(connection, b"x"));
        assert_eq!(self.guest.receive(connection, 1), b"x");
        self.stale = Some(address);
        self.allowed_then = self.sinks.forbidden.seen();
        assert_eq!(self.allowed_then, (1, 1));
        connection
    }

    /// What is allowed works: by each scheme.
    pub(crate) fn allowed_works(&mut self) {
        let address = self.address_of("a.host");
        let hello = craft::hello(&[craft::sni("a.host")]);
        let request = b"GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec();
        for (port, says, hears) in [
            (7, b"hello".to_vec(), b"hello".to_vec()),
            (443, hello.clone(), [TLS_GREETING, &hello].concat()),
            (80, request, b"HTTP/1.1 200 OK\r\n".to_vec()),
        ] {
            let connection = self.guest.connect(SocketAddrV4::new(address, port));
            assert!(self.guest.send(connection, &says), "port {port}");
            let heard = self.guest.receive(connection, hears.len());
            assert!(heard.starts_with(&hears), "port {port}: {heard:?}");
            self.guest.finish(connection);
            self.guest.receive_all(connection);
        }
    }

    /// The address of a name, which has to have one.
    pub(crate) fn address_of(&mut self, name: &str) -> Ipv4Addr {
        self.guest
            .resolve(name)
            .unwrap_or_else(|| panic!("{name} has no address"))
    }

    /// What the guest gets back for what `send` sends, as frames, before a ping that was sent behind it.
    pub(crate) fn exchange(&mut self, send: impl FnOnce(&mut Self)) -> Vec<Vec<u8>> {
        self.guest.turn();
        self.guest.keep_frames(true);
        self.guest.frames();
        send(self);
        self.echoes += 1;
        let number = self.echoes;
        self.guest.send_frame(&craft::ping(number));
        let mut replies = Vec::new();
        let answered = self.guest.until(|guest| {
            replies.extend(guest.frames());
            let at = replies
                .iter()
                .position(|frame| craft::is_pong(frame, number))?;
            replies.remove(at);
            Some(())
        });
        self.guest.keep_frames(false);
        assert!(answered.is_some(), "the gateway is silent");
        replies.retain(|frame| !craft::is_of_stack(frame));
        replies
    }

    /// A port of the guest's that its own stack does not use, another each time.
    pub(crate) fn next_port(&mut self) -> u16 {
        self.echoes += 1;
        22_000 + self.echoes % 16_000
    }

    pub(crate) fn forget_told(&self) {
        while self.told.try_recv().is_ok() {}
    }

    /// What was told and not looked at.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }

    /// What is told next.
    pub(crate) fn wait_told(&self) -> Told {
        self.told.recv_timeout(Duration::from_secs(10)).unwrap()
    }

    /// A refused connection is told.
    pub(crate) fn wait_told_denied(&self) -> Verdict {
        // One that was open ended for it.
        let told = match self.wait_told() {
            Told::Ended => self.wait_told(),
            told => told,
        };
        match told {
            Told::Denied => Verdict::Reset,
            Told::Unreachable => Verdict::Dialled,
            other => panic!("refused, and told {other:?}"),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let Sinks {
            forbidden,
            tcp,
            tls,
            http,
            resolver,
        } = &*self.sinks;
        Counts {
            forbidden: forbidden.seen(),
            carried: tcp.seen().1 + tls.seen().1 + http.bytes(),
            requests: http.requests().iter().flatten().count(),
            queries: resolver.queries(),
        }
    }

    /// What reached a server that it must not reach, in all.
    pub(crate) fn forbidden_reached(&self) -> Vec<String> {
        let mut found = Vec::new();
        let seen = self.sinks.forbidden.seen();
        if seen != self.allowed_then {
            found.push(format!("the forbidden server: {seen:?}"));
        }
        for request in self.sinks.http.requests() {
            // What was cut off is no request.
            let is_cut = request
                .as_ref()
                .is_err_and(|why| why.starts_with("an end within"));
            let is_good = is_cut
                || request.as_ref().is_ok_and(|request| {
                    let hops = [
                        "connection",
                        "upgrade",
                        "te",
                        "keep-alive",
                        "proxy-authorization",
                    ];
                    request.all("host") == ["a.host"]
                        && !request.target.starts_with("/secret")
                        && request.method != "DELETE"
                        && hops.iter().all(|name| request.all(name).is_empty())
                });
            if !is_good {
                found.push(format!("the server: {request:?}"));
            }
        }
        found
    }
}

impl Sinks {
    /// Three servers by one name, and a name whose addresses somebody else says.
    pub(crate) fn policy(&self) -> String {
        let services = service("a.host", self.tcp.address(), "tcp", 7)
            + &service("a.host", self.tls.address(), "https", 443)
            + &service("a.host", self.http.address(), "http", 80);
        let port = self.forbidden.port();
        services
            + &format!(
                "[[deny]]\nhost = \"a.host\"\nscheme = \"http\"\nports = [80]\npaths = [\"/secret/**\"]\n\
                 [[deny]]\nhost = \"a.host\"\nscheme = \"http\"\nports = [80]\nmethods = [\"DELETE\"]\n\
                 [[allow]]\nhost = \"rebind.example\"\nscheme = \"tcp\"\nports = [{port}]\n\
                 [[allow]]\nhost = \"*.w.example\"\n"
            )
    }

    /// Allows what is forbidden otherwise.
    fn wider(&self) -> String {
        let address = self.forbidden.address();
        [("tcp", 7), ("http", 80), ("https", 443)]
            .map(|(scheme, port)| service("evil.host", address, scheme, port))
            .concat()
    }
}

pub(crate) fn service(
    name: &str,
    address: std::net::SocketAddr,
    scheme: &str,
    port: u16,
) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nscheme = \"{scheme}\"\nports = [{port}]\n"
    )
}

fn engine(policy: &str) -> Engine {
    let layers = Layers {
        sandbox: Some(Policy::parse(policy.as_bytes(), From::new("test")).unwrap()),
        ..Layers::default()
    };
    let is_public = |address| netproxy::address::check(address).is_ok();
    Engine::compile(
        &layers,
        Abilities {
            intercepts_tls: false,
        },
        is_public,
    )
    .unwrap()
}

struct Tells(Sender<Told>);

impl Tells {
    fn tell(&self, told: Told) {
        // A test that has seen enough does not listen any more.
        drop(self.0.send(told));
    }
}

impl Observer for Tells {
    fn denied(&self, denial: &Denial) {
        self.tell(match denial.why {
            Why::Dial(DialError::Unreachable(_)) => Told::Unreachable,
            _ => Told::Denied,
        });
    }

    fn audited(&self, _: &Denial) {}

    fn opened(&self, _: &Flow) {}

    fn requested(&self, _: &Flow, _: (&str, &str), _: &Decision<'_>) {}

    fn ended(&self, _: &Flow, _: Carried, _: Duration) {
        self.tell(Told::Ended);
    }

    fn dropped(&self, why: DroppedFrame) {
        self.tell(Told::Dropped(why));
    }
}
