//! The handle through which the application talks to the guest program.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::error::{AgentError, GuestFault};
use super::input::InputWriter;
use super::mux::{Command, Expect, Mux};
use super::output::OutputReader;
use super::process::{Process, read_all};
use super::spec::ExecSpec;
use crate::protocol::{
    BootFacts, Configure, Event, FrameDecoder, Id, MAX_EVENT, Request, Stream, VERSION, encode,
};

/// Requests that may wait for the connection at once, beside those that credit windows or the number of processes bound.
const MAX_QUEUED: usize = 256;

/// What every part of the client needs to reach the connection's task.
#[derive(Debug, Clone)]
pub(super) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    next_id: AtomicU32,
    next_ping: AtomicU64,
    /// Why the connection ended.
    end: OnceLock<AgentError>,
    /// Bounds the queue of commands.
    slots: Arc<Semaphore>,
}

impl Handle {
    /// Queues a request that something else bounds: a credit window, or that a handle is dropped only once. Never
    /// waits. A connection that is gone needs no message.
    pub(super) fn post(&self, request: Request) {
        let _ = self.commands.send(Command::Request {
            request,
            expect: Expect::Nothing,
            slot: None,
        });
    }

    /// Has credit granted for a stream; at most one of these is queued for each.
    pub(super) fn post_grant(&self, id: Id, stream: Stream) {
        let _ = self.commands.send(Command::Grant(id, stream));
    }

    /// Queues a request once there is room.
    pub(super) async fn send(&self, request: Request) -> Result<(), AgentError> {
        self.ask(request, Expect::Nothing).await
    }

    async fn ask(&self, request: Request, expect: Expect) -> Result<(), AgentError> {
        let slot = Some(self.slot().await?);
        self.commands
            .send(Command::Request {
                request,
                expect,
                slot,
            })
            .map_err(|_| self.gone())
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, AgentError> {
        Arc::clone(&self.shared.slots)
            .acquire_owned()
            .await
            .map_err(|_| self.gone())
    }

    async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, AgentError>>,
    ) -> Result<T, AgentError> {
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why nothing can be asked any more.
    pub(super) fn gone(&self) -> AgentError {
        self.shared
            .end
            .get()
            .cloned()
            .unwrap_or(AgentError::Gone(None))
    }

    fn next_id(&self) -> Id {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }
}

/// The client of the program that is PID 1 in the guest. Clones share one connection, which ends with the last
/// clone and the last [`Process`]; the guest then powers off.
#[derive(Debug, Clone)]
pub struct AgentClient {
    handle: Handle,
}

impl AgentClient {
    /// Greets the guest program over `stream`, which must not hold written bytes back, and starts the task that owns it.
    /// Must be called within a tokio runtime. Waits as long as the guest does: put a time limit around it.
    pub async fn connect<S>(mut stream: S) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        greet(&mut stream).await?;
        let (commands, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            next_id: AtomicU32::new(1),
            next_ping: AtomicU64::new(1),
            end: OnceLock::new(),
            slots: Arc::new(Semaphore::new(MAX_QUEUED)),
        });
        tokio::spawn(own(stream, queue, Arc::clone(&shared)));
        Ok(Self {
            handle: Handle { commands, shared },
        })
    }

    /// Sets the machine up: once, before the first command.
    pub async fn configure(&self, configuration: Configure) -> Result<BootFacts, AgentError> {
        let (answer, facts) = oneshot::channel();
        self.handle
            .ask(Request::Configure(configuration), Expect::Ready(answer))
            .await?;
        self.handle.answer(facts).await
    }

    /// Starts a command. A future that is dropped before it is done leaves no process behind.
    pub async fn exec(&self, spec: ExecSpec) -> Result<Process, AgentError> {
        let has_input = spec.has_input();
        let request = spec.into_request(self.handle.next_id());
        let (status_sender, status) = watch::channel(None);
        let mut process = Process::new(&request, has_input, self.handle.clone(), status);
        let (started, pid) = oneshot::channel();
        let expect = Expect::process(&process, status_sender, started);
        self.handle.ask(Request::Exec(request), expect).await?;
        process.set_pid(self.handle.answer(pid).await?);
        Ok(process)
    }

    /// Reads a regular file of the guest from `offset` to its end; fails with [`AgentError::TooLarge`] if that is more than `limit` bytes.
    pub async fn read_file(
        &self,
        path: &[u8],
        offset: u64,
        limit: u64,
    ) -> Result<Vec<u8>, AgentError> {
        let id = self.handle.next_id();
        let (result, transferred) = oneshot::channel();
        let reader = OutputReader::new(id, Stream::Stdout, self.handle.clone());
        let mut transfer = Transfer {
            id,
            handle: &self.handle,
            over: false,
        };
        let request = Request::ReadFile {
            id,
            path: path.into(),
            offset,
            limit: limit.saturating_add(1),
        };
        self.handle
            .ask(
                request,
                Expect::Read {
                    inbox: reader.inbox(),
                    result,
                },
            )
            .await?;
        let bytes = read_all(reader, limit).await?;
        transfer.end(transferred).await?;
        Ok(bytes)
    }

    /// Creates or replaces a regular file of the guest. `mode` has its permission bits if it is new, less the guest's umask.
    /// Not atomic: a failure can leave a part behind.
    pub async fn write_file(
        &self,
        path: &[u8],
        mode: u32,
        contents: &[u8],
    ) -> Result<(), AgentError> {
        let id = self.handle.next_id();
        let (result, transferred) = oneshot::channel();
        let mut writer = InputWriter::new(id, self.handle.clone());
        let mut transfer = Transfer {
            id,
            handle: &self.handle,
            over: false,
        };
        let expect = Expect::Write {
            outbox: writer.outbox(),
            result,
        };
        self.handle
            .ask(
                Request::WriteFile {
                    id,
                    path: path.into(),
                    mode,
                },
                expect,
            )
            .await?;
        // A refused write closes the writer; the reason then comes as the result.
        if writer.write_all(contents).await.is_ok() {
            writer.shutdown().await?;
        }
        transfer.end(transferred).await
    }

    /// Asks whether the guest program answers.
    pub async fn ping(&self) -> Result<(), AgentError> {
        let token = self.handle.shared.next_ping.fetch_add(1, Ordering::Relaxed);
        let (answer, pong) = oneshot::channel();
        self.handle
            .ask(Request::Ping { token }, Expect::Pong(token, answer))
            .await?;
        self.handle.answer(pong).await
    }

    /// Ends all processes, giving them `grace` after `SIGTERM`, and powers the machine off. Done when the connection has ended.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), AgentError> {
        let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        self.handle.send(Request::Shutdown { grace_ms }).await?;
        self.handle.commands.closed().await;
        match self.handle.gone() {
            AgentError::Gone(_) => Ok(()),
            error => Err(error),
        }
    }
}

/// A file transfer that is given up when its future is dropped.
struct Transfer<'a> {
    id: Id,
    handle: &'a Handle,
    over: bool,
}

impl Transfer<'_> {
    async fn end(
        &mut self,
        result: oneshot::Receiver<Result<(), AgentError>>,
    ) -> Result<(), AgentError> {
        let result = self.handle.answer(result).await;
        self.over = true;
        result
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.handle.post(Request::Cancel { id: self.id });
        }
    }
}

async fn own<S>(stream: S, queue: mpsc::UnboundedReceiver<Command>, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut mux = Mux::default();
    let end = mux
        .run(stream, queue, |end| drop(shared.end.set(end.clone())))
        .await;
    shared.slots.close();
    mux.end(&end);
}

async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), AgentError> {
    let mut hello = Vec::new();
    encode(&Request::Hello { version: VERSION }, &mut hello).map_err(AgentError::Request)?;
    stream.write_all(&hello).await?;
    match first_event(stream).await? {
        Event::Hello { version: VERSION } => Ok(()),
        Event::Hello { version } => Err(AgentError::Version {
            host: VERSION,
            guest: version,
        }),
        _ => Err(GuestFault::Unasked("something before its greeting").into()),
    }
}

async fn first_event(stream: &mut (impl AsyncRead + Unpin)) -> Result<Event, AgentError> {
    let mut decoder = FrameDecoder::<Event>::default();
    let mut buffer = vec![0; MAX_EVENT];
    loop {
        let len = stream.read(&mut buffer).await?;
        let mut input = buffer
            .get(..len)
            .filter(|input| !input.is_empty())
            .ok_or(AgentError::Gone(None))?;
        match decoder.decode(&mut input).map_err(GuestFault::from)? {
            Some(event) if input.is_empty() => return Ok(event),
            Some(_) => return Err(GuestFault::Unasked("something after its greeting").into()),
            None => {}
        }
    }
}
