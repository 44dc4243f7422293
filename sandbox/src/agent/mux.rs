//! The task that owns the connection: requests out, events to whom they belong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::error::{AgentError, GuestFault};
use super::input::Outbox;
use super::output::Inbox;
use super::process::{Process, Status};
use crate::protocol::{
    BootFacts, Event, ExecFailure, ExitStatus, FrameDecoder, Id, MAX_EVENT, MAX_EXECS,
    MAX_TRANSFERS, Request, Stream, encode,
};

/// Encoded bytes that may wait for the connection before commands have to wait.
const HIGH_WATER: usize = 256 * 1024;

/// Processes and transfers that may wait for the guest at once, and pings. The guest refuses too many itself; this is
/// for one that lets them pile up.
const MAX_WAITING: usize = MAX_EXECS + MAX_TRANSFERS;

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, AgentError>>;

/// What the handles ask of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Send a request and note what is expected for it.
    Request {
        request: Request,
        expect: Expect,
        /// Held while the command is queued.
        slot: Option<OwnedSemaphorePermit>,
    },
    /// Grant the guest what was read of a stream.
    Grant(Id, Stream),
}

/// What the guest will answer.
#[derive(Debug)]
pub(super) enum Expect {
    Nothing,
    Ready(Answer<BootFacts>),
    Pong(u64, Answer<()>),
    Process(ProcessEnd),
    Read {
        inbox: Arc<Inbox>,
        result: Answer<()>,
    },
    Write {
        outbox: Arc<Outbox>,
        result: Answer<()>,
    },
}

impl Expect {
    pub(super) fn process(
        process: &Process,
        status: watch::Sender<Status>,
        started: Answer<u32>,
    ) -> Self {
        let inbox = |reader: &Option<super::OutputReader>| {
            reader
                .as_ref()
                .map(super::OutputReader::inbox)
                .unwrap_or_default()
        };
        Self::Process(ProcessEnd {
            started: Some(started),
            stdin: process
                .stdin
                .as_ref()
                .map(super::InputWriter::outbox)
                .unwrap_or_default(),
            stdout: inbox(&process.stdout),
            stderr: inbox(&process.stderr),
            status,
        })
    }

    /// The request never left, or the connection has ended.
    fn fail(self, error: &AgentError) {
        match self {
            Self::Nothing => {}
            // A caller that dropped its future needs no answer: here and below.
            Self::Ready(answer) => drop(answer.send(Err(error.clone()))),
            Self::Pong(_, answer) => drop(answer.send(Err(error.clone()))),
            Self::Process(process) => process.fail(error),
            Self::Read { inbox, result } => {
                inbox.end(Err(error.clone()));
                drop(result.send(Err(error.clone())));
            }
            Self::Write { outbox, result } => {
                outbox.close();
                drop(result.send(Err(error.clone())));
            }
        }
    }
}

/// The task's ends of a process.
#[derive(Debug)]
pub(super) struct ProcessEnd {
    started: Option<Answer<u32>>,
    stdin: Arc<Outbox>,
    stdout: Arc<Inbox>,
    stderr: Arc<Inbox>,
    status: watch::Sender<Status>,
}

impl ProcessEnd {
    fn fail(mut self, error: &AgentError) {
        if let Some(started) = self.started.take() {
            drop(started.send(Err(error.clone())));
        }
        self.finish(Err(error.clone()), Err(error.clone()));
    }

    fn exited(self, status: ExitStatus) {
        self.finish(Ok(()), Ok(status));
    }

    fn finish(self, streams: Result<(), AgentError>, status: Result<ExitStatus, AgentError>) {
        self.stdin.close();
        self.stdout.end(streams.clone());
        self.stderr.end(streams);
        self.status.send_replace(Some(status));
    }
}

/// What is under way with one guest.
#[derive(Debug, Default)]
pub(super) struct Mux {
    out: Vec<u8>,
    ready: Option<Answer<BootFacts>>,
    pings: BTreeMap<u64, Answer<()>>,
    /// Processes and file transfers by their id.
    live: BTreeMap<Id, Expect>,
    /// Streams that nobody reads, for which a grant may be due.
    owing: BTreeSet<(Id, Stream)>,
}

impl Mux {
    /// Runs until the connection ends, from whichever side; `ended` learns why before anybody can notice.
    pub(super) async fn run<S>(
        &mut self,
        stream: S,
        mut queue: mpsc::UnboundedReceiver<Command>,
        ended: impl FnOnce(&AgentError),
    ) -> AgentError
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let end = match self.exchange(stream, &mut queue).await {
            Ok(()) => AgentError::Gone(None),
            Err(error) => error,
        };
        ended(&end);
        queue.close();
        while let Ok(command) = queue.try_recv() {
            if let Command::Request { expect, .. } = command {
                expect.fail(&end);
            }
        }
        end
    }

    /// Tells everybody who still waits.
    pub(super) fn end(&mut self, why: &AgentError) {
        std::mem::take(&mut self.live)
            .into_values()
            .for_each(|expect| expect.fail(why));
        std::mem::take(&mut self.pings)
            .into_values()
            .for_each(|answer| drop(answer.send(Err(why.clone()))));
        if let Some(answer) = self.ready.take() {
            drop(answer.send(Err(why.clone())));
        }
    }

    async fn exchange<S>(
        &mut self,
        stream: S,
        queue: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), AgentError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut decoder = FrameDecoder::default();
        let mut buffer = vec![0; MAX_EVENT];
        let mut handles = true;
        while handles || !self.out.is_empty() {
            self.pay_debts()?;
            tokio::select! {
                read = reader.read(&mut buffer) => {
                    let input = buffer.get(..read?).unwrap_or_default();
                    if input.is_empty() {
                        return Ok(decoder.finish().map_err(GuestFault::from)?);
                    }
                    self.take(&mut decoder, input)?;
                }
                written = writer.write(&self.out), if !self.out.is_empty() => drop(self.out.drain(..written?)),
                command = queue.recv(), if handles && self.out.len() < HIGH_WATER => match command {
                    Some(Command::Request { request, expect, slot }) => self.request(request, expect, slot),
                    Some(Command::Grant(id, stream)) => self.grant(id, stream)?,
                    None => handles = false,
                },
            }
        }
        Ok(())
    }

    fn pay_debts(&mut self) -> Result<(), AgentError> {
        while self.out.len() < HIGH_WATER {
            let Some((id, stream)) = self.owing.pop_first() else {
                break;
            };
            self.grant(id, stream)?;
        }
        Ok(())
    }

    fn grant(&mut self, id: Id, stream: Stream) -> Result<(), AgentError> {
        // The stream may have ended since: then there is nothing to grant.
        let Some(bytes) = self.inbox(id, stream).ok().and_then(Inbox::take_grant) else {
            return Ok(());
        };
        encode(&Request::OutputCredit { id, stream, bytes }, &mut self.out)
            .map_err(AgentError::Request)
    }

    /// How many others wait where this one will.
    fn waiting(&self, expect: &Expect) -> usize {
        match expect {
            Expect::Nothing | Expect::Ready(_) => 0,
            Expect::Pong(..) => self.pings.len(),
            Expect::Process(_) | Expect::Read { .. } | Expect::Write { .. } => self.live.len(),
        }
    }

    fn request(&mut self, request: Request, expect: Expect, slot: Option<OwnedSemaphorePermit>) {
        if self.waiting(&expect) >= MAX_WAITING {
            return expect.fail(&AgentError::TooMany);
        }
        if let Err(error) = encode(&request, &mut self.out) {
            return expect.fail(&AgentError::Request(error));
        }
        drop(slot);
        match (request, expect) {
            (_, Expect::Nothing) => {}
            (_, Expect::Ready(answer)) => self.ready = Some(answer),
            (_, Expect::Pong(token, answer)) => drop(self.pings.insert(token, answer)),
            (Request::Exec(crate::protocol::ExecRequest { id, .. }), expect)
            | (Request::ReadFile { id, .. } | Request::WriteFile { id, .. }, expect) => {
                drop(self.live.insert(id, expect));
            }
            (_, expect) => expect.fail(&AgentError::Gone(None)),
        }
    }

    fn take(
        &mut self,
        decoder: &mut FrameDecoder<Event>,
        mut input: &[u8],
    ) -> Result<(), AgentError> {
        while let Some(event) = decoder.decode(&mut input).map_err(GuestFault::from)? {
            self.event(event)?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), AgentError> {
        match event {
            Event::Hello { .. } => return Err(GuestFault::Unasked("a second greeting").into()),
            Event::Ready(facts) => self.configured(Ok(facts))?,
            Event::ConfigureFailed(failure) => {
                self.configured(Err(AgentError::Configure(failure)))?;
            }
            Event::Started { id, pid } => self.started(id, pid)?,
            Event::ExecFailed { id, reason } => self.refused(id, reason)?,
            Event::Output { id, stream, bytes } => self.output(id, stream, &bytes.0)?,
            Event::OutputEnd { id, stream } => self.inbox(id, stream)?.end(Ok(())),
            Event::InputCredit { id, bytes } => {
                self.outbox(id)?.grant(bytes).map_err(GuestFault::from)?;
            }
            Event::InputClosed { id } => self.outbox(id)?.close(),
            Event::Exited { id, status } => self.running(id)?.exited(status),
            Event::TransferEnd { id, result } => self.transferred(id, result)?,
            Event::Pong { token } => self.pong(token)?,
        }
        Ok(())
    }

    fn configured(&mut self, result: Result<BootFacts, AgentError>) -> Result<(), GuestFault> {
        let answer = self
            .ready
            .take()
            .ok_or(GuestFault::Unasked("that it is configured"))?;
        drop(answer.send(result));
        Ok(())
    }

    fn pong(&mut self, token: u64) -> Result<(), GuestFault> {
        let answer = self
            .pings
            .remove(&token)
            .ok_or(GuestFault::Unasked("a pong"))?;
        drop(answer.send(Ok(())));
        Ok(())
    }

    fn started(&mut self, id: Id, pid: u32) -> Result<(), GuestFault> {
        let Some(Expect::Process(ProcessEnd { started, .. })) = self.live.get_mut(&id) else {
            return Err(GuestFault::UnknownId(id));
        };
        let answer = started
            .take()
            .ok_or(GuestFault::Unasked("a second start"))?;
        drop(answer.send(Ok(pid)));
        Ok(())
    }

    fn refused(&mut self, id: Id, reason: ExecFailure) -> Result<(), GuestFault> {
        match self.live.remove(&id) {
            Some(Expect::Process(
                process @ ProcessEnd {
                    started: Some(_), ..
                },
            )) => {
                process.fail(&AgentError::Refused(reason));
                Ok(())
            }
            _ => Err(GuestFault::UnknownId(id)),
        }
    }

    /// The process that has just ended; it must have been started.
    fn running(&mut self, id: Id) -> Result<ProcessEnd, GuestFault> {
        match self.live.remove(&id) {
            Some(Expect::Process(process @ ProcessEnd { started: None, .. })) => Ok(process),
            _ => Err(GuestFault::UnknownId(id)),
        }
    }

    fn output(&mut self, id: Id, stream: Stream, bytes: &[u8]) -> Result<(), AgentError> {
        if self
            .inbox(id, stream)?
            .push(bytes)
            .map_err(GuestFault::from)?
        {
            self.owing.insert((id, stream));
        }
        Ok(())
    }

    fn inbox(&self, id: Id, wanted: Stream) -> Result<&Inbox, GuestFault> {
        match (self.live.get(&id), wanted) {
            (
                Some(Expect::Process(ProcessEnd {
                    stdout,
                    started: None,
                    ..
                })),
                Stream::Stdout,
            ) => Ok(stdout),
            (
                Some(Expect::Process(ProcessEnd {
                    stderr,
                    started: None,
                    ..
                })),
                Stream::Stderr,
            ) => Ok(stderr),
            (Some(Expect::Read { inbox, .. }), Stream::Stdout) => Ok(inbox),
            _ => Err(GuestFault::UnknownId(id)),
        }
    }

    fn outbox(&self, id: Id) -> Result<&Outbox, GuestFault> {
        match self.live.get(&id) {
            Some(Expect::Process(ProcessEnd { stdin, .. })) => Ok(stdin),
            Some(Expect::Write { outbox, .. }) => Ok(outbox),
            _ => Err(GuestFault::UnknownId(id)),
        }
    }

    fn transferred(&mut self, id: Id, result: Result<u64, i32>) -> Result<(), GuestFault> {
        let outcome = result.map(drop).map_err(|errno| AgentError::File { errno });
        match self.live.remove(&id) {
            Some(Expect::Read { inbox, result }) => {
                inbox.end(outcome.clone());
                drop(result.send(outcome));
            }
            Some(Expect::Write { outbox, result }) => {
                outbox.close();
                drop(result.send(outcome));
            }
            _ => return Err(GuestFault::UnknownId(id)),
        }
        Ok(())
    }
}
