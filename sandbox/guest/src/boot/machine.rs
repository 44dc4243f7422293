//! The machine as the server sees it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::time::ClockId;

use super::mounts::CGROUPS;
use super::{names, network, shares};
use crate::protocol::{BootFacts, Configure, ConfigureFailure, ConfigureStep};
use crate::serve::Machine;

/// A guest of which this program is PID 1.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) init_ns: u64,
    pub(super) child_events: BorrowedFd<'static>,
    /// Roots of devices that hold several shares: see [`shares::mount_all`].
    pub(super) share_devices: Vec<OwnedFd>,
}

impl Machine for Guest {
    fn configure(&mut self, wanted: &Configure) -> Result<BootFacts, ConfigureFailure> {
        if !wanted.hostname.is_empty() {
            rustix::system::sethostname(wanted.hostname.as_bytes())
                .map_err(|errno| failure(ConfigureStep::Hostname, errno))?;
            names::know(&wanted.hostname);
        }
        self.share_devices = shares::mount_all(&wanted.mounts)
            .map_err(|(which, errno)| failure(ConfigureStep::Mount(which), errno))?;
        if let Some(network) = &wanted.network {
            network::set_up(network).map_err(|errno| failure(ConfigureStep::Network, errno))?;
        }
        let kernel = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        Ok(BootFacts {
            kernel,
            init_ns: self.init_ns,
            ready_ns: monotonic_ns(),
        })
    }

    fn child_events(&self) -> Option<BorrowedFd<'_>> {
        Some(self.child_events)
    }

    fn cgroups(&self) -> Option<&Path> {
        Some(Path::new(CGROUPS))
    }
}

fn failure(step: ConfigureStep, errno: Errno) -> ConfigureFailure {
    ConfigureFailure {
        step,
        errno: errno.raw_os_error(),
    }
}

/// The kernel's monotonic clock, which starts with the machine.
pub(super) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    part(now.tv_sec)
        .saturating_mul(1_000_000_000)
        .saturating_add(part(now.tv_nsec))
}
