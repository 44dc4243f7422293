//! System calls that rustix has no safe function for.

#![expect(
    unsafe_code,
    reason = "fork hooks, a signal handler, AF_VSOCK addresses and two ioctls have no safe wrapper"
)]

mod child;
mod entropy;
mod loopback;
mod signals;
mod vsock;

pub(crate) use child::{ChildSetup, Identity, prepare_child};
pub(crate) use entropy::{SEED_LEN, add_entropy};
pub(crate) use loopback::loopback_up;
pub(crate) use signals::{child_events, signal_everything};
pub(crate) use vsock::connect_to_host;

use rustix::io::Errno;

/// The errno of a C call that has just failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
