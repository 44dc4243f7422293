//! What is to be measured, and what comes of it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use sandbox::{GuestFiles, Sandbox, SandboxBuilder};
use serde::{Deserialize, Serialize};

use crate::{bare, boot, memory, running, share};

/// What is to be measured.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Job {
    /// Boots to the first line and to the end, ours and the peer's in turn.
    Boot(boot::Boots),
    /// Starts of a bare-metal guest on this machine's own KVM.
    Bare(bare::Starts),
    /// The worker's memory beside a guest that has worked.
    Memory(memory::Sizes),
    /// Round trips of a command.
    Exec(running::Execs),
    /// Starts and stops, with a census.
    Cycle(running::Cycles),
    /// Loads on a share, ours and the peer's in turn.
    Share(share::Shares),
}

/// The files of a guest.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// None: the guest stays in the initrd.
    pub(crate) root: Option<PathBuf>,
    /// Words that are added to the kernel's command line.
    #[serde(default)]
    pub(crate) kernel_args: Vec<String>,
    /// Whether the kernel needs a serial port for its first line.
    #[serde(default)]
    pub(crate) serial: bool,
}

impl Guest {
    /// The same guest with kernel and initial RAM disk copied to `folder`, which is in memory.
    pub(crate) fn copied_to(&self, folder: &Path) -> Result<Self> {
        let copy = |file: &Path| -> Result<PathBuf> {
            let name = file.file_name().context("a guest's file has no name")?;
            let copy = folder.join(name);
            fs::copy(file, &copy).with_context(|| format!("cannot copy {}", file.display()))?;
            Ok(copy)
        };
        Ok(Self {
            kernel: copy(&self.kernel)?,
            initrd: copy(&self.initrd)?,
            ..self.clone()
        })
    }

    /// Settings for this guest with so much memory.
    pub(crate) fn builder(&self, memory_mib: u64) -> SandboxBuilder {
        let builder = Sandbox::of(GuestFiles {
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            root: self.root.clone(),
        });
        self.kernel_args
            .iter()
            .fold(builder, SandboxBuilder::kernel_arg)
            .serial(self.serial)
            .memory_mib(memory_mib)
    }
}

/// One figure.
#[derive(Debug, Serialize)]
struct Sample {
    what: String,
    value: f64,
}

/// The figures that were taken.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<Sample>);

impl Samples {
    /// Notes a figure, and prints it for whoever waits.
    pub(crate) fn note(&mut self, what: impl Into<String>, value: f64) {
        let what = what.into();
        eprintln!("{what}: {value:.6}");
        self.0.push(Sample { what, value });
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join("samples.json");
        fs::write(&file, serde_json::to_vec(&self.0)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Carries out the job in the program's argument.
pub(crate) fn run_named_by_argument() -> Result<()> {
    let text = env::args().nth(1).context("usage: bench_probe JOB")?;
    let job: Job = serde_json::from_str(&text).context("the argument is no job")?;
    let folder = env::var_os("NESTED_OUT").context("NESTED_OUT is not set")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut samples = Samples::default();
    runtime.block_on(run(job, &mut samples))?;
    samples.write(Path::new(&folder))
}

async fn run(job: Job, samples: &mut Samples) -> Result<()> {
    match job {
        Job::Boot(boots) => boot::measure(boots, samples).await,
        Job::Bare(starts) => bare::measure(&starts, samples).await,
        Job::Memory(sizes) => memory::measure(&sizes, samples).await,
        Job::Exec(execs) => running::measure_execs(&execs, samples).await,
        Job::Cycle(cycles) => running::measure_cycles(&cycles, samples).await,
        Job::Share(shares) => share::measure(shares, samples).await,
    }
}
