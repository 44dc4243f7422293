//! Bytes on their way from the guest to a reader.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::client::Handle;
use super::error::AgentError;
use crate::protocol::{CreditError, Id, ReceiveWindow, Stream};

/// The buffer between the connection's task and the reader: at most [`crate::protocol::WINDOW`] bytes.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    buffer: VecDeque<u8>,
    window: ReceiveWindow,
    end: Option<Result<(), AgentError>>,
    reader: Option<Waker>,
    /// Nobody reads any more: what comes is thrown away, and paid for at once so that the guest's process can go on.
    discard: bool,
    /// The connection's task was asked to grant credit and has not yet done so.
    asked: bool,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes bytes from the guest. Says whether they were paid for at once, so that a grant may be due.
    pub(super) fn push(&self, bytes: &[u8]) -> Result<bool, CreditError> {
        let mut state = self.state();
        state.window.receive(bytes.len())?;
        if state.discard {
            state.window.consume(bytes.len());
        } else {
            state.buffer.extend(bytes);
            state.wake();
        }
        Ok(state.discard)
    }

    /// Credit for the guest. Taken only when it can be sent: a guest that does not read gets no more of it, and so cannot
    /// make requests pile up.
    pub(super) fn take_grant(&self) -> Option<u32> {
        let mut state = self.state();
        state.asked = false;
        state.window.take_grant()
    }

    /// No more comes: the stream ended, or the connection did. The first call counts.
    pub(super) fn end(&self, how: Result<(), AgentError>) {
        let mut state = self.state();
        state.end.get_or_insert(how);
        state.wake();
    }

    /// Throws away what is there and what still comes; says whether to ask for a grant.
    fn discard(&self) -> bool {
        let mut state = self.state();
        state.discard = true;
        let unread = std::mem::take(&mut state.buffer).len();
        state.consumed(unread)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Pays for bytes; says whether to ask for a grant now.
    fn consumed(&mut self, len: usize) -> bool {
        self.window.consume(len);
        self.window.is_due() && !std::mem::replace(&mut self.asked, true)
    }

    fn read(&mut self, into: &mut ReadBuf<'_>) -> io::Result<usize> {
        let len = self.buffer.read(into.initialize_unfilled())?;
        into.advance(len);
        Ok(len)
    }
}

/// An output stream of a process in the guest. Reads to the end of file when the process has ended or closed it.
///
/// Not reading stops the process once the window is full. Dropping the reader throws away what still comes.
#[derive(Debug)]
pub struct OutputReader {
    id: Id,
    stream: Stream,
    inbox: Arc<Inbox>,
    handle: Handle,
}

impl OutputReader {
    pub(super) fn new(id: Id, stream: Stream, handle: Handle) -> Self {
        Self {
            id,
            stream,
            inbox: Arc::default(),
            handle,
        }
    }

    pub(super) fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    fn ask_for_grant(&self, due: bool) {
        if due {
            self.handle.post_grant(self.id, self.stream);
        }
    }
}

impl AsyncRead for OutputReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.inbox.state();
        if !state.buffer.is_empty() {
            let len = state.read(buf)?;
            let due = state.consumed(len);
            drop(state);
            self.ask_for_grant(due);
            return Poll::Ready(Ok(()));
        }
        match &state.end {
            Some(Ok(())) => Poll::Ready(Ok(())),
            Some(Err(error)) => Poll::Ready(Err(error.clone().into())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for OutputReader {
    fn drop(&mut self) {
        self.ask_for_grant(self.inbox.discard());
    }
}
