//! The *emulated host*: QEMU emulates in software a processor with SVM, a kernel with `kvm-amd` runs on it, and the
//! command finds a real `/dev/kvm` there, whatever the machine below offers.
//!
//! The root is this machine's root, read-only, with a temporary overlay, so the workspace and its `target` are at
//! the same place. Nothing that the command writes stays, except below the folder that `NESTED_OUT` names.

mod image;
mod job;
mod machine;

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Result, bail};

pub(crate) use self::image::KernelChoice;

/// How often a job is begun when QEMU gets a guest stuck.
const ATTEMPTS: u32 = 3;

/// The status of a job that did not end in time, as `timeout(1)` has it.
pub(crate) const TIMED_OUT: u8 = 124;

/// A command for the emulated host.
#[derive(Debug, Clone)]
pub(crate) struct NestedJob {
    command: Vec<OsString>,
    cwd: PathBuf,
    env: Vec<(OsString, OsString)>,
    cpus: u32,
    memory_mib: u32,
    timeout: Duration,
    clock: Clock,
    kernel: KernelChoice,
    out: Option<PathBuf>,
    output: Output,
}

/// How time passes in the emulated host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// With this machine's time.
    Wall,
    /// By instructions: 5 x 10^8 of them are one second, whatever else this machine does. One CPU only.
    Instructions,
}

/// Where the command's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// To our own standard output and error, as it comes.
    Inherit,
    /// Into the [`NestedResult`].
    Capture,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NestedResult {
    /// The exit status; 128 + n for the end by signal n, [`TIMED_OUT`] for a job that was stopped.
    pub(crate) status: u8,
    /// What the command wrote, if it was to be captured.
    pub(crate) stdout: Vec<u8>,
    /// The same of its standard error.
    pub(crate) stderr: Vec<u8>,
}

impl NestedJob {
    /// A job with 2 CPUs, 4 GiB and ten minutes, in the current folder.
    pub(crate) fn new<S: AsRef<OsStr>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command
                .into_iter()
                .map(|word| word.as_ref().to_owned())
                .collect(),
            cwd: env::current_dir().unwrap_or_else(|_| "/".into()),
            env: Vec::new(),
            // With two, the emulated host itself stalls now and then (QEMU 7.2, thread=multi).
            cpus: 1,
            memory_mib: 4096,
            timeout: Duration::from_secs(600),
            clock: Clock::Wall,
            kernel: KernelChoice::Best,
            out: None,
            output: Output::Inherit,
        }
    }

    /// Runs in this folder.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the commands that bring results back")
    )]
    pub(crate) fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = dir.into();
        self
    }

    /// Sets an environment variable of the command.
    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The emulated host's processors.
    pub(crate) fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// The emulated host's memory, in MiB.
    pub(crate) fn memory_mib(mut self, memory: u32) -> Self {
        self.memory_mib = memory;
        self
    }

    /// Stops the whole emulated host after this time.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How time passes.
    pub(crate) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The emulated host's kernel.
    pub(crate) fn kernel(mut self, kernel: KernelChoice) -> Self {
        self.kernel = kernel;
        self
    }

    /// Keeps what the command writes below `NESTED_OUT` in this folder of our own machine.
    pub(crate) fn out(mut self, dir: impl Into<PathBuf>) -> Self {
        self.out = Some(dir.into());
        self
    }

    /// Where the command's output goes.
    pub(crate) fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }
}

/// Boots an emulated host, runs the job in it, and takes it down. Nothing of it stays.
///
/// # Errors
///
/// The host could not be prepared, ended before the command did, or stood still each time; a command that fails is no
/// error. With time by instructions the command may be begun again, on a fresh host.
pub(crate) fn run(job: &NestedJob) -> Result<NestedResult> {
    let image = image::ensure(job.kernel)?;
    for _ in 0..ATTEMPTS {
        let folder = job::JobFolder::create(job)?;
        if let Some(result) = machine::run(job, &image, &folder)? {
            return Ok(result);
        }
        eprintln!(
            "xtask: the emulated host hardly moves (QEMU gives guests interrupts twice); once more"
        );
    }
    bail!("the emulated host stood still {ATTEMPTS} times")
}

impl fmt::Display for NestedResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 => f.write_str("succeeded"),
            TIMED_OUT => f.write_str("did not end in time"),
            status => write!(f, "failed with status {status}"),
        }
    }
}
