//! When each phase of a start was reached.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A phase of the start of a sandbox, in the order in which they come.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Phase {
    /// The host program began to start the worker process.
    Spawned,
    /// The worker's `main` was reached.
    WorkerStarted,
    /// The worker has given up what it does not need.
    Confined,
    /// Memory, devices and kernel are in place.
    Built,
    /// The boot processor was let into the guest.
    VcpuEntered,
    /// The guest touched one of our devices for the first time.
    FirstAccess,
    /// The kernel's first byte came out of a console.
    FirstByte,
    /// The guest program began.
    InitStarted,
    /// The agent took its configuration: commands can run.
    AgentReady,
}

impl Phase {
    /// What the phase is called in a report to a person.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Spawned => "worker spawned",
            Self::WorkerStarted => "worker started",
            Self::Confined => "worker confined",
            Self::Built => "machine built",
            Self::VcpuEntered => "vCPU entered",
            Self::FirstAccess => "kernel's first device access",
            Self::FirstByte => "kernel's first console byte",
            Self::InitStarted => "init started",
            Self::AgentReady => "agent ready",
        }
    }
}

/// When each phase of a start was reached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BootTimeline {
    marks: Vec<(Phase, u64)>,
}

impl BootTimeline {
    /// Notes that `phase` was reached at `at` nanoseconds of the host's monotonic clock. Only the
    /// first time counts.
    pub(crate) fn mark(&mut self, phase: Phase, at: u64) {
        if self.marks.iter().all(|(known, _)| *known != phase) {
            self.marks.push((phase, at));
            self.marks.sort_unstable();
        }
    }

    /// The phases that were reached, in order, with the time since the first.
    pub fn phases(&self) -> impl Iterator<Item = (Phase, Duration)> + '_ {
        let start = self.marks.first().map_or(0, |(_, at)| *at);
        self.marks
            .iter()
            .map(move |(phase, at)| (*phase, Duration::from_nanos(at.saturating_sub(start))))
    }

    /// The time from the first phase to `phase`, when it was reached.
    #[must_use]
    pub fn since_spawn(&self, phase: Phase) -> Option<Duration> {
        self.phases()
            .find(|(known, _)| *known == phase)
            .map(|(_, at)| at)
    }
}

/// The host's monotonic clock in nanoseconds, the same in every process.
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_ordered_and_count_once() {
        let mut timeline = BootTimeline::default();
        for (phase, at) in [(Phase::Built, 30), (Phase::Spawned, 10), (Phase::Built, 99)] {
            timeline.mark(phase, at);
        }
        let phases: Vec<_> = timeline.phases().map(|(p, d)| (p, d.as_nanos())).collect();
        assert_eq!(phases, [(Phase::Spawned, 0), (Phase::Built, 20)]);
        assert_eq!(timeline.since_spawn(Phase::AgentReady), None);
    }
}
