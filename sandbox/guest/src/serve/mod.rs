//! Carries out what the host asks over one connection.
//!
//! One thread and one loop: [`serve`] polls the connection, the ends of processes and, through epoll, every stream. Nothing in it waits for
//! one exec while another has work. Memory is bounded: requests are read and streams are drained only while the
//! queue to the host has room, and each stream has its credit.
//!
//! What the host sends is trusted to mean well but not to be well-formed: a bad frame ends the connection.

mod cgroup;
mod environment;
mod exec;
mod link;
mod poller;
mod server;
mod spawn;
mod stream;
mod transfer;
mod users;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use thiserror::Error;

use crate::protocol::{
    BootFacts, Configure, ConfigureFailure, CreditError, EncodeError, FrameError, MAX_DATA,
};

/// What the server needs of the machine that it runs on.
pub trait Machine {
    /// Carries out the host's configuration.
    fn configure(&mut self, wanted: &Configure) -> Result<BootFacts, ConfigureFailure>;

    /// For PID 1: a descriptor that is readable after a child ended. The server then reaps every process, signals every process at
    /// shutdown, and waits for all of them. `None`: it minds the processes that it started and no others.
    fn child_events(&self) -> Option<BorrowedFd<'_>>;

    /// The cgroup v2 directory in which each exec gets a group of its own, if there is one.
    fn cgroups(&self) -> Option<&Path>;
}

/// Why serving ended in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The host closed the connection.
    HostGone,
    /// The host asked for it; every process has ended or was killed.
    Shutdown,
}

/// Why serving broke off.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A frame that the host should not have sent.
    #[error("the connection is unusable")]
    Frame(#[source] FrameError),
    /// The host broke a credit window.
    #[error("the host broke the flow control")]
    Credit(#[source] CreditError),
    /// A request that has no meaning, or none at that time. Fault of the host.
    #[error("the host sent a request that makes no sense: {0}")]
    Request(&'static str),
    /// The host speaks another version; it was told ours.
    #[error(
        "the host speaks version {0} of the protocol: host and guest program must come from the same build"
    )]
    Version(u32),
    /// An event that does not fit a frame. Fault of this program.
    #[error("an event cannot be sent")]
    Encode(#[source] EncodeError),
    /// The connection failed.
    #[error("the connection to the host failed")]
    Connection(#[source] Errno),
    /// The guest's kernel refused something that the loop cannot do without.
    #[error("the guest's kernel refused a poll")]
    System(#[source] Errno),
}

/// What every part of the server writes to and waits on.
#[derive(Debug)]
struct Io {
    link: link::Link,
    poller: poller::Poller,
    /// Where streams are read into before they become a frame.
    scratch: Box<[u8]>,
}

impl Io {
    fn new(connection: OwnedFd) -> Result<Self, ServeError> {
        Ok(Self {
            link: link::Link::new(connection).map_err(ServeError::Connection)?,
            poller: poller::Poller::new().map_err(ServeError::System)?,
            scratch: vec![0; MAX_DATA].into(),
        })
    }
}

/// Serves the host until it is gone or asks for shutdown. Kills every exec that is left.
pub fn serve(connection: OwnedFd, machine: &mut dyn Machine) -> Result<Ending, ServeError> {
    let mut server = server::Server::new(Io::new(connection)?, machine);
    let ending = server.run();
    server.kill_all();
    ending
}

#[cfg(test)]
mod tests;
