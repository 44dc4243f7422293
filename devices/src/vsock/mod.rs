//! The socket device (virtio 1.3, section 5.10): byte streams between the host and one guest.
//!
//! A guest's connect reaches only what a [`VsockBackend`] lays out for its port ([`Arranged`]), all
//! else is refused; the host connects to the guest's ports with a [`VsockConnector`]. There is no
//! way from one guest to another, no sequenced-packet or datagram socket, and nothing that a guest
//! could make the host open.
//!
//! ```text
//! queues <- device -> wire -> muxer -> connection -> stream of the host
//!              `----- watch (event loop) <---'  `- credit
//! ```
//!
//! Bounds: [`MAX_CONNECTIONS`] connections, [`RECEIVE_BUFFER`] bytes of each held for the host,
//! none for the guest (streams are read when the guest has a buffer), and while the guest lets
//! resets pile up its packets are left in its ring.

mod connection;
mod credit;
mod device;
mod host;
#[cfg_attr(
    not(any(test, target_os = "linux")),
    expect(dead_code, reason = "no other event loop can wait for streams yet")
)]
mod muxer;
mod stream;
#[cfg(test)]
mod tests;
mod watch;
pub mod wire;

pub use credit::RECEIVE_BUFFER;
pub use device::{Vsock, VsockError};
pub use host::{Arranged, ConnectError, VsockBackend, VsockConnector};
pub use muxer::{CONNECT_TIMEOUT, MAX_CONNECTIONS};
pub use stream::Stream;
#[cfg(unix)]
pub use stream::unix_stream;
