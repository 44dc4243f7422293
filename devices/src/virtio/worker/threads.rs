//! The loop on hosts without `epoll`: a thread waits for each event and forwards it.
//!
//! That costs a small stack an event, which a device has few of, and needs nothing but
//! [`hv_core::Event`]. Devices with sockets use it through events that their backend signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use hv_core::Event;

use super::session::{Handler, Wake};
use super::{Ready, Sources};

/// Stack of a thread that only waits.
const STACK_SIZE: usize = 64 << 10;

/// Runs `handler` until it breaks.
///
/// # Errors
/// The host has no thread left.
pub(super) fn run<H: Handler>(
    handler: &mut H,
    stop: &Event,
    doorbells: &[Event],
) -> io::Result<()> {
    let (mut waiters, wakes) = Waiters::new();
    for (index, doorbell) in doorbells.iter().enumerate() {
        waiters.add(Wake::Queue(index), doorbell)?;
    }
    waiters.add(Wake::Stop, stop)?;
    if handler.begin(&mut waiters).is_break() {
        return Ok(());
    }
    while let Ok(forwarded) = wakes.recv() {
        // It may have been on its way when its source was removed.
        if forwarded.ended.load(Ordering::Acquire) {
            continue;
        }
        let flow = handler.wake(forwarded.wake, &mut waiters);
        forwarded.handled.signal();
        if flow.is_break() {
            break;
        }
    }
    Ok(())
}

/// A wake-up on its way from a waiter to the handler.
#[derive(Clone)]
struct Forwarded {
    wake: Wake,
    /// Signalled when the handler has dealt with it.
    handled: Event,
    /// Its waiter was told to end.
    ended: Arc<AtomicBool>,
}

struct Waiter {
    event: Event,
    forwarded: Forwarded,
    thread: Option<JoinHandle<()>>,
}

impl Waiter {
    fn new(wake: Wake, event: &Event, sender: Sender<Forwarded>) -> io::Result<Self> {
        let forwarded = Forwarded {
            wake,
            handled: Event::new()?,
            ended: Arc::default(),
        };
        let mut waiter = Self {
            event: event.clone(),
            forwarded: forwarded.clone(),
            thread: None,
        };
        let event = event.clone();
        let thread = std::thread::Builder::new()
            .name("event".to_owned())
            .stack_size(STACK_SIZE)
            .spawn(move || {
                // One wake-up at a time, so that a busy event cannot fill the channel.
                loop {
                    event.wait();
                    let ended = forwarded.ended.load(Ordering::Acquire);
                    if ended || sender.send(forwarded.clone()).is_err() {
                        return;
                    }
                    forwarded.handled.wait();
                }
            })?;
        waiter.thread = Some(thread);
        Ok(waiter)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.forwarded.ended.store(true, Ordering::Release);
        self.forwarded.handled.signal();
        self.event.signal();
        if let Some(thread) = self.thread.take() {
            // It only waits and forwards: there is no panic to pass on.
            drop(thread.join());
        }
        // A wake-up that was forwarded but not handled must not be lost; a false one does no harm.
        self.event.signal();
    }
}

struct Waiters {
    sender: Sender<Forwarded>,
    waiters: Vec<Waiter>,
}

impl Waiters {
    fn new() -> (Self, Receiver<Forwarded>) {
        let (sender, receiver) = channel();
        let waiters = Vec::new();
        (Self { sender, waiters }, receiver)
    }

    fn add(&mut self, wake: Wake, event: &Event) -> io::Result<()> {
        let waiter = Waiter::new(wake, event, self.sender.clone())?;
        self.waiters.push(waiter);
        Ok(())
    }
}

impl Sources for Waiters {
    fn add_event(&mut self, token: u32, event: &Event) -> io::Result<()> {
        self.add(Wake::Source(token, Ready::READ), event)
    }

    fn remove_event(&mut self, token: u32) -> io::Result<()> {
        let removed = Wake::Source(token, Ready::READ);
        let before = self.waiters.len();
        self.waiters
            .retain(|waiter| waiter.forwarded.wake != removed);
        if self.waiters.len() == before {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn add_fd(&mut self, _: u32, _: std::os::fd::BorrowedFd<'_>, _: Ready) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    fn modify_fd(&mut self, _: u32, _: std::os::fd::BorrowedFd<'_>, _: Ready) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(target_os = "linux")]
    fn remove_fd(&mut self, _: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
