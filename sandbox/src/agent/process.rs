//! A command that runs in the guest.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;

use super::client::Handle;
use super::error::AgentError;
use super::input::InputWriter;
use super::output::OutputReader;
use crate::protocol::{ExecRequest, ExitStatus, Id, Request, Stream, TerminalSize};

/// Most bytes of each stream that [`Process::output`] holds: 64 MiB.
pub const MAX_COLLECTED: u64 = 64 * 1024 * 1024;

const SIGKILL: i32 = 9;

/// How a process ended, or why that will never be known; nothing while it runs.
pub(super) type Status = Option<Result<ExitStatus, AgentError>>;

/// A process in the guest. Dropping it kills the process and every descendant, unless it was [detached](Self::detach).
#[derive(Debug)]
pub struct Process {
    /// Standard input, if the [`super::ExecSpec`] asked for it. Take it to write while something else reads; drop it for the end of file.
    pub stdin: Option<InputWriter>,
    /// Standard output, or everything from the terminal.
    pub stdout: Option<OutputReader>,
    /// Standard error; at its end from the start if there is a terminal.
    pub stderr: Option<OutputReader>,
    id: Id,
    pid: u32,
    status: watch::Receiver<Status>,
    handle: Handle,
    detached: bool,
}

/// All that a process wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the process exited with code 0.
    pub fn success(&self) -> bool {
        self.status == ExitStatus::Code(0)
    }
}

impl Process {
    /// The caller's ends of an exec that is about to be asked for. From here on a drop kills.
    pub(super) fn new(
        request: &ExecRequest,
        has_input: bool,
        handle: Handle,
        status: watch::Receiver<Status>,
    ) -> Self {
        let id = request.id;
        Self {
            stdin: has_input.then(|| InputWriter::new(id, handle.clone())),
            stdout: Some(OutputReader::new(id, Stream::Stdout, handle.clone())),
            stderr: Some(OutputReader::new(id, Stream::Stderr, handle.clone())),
            id,
            pid: 0,
            status,
            handle,
            detached: false,
        }
    }

    pub(super) fn set_pid(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// Its process id in the guest, as the guest tells it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end. All output has arrived by then, but may still be unread. Can be called again.
    ///
    /// Output that nobody reads delays the end once the window is full: read it, or drop the readers.
    pub async fn wait(&mut self) -> Result<ExitStatus, AgentError> {
        match self
            .status
            .wait_for(Option::is_some)
            .await
            .map(|status| (*status).clone())
        {
            Ok(Some(result)) => result,
            _ => Err(self.handle.gone()),
        }
    }

    /// Closes standard input, collects both streams and waits for the end. Fails with [`AgentError::TooLarge`], and kills the process,
    /// when a stream is longer than [`MAX_COLLECTED`].
    pub async fn output(mut self) -> Result<Output, AgentError> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = tokio::try_join!(collect(stdout), collect(stderr))?;
        Ok(Output {
            status: self.wait().await?,
            stdout,
            stderr,
        })
    }

    /// Sends a Linux signal (1 to 31) to its process group. `SIGKILL` reaches every descendant.
    pub async fn signal(&self, signal: i32) -> Result<(), AgentError> {
        if !(1..=31).contains(&signal) {
            return Err(AgentError::NoSuchSignal(signal));
        }
        self.handle
            .send(Request::Signal {
                id: self.id,
                signal,
            })
            .await
    }

    /// Kills it and every descendant; [`Self::wait`] then tells the end.
    pub async fn kill(&self) -> Result<(), AgentError> {
        self.signal(SIGKILL).await
    }

    /// Sets the size of its terminal. Without a terminal this does nothing.
    pub async fn resize(&self, size: TerminalSize) -> Result<(), AgentError> {
        self.handle
            .send(Request::Resize { id: self.id, size })
            .await
    }

    /// Lets it run on without its handle. What it writes is thrown away from now on.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.detached && self.status.borrow().is_none() {
            self.handle.post(Request::Signal {
                id: self.id,
                signal: SIGKILL,
            });
        }
    }
}

async fn collect(reader: Option<OutputReader>) -> Result<Vec<u8>, AgentError> {
    match reader {
        Some(reader) => read_all(reader, MAX_COLLECTED).await,
        None => Ok(Vec::new()),
    }
}

/// Reads to the end, but no more than `limit` bytes.
pub(super) async fn read_all(
    reader: impl AsyncRead + Unpin,
    limit: u64,
) -> Result<Vec<u8>, AgentError> {
    let mut bytes = Vec::new();
    let len = reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .await
        .map_err(agent_error)?;
    if u64::try_from(len).is_ok_and(|len| len > limit) {
        Err(AgentError::TooLarge { limit })
    } else {
        Ok(bytes)
    }
}

/// The agent's error that a reader carried in an I/O error.
fn agent_error(error: std::io::Error) -> AgentError {
    error
        .downcast::<AgentError>()
        .unwrap_or_else(AgentError::from)
}
