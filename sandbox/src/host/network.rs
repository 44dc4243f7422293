//! The guest's network as the host program sees it: which egress worker serves it now, and what that is told.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use netproxy::dial::UpstreamProxy;
use netproxy::proxy::{Consent, MAX_QUESTIONS};

use super::process::{Orders, TakesNoOrders, WorkerProcess};
use super::transfer::send_descriptor;
use crate::config::SandboxBuilder;
use crate::control::Order;
use crate::error::{Error, Result};
use crate::network::{Layer, NetworkPolicy};
use crate::plan::{EgressPlan, PLAN_VERSION, Role};
use crate::worker::WorkerKind;

/// What the egress workers of a sandbox need, one after the other.
#[derive(Debug)]
pub(crate) struct EgressStart {
    /// Over which the machine gets its ends of the wires.
    wires: UnixStream,
    /// The worker's program, where it is not this one.
    program: Option<PathBuf>,
    audit: bool,
    upstream: Option<UpstreamProxy>,
    /// What decides.
    pub(crate) policy: Vec<Layer>,
    /// What is published.
    pub(crate) published: Vec<Published>,
}

/// A port of the guest's that can be reached on the host.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Ours as long as the sandbox: what comes between two workers waits in it.
    listener: Arc<TcpListener>,
    /// The guest's.
    port: u16,
}

impl Published {
    /// Listens at `address` for connections to `port` of the guest's.
    pub(crate) fn listen(address: SocketAddr, port: u16) -> Result<Self> {
        if port == 0 || !address.ip().is_loopback() {
            let message = format!(
                "cannot publish port {port} of the guest at {address}: only ports from 1 can be, and only at a loopback address (127.0.0.1 or ::1)"
            );
            return Err(Error::Config(message));
        }
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Arc::new(listener))
        };
        let listener = listen().map_err(|source| Error::Host {
            what: format!(
                "cannot publish port {port} of the guest at {address}: choose another port of this host, or 0 for any"
            ),
            source,
        })?;
        Ok(Self { listener, port })
    }

    /// Where on the host.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|source| Error::Host {
            what: "cannot tell where a port is published".into(),
            source,
        })
    }
}

impl EgressStart {
    /// For a network by `policy`, and with these settings; the second is the machine's.
    pub(crate) fn new(policy: &NetworkPolicy, config: &SandboxBuilder) -> Result<(Self, OwnedFd)> {
        let (wires, machine) = UnixStream::pair().map_err(failed)?;
        let start = Self {
            wires,
            program: config.worker_program.clone(),
            audit: policy.audit.is_some(),
            upstream: config.upstream_proxy.clone(),
            policy: policy.layers.clone(),
            published: listen(&config.published)?,
        };
        Ok((start, machine.into()))
    }

    /// Starts a worker, and hands the machine the wire to it. It serves nothing before it was told a policy.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn spawn(&self) -> Result<EgressWorker> {
        let (machine, egress) = UnixStream::pair().map_err(failed)?;
        let (listeners, theirs) = UnixStream::pair().map_err(failed)?;
        let plan = EgressPlan {
            version: PLAN_VERSION,
            roles: vec![Role::Network, Role::Listeners],
            audit: self.audit,
            upstream: self.upstream.clone(),
        };
        let program = self.program.as_deref();
        let files = [egress.into(), theirs.into()];
        let process = WorkerProcess::spawn(program, WorkerKind::Egress, &plan, &files, 0)?;
        send_descriptor(&self.wires, &machine).map_err(failed)?;
        EgressWorker::new(process, listeners).map_err(failed)
    }
}

fn listen(published: &[(SocketAddr, u16)]) -> Result<Vec<Published>> {
    let published = published.iter();
    let listening = published.map(|(address, port)| Published::listen(*address, *port));
    listening.collect()
}

/// Most orders that wait for a worker: an answer to each of its questions, and what the host program wants of it besides.
const MAX_ORDERS: usize = 2 * MAX_QUESTIONS;

/// A worker that is the guest's network. Nothing that it does or leaves holds up who has it.
#[derive(Debug)]
pub(crate) struct EgressWorker {
    /// What it reports, and its end.
    pub(crate) process: WorkerProcess,
    orders: Orders,
    listeners: UnixStream,
}

impl EgressWorker {
    fn new(mut process: WorkerProcess, listeners: UnixStream) -> io::Result<Self> {
        listeners.set_nonblocking(true)?;
        let orders = process.take_orders(MAX_ORDERS);
        Ok(Self {
            orders: orders.ok_or(io::ErrorKind::BrokenPipe)?,
            process,
            listeners,
        })
    }

    /// Has it decide by these layers. It says when it does.
    ///
    /// # Errors
    /// It takes no orders.
    pub(crate) fn decide_by(&self, policy: Vec<Layer>) -> Result<(), TakesNoOrders> {
        self.orders.give(Order::Policy(policy))
    }

    /// Has it ask about connections that no rule allows. It says when it does.
    ///
    /// # Errors
    /// It takes no orders.
    pub(crate) fn ask(&self) -> Result<(), TakesNoOrders> {
        self.orders.give(Order::Ask)
    }

    /// Answers a question of its, or says that nobody does.
    ///
    /// # Errors
    /// It takes no orders.
    pub(crate) fn answer(
        &self,
        number: u64,
        consent: Option<Consent>,
    ) -> Result<(), TakesNoOrders> {
        self.orders.give(Order::Consent(number, consent))
    }

    /// Has it carry connections. It says when it does.
    ///
    /// # Errors
    /// It takes no orders.
    pub(crate) fn publish(&self, published: &Published) -> Result<(), TakesNoOrders> {
        match send_descriptor(&self.listeners, &*published.listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(TakesNoOrders),
            // Of one that is gone the end is seen next.
            Ok(()) | Err(_) => {}
        }
        self.orders.give(Order::Publish(published.port))
    }
}

fn failed(source: io::Error) -> Error {
    Error::Host {
        what: "cannot lay the wire between the machine and its network".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_published_at_and_a_port_in_use_is_told() {
        for (address, port) in [
            ("0.0.0.0:0", 80),
            ("[::]:0", 80),
            ("192.0.2.1:0", 80),
            ("127.0.0.1:0", 0),
        ] {
            let refused = Published::listen(address.parse().unwrap(), port);
            assert!(matches!(refused, Err(Error::Config(_))), "{address} {port}");
        }
        let first = Published::listen("127.0.0.1:0".parse().unwrap(), 80).unwrap();
        let address = first.address().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0);
        match Published::listen(address, 81) {
            Err(Error::Host { source, what }) => {
                assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
                assert!(what.contains(&address.to_string()), "{what}");
            }
            other => panic!("{other:?}"),
        }
    }
}
