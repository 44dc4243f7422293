//! From a request to a running process.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::cgroup::Cgroup;
use super::environment::Environment;
use super::users::Account;
use crate::protocol::{ExecFailure, ExecRequest, Octets, TerminalSize};
use crate::sys;

/// A process and our ends of its streams.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: Pid,
    /// Readable once the process has ended.
    pub(crate) pidfd: OwnedFd,
    pub(crate) ends: Ends,
}

/// Our ends, not blocking. With a terminal, input and output are two descriptors of its master side.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

/// Starts what `request` says; `defaults` is the environment below its own.
pub(crate) fn spawn(
    request: &ExecRequest,
    defaults: &[Octets],
    cgroup: Option<&Cgroup>,
) -> Result<Spawned, ExecFailure> {
    let account = account(request)?;
    let mut environment = Environment::of(&account, request.terminal.is_some());
    environment.overlay(defaults);
    environment.overlay(&request.environment.0);
    let directory = directory(request)?;
    let mut argv = request
        .argv
        .0
        .iter()
        .map(|Octets(arg)| OsStr::from_bytes(arg));
    let program = argv.next().ok_or(ExecFailure::NotFound)?;

    let mut command = Command::new(environment.find_program(program, &directory)?);
    command
        .arg0(program)
        .args(argv)
        .current_dir(directory)
        .env_clear()
        .envs(environment.iter());
    let ends = attach(&mut command, request, &account)
        .map_err(|errno| ExecFailure::Other(errno.raw_os_error()))?;
    sys::prepare_child(
        &mut command,
        sys::ChildSetup {
            terminal: request.terminal.is_some(),
            cgroup: cgroup.and_then(Cgroup::entrance),
            identity: request.user.as_ref().map(|_| identity(&account)),
        },
    );
    start(&mut command, ends)
}

fn start(command: &mut Command, ends: Ends) -> Result<Spawned, ExecFailure> {
    let child = command.spawn().map_err(|error| failure(&error))?;
    let pid = Pid::from_child(&child);
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
        // Unwatched it would be lost: better none at all. It is reaped with the orphans.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        ExecFailure::Other(errno.raw_os_error())
    })?;
    Ok(Spawned { pid, pidfd, ends })
}

fn failure(error: &std::io::Error) -> ExecFailure {
    let errno = error.raw_os_error().unwrap_or(libc::EINVAL);
    match errno {
        libc::ENOENT => ExecFailure::NotFound,
        libc::EACCES | libc::ENOEXEC => ExecFailure::NotExecutable,
        _ => ExecFailure::Other(errno),
    }
}

fn account(request: &ExecRequest) -> Result<Account, ExecFailure> {
    // A root file system without these files has no names, and needs none.
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let Some(user) = &request.user else {
        return Ok(Account::of_uid(
            rustix::process::geteuid().as_raw(),
            &passwd,
        ));
    };
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    Account::find(user, &passwd, &group).ok_or(ExecFailure::NoSuchUser)
}

fn identity(account: &Account) -> sys::Identity {
    sys::Identity {
        uid: Uid::from_raw(account.uid),
        gid: Gid::from_raw(account.gid),
        groups: account
            .groups
            .iter()
            .map(|gid| Gid::from_raw(*gid))
            .collect(),
    }
}

fn directory(request: &ExecRequest) -> Result<PathBuf, ExecFailure> {
    let Some(Octets(path)) = &request.directory else {
        return Ok("/".into());
    };
    let path = Path::new("/").join(OsStr::from_bytes(path));
    if path.is_dir() {
        Ok(path)
    } else {
        Err(ExecFailure::NoSuchDirectory)
    }
}

fn attach(command: &mut Command, request: &ExecRequest, account: &Account) -> Result<Ends, Errno> {
    match request.terminal {
        Some(size) => attach_terminal(command, size, account),
        None => attach_pipes(command, request.stdin),
    }
}

fn attach_pipes(command: &mut Command, stdin: bool) -> Result<Ends, Errno> {
    let mut ends = Ends::default();
    command.stdin(Stdio::null());
    if stdin {
        let (theirs, ours) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        command.stdin(theirs);
        ends.stdin = Some(not_blocking(ours)?);
    }
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    command.stdout(theirs);
    ends.stdout = Some(not_blocking(ours)?);
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    command.stderr(theirs);
    ends.stderr = Some(not_blocking(ours)?);
    Ok(ends)
}

fn attach_terminal(
    command: &mut Command,
    size: TerminalSize,
    account: &Account,
) -> Result<Ends, Errno> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags)?;
    rustix::pty::unlockpt(&master)?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    resize(master.as_fd(), size)?;
    // So that the user can open its own terminal by name. Without the right to do it, it is the user's already.
    let _ = rustix::fs::fchown(&slave, Some(Uid::from_raw(account.uid)), None);
    let copy = || {
        slave
            .try_clone()
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    command.stdin(copy()?).stdout(copy()?).stderr(slave);
    let master = not_blocking(master)?;
    let input = rustix::io::fcntl_dupfd_cloexec(&master, 0)?;
    Ok(Ends {
        stdin: Some(input),
        stdout: Some(master),
        stderr: None,
    })
}

/// Sets the size of the terminal whose master side is `master`.
pub(crate) fn resize(master: impl AsFd, size: TerminalSize) -> Result<(), Errno> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(master, size)
}

fn not_blocking(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// Turns wire bytes into a path.
pub(crate) fn path(Octets(bytes): &Octets) -> PathBuf {
    PathBuf::from(OsString::from(OsStr::from_bytes(bytes)))
}
