//! Our egress, as the egress worker of a sandbox runs it, without the walls around that.

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use netproxy::address::HostAddresses;
use netproxy::dial::Resolver;
use netproxy::egress::GuestNetwork;
use netproxy::gateway::Network;
use netproxy::policy::{Abilities, Decision, Engine, Layers, Origin, Policy};
use netproxy::proxy::{Denial, Flow, Observer, Proxy};
use netproxy::relay::Carried;
use netproxy::{DroppedFrame, HostName, egress};

use crate::sys;

/// Serves one machine.
pub(crate) fn run(socket: &Path, services: &[String]) -> Result<()> {
    sys::keep_large_buffers_apart();
    let engine = engine(services)?;
    let listener = UnixListener::bind(socket)?;
    let (link, _) = listener.accept()?;
    link.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let link = tokio::net::UnixStream::from_std(link)?;
        let own = || Ok(HostAddresses::default());
        let proxy = Proxy::new(engine, Nobody, Box::new(own), Box::new(Nobody));
        let network = GuestNetwork::new(Network::default());
        egress::serve(link, &network, Rc::new(proxy)).await
    })?;
    Ok(())
}

fn engine(services: &[String]) -> Result<Engine> {
    let mut text = String::new();
    for service in services {
        let (name, port) = service.split_once('=').context("NAME=PORT")?;
        text += &format!(
            "[[service]]\nname = \"{name}\"\naddress = \"127.0.0.1:{port}\"\nscheme = \"tcp\"\nports = [{port}]\n"
        );
    }
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

/// Knows no name, and is told nothing.
struct Nobody;

impl Resolver for Nobody {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Observer for Nobody {
    fn denied(&self, _: &Denial) {}

    fn audited(&self, _: &Denial) {}

    fn opened(&self, _: &Flow) {}

    fn requested(&self, _: &Flow, _: (&str, &str), _: &Decision<'_>) {}

    fn ended(&self, _: &Flow, _: Carried, _: Duration) {}

    fn dropped(&self, _: DroppedFrame) {}
}
