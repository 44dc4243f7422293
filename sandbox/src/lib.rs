//! Run an autonomous agent's commands inside a microVM, on a shared workspace.
//!
//! Each sandbox is a Linux guest with a kernel of its own. It reaches the directories that it is
//! given and nothing else of the host; there is no network.
//!
//! ```no_run
//! # async fn example() -> Result<(), sandbox::Error> {
//! use sandbox::{ExecSpec, Sandbox};
//!
//! let sandbox = Sandbox::builder().workspace("/home/me/project").start().await?;
//! let output = sandbox.output(ExecSpec::new("make").arg("test").directory("/home/me/project")).await?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! sandbox.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The machine runs in a worker process, which is the embedding program executed again: call
//! [`worker::init`] first thing in `main`. Dropping a [`Sandbox`] ends its machine; so does the end
//! of the program, however it comes.

pub mod agent;
pub mod boot;
mod config;
mod control;
mod doctor;
mod error;
mod host;
mod plan;
mod platform;
#[doc(hidden)]
pub mod protocol;
mod sandbox;
mod text;
mod timeline;
mod vmm;
pub mod worker;

pub use agent::{ExecSpec, ExitStatus, Output, Process};
pub use config::{
    DEFAULT_MEMORY_MIB, GuestFiles, MAX_VCPUS, MIN_MEMORY_MIB, Mount, SandboxBuilder,
};
pub use doctor::{Check, Verdict, doctor};
pub use error::{EndReason, Error, Result};
pub use sandbox::Sandbox;
pub use timeline::{BootTimeline, Phase};
