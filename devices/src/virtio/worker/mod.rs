//! The device thread: one event loop a device, over doorbells, a stop event and the device's own
//! sources.
//!
//! A device implements [`Service`] and keeps it in a [`Parked`], whose `start` moves it onto a
//! thread and whose worker puts it back when it stops. On Linux the loop is the `event-manager`
//! crate's (`epoll`), and a source may be any descriptor; elsewhere a small thread waits for each
//! event and forwards it, and a source is an [`Event`].
//!
//! Rules of the loop:
//! * every queue gets a turn when the device starts, because a notification may have been lost
//!   while it was paused;
//! * a turn takes at most one queue full of chains, then the others get theirs;
//! * `stop` ends a turn after the chain at hand; what is left stays in the ring;
//! * after every turn drivers that want an interrupt get one;
//! * a broken ring or host ends the thread: the device asks for a reset, and `stop` finds the queues
//!   as they were;
//! * a panic does so too, but the position in the queues is lost: only a reset starts them again.

#[cfg(target_os = "linux")]
mod epoll;
mod service;
mod session;
#[cfg(test)]
mod tests;
#[cfg(any(test, not(target_os = "linux")))]
mod threads;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hv_core::Event;

use super::{QueueState, RunEnv, StartError, Worker};
pub use service::{Broken, Context, Queues, Ready, Service, Sources};
use session::Session;

#[cfg(target_os = "linux")]
use epoll::run as run_loop;
#[cfg(not(target_os = "linux"))]
use threads::run as run_loop;

/// Stack of a device thread: services neither recurse nor keep buffers on it.
const STACK_SIZE: usize = 256 << 10;

/// A service that is waiting to run, or out on its thread.
#[derive(Debug)]
pub struct Parked<S>(Arc<Mutex<Option<S>>>);

impl<S: Service> Parked<S> {
    /// A service that waits.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self(Arc::new(Mutex::new(Some(service))))
    }

    /// Applies `change` while it waits; `None` while it is out.
    pub fn with<R>(&self, change: impl FnOnce(&mut S) -> R) -> Option<R> {
        self.lock().as_mut().map(change)
    }

    /// Runs it on a thread called `name`.
    ///
    /// # Errors
    /// A queue is set up wrongly (guest), it runs already (caller), or the host has no room.
    pub fn start(&self, name: &str, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        let stopping = Arc::default();
        let queues = Queues::new(&env, &stopping)?;
        let stop = Event::new()?;
        let service = self.lock().take().ok_or(StartError::Running)?;
        let states = queues.states();
        let home = Self(Arc::clone(&self.0));
        let session = Session {
            service: Some(service),
            home,
            queues,
            doorbells: env.queues.into_iter().map(|seat| seat.doorbell).collect(),
            features: env.features,
            interrupt: env.interrupt,
            stop: stop.clone(),
        };
        // A thread that cannot be spawned drops the session, which sends the service home.
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || session.run())?;
        Ok(Box::new(DeviceThread {
            thread: Some(thread),
            stopping,
            stop,
            states,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running device thread. Dropping it ends the thread too.
struct DeviceThread {
    thread: Option<JoinHandle<Vec<QueueState>>>,
    /// Ends the turn at hand; `stop` ends the loop.
    stopping: Arc<AtomicBool>,
    stop: Event,
    /// Where the queues were at the start, for a thread that panicked.
    states: Vec<QueueState>,
}

impl DeviceThread {
    fn join(&mut self) {
        self.begin_stop();
        if let Some(Ok(states)) = self.thread.take().map(JoinHandle::join) {
            self.states = states;
        }
    }
}

impl Worker for DeviceThread {
    fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.signal();
    }

    fn stop(mut self: Box<Self>) -> Vec<QueueState> {
        self.join();
        std::mem::take(&mut self.states)
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.join();
    }
}
