//! All of it put together: what the guest asks for is decided by policy, dialled, recognised, and then carried or judged.
//!
//! A connection goes one way: address -> name -> policy -> dial -> first bytes -> policy again, now that the scheme is known -> carried. It is not
//! acknowledged to the guest before someone has taken it; whatever is denied is reset at once, and told.

mod event;
mod plain;
mod tls;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::{AddressRefusal, HostAddresses};
use crate::dial::{self, AddressFilter, DialError, Resolver};
use crate::dns::{self, Answer, Zone};
use crate::egress::Gate;
use crate::first_bytes::{FirstBytes, LONGEST_HELLO, recognise};
use crate::frame::DroppedFrame;
use crate::name::HostName;
use crate::names::{HeldName, Names};
use crate::policy::{Engine, Host, Reason, Scheme, Verdict};
use crate::relay::{Carried, relay, reset};
use crate::stack::GuestStream;

pub use event::{Denial, Destination, Flow, Observer, Why};

/// How long a client may take to say what it speaks. Browsers connect ahead of need, and wait.
const FIRST_BYTES_LIMIT: Duration = Duration::from_secs(60);

/// Says which addresses the host has now. Without an answer nothing is dialled.
pub type OwnAddresses = dyn Fn() -> io::Result<HostAddresses>;

/// A guest's way out.
pub struct Proxy<R> {
    engine: watch::Sender<Rc<Engine>>,
    names: RefCell<Names>,
    resolver: R,
    own: Box<OwnAddresses>,
    observer: Box<dyn Observer>,
}

impl<R: Resolver + 'static> Proxy<R> {
    /// A way out by `engine`. `own` is asked whenever something is dialled.
    pub fn new(
        engine: Engine,
        resolver: R,
        own: Box<OwnAddresses>,
        observer: Box<dyn Observer>,
    ) -> Self {
        Self {
            engine: watch::Sender::new(Rc::new(engine)),
            names: RefCell::new(Names::new(crate::names::Pool::default())),
            resolver,
            own,
            observer,
        }
    }

    /// Decides by `engine` from now on. Connections that it does not allow are broken.
    pub fn replace(&self, engine: Engine) {
        self.engine.send_replace(Rc::new(engine));
    }

    fn engine(&self) -> Rc<Engine> {
        Rc::clone(&self.engine.borrow())
    }

    async fn serve(self: &Rc<Self>, guest: GuestStream, target: &Target) -> Result<Flow, Why> {
        let begin = Instant::now();
        // What was allowed when it began may be denied before the guest has said what it speaks.
        let (mut upstream, scheme) = tokio::select! {
            biased;
            () = self.until(|engine| engine.schemes(&target.host, target.port).is_empty()) => {
                return Err(Why::Policy(self.reason(target, target.usual_scheme())));
            }
            opened = self.open(&guest, target) => opened?,
        };
        let address = upstream.peer_addr().ok();
        let mut carried = Carried::default();
        if scheme == Scheme::Http {
            plain::serve(Rc::clone(self), guest, upstream, target).await;
        } else {
            tokio::select! {
                // First: not a byte is carried that the policy does not allow any more.
                biased;
                () = self.until_denied(target, scheme) => {
                    reset(&upstream);
                    return Err(Why::Policy(self.reason(target, scheme)));
                }
                done = self.carry(&guest, &mut upstream, target, scheme, &mut carried) => {
                    if !matches!(done, Ok(Ok(()))) {
                        reset(&upstream);
                    }
                    // That a side broke off is its own business.
                    drop(done?);
                }
            }
        }
        Ok(Flow {
            scheme,
            address,
            carried,
            duration: begin.elapsed(),
        })
    }

    /// Carries what both say, unread. The inner error is that of a side which broke off.
    async fn carry(
        &self,
        guest: &GuestStream,
        upstream: &mut TcpStream,
        target: &Target,
        scheme: Scheme,
        carried: &mut Carried,
    ) -> Result<io::Result<()>, Why> {
        if scheme == Scheme::Https {
            let is_right = |seen| match self.scheme_of(seen, target)? {
                Scheme::Https => Ok(()),
                _ => Err(Why::UnknownProtocol),
            };
            match tls::begin(guest, upstream, carried, is_right).await {
                Ok(()) => {}
                Err(tls::Ended::Broken) => return Ok(Err(io::ErrorKind::ConnectionReset.into())),
                Err(tls::Ended::Refused(why)) => return Err(why),
            }
        }
        Ok(relay(guest, upstream, carried).await)
    }

    /// A connection to whom the guest means, and what it speaks.
    async fn open(&self, guest: &GuestStream, target: &Target) -> Result<(TcpStream, Scheme), Why> {
        let upstream = self.dial(target).await?;
        guest.accept();
        let scheme = self.recognise(guest, target).await?;
        Ok((upstream, scheme))
    }

    /// Resolves when the policy does not allow the connection any more.
    async fn until_denied(&self, target: &Target, scheme: Scheme) {
        self.until(|engine| {
            let decision = engine.connection(&target.host, target.port, scheme);
            !decision.verdict.permits()
        })
        .await;
    }

    /// Resolves when this is so of the policy.
    async fn until(&self, is_so: impl Fn(&Engine) -> bool) {
        let mut engine = self.engine.subscribe();
        // The sender is ours, so it is there.
        let _ = engine.wait_for(|engine| is_so(engine)).await;
    }

    async fn dial(&self, target: &Target) -> Result<TcpStream, Why> {
        let decided = self.engine();
        // A service that is none any more would be looked for under its name.
        if decided.schemes(&target.host, target.port).is_empty() {
            return Err(Why::Policy(self.reason(target, target.usual_scheme())));
        }
        let service = Scheme::ALL.into_iter().find_map(|scheme| {
            let decision = decided.connection(&target.host, target.port, scheme);
            decision.service.filter(|_| decision.verdict.permits())
        });
        if let Some(address) = service {
            return connect(address).await;
        }
        let own = (self.own)().map_err(Why::OwnAddresses)?;
        match &target.host {
            Host::Name(name) => Ok(dial::dial(name, target.port, &self.resolver, &own).await?),
            Host::Address(address) => {
                own.check(*address).map_err(Why::Address)?;
                connect(SocketAddr::new(*address, target.port)).await
            }
        }
    }

    /// What the guest speaks, if that is allowed. What may be anything is not looked at: its server may be the one to speak first.
    async fn recognise(&self, guest: &GuestStream, target: &Target) -> Result<Scheme, Why> {
        let schemes = || self.engine().schemes(&target.host, target.port);
        if schemes().contains(Scheme::Tcp) {
            return Ok(Scheme::Tcp);
        }
        let look = |bytes: &[u8]| match recognise(bytes) {
            None if bytes.len() > LONGEST_HELLO => Some(FirstBytes::Unknown),
            seen => seen,
        };
        let seen = match timeout(FIRST_BYTES_LIMIT, guest.peek(look)).await {
            Ok(Ok(Some(seen))) => seen,
            // It said nothing, which is nobody's fault.
            Ok(Ok(None) | Err(_)) | Err(_) => return Err(Why::Silent),
        };
        let scheme = self.scheme_of(seen, target)?;
        if schemes().contains(scheme) {
            Ok(scheme)
        } else {
            Err(Why::Policy(self.reason(target, scheme)))
        }
    }

    /// Which scheme these first bytes are, if they are for whom the connection is to.
    fn scheme_of(&self, seen: FirstBytes, target: &Target) -> Result<Scheme, Why> {
        match seen {
            FirstBytes::Http => Ok(Scheme::Http),
            FirstBytes::Tls(name) if Host::Name(name.clone()) == target.host => Ok(Scheme::Https),
            FirstBytes::Tls(name) => Err(Why::OtherName(name)),
            FirstBytes::HiddenTls(name)
                if Host::Name(name.clone()) == target.host && self.passes_through(target) =>
            {
                Ok(Scheme::Https)
            }
            FirstBytes::HiddenTls(_) => Err(Why::HiddenName),
            FirstBytes::TlsWithoutName => Err(Why::NoName),
            FirstBytes::Unknown => Err(Why::UnknownProtocol),
        }
    }

    /// Whether a rule says that nothing of the connection's TLS is to be looked into.
    fn passes_through(&self, target: &Target) -> bool {
        self.engine()
            .connection(&target.host, target.port, Scheme::Https)
            .passthrough
    }

    fn reason(&self, target: &Target, scheme: Scheme) -> Reason {
        match self
            .engine()
            .connection(&target.host, target.port, scheme)
            .verdict
        {
            Verdict::Deny(reason) | Verdict::Audited(reason) => reason,
            // Another scheme is denied, not this one.
            _ => Reason::Scheme,
        }
    }

    /// Whom the guest means by an address.
    fn target(&self, guest: &GuestStream) -> Target {
        let to = guest.destination();
        let held = self.names.borrow().hold(*to.ip());
        let host = match &held {
            Some(held) => Host::Name(held.name().clone()),
            None => Host::Address(IpAddr::V4(*to.ip())),
        };
        Target {
            host,
            port: to.port(),
            held,
        }
    }
}

/// Whom a connection is to.
struct Target {
    host: Host,
    port: u16,
    /// As long as the connection lasts, the address goes on standing for the name.
    held: Option<HeldName>,
}

impl Target {
    /// What is probably spoken there.
    const fn usual_scheme(&self) -> Scheme {
        if self.port == 80 {
            Scheme::Http
        } else {
            Scheme::Https
        }
    }

    fn copy(&self) -> Self {
        Self {
            host: self.host.clone(),
            port: self.port,
            held: self.held.clone(),
        }
    }

    fn destination(&self) -> Destination {
        Destination {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Why> {
    let connected = timeout(dial::CONNECT_LIMIT, TcpStream::connect(address)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(DialError::Unreachable)?;
    // Without it the connection is as good, if slower.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

/// Lets public addresses pass that are not the host's.
impl AddressFilter for HostAddresses {
    type Refusal = AddressRefusal;

    fn check(&self, address: IpAddr) -> Result<(), AddressRefusal> {
        Self::check(self, address)
    }
}

impl<R: Resolver + 'static> Gate for Proxy<R> {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let target = self.target(&guest);
        match self.serve(guest, &target).await {
            Ok(flow) => self.observer.ended(&target.destination(), &flow),
            // A look at whether it is there, or a connection ahead of need.
            Err(Why::Silent) => {}
            Err(why) => drop(self.tell(&target, None, why)),
        }
    }

    fn dns(&self, query: &[u8]) -> Option<Vec<u8>> {
        let engine = self.engine();
        let mut zone = Permitted {
            proxy: self,
            engine: &engine,
        };
        dns::answer(query, &mut zone)
    }

    fn dropped(&self, why: DroppedFrame) {
        self.observer.dropped(why);
    }
}

impl<R: Resolver + 'static> Proxy<R> {
    /// Tells of what the guest did not get. Gives the rule that would allow it.
    fn tell(&self, target: &Target, request: Option<(&str, &str)>, why: Why) -> Option<String> {
        let rule = match why {
            Why::Policy(_) => {
                let (engine, scheme) = (self.engine(), target.usual_scheme());
                suggestion(&engine, &target.host, target.port, scheme, request)
            }
            _ => None,
        };
        let denial = Denial {
            destination: target.destination(),
            request: request.map(|(method, path)| (method.to_owned(), path.to_owned())),
            why,
            rule,
        };
        self.observer.denied(&denial);
        denial.rule
    }
}

/// A rule that would allow something, in one line of TOML.
fn suggestion(
    engine: &Engine,
    host: &Host,
    port: u16,
    scheme: Scheme,
    request: Option<(&str, &str)>,
) -> Option<String> {
    let rule = engine.suggestion(host, port, scheme, request)?;
    Some(rule.to_string())
}

/// The names that the policy may allow.
struct Permitted<'p, R> {
    proxy: &'p Proxy<R>,
    engine: &'p Engine,
}

impl<R: Resolver + 'static> Zone for Permitted<'_, R> {
    fn resolve(&mut self, name: &HostName) -> Answer {
        if !self.engine.may_resolve(name) {
            let rule = suggestion(self.engine, &name.clone().into(), 443, Scheme::Https, None);
            self.proxy.observer.denied(&Denial::name(name, rule));
            return Answer::Denied;
        }
        let address: Option<Ipv4Addr> = self.proxy.names.borrow_mut().give(name, Instant::now());
        address.map_or(Answer::Unavailable, Answer::Address)
    }
}

impl<R> fmt::Debug for Proxy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("names", &self.names.borrow().len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests;
