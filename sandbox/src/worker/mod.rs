//! The worker processes of a sandbox.
//!
//! A program that embeds this crate is also its own worker: it calls [`init`] first thing in
//! `main`, which returns at once in the program itself and never in a worker.

mod confine;
mod egress;
mod memory;
mod prompt;
mod told;

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::exit;
use std::sync::Arc;

use hv_core::Fault;

pub(crate) use confine::probe;

use self::confine::NotConfined;
use crate::control::{self, FaultCode, MalformedMessage, Report, StartFailure};
use crate::host::receive_plan;
use crate::plan::{PLAN_VERSION, Plan, WorkerPlan};
use crate::refusal::Refusal;
use crate::timeline::{Phase, monotonic_ns};
use crate::vmm::{self, Files};

/// The environment variable that makes a program a worker.
pub(crate) const WORKER_VARIABLE: &str = "COFFERDAM_WORKER";

/// Which worker a process is: the value of [`WORKER_VARIABLE`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WorkerKind {
    /// It runs the virtual machine.
    Vmm,
    /// It is the guest's network.
    Egress,
}

impl WorkerKind {
    /// As it is in the environment and in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vmm => "vmm",
            Self::Egress => "egress",
        }
    }
}

/// The exit status of a worker that reported why it ended.
const REPORTED: i32 = 0;

/// The exit status of a worker that could not even report.
const SPEECHLESS: i32 = 70;

/// Becomes a worker, if this process was started to be one; returns otherwise.
///
/// Call it before anything else in `main`: a worker has no arguments to parse, no runtime to
/// start and nothing to print.
pub fn init() {
    let kind = std::env::var_os(WORKER_VARIABLE);
    let is = |wanted: WorkerKind| kind.as_ref().is_some_and(|kind| kind == wanted.name());
    if is(WorkerKind::Vmm) {
        run(machine);
    }
    if is(WorkerKind::Egress) {
        run(egress::work);
    }
}

/// What a worker does with its plan and its files.
type Work<P> = fn(&Arc<Reporter>, &P, Files, Result<(), NotConfined>) -> Result<(), StartFailure>;

fn run<P: WorkerPlan>(work: Work<P>) -> ! {
    let started = monotonic_ns();
    let inherited = confine::drop_inherited();
    let Ok((control, plan, files)) = receive::<P>() else {
        exit(SPEECHLESS)
    };
    let reporter = Arc::new(Reporter(control));
    reporter.phase_at(Phase::WorkerStarted, started);
    if let Err(failure) = work(&reporter, &plan, files, inherited) {
        reporter.send(&Report::NotStarted(failure));
    }
    exit(REPORTED)
}

fn receive<P: WorkerPlan>() -> io::Result<(UnixStream, P, Files)> {
    // The channel came as standard input, which needs no agreement on a number.
    let stdin = rustix::stdio::stdin().try_clone_to_owned()?;
    let control = UnixStream::from(stdin);
    let (plan, files) = receive_plan::<P>(&control)?;
    if plan.version() != PLAN_VERSION || plan.roles().len() != files.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let files = Files::new(plan.roles(), files);
    Ok((control, plan, files))
}

/// Runs the virtual machine.
fn machine(
    reporter: &Arc<Reporter>,
    plan: &Plan,
    files: Files,
    inherited: Result<(), NotConfined>,
) -> Result<(), StartFailure> {
    confine::single_threaded().map_err(|error| StartFailure::new(Fault::Caller, error))?;
    inherited
        .and_then(|()| confine::enter())
        .map_err(|error| StartFailure::new(Fault::Host, error))?;
    reporter.phase(Phase::Confined);
    // Nobody orders it to do anything.
    reporter.end_with_the_host(|_| Ok(()))?;
    let end = vmm::run(plan, files, reporter)?;
    reporter.send(&Report::Ended(end));
    Ok(())
}

/// Tells the host program what happens here.
#[derive(Debug)]
pub(crate) struct Reporter(UnixStream);

impl Reporter {
    /// Ends this process when the host program is gone: nothing of a sandbox may outlive it. What that says until then goes to `told`; it is trusted, and
    /// another version of it was refused with its plan, so what is malformed ends the process, too.
    fn end_with_the_host(
        &self,
        mut told: impl FnMut(&[u8]) -> Result<(), MalformedMessage> + Send + 'static,
    ) -> Result<(), StartFailure> {
        let thread = || -> io::Result<()> {
            let mut control = self.0.as_fd().try_clone_to_owned().map(UnixStream::from)?;
            let watch = move || {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(count @ 1..) = control.read(&mut buffer) {
                    if told(buffer.get(..count).unwrap_or_default()).is_err() {
                        exit(SPEECHLESS);
                    }
                }
                exit(REPORTED);
            };
            std::thread::Builder::new()
                .name("host".into())
                .stack_size(256 << 10)
                .spawn(watch)?;
            Ok(())
        };
        thread().map_err(|error| StartFailure::new(Fault::Host, error))
    }

    /// Reports a phase that is reached now.
    pub(crate) fn phase(&self, phase: Phase) {
        self.phase_at(phase, monotonic_ns());
    }

    /// Reports a phase that was reached before.
    pub(crate) fn phase_at(&self, phase: Phase, at: u64) {
        self.send(&Report::Phase(phase, at));
    }

    /// Reports that a device does not work any more.
    pub(crate) fn broken(&self, device: &str, why: &str) {
        self.send(&Report::Broken(format!("{device}: {why}")));
    }

    /// Reports that the guest was kept from a file.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.send(&Report::Refused(refusal));
    }

    fn send(&self, report: &Report) {
        // When it fails the host program is gone, and the watching thread ends this process.
        drop(control::send(&self.0, report));
    }
}

impl StartFailure {
    pub(crate) fn new(fault: Fault, error: impl std::fmt::Display) -> Self {
        Self {
            fault: FaultCode::from(fault),
            message: error.to_string(),
        }
    }
}
