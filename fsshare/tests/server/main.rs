//! The server, driven in process by a client that sends raw requests.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are known"
)]

mod client;
mod confinement;
mod limits;
mod locks;
mod many;
mod operations;
mod overlay;
mod pieces;
mod quota;
mod races;
mod random;
mod read_only;
mod refusals;
mod rules;
mod trouble;
mod unheld;
