//! All of it put together: what the guest asks for is decided by policy, dialled, recognised, and then carried or judged.
//!
//! A connection goes one way: address -> name -> policy -> dial -> first bytes -> policy again, now that the scheme is known -> carried. It is not
//! acknowledged to the guest before someone has taken it; whatever is denied is reset at once, and told.

mod consent;
mod event;
mod explicit;
mod reach;
mod requests;
mod target;
mod tls;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::address::HostAddresses;
use crate::dial::{Resolver, UpstreamProxy};
use crate::dns::{self, Answer, Zone};
use crate::egress::Gate;
use crate::first_bytes::{FirstBytes, LONGEST_HELLO, recognise};
use crate::frame::DroppedFrame;
use crate::intercept::Interceptor;
use crate::name::HostName;
use crate::names::Names;
use crate::policy::{Decision, Engine, Host, Reason, Scheme, Schemes, Verdict};
use crate::quota::{Ledger, Spent};
use crate::relay::{Meter, relay, reset};
use crate::stack::GuestStream;

use consent::Consents;
pub use consent::{Asking, Consent, MAX_QUESTIONS, PATIENCE, Prompt, Question};
pub use event::{Denial, Destination, Flow, Observer, Request, RuleText, Ruling, Why};
pub use explicit::PROXY_PORT;
use reach::Reached;
use target::{Running, Target, Via};

/// How long a client may take to say what it speaks. Browsers connect ahead of need, and wait.
const FIRST_BYTES_LIMIT: Duration = Duration::from_secs(60);

/// How long that is waited for where what is not recognised may be carried: its server may be the one to speak first.
const SILENCE_LIMIT: Duration = Duration::from_secs(1);

/// Says which addresses the host has now. Without an answer nothing is dialled.
pub type OwnAddresses = dyn Fn() -> io::Result<HostAddresses>;

/// A guest's way out.
pub struct Proxy<R> {
    engine: watch::Sender<Rc<Engine>>,
    names: RefCell<Names>,
    resolver: R,
    own: Box<OwnAddresses>,
    observer: Rc<dyn Observer>,
    /// How many connections the guest has asked for.
    asked: Cell<u64>,
    ledger: Ledger,
    consents: Consents,
    upstream: Option<UpstreamProxy>,
    interceptor: Option<Rc<dyn Interceptor>>,
}

/// What a connection is counted with, by scheme, or why it may not be one of that.
type Meters = Vec<(Scheme, Result<Meter, Spent>)>;

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
            observer: observer.into(),
            asked: Cell::new(0),
            ledger: Ledger::default(),
            consents: Consents::default(),
            upstream: None,
            interceptor: None,
        }
    }

    /// Reaches what is outside by a proxy of the host's network. Services of the host are reached without it.
    #[must_use]
    pub fn by(self, upstream: Option<UpstreamProxy>) -> Self {
        Self { upstream, ..self }
    }

    /// Has TLS ended by `interceptor`, where no rule says `passthrough`. The policies have to be compiled for that.
    #[must_use]
    pub fn intercepting(self, interceptor: Rc<dyn Interceptor>) -> Self {
        Self {
            interceptor: Some(interceptor),
            ..self
        }
    }

    /// Decides by `engine` from now on. Connections that it does not allow are broken. What was used of quotas stays so for rules that are equal.
    pub fn replace(&self, engine: Engine) {
        let engine = self.consents.over(engine);
        self.ledger.keep(&engine);
        self.engine.send_replace(Rc::new(engine));
    }

    fn engine(&self) -> Rc<Engine> {
        Rc::clone(&self.engine.borrow())
    }

    /// What decides about this connection.
    fn rules(&self, target: &Target) -> Rc<Engine> {
        target
            .once
            .borrow()
            .as_ref()
            .map_or_else(|| self.engine(), |once| once.over(self.engine()))
    }

    /// Carries what the guest says on a connection that stands.
    async fn begin(
        self: &Rc<Self>,
        guest: GuestStream,
        reached: Reached,
        target: &Target,
    ) -> Result<(), Why> {
        let Reached {
            upstream,
            address,
            meters,
        } = reached;
        // What was allowed when it began may be denied before the guest has said what it speaks.
        let scheme = tokio::select! {
            biased;
            () = self.until(target, |engine| engine.schemes(&target.host, target.port).is_empty()) => {
                return Err(Why::Policy(self.reason(target, target.usual_scheme())));
            }
            scheme = self.recognise(&guest, target) => scheme?,
        };
        if target.via == Via::Fetch && scheme != Scheme::Http {
            return Err(Why::Policy(Reason::Scheme));
        }
        let meter = meters.into_iter().find(|(of, _)| *of == scheme);
        let meter = meter.map_or(Ok(Meter::default()), |(_, meter)| meter);
        let flow = self.flow(target, scheme, address);
        let audited = flow.ruling.audited;
        let running = Running::new(self, flow, meter.map_err(Why::Quota)?);
        if scheme == Scheme::Http || scheme == Scheme::Https && self.intercepts(target) {
            // Not to make the tasks of all other connections larger.
            let served = requests::serve(Rc::clone(self), guest, upstream, target, &running);
            return Box::pin(served).await;
        }
        if let Some(reason) = audited {
            let denial = self.denial(target, Some(scheme), None, Why::Policy(reason));
            self.observer.audited(&denial);
        }
        self.carry(&guest, upstream, target, &running).await
    }

    /// What a connection is counted with, for each scheme that it may turn out to be: all of these quotas are held until that is known.
    fn meters(&self, target: &Target, schemes: Schemes) -> Result<Meters, Why> {
        let engine = self.rules(target);
        let possible = Scheme::ALL.into_iter();
        let meter = |scheme: Scheme| {
            let decision = engine.connection(&target.host, target.port, scheme);
            let meter = Meter::default();
            (scheme, self.charge(&decision, &meter).map(|()| meter))
        };
        let mut meters: Meters = possible
            .filter(|scheme| schemes.contains(*scheme))
            .map(meter)
            .collect();
        if meters.iter().all(|(_, meter)| meter.is_err())
            && let Some((_, Err(spent))) = meters.pop()
        {
            return Err(Why::Quota(spent));
        }
        Ok(meters)
    }

    /// Counts a connection for the rules that decided. Where each request is judged, it is counted for those that let one through.
    fn charge(&self, decision: &Decision<'_>, meter: &Meter) -> Result<(), Spent> {
        if decision.each_request {
            return Ok(());
        }
        meter.charge(self.ledger.tallies(decision))
    }

    /// Carries bytes that nobody reads, as long as the policy allows it.
    async fn carry(
        &self,
        guest: &GuestStream,
        mut upstream: TcpStream,
        target: &Target,
        running: &Running,
    ) -> Result<(), Why> {
        let end = tokio::select! {
            // First: not a byte is carried that the policy does not allow any more.
            biased;
            why = self.until_ended(target, running.flow.scheme, &running.meter) => Err(Some(why)),
            done = self.exchange(guest, &mut upstream, target, running) => done,
        };
        if end.is_err() {
            reset(&upstream);
        }
        // What went wrong between the two is theirs.
        end.or_else(|why| why.map_or(Ok(()), Err))
    }

    /// Resolves when the policy does not allow the connection any more, or has no room for it.
    async fn until_ended(&self, target: &Target, scheme: Scheme, meter: &Meter) -> Why {
        let mut engines = self.engine.subscribe();
        loop {
            // It may have changed before this began.
            engines.mark_unchanged();
            let engine = self.rules(target);
            let decision = engine.connection(&target.host, target.port, scheme);
            if !decision.verdict.permits() {
                return Why::Policy(self.reason(target, scheme));
            }
            if let Err(spent) = self.charge(&decision, meter) {
                return Why::Quota(spent);
            }
            // The sender is ours, so it is there.
            if engines.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    fn flow(&self, target: &Target, scheme: Scheme, address: Option<SocketAddr>) -> Flow {
        let engine = self.rules(target);
        let decision = engine.connection(&target.host, target.port, scheme);
        Flow {
            number: target.number,
            destination: target.destination(),
            scheme,
            address,
            ruling: Ruling::of(&decision),
        }
    }

    /// Carries what both say, unread. Without a reason a side broke off, which is its own business.
    async fn exchange(
        &self,
        guest: &GuestStream,
        upstream: &mut TcpStream,
        target: &Target,
        running: &Running,
    ) -> Result<(), Option<Why>> {
        let meter = &running.meter;
        let broken = || meter.spent().map(Why::Quota);
        if running.flow.scheme == Scheme::Https {
            let is_right = |seen| match self.scheme_of(seen, target)? {
                Scheme::Https => Ok(()),
                _ => Err(Why::UnknownProtocol),
            };
            let begun = tls::begin(guest, upstream, meter, is_right).await;
            begun.map_err(|ended| match ended {
                tls::Ended::Broken => broken(),
                tls::Ended::Refused(why) => Some(why),
            })?;
        }
        let done = relay(guest, upstream, meter).await;
        done.map_err(|_| broken())
    }

    /// Resolves when the policy does not allow the connection any more.
    async fn until_denied(&self, target: &Target, scheme: Scheme) {
        self.until(target, |engine| {
            let decision = engine.connection(&target.host, target.port, scheme);
            !decision.verdict.permits()
        })
        .await;
    }

    /// Resolves when this is so of what decides about the connection.
    async fn until(&self, target: &Target, is_so: impl Fn(&Engine) -> bool) {
        let mut engines = self.engine.subscribe();
        // The sender is ours, so it is there.
        while !is_so(&self.rules(target)) && engines.changed().await.is_ok() {}
    }

    /// What the guest speaks, if that is allowed. What a rule lets be anything is not looked at: its server may be the one to speak first. Where
    /// audit mode lets be anything what is not known, it is looked for a moment.
    async fn recognise(&self, guest: &GuestStream, target: &Target) -> Result<Scheme, Why> {
        let (host, port) = (&target.host, target.port);
        if self.rules(target).is_carried_unread(host, port) {
            return Ok(Scheme::Tcp);
        }
        let schemes = || self.rules(target).schemes(host, port);
        let limit = match schemes().contains(Scheme::Tcp) {
            true => SILENCE_LIMIT,
            false => FIRST_BYTES_LIMIT,
        };
        let look = |bytes: &[u8]| match recognise(bytes) {
            None if bytes.len() > LONGEST_HELLO => Some(FirstBytes::Unknown),
            seen => seen,
        };
        let seen = match timeout(limit, guest.peek(look)).await {
            Ok(Ok(Some(seen))) => self.scheme_of(seen, target),
            // It said nothing, which is nobody's fault.
            Ok(Ok(None) | Err(_)) => return Err(Why::Silent),
            Err(_) => Err(Why::Silent),
        };
        let scheme = match seen {
            Err(Why::UnknownProtocol | Why::NoName | Why::Silent)
                if schemes().contains(Scheme::Tcp) =>
            {
                Scheme::Tcp
            }
            seen => seen?,
        };
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
        self.rules(target)
            .connection(&target.host, target.port, Scheme::Https)
            .passthrough
    }

    /// Whether the connection's TLS is ended here.
    fn intercepts(&self, target: &Target) -> bool {
        self.interceptor.is_some() && !self.passes_through(target)
    }

    fn reason(&self, target: &Target, scheme: Scheme) -> Reason {
        match self
            .rules(target)
            .connection(&target.host, target.port, scheme)
            .verdict
        {
            Verdict::Deny(reason) | Verdict::Audited(reason) => reason,
            // Another scheme is denied, not this one.
            _ => Reason::Scheme,
        }
    }

    /// Whom the guest means by the address that it connects to.
    fn target(&self, guest: &GuestStream) -> Target {
        let to = guest.destination();
        self.target_for(Host::Address((*to.ip()).into()), to.port(), Via::Itself)
    }

    /// Whom the guest means by an address, or by a name.
    fn target_for(&self, host: Host, port: u16, via: Via) -> Target {
        let held = match host {
            Host::Address(IpAddr::V4(address)) => self.names.borrow().hold(address),
            _ => None,
        };
        let host = match &held {
            Some(held) => Host::Name(held.name().clone()),
            None => host,
        };
        self.asked.set(self.asked.get().saturating_add(1));
        Target {
            number: self.asked.get(),
            host,
            port,
            held,
            once: Rc::default(),
            via,
        }
    }

    /// Carries on to the end, and tells why that came if it is not the parties' own.
    async fn carry_on(self: Rc<Self>, guest: GuestStream, reached: Reached, target: Target) {
        match self.begin(guest, reached, &target).await {
            Ok(()) => {}
            // A look at whether it is there, or a connection ahead of need.
            Err(Why::Silent) => {}
            Err(why) => drop(self.tell(&target, None, None, why)),
        }
    }
}

impl<R: Resolver + 'static> Gate for Proxy<R> {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let target = self.target(&guest);
        match self.reach(&target).await {
            Ok(reached) => {
                guest.accept();
                self.carry_on(guest, reached, target).await;
            }
            Err(why) => drop(self.tell(&target, None, None, why)),
        }
    }

    async fn proxied(self: Rc<Self>, guest: GuestStream) {
        self.serve_explicit(guest).await;
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
    fn tell(
        &self,
        target: &Target,
        scheme: Option<Scheme>,
        request: Option<(&str, &str)>,
        why: Why,
    ) -> Option<String> {
        let denial = self.denial(target, scheme, request, why);
        self.observer.denied(&denial);
        denial.rule
    }

    /// What there is to tell of something that the guest does not get, or would not.
    fn denial(
        &self,
        target: &Target,
        scheme: Option<Scheme>,
        request: Option<(&str, &str)>,
        why: Why,
    ) -> Denial {
        let engine = self.rules(target);
        let likely = scheme.unwrap_or_else(|| target.usual_scheme());
        let (host, port) = (&target.host, target.port);
        let (rule, decided_by) = match &why {
            Why::Policy(_) => {
                let decision = match request {
                    Some((method, path)) => engine.request(host, port, likely, method, path),
                    None => engine.connection(host, port, likely),
                };
                let by = decision.rule.filter(|_| !decision.verdict.permits());
                let rule = suggestion(&engine, host, port, likely, request);
                (rule, by.map(RuleText::from))
            }
            Why::Quota(spent) => (None, Some(RuleText::from(spent))),
            _ => (None, None),
        };
        Denial {
            flow: Some(target.number),
            destination: target.destination(),
            scheme,
            request: request.map(|(method, path)| Request::new(method, path)),
            why,
            decided_by,
            rule,
        }
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
        if !self.engine.may_resolve(name) && !self.proxy.may_ask(self.engine, name) {
            let host = Host::from(name.clone());
            let rule = suggestion(self.engine, &host, 443, Scheme::Https, None);
            let reason = match self.engine.connection(&host, 443, Scheme::Https).verdict {
                Verdict::Deny(reason @ (Reason::DenyRule | Reason::NotPublic)) => reason,
                // The port was not asked for.
                _ => Reason::Host,
            };
            self.proxy
                .observer
                .denied(&Denial::name(name, reason, rule));
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
