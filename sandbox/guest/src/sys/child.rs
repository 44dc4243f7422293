//! What a new process does between fork and exec.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

/// Numbers to run under.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) groups: Vec<Gid>,
}

/// The child's part of an exec.
#[derive(Debug)]
pub(crate) struct ChildSetup {
    /// Standard input is the slave side of a terminal; make it the controlling one.
    pub(crate) terminal: bool,
    /// `cgroup.procs` of the group to enter.
    pub(crate) cgroup: Option<File>,
    /// Who to become; whoever we are if absent.
    pub(crate) identity: Option<Identity>,
}

impl ChildSetup {
    /// Runs in the child: only plain system calls, nothing that allocates or locks.
    fn run(&self) -> Result<(), Errno> {
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some(procs) = &self.cgroup {
            rustix::io::write(procs, b"0")?;
        }
        self.identity.as_ref().map_or(Ok(()), Identity::take)
    }
}

impl Identity {
    fn take(&self) -> Result<(), Errno> {
        // Of the thread is of the process here: after fork there is only one. Groups first, while there is still the right to.
        rustix::thread::set_thread_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid)
    }
}

/// Makes the process a session of its own with what `setup` says, before it becomes the program.
pub(crate) fn prepare_child(command: &mut Command, setup: ChildSetup) {
    let hook = move || setup.run().map_err(Into::into);
    // SAFETY: the hook runs after fork in a child that may share locked state with threads that no longer exist. It calls
    // nothing but system calls through rustix, which neither allocate nor lock; an error is turned into an `io::Error` of
    // the errno kind, which does not allocate either.
    unsafe { command.pre_exec(hook) };
}
