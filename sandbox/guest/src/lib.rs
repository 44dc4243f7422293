//! The program that is PID 1 inside a Cofferdam guest.
//!
//! [`boot`] makes the machine usable: mounts, root file system, random numbers, the connection to the host. [`serve`] carries out what
//! the host asks over one connection until the host is gone or says so; then the machine is powered off.
//!
//! What it refuses to do: it opens one vsock connection, to the port that the host arranged for it, and accepts none; its protocol
//! has no message that asks anything of the host. It runs on Linux only; elsewhere the package is empty.
//!
//! The serving part needs no machine: the tests run it over a socket pair in an ordinary process.

#![cfg(target_os = "linux")]

pub mod boot;
pub mod serve;
mod sys;

#[doc(hidden)]
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
