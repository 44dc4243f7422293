//! Run an autonomous agent's commands inside a microVM, on a shared workspace.
//!
//! Each sandbox is a Linux guest with a kernel of its own. It reaches the directories that it is
//! given and nothing else of the host; there is no network, unless a policy is given for one.
//!
//! ```no_run
//! # async fn example() -> Result<(), sandbox::Error> {
//! use sandbox::{ExecSpec, Sandbox};
//!
//! let sandbox = Sandbox::builder().workspace("/srv/project").start().await?;
//! let output = sandbox.output(ExecSpec::new("make").arg("test").directory("/srv/project")).await?;
//! println!("{}", String::from_utf8_lossy(&output.stdout));
//! sandbox.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Streams
//!
//! [`Sandbox::exec`] gives a [`Process`], whose streams are those of tokio. Many commands run at once in
//! one sandbox, and a stream that nobody reads stops only the command that writes it.
//!
//! ```no_run
//! # async fn example(sandbox: sandbox::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
//! use sandbox::ExecSpec;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! let mut sort = sandbox.exec(ExecSpec::new("sort").env("LC_ALL", "C").piped_stdin()).await?;
//! if let Some(mut input) = sort.stdin.take() {
//!     input.write_all(b"two\none\n").await?;
//!     input.shutdown().await?; // the end of file
//! }
//! let mut sorted = String::new();
//! if let Some(mut output) = sort.stdout.take() {
//!     output.read_to_string(&mut sorted).await?;
//! }
//! println!("{sorted}: {:?}", sort.wait().await?);
//! # Ok(())
//! # }
//! ```
//!
//! # Terminals and signals
//!
//! ```no_run
//! # async fn example(sandbox: sandbox::Sandbox) -> Result<(), sandbox::Error> {
//! use sandbox::ExecSpec;
//! use sandbox::agent::TerminalSize;
//!
//! let size = TerminalSize { rows: 24, columns: 80 };
//! let mut shell = sandbox.exec(ExecSpec::new("bash").user("agent").terminal(size)).await?;
//! // `shell.stdin` is the keyboard, `shell.stdout` the screen.
//! shell.resize(TerminalSize { rows: 50, columns: 132 }).await?;
//! shell.signal(15).await?; // SIGTERM to its process group; a handle that is dropped kills
//! let status = shell.wait().await?;
//! # drop(status);
//! # Ok(())
//! # }
//! ```
//!
//! # Settings, files of the guest, and its end
//!
//! ```no_run
//! # async fn example() -> Result<(), sandbox::Error> {
//! use sandbox::{Mount, Sandbox, ShareMode};
//!
//! let reference = Mount {
//!     host: "/srv/reference".into(),
//!     guest: Some("/reference".into()),
//!     mode: ShareMode::ReadOnly,
//! };
//! let sandbox = Sandbox::builder()
//!     .vcpus(2)
//!     .memory_mib(1024)
//!     .workspace("/srv/project")
//!     .mount(reference)
//!     .owner(1000, 1000) // who runs the commands in the guest, so that they can write
//!     .console_log("/srv/console.log")
//!     .start()
//!     .await?;
//! for (phase, at) in sandbox.timeline().phases() {
//!     println!("{at:?} {}", phase.label());
//! }
//! sandbox.write_file("/tmp/task", 0o644, b"mend it").await?;
//! let release = sandbox.read_file("/etc/os-release", 64 << 10).await?;
//! println!("{} bytes, the end: {}", release.len(), sandbox.wait().await);
//! # Ok(())
//! # }
//! ```
//!
//! # Changes that are looked at first
//!
//! With [`ShareMode::Overlay`] the guest has the workspace as it is, and what it changes goes to a directory of its own. See [`changes`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sandbox::changes::{Change, OnConflict, WorkspaceChanges};
//! use sandbox::{ExecSpec, Sandbox};
//!
//! let sandbox = Sandbox::builder().overlay("/srv/project", "/srv/changes").start().await?;
//! sandbox.output(ExecSpec::new("make").directory("/srv/project")).await?;
//! for (workspace, changes) in sandbox.changes()? {
//!     for change in changes.list() {
//!         println!("{:?} {:?} in {workspace:?}", change.what, change.path);
//!     }
//!     // In a workspace without an overlay they are made already.
//!     let WorkspaceChanges::Overlay(changes) = changes else { continue };
//!     let harmless = |change: &Change| change.caution.is_none();
//!     for (change, error) in changes.apply(harmless, OnConflict::Keep)? {
//!         eprintln!("{:?}: {error}", change.path);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # The worker
//!
//! The machine runs in a worker process, which is the embedding program executed again: call
//! [`worker::init`] first thing in `main`. Dropping a [`Sandbox`] ends its machine; so does the end
//! of the program, however it comes.

pub mod agent;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod audit;
pub mod boot;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod changes;
mod error;
#[doc(hidden)]
pub mod protocol;
mod refusal;

pub use agent::{ExecSpec, ExitStatus, Output, Process};
pub use error::{EndReason, Error, Result};
pub use refusal::{Refusal, RefusalReason};

// What starts and runs machines stands on Linux and its KVM; all above is portable.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod config;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod control;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod doctor;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod git;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod network;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod plan;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod platform;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod question;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod sandbox;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod text;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod timeline;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod vmm;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod worker;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use config::{
    DEFAULT_MEMORY_MIB, GuestFiles, MAX_VCPUS, MIN_MEMORY_MIB, Mount, SandboxBuilder, ShareCache,
    ShareMode,
};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use doctor::{Check, Verdict, doctor};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use netproxy::dial::{UpstreamError, UpstreamProxy};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use network::{Denied, NetworkPolicy};
/// What a policy of the network is and what decides by it, for programs that show or make one.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod policy {
    pub use crate::network::{ABILITIES, is_public};
    pub use netproxy::learn;
    pub use netproxy::policy::*;
    pub use netproxy::{HostName, NameError};
}
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use question::{Question, TooLate};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use sandbox::Sandbox;
#[cfg(all(target_os = "linux", target_arch = "x86_64", feature = "testkit"))]
#[doc(hidden)]
pub mod testkit {
    pub use crate::sandbox::BareNetwork;
}
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use timeline::{BootTimeline, Phase};

// The README's example must compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
