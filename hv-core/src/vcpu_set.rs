//! The threads of a VM's vCPUs: one loop, written once for every backend.
//!
//! A vCPU is made, used and dropped on its own thread. Other threads steer it through a state
//! that all of them share:
//!
//! ```text
//! start -> paused <-> running -> ended (guest stopped, crashed, or stop() was called)
//! ```
//!
//! `pause` returns when no vCPU is inside the guest; only then can a closure be run on a vCPU.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::{Crash, Exit, HvError, HvErrorKind, Kick, Result, Stop, Vcpu, VcpuSeed, VmIo};

/// How a set of vCPUs ended. The first cause wins.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The guest powered off or reset itself.
    Stopped(Stop),
    /// The guest cannot go on.
    Crashed(Crash),
    /// The hypervisor failed.
    Failed(HvError),
    /// [`VcpuSet::stop`] was called or the set was dropped.
    Cancelled,
}

type Job = Box<dyn FnOnce(&mut dyn Vcpu) + Send>;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Paused,
    Running,
    Ended,
}

struct State {
    phase: Phase,
    outcome: Option<Outcome>,
    /// vCPUs that are bound and not inside the guest.
    parked: usize,
    jobs: Vec<VecDeque<Job>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    kicks: Vec<Arc<dyn Kick>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the set unless it has ended already, and gets every vCPU out of the guest.
    fn end(&self, outcome: Outcome) {
        let mut state = self.lock();
        if state.phase != Phase::Ended {
            state.phase = Phase::Ended;
            state.outcome = Some(outcome);
        }
        // No vCPU takes these any more: dropping them tells their callers. What they captured is
        // dropped without the lock.
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        drop(jobs);
        self.changed.notify_all();
        self.kick_all();
    }

    fn kick_all(&self) {
        for kick in &self.kicks {
            kick.kick();
        }
    }
}

/// Ends a set from a device: the power button and the reset line.
#[derive(Clone)]
pub struct StopHandle(Arc<Shared>);

impl StopHandle {
    /// Ends the set as if the hypervisor had reported `stop`. May be called on a vCPU's thread.
    pub fn stop(&self, stop: Stop) {
        self.0.end(Outcome::Stopped(stop));
    }
}

impl fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopHandle")
    }
}

/// The running vCPUs of a VM.
pub struct VcpuSet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for VcpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuSet")
            .field("vcpus", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl VcpuSet {
    /// Makes every vCPU on a thread of its own; they are paused. `io` gets their accesses.
    ///
    /// # Errors
    /// The host has no thread left, or a vCPU could not be made; nothing is left running then.
    pub fn start(seeds: Vec<Box<dyn VcpuSeed>>, io: &Arc<dyn VmIo>) -> Result<Self> {
        let count = seeds.len();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                phase: Phase::Paused,
                outcome: None,
                parked: 0,
                jobs: (0..count).map(|_| VecDeque::new()).collect(),
            }),
            changed: Condvar::new(),
            kicks: seeds.iter().map(|seed| seed.kick()).collect(),
        });
        let mut set = Self {
            shared,
            threads: Vec::with_capacity(count),
        };
        for (index, seed) in seeds.into_iter().enumerate() {
            set.spawn(index, seed, Arc::clone(io))?;
        }
        set.wait_until_bound(count)?;
        Ok(set)
    }

    fn spawn(&mut self, index: usize, seed: Box<dyn VcpuSeed>, io: Arc<dyn VmIo>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(format!("vcpu{index}"))
            .spawn(move || vcpu_thread(index, seed, &*io, &shared));
        match thread {
            Ok(thread) => {
                self.threads.push(thread);
                Ok(())
            }
            Err(_) => Err(HvError::new("start a vCPU thread", HvErrorKind::Exhausted)),
        }
    }

    fn wait_until_bound(&self, count: usize) -> Result<()> {
        let mut state = self.shared.lock();
        while state.parked < count && state.phase != Phase::Ended {
            state = self.shared.wait(state);
        }
        match &state.outcome {
            Some(Outcome::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// A handle with which a device ends the set.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(Arc::clone(&self.shared))
    }

    /// Lets the vCPUs run. Without effect when they do or have ended.
    pub fn resume(&self) {
        let mut state = self.shared.lock();
        if state.phase == Phase::Paused {
            state.phase = Phase::Running;
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Pauses the vCPUs and returns when none is inside the guest. False: they have ended.
    #[must_use]
    pub fn pause(&self) -> bool {
        let mut state = self.shared.lock();
        if state.phase == Phase::Running {
            state.phase = Phase::Paused;
        }
        drop(state);
        self.shared.kick_all();
        let mut state = self.shared.lock();
        while state.phase == Phase::Paused && state.parked < self.threads.len() {
            state = self.shared.wait(state);
        }
        state.phase == Phase::Paused
    }

    /// Runs `job` on the thread of vCPU `index` while the set is paused, and returns its result.
    ///
    /// # Errors
    /// There is no such vCPU, or the set is not paused (caller); it ended before the job did.
    pub fn with<R, F>(&self, index: usize, job: F) -> Result<R>
    where
        R: Send + 'static,
        F: FnOnce(&mut dyn Vcpu) -> R + Send + 'static,
    {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let mut state = self.shared.lock();
        let paused = state.phase == Phase::Paused;
        let queue = state.jobs.get_mut(index).filter(|_| paused);
        let Some(queue) = queue else {
            return Err(HvError::new(
                "use of a vCPU that is not paused",
                HvErrorKind::InvalidState,
            ));
        };
        // The receiver waits below; a send can fail only when it is gone.
        queue.push_back(Box::new(move |vcpu| drop(sender.send(job(vcpu)))));
        drop(state);
        self.shared.changed.notify_all();
        receiver
            .recv()
            .map_err(|_| HvError::new("use of a vCPU that has ended", HvErrorKind::InvalidState))
    }

    /// Blocks until the set ends, and says how.
    #[must_use]
    pub fn wait(&self) -> Outcome {
        let mut state = self.shared.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.shared.wait(state);
        }
    }

    /// Ends the set, waits for every thread and says how it ended.
    #[must_use]
    pub fn stop(mut self) -> Outcome {
        self.join();
        self.wait()
    }

    fn join(&mut self) {
        self.shared.end(Outcome::Cancelled);
        for thread in self.threads.drain(..) {
            // A panic on a vCPU thread has been reported by the panic hook; the thread is gone.
            drop(thread.join());
        }
    }
}

impl Drop for VcpuSet {
    fn drop(&mut self) {
        self.join();
    }
}

fn vcpu_thread(index: usize, seed: Box<dyn VcpuSeed>, io: &dyn VmIo, shared: &Shared) {
    // Ends the set even when this thread unwinds, so that nobody waits for it for ever.
    struct Leave<'a>(&'a Shared);
    impl Drop for Leave<'_> {
        fn drop(&mut self) {
            let failed = HvError::new("vCPU thread", HvErrorKind::Other);
            self.0.end(Outcome::Failed(failed));
        }
    }
    let _leave = Leave(shared);
    match seed.bind() {
        Ok(mut vcpu) => shared.end(run_until_end(index, &mut *vcpu, io, shared)),
        Err(error) => shared.end(Outcome::Failed(error)),
    }
}

fn run_until_end(index: usize, vcpu: &mut dyn Vcpu, io: &dyn VmIo, shared: &Shared) -> Outcome {
    while park(index, vcpu, shared) {
        match vcpu.run(io) {
            Ok(Exit::Kicked) => {}
            Ok(Exit::Stopped(stop)) => return Outcome::Stopped(stop),
            Ok(Exit::Crash(crash)) => return Outcome::Crashed(crash),
            Err(error) => return Outcome::Failed(error),
        }
    }
    Outcome::Cancelled
}

/// Waits while the set is paused, doing the jobs that come; false: the set has ended.
fn park(index: usize, vcpu: &mut dyn Vcpu, shared: &Shared) -> bool {
    let mut state = shared.lock();
    if state.phase == Phase::Running {
        return true;
    }
    state.parked += 1;
    shared.changed.notify_all();
    while state.phase == Phase::Paused {
        if let Some(job) = state.jobs.get_mut(index).and_then(VecDeque::pop_front) {
            drop(state);
            job(vcpu);
            state = shared.lock();
        } else {
            state = shared.wait(state);
        }
    }
    state.parked -= 1;
    state.phase == Phase::Running
}

#[cfg(all(test, feature = "fake", feature = "conformance"))]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::arch::x86_64::asm::Program;
    use crate::conformance::{BareGuest, Probe};
    use crate::fake::FakeHypervisor;

    #[test]
    fn a_job_that_waits_when_the_set_ends_is_answered_at_once() {
        let guest = BareGuest::new(&Program::new());
        let probe = Arc::new(Probe::default());
        let machine = guest.build(&FakeHypervisor::default()).unwrap();
        let set = Arc::new(machine.start(&probe).unwrap().set);
        let (release, released) = channel::<()>();
        let (entered, inside) = channel();
        let busy = Arc::clone(&set);
        std::thread::spawn(move || {
            busy.with(0, move |_| {
                entered.send(()).unwrap();
                let _ = released.recv();
            })
        });
        inside.recv().unwrap();
        let (answer, answered) = channel();
        let waiting = Arc::clone(&set);
        std::thread::spawn(move || answer.send(waiting.with(0, |_| ())));
        let queued = || set.shared.lock().jobs.first().map_or(0, VecDeque::len);
        while queued() == 0 {
            std::thread::yield_now();
        }
        set.stop_handle().stop(Stop::PowerOff);
        // The vCPU is still busy with the other job.
        let answer = answered.recv_timeout(Duration::from_secs(20));
        assert_eq!(answer.unwrap().unwrap_err().kind, HvErrorKind::InvalidState);
        drop(release);
    }
}
