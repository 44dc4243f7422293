//! What a vmm worker gives up before it reads the first guest byte.
//!
//! Network: a network namespace without interfaces. Privilege: no capability in any set, and none
//! to be gained by an `exec`. Traces: no core dump, no look into the process by others of the same
//! user. System calls: what no worker asks for ends it, and the egress worker has a list of what it may ask for. A control that cannot be had is an
//! error; nothing is dropped silently. A file system filter for the vmm worker is a later step.

#![expect(
    unsafe_code,
    reason = "leaving namespaces is an unsafe function in rustix"
)]

mod calls;

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetError,
};
use libc::c_uint;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use thiserror::Error;

use calls::Filters;

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
pub(super) fn drop_inherited() -> Result<(), NotConfined> {
    // It stays where it is only if `/` cannot be entered, which harms nobody.
    let _ = rustix::process::chdir("/");
    // SAFETY: nothing of this program has opened a descriptor before `init`, which is documented to
    // come first in `main`; what is open beyond the standard ones came from the parent and has no
    // owner here. Ignoring a signal touches no memory.
    let closed = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        close_range(3, c_uint::MAX)
    };
    closed.map_err(|source| NotConfined {
        control: "inherited descriptors",
        source,
    })
}

/// # Safety
/// Nothing in this process owns a descriptor from `first` to `last`.
unsafe fn close_range(first: c_uint, last: c_uint) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { libc::close_range(first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether this host lets a worker give up everything, tried in a process that is forked for it.
pub(crate) fn probe() -> io::Result<()> {
    // SAFETY: no descriptor has this number; it shows whether there is such a system call.
    unsafe { close_range(c_uint::MAX, c_uint::MAX) }?;
    let identity = Identity::present();
    let attempt = move || {
        enter_as(&identity).map_err(|refused| refused.source)?;
        // Enough is known: nothing is to be executed.
        Err(Errno::CANCELED.into())
    };
    let mut command = Command::new("/");
    // SAFETY: after the fork, `enter_as` makes system calls only: it allocates nothing and takes no
    // lock that another thread of the parent could have held.
    unsafe { command.pre_exec(attempt) };
    match command.status() {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::CANCELED) => Err(error),
        _ => Ok(()),
    }
}

/// Gives up everything. Call it while the process has one thread.
pub(super) fn enter() -> Result<(), NotConfined> {
    enter_as(&Identity::present())?;
    limit_calls(Filters::common())
}

/// As [`enter`], but for files instead of the network: none can be opened any more, made or removed. Call it while the process has one thread.
pub(super) fn enter_without_files() -> Result<(), NotConfined> {
    give_up_privileges()?;
    leave_files().map_err(|error| NotConfined {
        control: "all files (Landlock)",
        source: io::Error::other(error),
    })?;
    limit_calls(Filters::egress())
}

fn limit_calls(filters: io::Result<Filters>) -> Result<(), NotConfined> {
    let limited = filters.and_then(|filters| filters.apply());
    limited.map_err(|source| NotConfined {
        control: "system calls (seccomp)",
        source,
    })
}

/// Landlock with nothing that is allowed (`Documentation/userspace-api/landlock.rst`). Whatever kinds of access this kernel knows are denied; those
/// of its first version it has to know.
fn leave_files() -> Result<(), RulesetError> {
    let all = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?;
    all.create()?.restrict_self()?;
    Ok(())
}

fn enter_as(identity: &Identity) -> Result<(), NotConfined> {
    let control = |control| move |source: io::Error| NotConfined { control, source };
    leave_namespaces(identity).map_err(control("the network (unshare)"))?;
    give_up_privileges()
}

fn give_up_privileges() -> Result<(), NotConfined> {
    let control = |control| move |source: io::Error| NotConfined { control, source };
    limit_resources().map_err(control("core dumps (RLIMIT_CORE)"))?;
    drop_capabilities().map_err(control("its capabilities"))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|errno| control("new privileges (PR_SET_NO_NEW_PRIVS)")(errno.into()))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|errno| control("being traced (PR_SET_DUMPABLE)")(errno.into()))
}

/// The maps by which a process stays who it is in a user namespace.
struct Identity {
    users: String,
    groups: String,
}

impl Identity {
    fn present() -> Self {
        let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            users: format!("{user} {user} 1"),
            groups: format!("{group} {group} 1"),
        }
    }
}

fn leave_namespaces(identity: &Identity) -> io::Result<()> {
    let spaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if unshare(spaces).is_ok() {
        return Ok(());
    }
    // A plain user may do it inside a user namespace of its own, in which it stays who it is.
    unshare(spaces | UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", &identity.users)?;
    fs::write("/proc/self/gid_map", &identity.groups)
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
    use std::net::{SocketAddr, TcpStream, UdpSocket};
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn status(field: &str) -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .unwrap();
        line.trim().to_owned()
    }

    #[test]
    fn descriptors_that_stay_open_are_told() {
        // SAFETY: a range that ends before it begins holds no descriptor.
        let refused = unsafe { close_range(2, 1) }.unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::INVAL));
    }

    #[test]
    fn a_probe_changes_nothing_here() {
        let before = status("NoNewPrivs:");
        let space = || fs::read_link("/proc/thread-self/ns/net").unwrap();
        let here = space();
        probe().unwrap();
        assert_eq!((status("NoNewPrivs:"), space()), (before, here));
    }

    #[test]
    fn without_files_there_is_nothing_to_open() {
        // On a thread of its own: what a thread gives up the others keep.
        let opened = std::thread::spawn(|| {
            let before =
                fs::metadata("/proc/self/status").is_ok() && fs::File::open("/dev/null").is_ok();
            rustix::thread::set_no_new_privs(true).unwrap();
            leave_files().unwrap();
            let made = tempfile::tempfile().is_ok();
            (before, fs::File::open("/dev/null").is_ok(), made)
        });
        assert_eq!(opened.join().unwrap(), (true, false, false));
    }

    #[test]
    fn what_no_worker_asks_for_ends_it() {
        let filters = Filters::common().unwrap();
        let mut command = Command::new("true");
        let confine = move || {
            rustix::thread::set_no_new_privs(true)?;
            filters.apply()
        };
        // SAFETY: as in `probe`: the filters are there already.
        unsafe { command.pre_exec(confine) };
        let end = command.status().unwrap();
        assert_eq!(end.signal(), Some(libc::SIGSYS), "{end}");
    }

    /// What `attempt` gives, and what it gives where the common filters hold.
    fn before_and_within<R: Send + 'static>(attempt: impl Fn() -> R + Send + 'static) -> (R, R) {
        let before = attempt();
        // On a thread of its own: what a thread gives up the others keep.
        let within = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            limit_calls(Filters::common()).unwrap();
            attempt()
        });
        (before, within.join().unwrap())
    }

    #[test]
    fn no_worker_starts_a_process_and_each_starts_threads() {
        let (before, within) = before_and_within(|| {
            let thread = std::thread::spawn(|| 7).join().ok();
            let process = Command::new("true").status();
            (thread, process.map_err(|error| error.kind()).is_ok())
        });
        assert_eq!((before, within), ((Some(7), true), (Some(7), false)));
    }

    #[test]
    fn no_worker_signals_another_process() {
        let mut other = Command::new("sleep").arg("100").spawn().unwrap();
        let id = libc::pid_t::try_from(other.id()).unwrap();
        let own = libc::pid_t::try_from(std::process::id()).unwrap();
        let (before, within) = before_and_within(move || {
            [id, own].map(|process| {
                let thread = match process == own {
                    true => rustix::thread::gettid().as_raw_nonzero().get(),
                    false => process,
                };
                // SAFETY: no memory is involved, and the signal 0 is none.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) }
            })
        });
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!((before, within), ([0, 0], [-1, 0]));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn no_worker_has_calls_by_their_second_numbers() {
        let (before, within) = before_and_within(|| {
            // SAFETY: it takes no arguments, and a kernel that does not know the number does nothing.
            let asked = unsafe { libc::syscall(libc::SYS_getpid | 0x4000_0000) };
            (asked < 0).then(|| Errno::from_io_error(&io::Error::last_os_error()))
        });
        assert_ne!(before, Some(Some(Errno::PERM)));
        assert_eq!(within, Some(Some(Errno::PERM)));
    }

    /// A child can try it as any user: a process with other threads cannot enter a user namespace.
    #[test]
    fn a_confined_process_has_no_network_and_no_capability() {
        let identity = Identity::present();
        let no_network = || {
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
            let stream = TcpStream::connect(nowhere).err();
            let datagram = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"x", nowhere));
            stream.as_ref().and_then(Errno::from_io_error) == Some(Errno::NETUNREACH)
                && datagram.is_err()
        };
        let mut command = Command::new("cat");
        command.args(["/proc/self/status", "/proc/self/net/dev"]);
        let confine = move || {
            enter_as(&identity).map_err(|refused| refused.source)?;
            no_network().then_some(()).ok_or(Errno::EXIST.into())
        };
        // SAFETY: as in `probe`; addresses that are numbers need no allocation either.
        unsafe { command.pre_exec(confine) };
        let output = command.output().unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        let (status, interfaces) = shown.split_once("Inter-|").unwrap();
        for line in [
            "CapEff:\t0000000000000000",
            "CapPrm:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.contains(line), "{line}: {status}");
        }
        for line in interfaces.lines().skip(2) {
            assert!(line.trim_start().starts_with("lo:"), "{line}");
        }
    }
}
