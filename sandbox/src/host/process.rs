//! The worker process as the host program sees it.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use bytes::BytesMut;
use serde::Serialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinHandle;

use super::{budget, transfer};
use crate::control::{self, MalformedMessage, Order, Report};
use crate::error::{Error, Result};
use crate::text::printable;
use crate::worker::{WORKER_VARIABLE, WorkerKind};

/// How much of a worker's last words is kept.
const LAST_WORDS: usize = 4096;

/// A worker that was started. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct WorkerProcess {
    child: Child,
    reports: OwnedReadHalf,
    /// Until it is taken. When it goes the worker ends.
    orders: Option<OwnedWriteHalf>,
    leash: Option<UnixStream>,
    received: BytesMut,
    /// What its guest may use, in bytes.
    memory: u64,
}

impl WorkerProcess {
    /// Starts `program` (the present one when `None`) as the worker that carries out `plan`. Its command line says how much `memory` its guest
    /// may use, in bytes.
    pub(crate) fn spawn(
        program: Option<&Path>,
        kind: WorkerKind,
        plan: &impl Serialize,
        files: &[OwnedFd],
        memory: u64,
    ) -> Result<Self> {
        let name = kind.name();
        let failed = |what: &'static str| {
            move |source: io::Error| Error::Host {
                what: format!("cannot {what} the {name} worker"),
                source,
            }
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair for"))?;
        let program = program.unwrap_or(Path::new("/proc/self/exe"));
        // A mere name would be searched for in `PATH`, where it was not checked.
        let program = std::path::absolute(program).map_err(failed("start"))?;
        let child = Command::new(program)
            .arg0(format!("cofferdam-{name}"))
            .args((kind == WorkerKind::Vmm).then(|| budget::argument(memory)))
            .env_clear()
            .env(WORKER_VARIABLE, name)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A group of its own: Ctrl-C at a terminal is for the host program to act on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("start"))?;
        transfer::send_plan(&ours, plan, files).map_err(failed("hand its plan to"))?;
        ours.set_nonblocking(true).map_err(failed("follow"))?;
        let leash = ours.try_clone().map_err(failed("follow"))?;
        let control = tokio::net::UnixStream::from_std(ours).map_err(failed("follow"))?;
        let (reports, orders) = control.into_split();
        Ok(Self {
            child,
            reports,
            orders: Some(orders),
            leash: Some(leash),
            received: BytesMut::new(),
            memory,
        })
    }

    /// The end of the channel whose shutdown ends the worker, without the help of a runtime.
    pub(crate) fn take_leash(&mut self) -> Option<UnixStream> {
        self.leash.take()
    }

    /// Whether this host has room for its guest. Ask when the worker has reported for the first
    /// time: by then the workers that are older can be told by their command lines.
    pub(crate) fn room(&self) -> Result<(), String> {
        let Some(id) = self.child.id() else {
            return Ok(());
        };
        budget::room_for(id).map_err(|left| {
            let (memory, left) = (self.memory >> 20, left >> 20);
            format!(
                "{memory} MiB of memory: the sandboxes that run leave {left} MiB; stop one or ask for less"
            )
        })
    }

    /// The next report; `None` when the worker has closed the channel. Cancel-safe.
    pub(crate) async fn report(&mut self) -> Option<Result<Report, MalformedMessage>> {
        loop {
            match control::decode(&mut self.received) {
                Ok(None) => {}
                Ok(Some(report)) => return Some(Ok(report)),
                Err(error) => return Some(Err(error)),
            }
            match self.reports.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Where the worker takes orders from, `most` of which may wait until it does. When that goes the worker ends.
    pub(crate) fn take_orders(&mut self, most: usize) -> Option<Orders> {
        self.orders.take().map(|worker| Orders::new(worker, most))
    }

    /// Ends the process at once.
    pub(crate) fn kill(&mut self) {
        // It fails only when the process has ended already.
        drop(self.child.start_kill());
    }

    /// Waits for the process to end and says how it did.
    pub(crate) async fn wait(&mut self) -> LastWords {
        let mut words = Vec::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let mut limited = stderr.take(LAST_WORDS as u64);
            // What could be read is all there is to tell.
            drop(limited.read_to_end(&mut words).await);
        }
        LastWords {
            status: self.child.wait().await,
            words: printable(String::from_utf8_lossy(&words).trim()),
        }
    }

    /// The process, for a look at its use of memory.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }
}

/// What a worker is told to do, in this order. It is written beside what the worker reports: neither waits for the other.
#[derive(Debug)]
pub(crate) struct Orders {
    queue: mpsc::Sender<Order>,
    writer: JoinHandle<()>,
}

/// A worker does not take the orders that it has.
#[derive(Debug, Error)]
#[error("it takes no orders")]
pub(crate) struct TakesNoOrders;

impl Orders {
    fn new(mut worker: OwnedWriteHalf, most: usize) -> Self {
        let (queue, mut orders) = mpsc::channel(most);
        let writer = tokio::spawn(async move {
            while let Some(order) = orders.recv().await {
                if worker.write_all(&control::encode(&order)).await.is_err() {
                    // It is gone. Its end is seen where it reports.
                    break;
                }
            }
        });
        Self { queue, writer }
    }

    /// Gives one, without waiting. Of a worker that is gone the end is seen next.
    ///
    /// # Errors
    ///
    /// Too many wait.
    pub(crate) fn give(&self, order: Order) -> Result<(), TakesNoOrders> {
        match self.queue.try_send(order) {
            Err(TrySendError::Full(_)) => Err(TakesNoOrders),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// How a worker ended.
#[derive(Debug)]
pub(crate) struct LastWords {
    status: io::Result<ExitStatus>,
    words: String,
}

impl LastWords {
    /// Whether it ended of its own accord.
    pub(crate) fn is_success(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }
}

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.status {
            Ok(status) => status.fmt(f)?,
            Err(error) => error.fmt(f)?,
        }
        match &*self.words {
            "" => Ok(()),
            words => write!(f, "; {words}"),
        }
    }
}

/// Our end of a pipe, for the runtime.
pub(crate) fn pipe_receiver(pipe: io::PipeReader) -> Result<tokio::net::unix::pipe::Receiver> {
    tokio::net::unix::pipe::Receiver::from_owned_fd(pipe.into()).map_err(|source| Error::Host {
        what: "cannot use a pipe".into(),
        source,
    })
}

/// Makes sure that our end of a stream does not hold up the runtime.
pub(crate) fn into_tokio(stream: UnixStream) -> Result<tokio::net::UnixStream> {
    let failed = |source| Error::Host {
        what: "cannot use a socket".into(),
        source,
    };
    stream.set_nonblocking(true).map_err(failed)?;
    tokio::net::UnixStream::from_std(stream).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_is_not_searched_for() {
        // A program of every host, but not in this folder.
        match WorkerProcess::spawn(Some(Path::new("true")), WorkerKind::Vmm, &(), &[], 0) {
            Err(Error::Host { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::NotFound);
            }
            other => panic!("{other:?}"),
        }
    }
}
