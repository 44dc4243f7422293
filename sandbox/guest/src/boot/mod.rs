//! From the kernel's first instruction of user space to a served host, and to power-off.
//!
//! The order is for speed and safety: the first line before any work, so that a boot can be timed; the root file system
//! before anything that an exec could see; a seed for the random generator before the first exec. Nothing sleeps where
//! the drivers are built in.
//!
//! The initrd must be a plain archive with this program as `/init`; the console node that the kernel's own
//! archive brings is enough. If it has a directory `/modules`, its `.ko` files are loaded first. For the parameters see [`cmdline`].

pub mod cmdline;
pub mod console;

mod entropy;
mod machine;
mod modules;
mod mounts;
mod names;
mod network;
mod root;
mod shares;

use std::convert::Infallible;
use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit};
use rustix::system::RebootCommand;
use thiserror::Error;

use self::cmdline::{BadParameter, Parameters};
use crate::serve::{Ending, ServeError, serve};
use crate::sys;

/// Why the machine cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BootError {
    /// This is an ordinary process of some other system.
    #[error("this program is the first process of a Cofferdam guest and does nothing elsewhere")]
    NotInit,
    /// The command line of the kernel.
    #[error(transparent)]
    Parameter(#[from] BadParameter),
    /// A step that the kernel refused.
    #[error("{step}")]
    Step {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Serving broke off.
    #[error("the host cannot be served any more")]
    Serve(#[source] ServeError),
}

/// Says what was tried when the kernel refuses.
trait Context<T> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T, BootError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, step: impl FnOnce() -> String) -> Result<T, BootError> {
        self.map_err(|source| BootError::Step {
            step: step(),
            source: source.into(),
        })
    }
}

/// Runs the machine and powers it off; comes back only if this is not PID 1.
pub fn run() -> Result<Infallible, BootError> {
    if !rustix::process::getpid().is_init() {
        return Err(BootError::NotInit);
    }
    console::line("init");
    if let Err(error) = live() {
        console::error(&error);
    }
    power_off()
}

fn live() -> Result<(), BootError> {
    let init_ns = machine::monotonic_ns();
    mounts::early_proc()?;
    let command_line = fs::read_to_string("/proc/cmdline")
        .context(|| "cannot read the kernel command line".into())?;
    let parameters = Parameters::parse(&command_line)?;
    if parameters.power_off {
        return Ok(());
    }
    prepare(&parameters)?;
    let child_events = sys::child_events().context(|| "cannot watch for ended processes".into())?;
    let connection = sys::connect_to_host(parameters.port).context(|| {
        format!(
            "cannot connect to vsock port {} of the host",
            parameters.port
        )
    })?;
    let mut guest = machine::Guest {
        init_ns,
        child_events,
        share_devices: Vec::new(),
    };
    match serve(connection, &mut guest).map_err(BootError::Serve)? {
        Ending::Shutdown => {}
        Ending::HostGone => console::line("the host is gone"),
    }
    Ok(())
}

fn prepare(parameters: &Parameters) -> Result<(), BootError> {
    mounts::early_devices()?;
    let modules = modules::load_all()?;
    if let Some(device) = &parameters.root {
        root::switch_to(device, modules)?;
    }
    mounts::late()?;
    entropy::seed();
    raise_limits()?;
    sys::Interface::named("lo")
        .and_then(|loopback| loopback.up())
        .context(|| "cannot bring the loopback interface up".into())
}

/// Descriptors for the streams of [`crate::protocol::MAX_EXECS`] execs, and what programs of today expect.
fn raise_limits() -> Result<(), BootError> {
    let limit = Rlimit {
        current: Some(65_536),
        maximum: Some(1_048_576),
    };
    rustix::process::setrlimit(Resource::Nofile, limit)
        .context(|| "cannot raise the number of open files".into())
}

fn power_off() -> Result<Infallible, BootError> {
    // Shares are written back by this; the writable layer is memory and has nothing to lose.
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::PowerOff).context(|| "cannot power off".into())?;
    // A kernel without a power switch halts inside the call.
    Err(BootError::NotInit)
}
