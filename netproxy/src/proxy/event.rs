//! What is told of the guest's connections.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::address::AddressRefusal;
use crate::dial::DialError;
use crate::frame::DroppedFrame;
use crate::http::Refused;
use crate::name::HostName;
use crate::policy::{Host, Reason, Scheme};
use crate::relay::Carried;

/// Is told what becomes of what the guest asks. Called on the worker's one thread, which must not wait in it.
pub trait Observer {
    /// Something was denied, or could not be done.
    fn denied(&self, denial: &Denial);

    /// A connection has come to its end.
    fn ended(&self, destination: &Destination, flow: &Flow);

    /// A frame went nowhere.
    fn dropped(&self, why: DroppedFrame);
}

/// Whom the guest meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name, or an address that stands for none.
    pub host: Host,
    /// The port; 0 where only the name was asked for.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            0 => self.host.fmt(f),
            port => write!(f, "{}:{port}", self.host),
        }
    }
}

/// Something that the guest did not get.
#[derive(Debug)]
pub struct Denial {
    /// Whom it was for.
    pub destination: Destination,
    /// Method and path, where it was a request of HTTP. They are the guest's text.
    pub request: Option<(String, String)>,
    /// Why not.
    pub why: Why,
    /// A rule that a person could add to allow it, in one line of TOML, if a rule could.
    pub rule: Option<String>,
}

impl Denial {
    /// A name that does not exist for the guest.
    #[must_use]
    pub fn name(name: &HostName, rule: Option<String>) -> Self {
        let host = Host::Name(name.clone());
        Self {
            rule,
            destination: Destination { host, port: 0 },
            request: None,
            why: Why::Policy(Reason::Host),
        }
    }
}

/// A connection that was.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// What was spoken.
    pub scheme: Scheme,
    /// The address that was dialled.
    pub address: Option<SocketAddr>,
    /// How much was carried unread.
    pub carried: Carried,
    /// How long it took.
    pub duration: Duration,
}

/// Why the guest did not get something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The policy does not allow it.
    #[error("{0}")]
    Policy(Reason),
    /// The address is not one that may be dialled.
    #[error("the address may not be dialled: {0}")]
    Address(AddressRefusal),
    /// Nobody says which addresses are the host's, so any could be.
    #[error("this host's own addresses cannot be told: {0}")]
    OwnAddresses(io::Error),
    /// There is no connection to it.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS for another name than the connection is for.
    #[error("TLS for another name: {0}")]
    OtherName(HostName),
    /// TLS that does not say for which name.
    #[error("TLS that does not say for which name")]
    NoName,
    /// TLS that may be for another name than it says, which is encrypted. Only a rule with `passthrough` lets it through.
    #[error("TLS that may hide another name (ECH), which only a rule with `passthrough` allows")]
    HiddenName,
    /// Neither TLS nor HTTP, where nothing else is allowed.
    #[error("neither TLS nor HTTP, which is all that is allowed")]
    UnknownProtocol,
    /// Nothing was said in time.
    #[error("the guest said nothing")]
    Silent,
    /// A request was for another host, or none that can be passed on.
    #[error("{0}")]
    Request(Refused),
}
