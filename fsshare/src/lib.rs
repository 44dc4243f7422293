//! A FUSE server over one directory tree of the host, for a client that is not trusted.
//!
//! A virtual machine's kernel mounts the tree (over virtio-fs, say) and sends FUSE requests; [`Server::handle`] answers them
//! from the host's file system; [`Shares`] does so for several trees at once. The crate knows neither the device nor the hypervisor: a transport hands it bytes through
//! [`transfer`].
//!
//! What it refuses to do, whatever the guest sends:
//!
//! * leave the tree: a node is a held handle, a name is one component below it, symbolic links are never followed, mount points
//!   never crossed. No path is ever stored. What the *host's* user moves out of the tree stays reachable for a guest
//!   that already holds it, as with any handle.
//! * open or make anything but regular files and directories (and make symbolic links);
//! * set or keep set-user-id and set-group-id, change owners, touch attributes outside `user.*`;
//! * show what [`Rules`] hide, or change what they protect;
//! * change anything when [`Config::read_only`] says so, whatever the guest's own mount options are;
//! * wait for someone: no lock, FIFO or lease stops a thread of the server;
//! * hold more than [`Limits`] say.
//!
//! The journey of a request: [`abi::parse`] makes a type of its bytes; the policy layer admits it or not; the operation works
//! on nodes and open files that it finds by number; the host layer makes the call; the reply goes back through [`transfer::Writer`].
//!
//! There are host layers for Linux, macOS and Windows. Only that for Linux is tested on its system; those for macOS and Windows are
//! type-checked (`cargo xtask cross`), and what in them is pure (names, errors, listings, reparse points) is tested on Linux. The tests
//! of the Windows layer run under Wine (`cargo xtask wine`), which is not Windows.

pub mod abi;
#[cfg_attr(not(target_os = "linux"), path = "changes/absent.rs")]
mod changes;
pub mod errno;
mod handle;
mod host;
#[cfg(all(target_os = "linux", feature = "fuse-mount"))]
pub mod mount;
mod rules;
mod server;
#[cfg(unix)]
mod sys;
pub mod transfer;

#[cfg(target_os = "linux")]
pub use changes::{
    ApplyError, Caution, Change, Changes, ChangesError, ChangesInPlace, Content, FileKind,
    FileState, OnConflict, What, changes_in_place,
};
pub use rules::{RuleError, Rules};
pub use server::{
    CachePolicy, Config, Error, Fault, HardLinkPolicy, Limits, LockPolicy, Observer, Owner, Quota,
    Reason, Refusal, Server, Shares,
};
