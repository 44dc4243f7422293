//! The loop on Linux: the `event-manager` crate, which dispatches `epoll` events.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps as _,
};
use hv_core::Event;

use super::session::{Handler, Wake};
use super::{Ready, Sources};

/// Events that one `epoll_wait` returns at most.
const BATCH: usize = 32;

/// Set in the data of a device's own source; doorbells have their index, `STOP` is the stop event.
const SOURCE: u32 = 1 << 31;
/// An own source that is an [`Event`], to be consumed.
const EVENT: u32 = 1 << 30;
const STOP: u32 = EVENT - 1;

/// Runs `handler` until it breaks.
///
/// # Errors
/// The host has no descriptor left, or `epoll` failed.
pub(super) fn run<H: Handler>(
    handler: &mut H,
    stop: &Event,
    doorbells: &[Event],
) -> io::Result<()> {
    let mut manager = EventManager::new_with_capacity(BATCH).map_err(host)?;
    let id = manager.add_subscriber(Subscriber {
        handler,
        stop: stop.clone(),
        doorbells: doorbells.to_vec(),
        events: Vec::new(),
        state: Ok(ControlFlow::Continue(())),
    });
    loop {
        let subscriber = manager.subscriber_mut(id).map_err(host)?;
        match std::mem::replace(&mut subscriber.state, Ok(ControlFlow::Continue(()))) {
            Ok(ControlFlow::Continue(())) => manager.run().map_err(host)?,
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(error) => return Err(error),
        };
    }
}

fn host(error: event_manager::Error) -> io::Error {
    match error {
        event_manager::Error::Epoll(errno) => io::Error::from_raw_os_error(errno.errno()),
        other => io::Error::other(other),
    }
}

struct Subscriber<'h, H> {
    handler: &'h mut H,
    stop: Event,
    doorbells: Vec<Event>,
    /// The device's own sources that are events, with their tokens.
    events: Vec<(u32, Event)>,
    state: io::Result<ControlFlow<()>>,
}

impl<H: Handler> Subscriber<'_, H> {
    fn begin(&mut self, ops: &mut EventOps<'_>) -> io::Result<ControlFlow<()>> {
        let fixed = (0..).zip(&self.doorbells).chain([(STOP, &self.stop)]);
        for (data, event) in fixed {
            ops.add(Events::with_data(event, data, EventSet::IN))
                .map_err(host)?;
        }
        let events = &mut self.events;
        Ok(self.handler.begin(&mut Registry { ops, events }))
    }

    /// What an event means; `None` when it was consumed in between.
    fn wake(&self, event: Events) -> Option<Wake> {
        let (data, set) = (event.data(), event.event_set());
        if data == STOP {
            return Some(Wake::Stop);
        }
        if data & SOURCE == 0 {
            let doorbell = self.doorbells.get(usize::try_from(data).ok()?)?;
            return doorbell
                .take()
                .then_some(Wake::Queue(usize::try_from(data).ok()?));
        }
        let token = data & !(SOURCE | EVENT);
        if data & EVENT != 0 {
            let fd = event.fd();
            let mut events = self.events.iter().map(|(_, event)| event);
            let event = events.find(|event| event.as_raw_fd() == fd)?;
            return event.take().then_some(Wake::Source(token, Ready::READ));
        }
        let ready = Ready {
            readable: set.intersects(EventSet::IN | EventSet::READ_HANG_UP | EventSet::HANG_UP),
            writable: set.contains(EventSet::OUT),
            closed: set.intersects(EventSet::ERROR | EventSet::HANG_UP),
        };
        Some(Wake::Source(token, ready))
    }
}

impl<H: Handler> MutEventSubscriber for Subscriber<'_, H> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        self.state = self.begin(ops);
    }

    fn process(&mut self, event: Events, ops: &mut EventOps<'_>) {
        if !matches!(self.state, Ok(ControlFlow::Continue(()))) {
            return;
        }
        if let Some(wake) = self.wake(event) {
            let events = &mut self.events;
            self.state = Ok(self.handler.wake(wake, &mut Registry { ops, events }));
        }
    }
}

struct Registry<'a, 'b> {
    ops: &'a mut EventOps<'b>,
    events: &'a mut Vec<(u32, Event)>,
}

fn source(token: u32, fd: BorrowedFd<'_>, interest: Ready) -> Events {
    let mut set = EventSet::empty();
    if interest.readable {
        set |= EventSet::IN | EventSet::READ_HANG_UP;
    }
    if interest.writable {
        set |= EventSet::OUT;
    }
    Events::with_data(&fd, SOURCE | token & !EVENT, set)
}

impl Sources for Registry<'_, '_> {
    fn add_event(&mut self, token: u32, event: &Event) -> io::Result<()> {
        let data = SOURCE | EVENT | token;
        let added = self.ops.add(Events::with_data(event, data, EventSet::IN));
        added.map_err(host)?;
        self.events.push((token, event.clone()));
        Ok(())
    }

    fn remove_event(&mut self, token: u32) -> io::Result<()> {
        let mut result = Err(io::ErrorKind::NotFound.into());
        for (_, event) in self.events.extract_if(.., |(other, _)| *other == token) {
            result = self.ops.remove(Events::empty(&event)).map_err(host);
        }
        result
    }

    fn add_fd(&mut self, token: u32, fd: BorrowedFd<'_>, interest: Ready) -> io::Result<()> {
        self.ops.add(source(token, fd, interest)).map_err(host)
    }

    fn modify_fd(&mut self, token: u32, fd: BorrowedFd<'_>, interest: Ready) -> io::Result<()> {
        self.ops.modify(source(token, fd, interest)).map_err(host)
    }

    fn remove_fd(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.ops.remove(Events::empty(&fd)).map_err(host)
    }
}
