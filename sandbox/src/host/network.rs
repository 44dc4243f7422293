//! The guest's network as the host program sees it: which egress worker serves it now, and by which policy.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::process::WorkerProcess;
use super::transfer::send_descriptor;
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
    /// What decides.
    pub(crate) policy: Vec<Layer>,
}

impl EgressStart {
    /// For a network by `policy`; the second is the machine's.
    pub(crate) fn new(policy: &NetworkPolicy, program: Option<&Path>) -> Result<(Self, OwnedFd)> {
        let (wires, machine) = UnixStream::pair().map_err(failed)?;
        let start = Self {
            wires,
            program: program.map(Path::to_owned),
            audit: policy.audit.is_some(),
            policy: policy.layers.clone(),
        };
        Ok((start, machine.into()))
    }

    /// Starts a worker, and hands the machine the wire to it. It serves nothing before it was told a policy.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn spawn(&self) -> Result<WorkerProcess> {
        let (machine, egress) = UnixStream::pair().map_err(failed)?;
        let plan = EgressPlan {
            version: PLAN_VERSION,
            roles: vec![Role::Network],
            audit: self.audit,
        };
        let program = self.program.as_deref();
        let files = [OwnedFd::from(egress)];
        let process = WorkerProcess::spawn(program, WorkerKind::Egress, &plan, &files, 0)?;
        send_descriptor(&self.wires, &machine).map_err(failed)?;
        Ok(process)
    }
}

fn failed(source: io::Error) -> Error {
    Error::Host {
        what: "cannot lay the wire between the machine and its network".into(),
        source,
    }
}
