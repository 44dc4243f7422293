//! What the host says to the device: which connects of the guest reach something, and its own
//! connects.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hv_core::Event;

use super::stream::Stream;

/// Decides what a guest's connect reaches.
pub trait VsockBackend: Send + Sync {
    /// The stream for a connect to `port` of the host; `None` refuses it. Called on the device's
    /// thread; must not block.
    fn accept(&self, port: u32) -> Option<Box<dyn Stream>>;
}

/// The usual backend: streams that the host laid out for certain ports, each for one connect.
///
/// Everything else is refused, so there is nothing a guest can make the host open.
#[derive(Default)]
pub struct Arranged(Mutex<BTreeMap<u32, Box<dyn Stream>>>);

impl Arranged {
    /// Streams for the first connect to each of these ports.
    pub fn new(streams: impl IntoIterator<Item = (u32, Box<dyn Stream>)>) -> Self {
        Self(Mutex::new(streams.into_iter().collect()))
    }
}

impl VsockBackend for Arranged {
    fn accept(&self, port: u32) -> Option<Box<dyn Stream>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&port)
    }
}

impl fmt::Debug for Arranged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arranged")
    }
}

/// Why a connect of the host came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody in the guest listens on the port, or the guest broke the protocol.
    #[error("the guest refused the connection: nothing listens on that port")]
    Refused,
    /// The guest did not answer within [`super::CONNECT_TIMEOUT`].
    #[error("the guest did not answer the connect in time")]
    TimedOut,
    /// As many connections exist as the device allows ([`super::MAX_CONNECTIONS`]).
    #[error("the guest already has as many connections as allowed: close one first")]
    TooMany,
    /// The guest reset its device, or the machine is stopping.
    #[error("the guest's vsock device was reset")]
    DeviceReset,
}

type Callback = Box<dyn FnOnce(Result<(), ConnectError>) + Send>;

/// Gets the result of a connect, exactly once.
pub(super) struct Answer(Option<Callback>);

impl Answer {
    pub(super) fn give(mut self, result: Result<(), ConnectError>) {
        if let Some(callback) = self.0.take() {
            callback(result);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(callback) = self.0.take() {
            callback(Err(ConnectError::DeviceReset));
        }
    }
}

/// A connect that the device has yet to begin.
pub(super) struct Connect {
    pub(super) port: u32,
    pub(super) stream: Box<dyn Stream>,
    pub(super) answer: Answer,
}

/// Most connects that wait for the device to begin them; the guest may not have started it yet.
const MAX_WAITING: usize = 64;

pub(super) struct Inbox {
    waiting: Mutex<VecDeque<Connect>>,
    pub(super) wake: Event,
}

impl Inbox {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            waiting: Mutex::default(),
            wake: Event::new()?,
        })
    }

    pub(super) fn take(&self) -> VecDeque<Connect> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Connects to ports of the guest, from any thread.
#[derive(Clone)]
pub struct VsockConnector(pub(super) Arc<Inbox>);

impl VsockConnector {
    /// Asks the guest to connect `stream` with what listens on `port` there. `result` is called
    /// once, on any thread, and must not block: `Ok` when the guest accepted, from when on bytes
    /// flow; else the stream is closed. Waits for the guest's driver to come up if need be.
    pub fn connect(
        &self,
        port: u32,
        stream: Box<dyn Stream>,
        result: impl FnOnce(Result<(), ConnectError>) + Send + 'static,
    ) {
        let answer = Answer(Some(Box::new(result)));
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_WAITING {
            drop(waiting);
            return answer.give(Err(ConnectError::TooMany));
        }
        waiting.push_back(Connect {
            port,
            stream,
            answer,
        });
        drop(waiting);
        self.0.wake.signal();
    }
}

impl fmt::Debug for VsockConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VsockConnector")
    }
}
