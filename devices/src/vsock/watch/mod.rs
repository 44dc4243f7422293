//! What the device's event loop waits for: streams, connects of the host, and their time-outs.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub(super) use linux::Watch;
#[cfg(not(target_os = "linux"))]
pub(super) use other::Watch;

use super::muxer::FIRST_ID;

/// The token of connects that the host asked for.
pub(super) const WAKE: u32 = 0;
/// The token of the timer for [`super::CONNECT_TIMEOUT`].
pub(super) const TIMER: u32 = 1;

const _: () = assert!(
    WAKE < FIRST_ID && TIMER < FIRST_ID,
    "connections are tokens too"
);
