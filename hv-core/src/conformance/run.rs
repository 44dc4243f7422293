//! Runs a case under a watchdog and says how it went.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::cases::ALL;
use super::probe::Failure;
use crate::{HvErrorKind, Hypervisor, Result};

/// How long a case may take. Generous: a hypervisor may interpret, on a machine that is busy.
const WATCHDOG: Duration = Duration::from_secs(40);

/// One case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its name, which is that of the test.
    pub name: &'static str,
    pub(super) body: fn(&dyn Hypervisor) -> std::result::Result<(), Failure>,
}

/// How a case went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// This backend lacks what the case needs.
    Skipped(String),
    /// The backend breaks the contract, or hangs.
    Failed(String),
}

/// All cases, in the order in which [`crate::conformance_tests`] lists them.
pub fn cases() -> impl Iterator<Item = Case> {
    ALL.into_iter().flatten().copied()
}

/// Runs one case. One that hangs is left behind on its thread and has failed.
#[must_use]
pub fn run(case: Case, hypervisor: Arc<dyn Hypervisor>) -> Verdict {
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(case.name.to_owned())
        // The receiver is gone only when the watchdog has given its verdict.
        .spawn(move || drop(sender.send((case.body)(&*hypervisor))));
    if thread.is_err() {
        return Verdict::Failed("the host has no thread left".to_owned());
    }
    match receiver.recv_timeout(WATCHDOG) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(Failure::Skip(reason))) => Verdict::Skipped(reason),
        Ok(Err(Failure::Broken(what))) => Verdict::Failed(what),
        Err(RecvTimeoutError::Timeout) => Verdict::Failed(format!("no end after {WATCHDOG:?}")),
        Err(RecvTimeoutError::Disconnected) => Verdict::Failed("the case panicked".to_owned()),
    }
}

/// The body of a test of [`crate::conformance_tests`]: opens the hypervisor and runs the case `name`. A
/// host without this hypervisor skips it.
///
/// # Panics
/// The backend failed the case; that is how a test fails.
#[expect(clippy::panic, reason = "a test fails by a panic")]
pub fn check<H, F>(name: &str, open: F)
where
    H: Hypervisor + 'static,
    F: FnOnce() -> Result<H>,
{
    let Some(case) = cases().find(|case| case.name == name) else {
        panic!("the suite has no case {name}");
    };
    let verdict = match open() {
        Ok(hypervisor) => run(case, Arc::new(hypervisor)),
        Err(error) if error.kind == HvErrorKind::NotAvailable => {
            Verdict::Skipped(error.to_string())
        }
        Err(error) => Verdict::Failed(error.to_string()),
    };
    match verdict {
        Verdict::Passed => {}
        Verdict::Skipped(reason) => print_skip(name, &reason),
        Verdict::Failed(what) => panic!("{name}: {what}"),
    }
}

/// Says past the test harness's capture that the case, or the test that calls this, was not run.
pub fn print_skip(name: &str, reason: &str) {
    let thread = std::thread::current();
    // The harness names a test's thread by the test's whole path.
    let test = thread.name().filter(|test| test.ends_with(name));
    let line = format!("SKIP {}: {reason}\n", test.unwrap_or(name));
    // A closed standard error is no reason to fail.
    drop(std::io::stderr().write_all(line.as_bytes()));
}
