//! A guest's network without its machine: the egress workers as they are started, followed and replaced for a sandbox, for tests.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::network::GuestNetwork;
use super::{End, Watched};
use crate::config::SandboxBuilder;
use crate::error::Result;
use crate::host::{Console, EgressStart, Published, receive_descriptor};
use crate::network::{Denied, NetworkPolicy};

/// The network of a guest that is not there. It ends with its handle.
#[derive(Debug)]
pub struct BareNetwork {
    network: GuestNetwork,
    watched: Watched,
    /// What the machine would take its ends of the wires from.
    wires: UnixStream,
    /// The machine is there as long as this.
    _machine: watch::Sender<Option<End>>,
}

impl BareNetwork {
    /// Starts a network by `policy` with what `config` says of networks, and waits until it decides.
    ///
    /// # Errors
    /// As of a sandbox.
    pub async fn start(policy: &NetworkPolicy, config: &SandboxBuilder) -> Result<Self> {
        let (start, wires): (_, OwnedFd) = EgressStart::new(policy, config)?;
        let worker = start.spawn()?;
        let (machine, end) = watch::channel(None);
        let watched = Watched::new(Console::new(None), None, end);
        watched.set_egress_worker(worker.process.id());
        let (network, begun) = GuestNetwork::follow(start, worker, watched.clone(), None);
        begun.await?;
        Ok(Self {
            network,
            watched,
            wires: wires.into(),
            _machine: machine,
        })
    }

    /// The machine's end of the wire to the worker that was started first and not taken yet. Waits for one.
    ///
    /// # Errors
    /// The host's.
    pub fn wire(&self) -> io::Result<UnixStream> {
        receive_descriptor(&self.wires).map(UnixStream::from)
    }

    /// As [`crate::Sandbox::egress_worker_id`].
    #[must_use]
    pub fn worker_id(&self) -> u32 {
        self.watched.egress_worker.load(Ordering::Acquire)
    }

    /// As [`crate::Sandbox::denied`].
    #[must_use]
    pub fn denied(&self) -> Vec<Denied> {
        let denied = self.watched.denied.lock();
        denied.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As [`crate::Sandbox::publish`].
    ///
    /// # Errors
    /// As there.
    pub async fn publish(&self, address: SocketAddr, port: u16) -> Result<SocketAddr> {
        let published = Published::listen(address, port)?;
        let address = published.address()?;
        self.network.publish(published).await?;
        Ok(address)
    }

    /// As [`crate::Sandbox::network_ended`].
    pub async fn ended(&self) -> String {
        self.network.ended().await
    }

    /// As [`crate::Sandbox::restart_network`].
    ///
    /// # Errors
    /// As there.
    pub async fn restart(&self) -> Result<()> {
        self.network.restart().await
    }
}
