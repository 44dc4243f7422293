//! System calls that rustix has no safe function for.

#![expect(
    unsafe_code,
    reason = "fork hooks, a signal handler, AF_VSOCK addresses and some ioctls have no safe wrapper"
)]

mod child;
mod entropy;
mod interface;
mod signals;
mod vsock;

pub(crate) use child::{ChildSetup, Identity, prepare_child};
pub(crate) use entropy::{SEED_LEN, add_entropy};
pub(crate) use interface::Interface;
pub(crate) use signals::{child_events, signal_everything};
pub(crate) use vsock::connect_to_host;

use rustix::io::Errno;

/// The errno of a C call that has just failed.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
