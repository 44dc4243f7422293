//! What a device implements for its thread, and what it gets there.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use hv_core::Event;

use crate::virtio::{Interrupt, LiveQueue, QueueError, QueueSeat, QueueState, RunEnv, StartError};

/// Why a device cannot go on until it is reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// The driver broke a ring.
    #[error("the guest's driver broke a queue")]
    Queue(#[from] QueueError),
    /// The host took something away that the device needs.
    #[error("the host failed the device")]
    Host(#[from] io::Error),
    /// The service panicked, which is our bug; the panic hook said where.
    #[error("the device's thread panicked")]
    Panicked,
}

/// What a source is ready for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ready {
    /// It can be read, or the other side closed; an [`Event`] was signalled.
    pub readable: bool,
    /// It can be written.
    pub writable: bool,
    /// It failed or was hung up; a read or write tells more.
    pub closed: bool,
}

impl Ready {
    /// Interest in reading only.
    pub const READ: Self = Self {
        readable: true,
        writable: false,
        closed: false,
    };
    /// Interest in writing only.
    pub const WRITE: Self = Self {
        readable: false,
        writable: true,
        closed: false,
    };
    /// Interest in both.
    pub const BOTH: Self = Self {
        readable: true,
        writable: true,
        closed: false,
    };
}

/// The sources of a device beside its queues. Tokens are the device's own, below 2^30; several
/// sources may share one.
pub trait Sources {
    /// Calls [`Service::source`] with `token` when `event` is signalled (which is consumed).
    ///
    /// # Errors
    /// The host has no room for it.
    fn add_event(&mut self, token: u32, event: &Event) -> io::Result<()>;

    /// Ends that for every event with `token`.
    ///
    /// # Errors
    /// There is none (caller).
    fn remove_event(&mut self, token: u32) -> io::Result<()>;

    /// Calls [`Service::source`] with `token` for as long as `fd` is ready for `interest`
    /// (`closed` is always reported). Remove it before it is closed.
    ///
    /// # Errors
    /// It was added already or cannot be waited for (caller); the host has no room for it.
    #[cfg(target_os = "linux")]
    fn add_fd(
        &mut self,
        token: u32,
        fd: std::os::fd::BorrowedFd<'_>,
        interest: Ready,
    ) -> io::Result<()>;

    /// Changes the interest in `fd`, or its token.
    ///
    /// # Errors
    /// It was not added (caller).
    #[cfg(target_os = "linux")]
    fn modify_fd(
        &mut self,
        token: u32,
        fd: std::os::fd::BorrowedFd<'_>,
        interest: Ready,
    ) -> io::Result<()>;

    /// Ends the interest in `fd`.
    ///
    /// # Errors
    /// It was not added (caller).
    #[cfg(target_os = "linux")]
    fn remove_fd(&mut self, fd: std::os::fd::BorrowedFd<'_>) -> io::Result<()>;
}

/// The queues of a running device.
#[derive(Debug)]
pub struct Queues(Vec<(QueueState, Option<LiveQueue>)>);

impl Queues {
    /// The queues of `env`, which give no more chains once `stopping` is set.
    pub(super) fn new(env: &RunEnv, stopping: &Arc<AtomicBool>) -> Result<Self, StartError> {
        let seats = env.queues.iter().enumerate();
        let queues = seats.map(|(index, QueueSeat { state, .. })| {
            let live = state
                .ready
                .then(|| LiveQueue::new(&env.memory, *state, &env.interrupt))
                .transpose()
                .map_err(|source| StartError::Queue { index, source })?;
            Ok((*state, live.map(|queue| queue.until(stopping))))
        });
        queues.collect::<Result<_, _>>().map(Self)
    }

    /// Queue `index`; `None` when the driver did not enable it.
    pub fn get(&mut self, index: usize) -> Option<&mut LiveQueue> {
        self.0.get_mut(index)?.1.as_mut()
    }

    pub(super) fn live(&mut self) -> impl Iterator<Item = (usize, &mut LiveQueue)> {
        let queues = self.0.iter_mut().enumerate();
        queues.filter_map(|(index, (_, live))| Some((index, live.as_mut()?)))
    }

    pub(super) fn states(&self) -> Vec<QueueState> {
        let state = |(idle, live): &(QueueState, Option<LiveQueue>)| {
            live.as_ref().map_or(*idle, LiveQueue::state)
        };
        self.0.iter().map(state).collect()
    }
}

/// What a service works with, for the length of a call.
pub struct Context<'a> {
    /// The device's queues.
    pub queues: &'a mut Queues,
    /// Its sources.
    pub sources: &'a mut dyn Sources,
    /// The negotiated feature bits.
    pub features: u64,
    /// The way to the driver, for changes of the configuration. Used buffers are signalled by
    /// themselves.
    pub interrupt: &'a Interrupt,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("queues", &self.queues)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

/// What a device does on its thread. Calls must be short: `stop` waits for the chain at hand, after
/// which [`LiveQueue::pop`] gives no more.
///
/// An error means that the device cannot go on: it is put into `DEVICE_NEEDS_RESET`. A malformed
/// *request* in a sound ring is no error; answer it as the device type's section says.
pub trait Service: Send + 'static {
    /// The device starts, for the first time or again: register sources, and look at each once (a
    /// signal may have been consumed before a pause).
    ///
    /// # Errors
    /// The device cannot run.
    fn started(&mut self, _context: &mut Context<'_>) -> Result<(), Broken> {
        Ok(())
    }

    /// Queue `index` was notified, or has more than the last turn took. A queue that is left with
    /// chains in it is not notified again until it was seen empty.
    ///
    /// # Errors
    /// The device cannot go on.
    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken>;

    /// The source with `token` is ready.
    ///
    /// # Errors
    /// The device cannot go on.
    fn source(
        &mut self,
        _token: u32,
        _ready: Ready,
        _context: &mut Context<'_>,
    ) -> Result<(), Broken> {
        Ok(())
    }
}
