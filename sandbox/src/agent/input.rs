//! Bytes on their way from a writer to the guest.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;

use super::client::Handle;
use crate::protocol::{CreditError, Id, MAX_DATA, Octets, Request, SendWindow};

/// What the connection's task tells the writer.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    window: SendWindow,
    closed: bool,
    writer: Option<Waker>,
}

impl Outbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest can take more.
    pub(super) fn grant(&self, bytes: u32) -> Result<(), CreditError> {
        let mut state = self.state();
        state.window.grant(bytes)?;
        state.wake();
        Ok(())
    }

    /// Nothing takes bytes any more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// The standard input of a process in the guest.
///
/// Writing waits while the process does not read. It fails with `BrokenPipe` once the process has closed its input or
/// ended. Shutting down or dropping the writer is the end of file; on a terminal it is Ctrl-D.
#[derive(Debug)]
pub struct InputWriter {
    id: Id,
    outbox: Arc<Outbox>,
    handle: Handle,
    ended: bool,
}

impl InputWriter {
    pub(super) fn new(id: Id, handle: Handle) -> Self {
        Self {
            id,
            outbox: Arc::default(),
            handle,
            ended: false,
        }
    }

    pub(super) fn outbox(&self) -> Arc<Outbox> {
        Arc::clone(&self.outbox)
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.handle.post(Request::InputEnd { id: self.id });
        }
    }

    /// Takes credit for a piece of at most `wanted` bytes, or waits for it.
    fn poll_credit(&self, wanted: usize, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        let mut state = self.outbox.state();
        if state.closed || self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match state.window.take(wanted.min(MAX_DATA)) {
            0 if wanted > 0 => {
                state.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            len => Poll::Ready(Ok(len)),
        }
    }
}

impl AsyncWrite for InputWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let len = std::task::ready!(self.poll_credit(buf.len(), cx))?;
        if let Some(piece @ [_, ..]) = buf.get(..len) {
            self.handle.post(Request::Input {
                id: self.id,
                bytes: Octets::from(piece),
            });
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for InputWriter {
    fn drop(&mut self) {
        self.end();
    }
}
