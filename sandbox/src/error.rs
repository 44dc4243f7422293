//! What can go wrong with a sandbox, and whose doing it is.

use std::io;
use std::path::PathBuf;

use hv_core::Fault;
use thiserror::Error;

/// Result of a call on a sandbox.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed call on a sandbox. Print the chain of sources after the message.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is not possible. Nothing was started.
    #[error("{0}")]
    Config(String),
    /// A file or directory that the configuration names cannot be used. Nothing was started.
    #[error("{what} {path}: {problem}")]
    Path {
        /// What it was to be: `kernel`, `root image`, `workspace`, …
        what: &'static str,
        /// As the caller named it.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// Another sandbox has the workspace, or the directory for its changes. Nothing was started.
    #[error(
        "{path}: another sandbox is using it: stop that one; several can share a workspace read-only, or as an overlay each"
    )]
    Busy {
        /// The directory, as the caller named it.
        path: PathBuf,
    },
    /// This machine lacks something, or does not permit it.
    #[error("{what}")]
    Host {
        /// What was tried, and what to do.
        what: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The machine could not be started.
    #[error("{message}")]
    NotStarted {
        /// Whose doing it is.
        fault: Fault,
        /// One line, with what to do where something can be done.
        message: String,
    },
    /// The guest did not get ready in the time that was set.
    #[error("the guest was not ready after {seconds} s; its console ended with: {console}")]
    StartTimeout {
        /// The time that was set.
        seconds: u64,
        /// The last line of its console.
        console: String,
    },
    /// The sandbox ended, so the call cannot be carried out.
    #[error("the sandbox has ended: {0}")]
    Ended(EndReason),
    /// The guest's agent refused, or does not speak the protocol.
    #[error(transparent)]
    Agent(#[from] crate::agent::AgentError),
}

impl Error {
    /// Whose doing it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Config(_) | Self::Path { .. } | Self::Busy { .. } => Fault::Caller,
            Self::Host { .. } => Fault::Host,
            Self::NotStarted { fault, .. } => *fault,
            Self::StartTimeout { .. } | Self::Ended(_) => Fault::Guest,
            Self::Agent(error) => error.fault(),
        }
    }
}

/// How a sandbox ended.
#[derive(Clone, Debug, Eq, PartialEq, Error)]
#[non_exhaustive]
pub enum EndReason {
    /// The guest powered off.
    #[error("the guest powered off")]
    PoweredOff,
    /// The guest asked for a reset; a sandbox does not start again by itself.
    #[error("the guest rebooted")]
    Rebooted,
    /// The guest's kernel panicked. The text is the guest's own.
    #[error("the guest's kernel panicked: {0}")]
    Panicked(String),
    /// A processor of the guest could not go on.
    #[error("the guest crashed: {0}")]
    Crashed(String),
    /// The host's hypervisor failed.
    #[error("the hypervisor failed: {0}")]
    Hypervisor(String),
    /// The host program ended it.
    #[error("it was killed")]
    Killed,
    /// The worker process died without a report. The text is its last output.
    #[error("the vmm worker died ({0})")]
    WorkerDied(String),
}
