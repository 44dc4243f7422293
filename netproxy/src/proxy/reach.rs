//! From whom the guest means to a connection: policy, a person's consent, the quotas, and the way there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Meters, Proxy, Target, Via, Why};
use crate::address::{AddressRefusal, HostAddresses};
use crate::dial::{self, AddressFilter, DialError, Resolver, UpstreamProxy};
use crate::policy::{Engine, Host, Scheme, is_public_name};

/// A connection to whom the guest means, and what it is counted with.
pub(super) struct Reached {
    pub(super) upstream: TcpStream,
    /// What was dialled, unless a proxy of the host's network did that.
    pub(super) address: Option<SocketAddr>,
    pub(super) meters: Meters,
}

impl<R: Resolver + 'static> Proxy<R> {
    /// A connection to whom the guest means, if it may have one.
    pub(super) async fn reach(self: &Rc<Self>, target: &Target) -> Result<Reached, Why> {
        let is_denied = |engine: &Engine| engine.schemes(&target.host, target.port).is_empty();
        if is_denied(&self.rules(target)) {
            // Rare, and not to make every connection's task larger.
            Box::pin(self.consent(target)).await?;
        }
        let schemes = self.rules(target).schemes(&target.host, target.port);
        if target.via == Via::Fetch && !schemes.contains(Scheme::Http) {
            return Err(Why::Policy(self.reason(target, Scheme::Http)));
        }
        let meters = self.meters(target, schemes)?;
        tokio::select! {
            biased;
            () = self.until(target, is_denied) => {
                Err(Why::Policy(self.reason(target, target.usual_scheme())))
            }
            dialled = self.dial(target) => {
                let (upstream, address) = dialled?;
                Ok(Reached { upstream, address, meters })
            }
        }
    }

    /// Opens a connection, which the policy must allow at this moment; the second is the address, unless a proxy of the host's network dialled it.
    pub(super) async fn dial(
        &self,
        target: &Target,
    ) -> Result<(TcpStream, Option<SocketAddr>), Why> {
        let decided = self.rules(target);
        // A service that is none any more would be looked for under its name.
        if decided.schemes(&target.host, target.port).is_empty() {
            return Err(Why::Policy(self.reason(target, target.usual_scheme())));
        }
        let service = Scheme::ALL.into_iter().find_map(|scheme| {
            let decision = decided.connection(&target.host, target.port, scheme);
            decision.service.filter(|_| decision.verdict.permits())
        });
        if let Some(address) = service {
            return dialled(connect(address).await?);
        }
        let own = (self.own)().map_err(Why::OwnAddresses)?;
        let upstream = self.upstream.as_ref();
        if let Some(upstream) = upstream.filter(|it| !it.is_direct(&target.host, target.port)) {
            let dialled = Box::pin(self.dial_by(upstream, target, &own));
            return Ok((dialled.await?, None));
        }
        match &target.host {
            Host::Name(name) => dialled(dial::dial(name, target.port, &self.resolver, &own).await?),
            Host::Address(address) => {
                own.check(*address).map_err(Why::Address)?;
                dialled(connect(SocketAddr::new(*address, target.port)).await?)
            }
        }
    }

    /// By the proxy of the host's network, which resolves names.
    async fn dial_by(
        &self,
        upstream: &UpstreamProxy,
        target: &Target,
        own: &HostAddresses,
    ) -> Result<TcpStream, Why> {
        match &target.host {
            Host::Name(name) if !is_public_name(name) => {
                return Err(Why::Dial(DialError::NotPublic));
            }
            Host::Name(_) => {}
            Host::Address(address) => own.check(*address).map_err(Why::Address)?,
        }
        let stream = upstream.connect(&target.host, target.port, &self.resolver);
        Ok(stream.await.map_err(DialError::Proxy)?)
    }
}

fn dialled(stream: TcpStream) -> Result<(TcpStream, Option<SocketAddr>), Why> {
    let address = stream.peer_addr().ok();
    Ok((stream, address))
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
