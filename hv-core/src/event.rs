//! A wake-up that one thread, or the hypervisor itself, gives another.
//!
//! On Linux it is an `eventfd`, so that KVM can signal it (ioeventfd) or listen to it (irqfd) and a
//! device loop can wait for it with `epoll`. Elsewhere it is a counter with a condition variable.

use std::io;
use std::sync::Arc;

/// A counting wake-up; clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Event(Arc<imp::Inner>);

impl Event {
    /// A new event that nobody has signalled.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn new() -> io::Result<Self> {
        imp::Inner::new().map(|inner| Self(Arc::new(inner)))
    }

    /// Signals the event. Never blocks; signals that nobody consumed yet add up to one wake-up.
    pub fn signal(&self) {
        self.0.signal();
    }

    /// Consumes pending signals without blocking; true when there was one.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.take()
    }

    /// Whether `other` is a handle on the same event.
    #[cfg(feature = "fake")]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Blocks until the event is signalled, then consumes it.
    pub fn wait(&self) {
        self.0.wait();
    }
}

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for Event {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.fd.as_raw_fd()
    }
}

#[cfg(target_os = "linux")]
impl Event {
    /// The `eventfd`, for KVM's ioeventfd and irqfd and for `epoll`.
    #[must_use]
    pub fn eventfd(&self) -> &vmm_sys_util::eventfd::EventFd {
        &self.0.fd
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::io;
    use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
    use vmm_sys_util::poll::{PollContext, PollToken as _};

    #[derive(Debug)]
    pub(super) struct Inner {
        pub(super) fd: EventFd,
    }

    impl Inner {
        pub(super) fn new() -> io::Result<Self> {
            EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(|fd| Self { fd })
        }

        pub(super) fn signal(&self) {
            // The only failure of a valid eventfd is a counter at its maximum: it is signalled then.
            drop(self.fd.write(1));
        }

        pub(super) fn take(&self) -> bool {
            self.fd.read().is_ok()
        }

        pub(super) fn wait(&self) {
            let poll = PollContext::<u32>::new();
            let Ok(poll) = poll else { return self.spin() };
            if poll.add(&self.fd, u32::from_raw_token(0)).is_err() {
                return self.spin();
            }
            while !self.take() {
                drop(poll.wait());
            }
        }

        /// Without a descriptor left for `epoll` a wait still has to end only by a signal.
        fn spin(&self) {
            while !self.take() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::io;
    use std::sync::{Condvar, Mutex, PoisonError};

    #[derive(Debug, Default)]
    pub(super) struct Inner {
        pending: Mutex<bool>,
        wake: Condvar,
    }

    impl Inner {
        #[expect(clippy::unnecessary_wraps, reason = "the Linux form can fail")]
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self::default())
        }

        pub(super) fn signal(&self) {
            *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.wake.notify_all();
        }

        pub(super) fn take(&self) -> bool {
            std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
        }

        pub(super) fn wait(&self) {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            while !std::mem::take(&mut *pending) {
                pending = self
                    .wake
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_add_up_to_one_wake_up() {
        let event = Event::new().unwrap();
        assert!(!event.take());
        event.signal();
        event.clone().signal();
        assert!(event.take());
        assert!(!event.take());
    }

    #[test]
    fn wait_ends_with_a_signal_of_another_thread() {
        let event = Event::new().unwrap();
        let other = event.clone();
        let thread = std::thread::spawn(move || other.signal());
        event.wait();
        assert!(!event.take());
        thread.join().unwrap();
    }
}
