//! Our egress, as the egress worker of a sandbox runs it, without the walls around that.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use if_addrs::IfAddr;
use netproxy::address::{HostAddresses, Subnet};
use netproxy::dial::Resolver;
use netproxy::egress::GuestNetwork;
use netproxy::gateway::Network;
use netproxy::policy::{Abilities, Decision, Engine, Layers, Origin, Policy};
use netproxy::proxy::{Denial, Flow, Observer, Proxy};
use netproxy::relay::Carried;
use netproxy::{DroppedFrame, HostName, egress};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::{dns, sys};

/// How long a name server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves one machine.
pub(crate) fn run(socket: &Path, services: &[String], policy: Option<&Path>) -> Result<()> {
    sys::keep_large_buffers_apart();
    let text = match policy {
        Some(file) => fs::read_to_string(file).context("no policy")?,
        None => policy_of(services)?,
    };
    let engine = engine(&text)?;
    let resolver = FirstNameServer::of_the_host();
    let listener = UnixListener::bind(socket)?;
    let (link, _) = listener.accept()?;
    link.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let link = tokio::net::UnixStream::from_std(link)?;
        let proxy = Proxy::new(engine, resolver, Box::new(own_addresses), Box::new(Nobody));
        let network = GuestNetwork::new(Network::default());
        egress::serve(link, &network, Rc::new(proxy)).await
    })?;
    Ok(())
}

/// What this host's interfaces have.
fn own_addresses() -> io::Result<HostAddresses> {
    let subnets = if_addrs::get_if_addrs()?.into_iter();
    let subnets = subnets.map(|interface| match interface.addr {
        IfAddr::V4(v4) => Subnet::new(v4.ip.into(), v4.prefixlen),
        IfAddr::V6(v6) => Subnet::new(v6.ip.into(), v6.prefixlen),
    });
    let subnets: Result<Vec<_>, _> = subnets.collect();
    Ok(HostAddresses::new(subnets.map_err(io::Error::other)?))
}

fn policy_of(services: &[String]) -> Result<String> {
    let mut text = String::new();
    for service in services {
        let (name, port) = service.split_once('=').context("NAME=PORT")?;
        text += &format!(
            "[[service]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nscheme = \"tcp\"\nports = [{port}]\n"
        );
    }
    Ok(text)
}

fn engine(text: &str) -> Result<Engine> {
    let layers = Layers {
        sandbox: Some(Policy::parse(text.as_bytes(), Origin::new("bench"))?),
        ..Layers::default()
    };
    let abilities = Abilities {
        intercepts_tls: false,
    };
    let is_public = |address| netproxy::address::check(address).is_ok();
    Ok(Engine::compile(&layers, abilities, is_public)?)
}

/// Asks the first name server of the host's settings, once.
struct FirstNameServer(Option<IpAddr>);

impl FirstNameServer {
    fn of_the_host() -> Self {
        let settings = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut servers = settings
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver "));
        Self(servers.find_map(|server| server.trim().parse().ok()))
    }
}

impl Resolver for FirstNameServer {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let server = self.0.ok_or(io::ErrorKind::NotFound)?;
        let query = dns::query(1, name.as_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect((server, 53)).await?;
        socket.send(&query).await?;
        let mut buffer = [0; 1500];
        let len = timeout(PATIENCE, socket.recv(&mut buffer)).await??;
        let address = dns::address(buffer.get(..len).unwrap_or_default());
        Ok(address.into_iter().map(IpAddr::from).collect())
    }
}

/// Is told nothing.
struct Nobody;

impl Observer for Nobody {
    fn denied(&self, _: &Denial) {}

    fn audited(&self, _: &Denial) {}

    fn opened(&self, _: &Flow) {}

    fn requested(&self, _: &Flow, _: (&str, &str), _: &Decision<'_>) {}

    fn ended(&self, _: &Flow, _: Carried, _: Duration) {}

    fn dropped(&self, _: DroppedFrame) {}
}
