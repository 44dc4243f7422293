//! The loop, and what each request means.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::cgroup::Cgroup;
use super::exec::Exec;
use super::link::{Inbox, Incoming};
use super::poller::{Source, Token};
use super::spawn::spawn;
use super::transfer::{Reading, Writing};
use super::{Ending, Io, Machine, ServeError};
use crate::protocol::{
    Configure, Event, ExecFailure, ExecRequest, Id, MAX_EXECS, MAX_TRANSFERS, Octets, Request,
    Stream, VERSION,
};
use crate::sys;

/// How long killed processes may take to be gone at shutdown.
const KILL_GRACE: Duration = Duration::from_millis(500);

/// How far the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Greeting,
    Configuring,
    Serving,
}

/// A shutdown under way.
#[derive(Debug, Clone, Copy)]
enum Stopping {
    /// Everything got `SIGTERM` and may run until then.
    Asked(Instant),
    /// Everything got `SIGKILL`; what is not gone by then is left to the power switch.
    Killed(Instant),
}

impl Stopping {
    fn deadline(self) -> Instant {
        match self {
            Self::Asked(at) | Self::Killed(at) => at,
        }
    }
}

pub(super) struct Server<'m> {
    io: Io,
    inbox: Inbox,
    machine: &'m mut dyn Machine,
    phase: Phase,
    environment: Vec<Octets>,
    execs: BTreeMap<Id, Exec>,
    readings: BTreeMap<Id, Reading>,
    writings: BTreeMap<Id, Writing>,
    /// Groups of ended execs in which something still runs.
    remains: Vec<Cgroup>,
    stopping: Option<Stopping>,
}

/// What a wait ended for.
#[derive(Debug, Clone, Copy)]
struct Ready {
    requests: bool,
    streams: bool,
    children: bool,
}

impl<'m> Server<'m> {
    pub(super) fn new(io: Io, machine: &'m mut dyn Machine) -> Self {
        Self {
            io,
            inbox: Inbox::default(),
            machine,
            phase: Phase::Greeting,
            environment: Vec::new(),
            execs: BTreeMap::new(),
            readings: BTreeMap::new(),
            writings: BTreeMap::new(),
            remains: Vec::new(),
            stopping: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<Ending, ServeError> {
        loop {
            self.pump_readings()?;
            self.drain_ended()?;
            self.io.link.flush()?;
            if self.is_stopped() {
                return Ok(Ending::Shutdown);
            }
            let ready = self.wait()?;
            if ready.children {
                self.reap();
            }
            if ready.streams {
                self.serve_streams()?;
            }
            if ready.requests && !self.receive()? {
                return Ok(Ending::HostGone);
            }
        }
    }

    pub(super) fn kill_all(&self) {
        self.execs
            .values()
            .for_each(|exec| exec.signal(Signal::KILL));
    }

    fn wait(&self) -> Result<Ready, ServeError> {
        let room = self.io.link.has_room();
        let mut wanted = if room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        wanted.set(PollFlags::OUT, !self.io.link.is_flushed());
        let streams = if room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![
            PollFd::new(&self.io.link, wanted),
            PollFd::new(&self.io.poller, streams),
        ];
        let children = self.machine.child_events();
        fds.extend(children.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        match rustix::event::poll(&mut fds, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(ServeError::System(errno)),
        }
        let is_ready = |at: usize| {
            fds.get(at)
                .is_some_and(|fd| !(fd.revents() - PollFlags::OUT).is_empty())
        };
        Ok(Ready {
            requests: is_ready(0),
            streams: is_ready(1),
            children: is_ready(2),
        })
    }

    fn timeout(&self) -> Option<Timespec> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let can_move = self.readings.values().any(Reading::can_move)
            || self.execs.values().any(Exec::can_drain);
        if self.io.link.has_room() && can_move {
            return Some(now);
        }
        let left = self
            .stopping?
            .deadline()
            .saturating_duration_since(Instant::now());
        Some(Timespec::try_from(left).unwrap_or(now))
    }

    // ---- processes ----

    /// Reaps every child that has ended, ours and those that lost their parent.
    fn reap(&mut self) {
        if let Some(fd) = self.machine.child_events() {
            // Only a wake-up: the count in it is of no interest.
            let _ = rustix::io::read(fd, &mut [0; 8]);
        }
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ended = self.execs.values_mut().find(|exec| exec.runs_as(pid));
            if let Some(exec) = ended {
                exec.ended(status, &self.io);
            }
        }
        self.remains.retain(|cgroup| !cgroup.remove());
    }

    /// Finishes what has ended. No event says that an output is empty while a background process holds it open, so this
    /// looks each time.
    fn drain_ended(&mut self) -> Result<(), ServeError> {
        let ended = self.execs.values().filter(|exec| exec.has_ended());
        let ended: Vec<_> = ended.map(Exec::id).collect();
        for id in ended {
            if let Some(exec) = self.execs.get_mut(&id) {
                exec.drain(&mut self.io)?;
            }
            self.report_if_complete(id)?;
        }
        Ok(())
    }

    fn report_if_complete(&mut self, id: Id) -> Result<(), ServeError> {
        let Entry::Occupied(entry) = self.execs.entry(id) else {
            return Ok(());
        };
        let Some(status) = entry.get().complete() else {
            return Ok(());
        };
        self.remains.extend(entry.remove().into_remains());
        self.io.link.send(&Event::Exited { id, status })
    }

    fn serve_streams(&mut self) -> Result<(), ServeError> {
        if !self.io.link.has_room() {
            return Ok(());
        }
        // All of the batch, even if the link fills: a change that is not looked at now is not reported again.
        let ready = self.io.poller.ready().map_err(ServeError::System)?;
        ready
            .into_iter()
            .try_for_each(|token| self.serve_stream(token))
    }

    fn serve_stream(&mut self, token: Token) -> Result<(), ServeError> {
        let Some(exec) = self.execs.get_mut(&token.id) else {
            return Ok(());
        };
        match token.source {
            Source::Stdin => exec.stdin().flush(&mut self.io)?,
            Source::Stdout => drop(exec.output(Stream::Stdout).pump(&mut self.io)?),
            Source::Stderr => drop(exec.output(Stream::Stderr).pump(&mut self.io)?),
            Source::Process => {
                if let Some(status) = wait_for(exec.pid()) {
                    exec.ended(status, &self.io);
                }
            }
        }
        Ok(())
    }

    // ---- requests ----

    /// Reads once and carries out what came; `false` once the host is gone.
    fn receive(&mut self) -> Result<bool, ServeError> {
        match self.inbox.fill(&self.io.link)? {
            Incoming::End => return Ok(false),
            Incoming::Nothing => return Ok(true),
            Incoming::Bytes => {}
        }
        while let Some(request) = self.inbox.next()? {
            self.handle(request)?;
        }
        Ok(true)
    }

    fn handle(&mut self, request: Request) -> Result<(), ServeError> {
        match (self.phase, request) {
            (Phase::Greeting, Request::Hello { version }) => self.greet(version),
            (Phase::Greeting, _) => Err(ServeError::Request("the first request must be hello")),
            (_, Request::Hello { .. }) => Err(ServeError::Request("a second hello")),
            (_, Request::Ping { token }) => self.io.link.send(&Event::Pong { token }),
            (_, Request::Shutdown { grace_ms }) => self.shut_down(grace_ms),
            (Phase::Configuring, Request::Configure(wanted)) => self.configure(wanted),
            (Phase::Configuring, _) => Err(ServeError::Request(
                "configure must come before the first exec",
            )),
            (Phase::Serving, request) => self.work(request),
        }
    }

    fn greet(&mut self, version: u32) -> Result<(), ServeError> {
        self.io.link.send(&Event::Hello { version: VERSION })?;
        if version != VERSION {
            self.io.link.flush()?;
            return Err(ServeError::Version(version));
        }
        self.phase = Phase::Configuring;
        Ok(())
    }

    fn configure(&mut self, wanted: Configure) -> Result<(), ServeError> {
        match self.machine.configure(&wanted) {
            Ok(facts) => {
                self.phase = Phase::Serving;
                self.environment = wanted.environment.0;
                self.io.link.send(&Event::Ready(facts))
            }
            Err(failure) => self.io.link.send(&Event::ConfigureFailed(failure)),
        }
    }

    fn work(&mut self, request: Request) -> Result<(), ServeError> {
        match request {
            Request::Exec(request) => self.exec(&request),
            Request::Input { id, bytes } => self.input(id, &bytes.0),
            Request::InputEnd { id } => self.input_end(id),
            Request::OutputCredit { id, stream, bytes } => self.grant(id, stream, bytes),
            Request::Resize { id, size } => self.with_exec(id, |exec| exec.resize(size)),
            Request::Signal { id, signal } => self.signal(id, signal),
            Request::ReadFile {
                id,
                path,
                offset,
                limit,
            } => self.read_file(id, &path, offset, limit),
            Request::WriteFile { id, path, mode } => self.write_file(id, &path, mode),
            Request::Cancel { id } => self.cancel(id),
            Request::Configure(_) => Err(ServeError::Request("a second configure")),
            // Answered in every phase, before this.
            Request::Hello { .. } | Request::Ping { .. } | Request::Shutdown { .. } => Ok(()),
        }
    }

    fn exec(&mut self, request: &ExecRequest) -> Result<(), ServeError> {
        let id = self.unused(request.id)?;
        let cgroup = self
            .machine
            .cgroups()
            .and_then(|root| Cgroup::create(root, id));
        let spawned = match self.execs.len() {
            MAX_EXECS.. => Err(ExecFailure::TooMany),
            _ => spawn(request, &self.environment, cgroup.as_ref()),
        };
        match spawned {
            Ok(spawned) => {
                let exec = self
                    .execs
                    .entry(id)
                    .or_insert(Exec::new(request, spawned, cgroup));
                exec.start(&mut self.io)
            }
            Err(reason) => {
                self.remains
                    .extend(cgroup.filter(|cgroup| !cgroup.remove()));
                self.io.link.send(&Event::ExecFailed { id, reason })
            }
        }
    }

    fn unused(&self, id: Id) -> Result<Id, ServeError> {
        let used = self.execs.contains_key(&id)
            || self.readings.contains_key(&id)
            || self.writings.contains_key(&id);
        if used {
            Err(ServeError::Request("an id that is in use"))
        } else {
            Ok(id)
        }
    }

    fn with_exec(&self, id: Id, act: impl FnOnce(&Exec)) -> Result<(), ServeError> {
        // An exec that is not there has just ended: its `Exited` and the request crossed.
        self.execs.get(&id).map(act).unwrap_or_default();
        Ok(())
    }

    fn signal(&self, id: Id, signal: i32) -> Result<(), ServeError> {
        let signal = Signal::from_named_raw(signal)
            .ok_or(ServeError::Request("a signal that does not exist"))?;
        self.with_exec(id, |exec| exec.signal(signal))
    }

    fn input(&mut self, id: Id, bytes: &[u8]) -> Result<(), ServeError> {
        if let Some(exec) = self.execs.get_mut(&id) {
            return exec.stdin().receive(bytes, &mut self.io);
        }
        let Some(writing) = self.writings.get_mut(&id) else {
            return Ok(());
        };
        match writing.receive(bytes)? {
            Ok(Some(bytes)) => self.io.link.send(&Event::InputCredit { id, bytes }),
            Ok(None) => Ok(()),
            Err(errno) => self.end_transfer(id, Err(errno)),
        }
    }

    fn input_end(&mut self, id: Id) -> Result<(), ServeError> {
        if let Some(exec) = self.execs.get_mut(&id) {
            return exec.stdin().end(&mut self.io);
        }
        let Some(writing) = self.writings.get(&id) else {
            return Ok(());
        };
        self.end_transfer(id, Ok(writing.moved()))
    }

    fn grant(&mut self, id: Id, stream: Stream, bytes: u32) -> Result<(), ServeError> {
        if let Some(exec) = self.execs.get_mut(&id) {
            return exec.output(stream).grant(bytes, &mut self.io);
        }
        self.readings
            .get_mut(&id)
            .map_or(Ok(()), |reading| reading.grant(bytes))
    }

    // ---- files ----

    fn read_file(
        &mut self,
        id: Id,
        path: &Octets,
        offset: u64,
        limit: u64,
    ) -> Result<(), ServeError> {
        let id = self.unused(id)?;
        match self
            .transfer_slot()
            .and_then(|()| Reading::open(id, path, offset, limit))
        {
            Ok(reading) => {
                self.readings.insert(id, reading);
                Ok(())
            }
            Err(errno) => self.end_transfer(id, Err(errno.raw_os_error())),
        }
    }

    fn write_file(&mut self, id: Id, path: &Octets, mode: u32) -> Result<(), ServeError> {
        let id = self.unused(id)?;
        match self
            .transfer_slot()
            .and_then(|()| Writing::open(path, mode))
        {
            Ok(writing) => {
                self.writings.insert(id, writing);
                Ok(())
            }
            Err(errno) => self.end_transfer(id, Err(errno.raw_os_error())),
        }
    }

    fn transfer_slot(&self) -> Result<(), Errno> {
        let transfers = self.readings.len() + self.writings.len();
        if transfers < MAX_TRANSFERS {
            Ok(())
        } else {
            Err(Errno::MFILE)
        }
    }

    fn cancel(&mut self, id: Id) -> Result<(), ServeError> {
        if !self.readings.contains_key(&id) && !self.writings.contains_key(&id) {
            return Ok(());
        }
        self.end_transfer(id, Err(libc::ECANCELED))
    }

    fn end_transfer(&mut self, id: Id, result: Result<u64, i32>) -> Result<(), ServeError> {
        self.readings.remove(&id);
        self.writings.remove(&id);
        self.io.link.send(&Event::TransferEnd { id, result })
    }

    /// One piece of each file that may move: execs get their turn in between.
    fn pump_readings(&mut self) -> Result<(), ServeError> {
        let mut ended = Vec::new();
        for (id, reading) in &mut self.readings {
            if self.io.link.has_room() {
                ended.extend(reading.pump(&mut self.io)?.map(|result| (*id, result)));
            }
        }
        ended
            .into_iter()
            .try_for_each(|(id, result)| self.end_transfer(id, result))
    }

    // ---- the end ----

    fn shut_down(&mut self, grace_ms: u32) -> Result<(), ServeError> {
        let deadline = Instant::now() + Duration::from_millis(grace_ms.into());
        self.stopping.get_or_insert(Stopping::Asked(deadline));
        self.signal_everything(Signal::TERM);
        // A stopped process acts on the request only once it goes on.
        self.signal_everything(Signal::CONT);
        Ok(())
    }

    fn signal_everything(&self, signal: Signal) {
        if self.machine.child_events().is_some() {
            sys::signal_everything(signal);
        }
        self.execs.values().for_each(|exec| exec.signal(signal));
    }

    /// Whether a shutdown has run its course; kills what is left when its time is over.
    fn is_stopped(&mut self) -> bool {
        let Some(stopping) = self.stopping else {
            return false;
        };
        if self.execs.is_empty() && self.io.link.is_flushed() && !self.has_children() {
            return true;
        }
        if Instant::now() < stopping.deadline() {
            return false;
        }
        match stopping {
            Stopping::Killed(_) => true,
            Stopping::Asked(_) => {
                self.signal_everything(Signal::KILL);
                self.stopping = Some(Stopping::Killed(Instant::now() + KILL_GRACE));
                false
            }
        }
    }

    fn has_children(&self) -> bool {
        let peek = rustix::process::WaitIdOptions::EXITED
            | rustix::process::WaitIdOptions::NOHANG
            | rustix::process::WaitIdOptions::NOWAIT;
        self.machine.child_events().is_some()
            && rustix::process::waitid(rustix::process::WaitId::All, peek).is_ok()
    }
}

/// The status of this child if it has ended and was not reaped with the others already.
fn wait_for(pid: Pid) -> Option<WaitStatus> {
    let reaped = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)
        .ok()
        .flatten();
    reaped.map(|(_, status)| status)
}
