//! The egress worker: the guest's network, in a process without files, guest memory and capabilities.

use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use hickory_resolver::TokioResolver;
use hv_core::Fault;
use if_addrs::IfAddr;
use netproxy::HostName;
use netproxy::address::{HostAddresses, Subnet};
use netproxy::dial::Resolver;
use netproxy::egress::{self, GuestNetwork};
use netproxy::gateway::Network;
use netproxy::policy::Engine;
use netproxy::proxy::{Consent, Prompt, Proxy};
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::Reporter;
use super::confine::{self, NotConfined};
use super::memory;
use super::prompt::HostPrompt;
use super::told::Told;
use crate::control::{self, MalformedMessage, Order, Report, StartFailure};
use crate::host::receive_descriptor;
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
    memory::keep_large_buffers_apart();
    // It reads the host's settings, so before there are no files any more.
    let resolver = Upstream::of_the_host();
    inherited
        .and_then(|()| confine::enter_without_files())
        .map_err(|error| host(&error))?;
    reporter.phase(Phase::Confined);
    let (sender, mut changes) = mpsc::unbounded_channel();
    let orders = Orders {
        reporter: Arc::clone(reporter),
        listeners: files.take(Role::Listeners)?.into(),
        changes: sender,
        received: BytesMut::new(),
    };
    reporter.end_with_the_host(orders.carry_out())?;
    let link = UnixStream::from(files.take(Role::Network)?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| host(&error))?;
    let (told, reports) = Told::start(reporter, plan.audit).map_err(|error| host(&error))?;
    let served = LocalSet::new().block_on(&runtime, async {
        // Nothing is published before.
        let Some((Change::Policy(engine), is_done)) = changes.recv().await else {
            return Ok(());
        };
        let own = Box::new(own_addresses);
        let prompt = Rc::new(HostPrompt::new(told.reports()));
        let proxy =
            Rc::new(Proxy::new(engine, resolver, own, Box::new(told)).by(plan.upstream.clone()));
        answer(is_done, Ok(()));
        link.set_nonblocking(true)?;
        let link = tokio::net::UnixStream::from_std(link)?;
        let network = GuestNetwork::new(Network::default());
        let mut served = pin!(egress::serve(link, &network, Rc::clone(&proxy)));
        loop {
            tokio::select! {
                biased;
                Some((change, is_done)) = changes.recv() => match change {
                    Change::Policy(engine) => {
                        proxy.replace(engine);
                        answer(is_done, Ok(()));
                    }
                    Change::Publish(listener, port) => {
                        answer(is_done, publish(listener, &network, port));
                    }
                    Change::Ask => {
                        let prompt: Rc<dyn Prompt> = Rc::clone(&prompt) as _;
                        proxy.ask(Some(prompt));
                        answer(is_done, Ok(()));
                    }
                    Change::Consent(number, consent) => {
                        prompt.answer(number, consent);
                        answer(is_done, Ok(()));
                    }
                },
                served = &mut served => return served,
            }
        }
    });
    // With what was served has gone who tells of it: the rest of it is told now. The thread does not panic.
    drop(reports.join());
    served.map_err(|error| host(&error))
}

/// What is to be another way from now on.
enum Change {
    /// What decides.
    Policy(Engine),
    /// Connections that go to this port of the guest's.
    Publish(TcpListener, u16),
    /// Questions are asked.
    Ask,
    /// The answer to one.
    Consent(u64, Option<Consent>),
}

type Answer = Result<(), String>;

fn answer(is_done: oneshot::Sender<Answer>, answer: Answer) {
    // Who waits for it has the process's end to wait for otherwise.
    let _: Result<(), Answer> = is_done.send(answer);
}

fn publish(listener: TcpListener, network: &GuestNetwork, port: u16) -> Answer {
    let listener = tokio::net::TcpListener::from_std(listener);
    let listener = listener.map_err(|error| error.to_string())?;
    let published = netproxy::publish::publish(listener, network.clone(), port);
    tokio::task::spawn_local(published);
    Ok(())
}

/// Carries out what the host program orders, in the order in which it comes. For the thread that reads it: a policy may take a while to be
/// understood.
struct Orders {
    reporter: Arc<Reporter>,
    listeners: UnixStream,
    changes: mpsc::UnboundedSender<(Change, oneshot::Sender<Answer>)>,
    received: BytesMut,
}

impl Orders {
    /// Takes what was read.
    fn carry_out(mut self) -> impl FnMut(&[u8]) -> Result<(), MalformedMessage> + Send + 'static {
        move |bytes| {
            self.received.extend_from_slice(bytes);
            while let Some(order) = control::decode_order(&mut self.received)? {
                let done = self.change(&order).and_then(|change| self.make(change));
                if order.is_answered() {
                    self.reporter.send(&Report::Done(done));
                }
            }
            Ok(())
        }
    }

    fn change(&self, order: &Order) -> Result<Change, String> {
        match order {
            Order::Policy(layers) => {
                let texts = layers.iter();
                let texts = texts.map(|layer| (layer.whose, &*layer.origin, &*layer.text));
                network::compile(texts).map(Change::Policy)
            }
            Order::Publish(port) => {
                // It was sent before the order.
                let listener = receive_descriptor(&self.listeners);
                let listener = listener.map_err(|error| error.to_string())?;
                Ok(Change::Publish(listener.into(), *port))
            }
            Order::Ask => Ok(Change::Ask),
            Order::Consent(number, consent) => Ok(Change::Consent(*number, *consent)),
        }
    }

    fn make(&self, change: Change) -> Answer {
        let (sender, is_done) = oneshot::channel();
        let sent = self.changes.send((change, sender));
        let done = sent.ok().and_then(|()| is_done.blocking_recv().ok());
        done.unwrap_or_else(|| Err("the network has ended".into()))
    }
}

/// Most answers of name servers that are remembered. Each may take a megabyte, and who has one name of a wildcard may have any number.
const MAX_ANSWERS: u64 = 16;

/// Resolves as the host does, if that does.
struct Upstream(Option<TokioResolver>);

impl Upstream {
    fn of_the_host() -> Self {
        let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
            builder.options_mut().cache_size = MAX_ANSWERS;
            builder.build()
        });
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
        let found = found.map_err(|error| match error.is_no_records_found() {
            true => io::Error::new(io::ErrorKind::NotFound, error),
            false => io::Error::other(error),
        })?;
        Ok(found.iter().collect())
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
