//! What can go wrong between the host and the guest program.

use std::io;
use std::sync::Arc;

use hv_core::Fault;
use thiserror::Error;

use crate::protocol::{ConfigureFailure, CreditError, EncodeError, ExecFailure, FrameError, Id};

/// A failed call of the agent's client.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The machine stopped, or the connection to it ended. Nobody's fault as such: see why the machine ended.
    #[error("the guest agent is gone: its machine stopped or the connection to it ended")]
    Gone(#[source] Option<Arc<io::Error>>),
    /// The guest broke the protocol; the connection was ended. Fault of the guest: treat the sandbox as compromised.
    #[error("the guest broke the agent protocol, so its connection was ended")]
    Protocol(#[source] GuestFault),
    /// Host and guest program are of different builds. Fault of the host's configuration.
    #[error(
        "the guest program speaks version {guest} of the agent protocol and this program version {host}: \
         use the guest program of this build"
    )]
    Version {
        /// Ours.
        host: u32,
        /// The guest's.
        guest: u32,
    },
    /// The guest could not be set up.
    #[error("the guest could not carry out its configuration ({:?}, errno {})", .0.step, .0.errno)]
    Configure(ConfigureFailure),
    /// The command was not started. Fault of the caller, or of the guest's image.
    #[error("the command was not started")]
    Refused(#[source] ExecFailure),
    /// A file could not be read or written in the guest.
    #[error("the guest could not transfer the file (errno {errno})")]
    File {
        /// The guest's Linux errno.
        errno: i32,
    },
    /// More than the caller was ready to hold; the rest was not taken.
    #[error("the guest gave more than the {limit} bytes that were allowed")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The guest has answered none of very many requests, so no more are taken. Fault of the guest, if it should have.
    #[error("too many requests wait for the guest's answer: wait for some, or stop the sandbox")]
    TooMany,
    /// The request does not fit the protocol. Fault of the caller.
    #[error("the request cannot be sent to the guest")]
    Request(#[source] EncodeError),
    /// Fault of the caller.
    #[error("there is no signal {0}: pass a Linux signal number from 1 to 31")]
    NoSuchSignal(i32),
}

impl AgentError {
    /// Whether the connection ended without a fault in the conversation: the machine tells why.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::Gone(_))
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Gone(_)
            | Self::Protocol(_)
            | Self::Configure(_)
            | Self::TooLarge { .. }
            | Self::TooMany => Fault::Guest,
            Self::Version { .. } => Fault::Host,
            Self::Refused(_) | Self::File { .. } | Self::Request(_) | Self::NoSuchSignal(_) => {
                Fault::Caller
            }
        }
    }
}

/// How the guest broke the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GuestFault {
    /// A frame that does not decode.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// More bytes, or more credit, than allowed.
    #[error(transparent)]
    Credit(#[from] CreditError),
    /// An event for an exec or a transfer that is not under way, or not of that kind.
    #[error("the guest sent an event for {0}, which is not under way")]
    UnknownId(Id),
    /// An answer to a question that was not asked.
    #[error("the guest sent {0} without being asked")]
    Unasked(&'static str),
}

impl From<GuestFault> for AgentError {
    fn from(fault: GuestFault) -> Self {
        Self::Protocol(fault)
    }
}

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        Self::Gone(Some(Arc::new(error)))
    }
}

impl From<AgentError> for io::Error {
    fn from(error: AgentError) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, error)
    }
}
