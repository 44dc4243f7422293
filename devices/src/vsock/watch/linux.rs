//! Watching on Linux: `epoll`, and a timer descriptor.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use hv_core::Event;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::{TIMER, WAKE};
use crate::virtio::worker::{Ready, Sources};
use crate::vsock::muxer::{Change, Id, Muxer};
use crate::vsock::stream::Stream;

/// Keeps the sources of the loop in step with the connections.
pub(in crate::vsock) struct Watch {
    timer: OwnedFd,
    /// When the timer goes off.
    armed: Option<Instant>,
    streams: HashMap<Id, Ready>,
}

impl Watch {
    pub(in crate::vsock) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self {
            timer,
            armed: None,
            streams: HashMap::new(),
        })
    }

    /// The loop begins, with no sources.
    pub(in crate::vsock) fn begin(
        &mut self,
        wake: &Event,
        sources: &mut dyn Sources,
    ) -> io::Result<()> {
        self.streams.clear();
        sources.add_event(WAKE, wake)?;
        sources.add_fd(TIMER, self.timer.as_fd(), Ready::READ)
    }

    /// Waits for what the connections need now.
    pub(in crate::vsock) fn update(
        &mut self,
        muxer: &mut Muxer,
        sources: &mut dyn Sources,
    ) -> io::Result<()> {
        loop {
            let changes = muxer.take_changes();
            if changes.is_empty() {
                return self.arm(muxer.next_deadline());
            }
            for change in changes {
                self.apply(change, muxer, sources);
            }
        }
    }

    fn apply(&mut self, change: Change, muxer: &mut Muxer, sources: &mut dyn Sources) {
        match change {
            Change::Interest(id) => {
                let watched = muxer
                    .interest(id)
                    .map(|(stream, interest)| self.watch(id, stream, interest, sources));
                // A connection whose stream cannot be waited for would hang for ever.
                if matches!(watched, Some(Err(_))) {
                    muxer.abort(id);
                }
            }
            // It fails only for a stream that could not be watched in the first place.
            Change::Closed(id, stream) => drop(self.watch(id, &*stream, None, sources)),
        }
    }

    fn watch(
        &mut self,
        id: Id,
        stream: &dyn Stream,
        interest: Option<Ready>,
        sources: &mut dyn Sources,
    ) -> io::Result<()> {
        let fd = stream.descriptor();
        match (self.streams.get(&id).copied(), interest) {
            (None, Some(interest)) => sources.add_fd(id, fd, interest)?,
            (Some(before), Some(interest)) if before != interest => {
                sources.modify_fd(id, fd, interest)?;
            }
            (Some(_), None) => sources.remove_fd(fd)?,
            _ => {}
        }
        match interest {
            Some(interest) => self.streams.insert(id, interest),
            None => self.streams.remove(&id),
        };
        Ok(())
    }

    /// Setting the timer anew also consumes that it went off.
    fn arm(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.armed == deadline {
            return Ok(());
        }
        // A time of zero would disarm it.
        let rest = deadline.map(|end| {
            let rest = end.saturating_duration_since(Instant::now());
            rest.max(Duration::from_nanos(1))
        });
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: none,
            it_value: rest
                .and_then(|rest| Timespec::try_from(rest).ok())
                .unwrap_or(none),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed = deadline;
        Ok(())
    }
}
