//! One exec: a process, its streams, its end.

use rustix::process::{Pid, Signal, WaitStatus};

use super::cgroup::Cgroup;
use super::poller::{Source, Trigger};
use super::spawn::{Spawned, resize};
use super::stream::{InputPipe, OutputPipe};
use super::{Io, ServeError};
use crate::protocol::{Event, ExecRequest, ExitStatus, Id, Stream, TerminalSize};

#[derive(Debug)]
pub(crate) struct Exec {
    id: Id,
    pid: Pid,
    pidfd: std::os::fd::OwnedFd,
    terminal: bool,
    stdin: InputPipe,
    stdout: OutputPipe,
    stderr: OutputPipe,
    cgroup: Option<Cgroup>,
    status: Option<ExitStatus>,
}

impl Exec {
    pub(crate) fn new(request: &ExecRequest, spawned: Spawned, cgroup: Option<Cgroup>) -> Self {
        let (id, terminal, ends) = (request.id, request.terminal.is_some(), spawned.ends);
        Self {
            id,
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            terminal,
            stdin: InputPipe::new(id, ends.stdin, terminal),
            stdout: OutputPipe::new(id, Stream::Stdout, ends.stdout),
            stderr: OutputPipe::new(id, Stream::Stderr, ends.stderr),
            cgroup,
            status: None,
        }
    }

    /// Tells the host and begins to watch.
    pub(crate) fn start(&mut self, io: &mut Io) -> Result<(), ServeError> {
        let pid = self.pid.as_raw_nonzero().get().unsigned_abs();
        io.link.send(&Event::Started { id: self.id, pid })?;
        let token = super::poller::Token {
            id: self.id,
            source: Source::Process,
        };
        io.poller
            .watch(std::os::fd::AsFd::as_fd(&self.pidfd), token, Trigger::Ready)
            .map_err(ServeError::System)?;
        self.stdout.start(io)?;
        self.stderr.start(io)
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether `pid` is its process. Once that is reaped the number may be another's, however long the output still waits.
    pub(crate) fn runs_as(&self, pid: Pid) -> bool {
        self.status.is_none() && self.pid == pid
    }

    pub(crate) fn stdin(&mut self) -> &mut InputPipe {
        &mut self.stdin
    }

    pub(crate) fn output(&mut self, stream: Stream) -> &mut OutputPipe {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(crate) fn resize(&self, size: TerminalSize) {
        if let Some(master) = self.stdout.terminal().filter(|_| self.terminal) {
            // Only a terminal that is being torn down refuses, and then its size is of no interest.
            let _ = resize(master, size);
        }
    }

    /// Signals the process group; a kill reaches every descendant.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // It may have ended a moment ago: then there is nobody to tell.
            let _ = rustix::process::kill_process_group(self.pid, signal);
        }
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| signal == Signal::KILL) {
            cgroup.kill();
        }
    }

    /// The process was reaped.
    pub(crate) fn ended(&mut self, status: WaitStatus, io: &Io) {
        io.poller.unwatch(std::os::fd::AsFd::as_fd(&self.pidfd));
        self.status = Some(exit_status(status));
        self.stdin.close(io);
        self.stdout.process_ended(self.terminal);
        self.stderr.process_ended(self.terminal);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Whether [`drain`](Self::drain) would get on if the link had room.
    pub(crate) fn can_drain(&self) -> bool {
        self.stdout.can_drain() || self.stderr.can_drain()
    }

    /// Moves what the ended process left in its outputs.
    pub(crate) fn drain(&mut self, io: &mut Io) -> Result<(), ServeError> {
        self.stdout.drain(io)?;
        self.stderr.drain(io)
    }

    /// How it ended, once that and every byte of its output is known.
    pub(crate) fn complete(&self) -> Option<ExitStatus> {
        self.status
            .filter(|_| self.stdout.is_ended() && self.stderr.is_ended())
    }

    /// What is left to clean up: the group, if something of the exec lives on in it.
    pub(crate) fn into_remains(self) -> Option<Cgroup> {
        self.cgroup.filter(|cgroup| !cgroup.remove())
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    match status.terminating_signal() {
        Some(signal) => ExitStatus::Signal(signal),
        None => ExitStatus::Code(status.exit_status().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::process::{WaitOptions, waitpid};

    use super::super::spawn::spawn;
    use super::*;

    #[test]
    fn a_reaped_process_gives_up_its_number() {
        let (_host, connection) = UnixStream::pair().unwrap();
        let io = Io::new(connection.into()).unwrap();
        let request = ExecRequest {
            argv: ["true"].into_iter().collect(),
            ..ExecRequest::default()
        };
        let mut exec = Exec::new(&request, spawn(&request, &[], None).unwrap(), None);
        let pid = exec.pid();
        assert!(exec.runs_as(pid) && !exec.runs_as(rustix::process::getpid()));
        let (_, status) = waitpid(Some(pid), WaitOptions::empty()).unwrap().unwrap();
        exec.ended(status, &io);
        assert!(
            !exec.runs_as(pid),
            "another process of that number is not taken for it"
        );
    }
}
