//! A service on its thread: turns, budgets, interrupts.

use std::ops::ControlFlow;

use hv_core::Event;

use super::service::{Broken, Context, Queues, Ready, Service, Sources};
use super::{Parked, run_loop};
use crate::virtio::{Interrupt, QueueState};

/// What woke the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wake {
    Stop,
    Queue(usize),
    Source(u32, Ready),
}

/// What the loop of a platform calls; it returns when told to break.
pub(super) trait Handler {
    fn begin(&mut self, sources: &mut dyn Sources) -> ControlFlow<()>;
    fn wake(&mut self, wake: Wake, sources: &mut dyn Sources) -> ControlFlow<()>;
}

/// A service on its thread.
pub(super) struct Session<S: Service> {
    pub(super) service: Option<S>,
    pub(super) home: Parked<S>,
    pub(super) queues: Queues,
    pub(super) doorbells: Vec<Event>,
    pub(super) features: u64,
    pub(super) interrupt: Interrupt,
    pub(super) stop: Event,
}

impl<S: Service> Session<S> {
    pub(super) fn run(mut self) -> Vec<QueueState> {
        let (stop, doorbells) = (self.stop.clone(), self.doorbells.clone());
        if let Err(error) = run_loop(&mut self, &stop, &doorbells) {
            self.interrupt.needs_reset(&Broken::Host(error));
        }
        self.queues.states()
    }

    /// One turn: `work`, then interrupts, then another wake-up for queues that have more.
    fn turn(
        &mut self,
        sources: &mut dyn Sources,
        work: impl FnOnce(&mut S, &mut Context<'_>) -> Result<(), Broken>,
    ) -> ControlFlow<()> {
        match self.try_turn(sources, work) {
            Ok(()) => ControlFlow::Continue(()),
            Err(broken) => {
                self.interrupt.needs_reset(&broken);
                ControlFlow::Break(())
            }
        }
    }

    fn try_turn(
        &mut self,
        sources: &mut dyn Sources,
        work: impl FnOnce(&mut S, &mut Context<'_>) -> Result<(), Broken>,
    ) -> Result<(), Broken> {
        let Some(service) = &mut self.service else {
            return Ok(());
        };
        self.queues.live().for_each(|(_, queue)| queue.begin_turn());
        let mut context = Context {
            queues: &mut self.queues,
            sources,
            features: self.features,
            interrupt: &self.interrupt,
        };
        work(service, &mut context)?;
        for (index, queue) in self.queues.live() {
            queue.signal()?;
            if let Some(doorbell) = self.doorbells.get(index).filter(|_| queue.is_starved()) {
                doorbell.signal();
            }
        }
        Ok(())
    }
}

impl<S: Service> Handler for Session<S> {
    fn begin(&mut self, sources: &mut dyn Sources) -> ControlFlow<()> {
        self.turn(sources, S::started)?;
        let ready: Vec<usize> = self.queues.live().map(|(index, _)| index).collect();
        ready.into_iter().try_for_each(|index| {
            self.turn(sources, |service, context| service.queue(index, context))
        })
    }

    fn wake(&mut self, wake: Wake, sources: &mut dyn Sources) -> ControlFlow<()> {
        match wake {
            Wake::Stop => ControlFlow::Break(()),
            Wake::Queue(index) if self.queues.get(index).is_none() => ControlFlow::Continue(()),
            Wake::Queue(index) => {
                self.turn(sources, |service, context| service.queue(index, context))
            }
            Wake::Source(token, ready) => self.turn(sources, |service, context| {
                service.source(token, ready, context)
            }),
        }
    }
}

impl<S: Service> Drop for Session<S> {
    fn drop(&mut self) {
        // Where the queues are is lost with the stack: going on would do requests a second time.
        if std::thread::panicking() {
            self.interrupt.needs_reset(&Broken::Panicked);
        }
        *self.home.lock() = self.service.take();
    }
}
