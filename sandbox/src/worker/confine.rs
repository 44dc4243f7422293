//! What a vmm worker gives up before it reads the first guest byte.
//!
//! Network: a network namespace without interfaces. Privilege: no capability in any set, and none
//! to be gained by an `exec`. Traces: no core dump, no look into the process by others of the same
//! user. A control that cannot be had is an error; nothing is dropped silently. System call and
//! file system filters are a later step.

#![expect(
    unsafe_code,
    reason = "leaving namespaces is an unsafe function in rustix"
)]

use std::fs;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use thiserror::Error;

/// A control that this host does not grant.
#[derive(Debug, Error)]
#[error(
    "this host does not let the vmm worker give up {control}: {source}; a sandbox is not started without it"
)]
pub(super) struct NotConfined {
    control: &'static str,
    source: io::Error,
}

/// This process has threads that would not be confined.
#[derive(Debug, Error)]
#[error("the vmm worker has other threads already: call sandbox::worker::init() first in main")]
pub(super) struct Threaded;

/// Checks that there is one thread: what is given up is a thread's own, and later ones inherit it.
pub(super) fn single_threaded() -> Result<(), Threaded> {
    let threads = fs::read_dir("/proc/self/task").map(Iterator::count);
    if threads.is_ok_and(|count| count == 1) {
        Ok(())
    } else {
        Err(Threaded)
    }
}

/// Closes every descriptor but the standard ones, lets go of the working directory, and ignores the
/// signal by which a file size limit would kill the worker. The first thing that a worker does.
pub(super) fn drop_inherited() {
    // SAFETY: nothing of this program has opened a descriptor before `init`, which is documented to
    // come first in `main`; what is open beyond the standard ones came from the parent and has no
    // owner here. Ignoring a signal touches no memory.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    // It stays where it is only if `/` cannot be entered, which harms nobody.
    let _ = rustix::process::chdir("/");
}

/// Gives up everything. Call it while the process has one thread.
pub(super) fn enter() -> Result<(), NotConfined> {
    let control = |control| move |source: io::Error| NotConfined { control, source };
    leave_namespaces().map_err(control("the network (unshare)"))?;
    limit_resources().map_err(control("core dumps (RLIMIT_CORE)"))?;
    drop_capabilities().map_err(control("its capabilities"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| control("new privileges (PR_SET_NO_NEW_PRIVS)")(errno.into()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| control("being traced (PR_SET_DUMPABLE)")(errno.into()))
}

fn leave_namespaces() -> io::Result<()> {
    let spaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if unshare(spaces).is_ok() {
        return Ok(());
    }
    // A plain user may do it inside a user namespace of its own, in which it stays who it is.
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    unshare(spaces | UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

fn unshare(spaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: the file descriptor table is not among the spaces that are left, so no descriptor
    // that another part of the program owns changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(spaces) }.map_err(io::Error::from)
}

fn limit_resources() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(Resource::Core, none)?;
    // The share holds a descriptor for each file that the guest knows.
    let files = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit {
            current: files.maximum,
            ..files
        },
    )?;
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    for capability in CapabilitySet::all().iter() {
        // Unknown to an older kernel, or not ours to drop: the sets below are what counts.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        line.trim().to_owned()
    }

    /// The controls are a thread's own (all but dumpable and the limits), so a thread can try them.
    #[test]
    fn a_confined_thread_has_no_network_and_no_capability() {
        std::thread::spawn(|| {
            enter().unwrap();
            assert_eq!(status("CapEff:"), "0000000000000000");
            assert_eq!(status("CapPrm:"), "0000000000000000");
            assert_eq!(status("NoNewPrivs:"), "1");
            let interfaces = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let up: Vec<&str> = interfaces.lines().skip(2).collect();
            assert!(
                up.iter().all(|line| line.trim_start().starts_with("lo:")),
                "{up:?}"
            );
            assert!(std::net::TcpStream::connect("127.0.0.1:1").is_err());
            let datagram = std::net::UdpSocket::bind("0.0.0.0:0")
                .and_then(|socket| socket.send_to(b"x", "127.0.0.1:9"));
            assert!(datagram.is_err());
        })
        .join()
        .unwrap();
    }
}
