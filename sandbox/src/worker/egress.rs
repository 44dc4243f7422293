//! The egress worker: the guest's network, in a process without files, guest memory and capabilities.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt::Write as _;
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
use netproxy::proxy::{Denial, Destination, Flow, Observer, Proxy};
use netproxy::{DroppedFrame, HostName, egress};

use super::Reporter;
use super::confine::{self, NotConfined};
use crate::control::StartFailure;
use crate::network::{self, Denied, MAX_DENIED};
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
    let told = Box::new(Told {
        reporter: Arc::clone(reporter),
        known: RefCell::default(),
    });
    let proxy = Rc::new(Proxy::new(engine, resolver, Box::new(own_addresses), told));
    let served = runtime.block_on(async {
        link.set_nonblocking(true)?;
        let link = tokio::net::UnixStream::from_std(link)?;
        egress::serve(link, Network::default(), proxy).await
    });
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

/// Tells the host program, of each destination once.
struct Told {
    reporter: Arc<Reporter>,
    known: RefCell<HashSet<Denied>>,
}

impl Observer for Told {
    fn denied(&self, denial: &Denial) {
        let denied = summary(denial);
        let mut known = self.known.borrow_mut();
        if known.len() < MAX_DENIED && known.insert(denied.clone()) {
            self.reporter.denied(denied);
        }
    }

    fn ended(&self, _: &Destination, _: &Flow) {}

    fn dropped(&self, _: DroppedFrame) {}
}

fn summary(denial: &Denial) -> Denied {
    let mut destination = denial.destination.to_string();
    if let Some((method, path)) = &denial.request {
        // Writing to a text does not fail.
        let _ = write!(destination, " {method} {path}");
    }
    Denied::new(
        &destination,
        &denial.why.to_string(),
        denial.rule.as_deref(),
    )
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use netproxy::policy::{Host, Reason};
    use netproxy::proxy::Why;

    use super::*;
    use crate::control::{self, Report};

    #[test]
    fn whatever_a_guest_asks_for_fits_into_a_report() {
        let long = format!("/{}", "\u{202e}x".repeat(100_000));
        let denial = Denial {
            destination: Destination {
                host: Host::Address(IpAddr::from([192, 0, 2, 1])),
                port: 80,
            },
            request: Some(("M".repeat(1000), long.clone())),
            why: Why::Policy(Reason::Request),
            rule: Some(long),
        };
        let denied = summary(&denial);
        assert!(
            denied.destination.starts_with("192.0.2.1:80 MMM"),
            "{denied:?}"
        );
        assert_eq!(denied.rule, None);
        let report = Report::Denied(denied);
        let mut bytes = BytesMut::from(&*control::encode(&report));
        assert_eq!(control::decode(&mut bytes).unwrap(), Some(report));
    }

    #[test]
    fn the_hosts_addresses_can_be_told() {
        let own = own_addresses().unwrap();
        // Loopback at least: no host is without.
        assert_ne!(own, HostAddresses::default());
    }
}
