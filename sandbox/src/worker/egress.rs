//! The egress worker: the guest's network, in a process without files, guest memory and capabilities.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hv_core::Fault;
use if_addrs::IfAddr;
use netproxy::address::{HostAddresses, Subnet};
use netproxy::dial::Resolver;
use netproxy::gateway::Network;
use netproxy::proxy::Proxy;
use netproxy::{HostName, egress};

use super::Reporter;
use super::confine::{self, NotConfined};
use super::told::Told;
use crate::control::StartFailure;
use crate::network;
use crate::plan::{EgressPlan, Role};
use crate::timeline::Phase;
use crate::vmm::Files;

/// Serves the network of `plan` until the machine is gone.
pub(super) fn work(
    reporter: &Arc<Reporter>,
    plan: &EgressPlan,
    mut files: Files,
    inherited: Result<(), NotConfined>,
) -> Result<(), StartFailure> {
    let host = |error: &dyn std::fmt::Display| StartFailure::new(Fault::Host, error);
    confine::single_threaded().map_err(|error| StartFailure::new(Fault::Caller, error))?;
    let engine = engine(plan, &mut files)?;
    // It reads the host's settings, so before there are no files any more.
    let resolver = Upstream::of_the_host();
    inherited
        .and_then(|()| confine::enter_without_files())
        .map_err(|error| host(&error))?;
    reporter.phase(Phase::Confined);
    reporter.end_with_the_host()?;
    let link = UnixStream::from(files.take(Role::Network)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| host(&error))?;
    let (told, reports) = Told::start(reporter, plan.audit).map_err(|error| host(&error))?;
    let own = Box::new(own_addresses);
    let proxy = Rc::new(Proxy::new(engine, resolver, own, Box::new(told)));
    let served = runtime.block_on(async {
        link.set_nonblocking(true)?;
        let link = tokio::net::UnixStream::from_std(link)?;
        egress::serve(link, Network::default(), proxy).await
    });
    // With what was served has gone who tells of it: the rest of it is told now. The thread does not panic.
    drop(reports.join());
    served.map_err(|error| host(&error))
}

fn engine(plan: &EgressPlan, files: &mut Files) -> Result<netproxy::policy::Engine, StartFailure> {
    let mut texts = Vec::new();
    for number in 0..plan.policies.len() {
        let mut text = Vec::new();
        let mut file = File::from(files.take(Role::Policy(number))?);
        file.read_to_end(&mut text)
            .map_err(|error| StartFailure::new(Fault::Host, error))?;
        texts.push(text);
    }
    let layers = plan.policies.iter().zip(&texts);
    let layers = layers.map(|((whose, origin), text)| (*whose, &**origin, &**text));
    network::compile(layers).map_err(|error| StartFailure::new(Fault::Caller, error))
}

/// Resolves as the host does, if that does.
struct Upstream(Option<TokioResolver>);

impl Upstream {
    fn of_the_host() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        Self(resolver.ok())
    }
}

impl Resolver for Upstream {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        let Some(resolver) = &self.0 else {
            return Err(io::Error::other("this host has no resolver settings"));
        };
        // The dot at its end keeps search domains out: they would make another name of it.
        let found = resolver.lookup_ip(format!("{name}.")).await;
        Ok(found.map_err(io::Error::other)?.iter().collect())
    }
}

/// What the host's interfaces have now: a connection to one of these would be one to the host, or to its neighbours.
fn own_addresses() -> io::Result<HostAddresses> {
    let subnets = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| match interface.addr {
            IfAddr::V4(v4) => Subnet::new(v4.ip.into(), v4.prefixlen),
            IfAddr::V6(v6) => Subnet::new(v6.ip.into(), v6.prefixlen),
        });
    let subnets: Result<Vec<_>, _> = subnets.collect();
    Ok(HostAddresses::new(subnets.map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_addresses_can_be_told() {
        let own = own_addresses().unwrap();
        // Loopback at least: no host is without.
        assert_ne!(own, HostAddresses::default());
    }
}
