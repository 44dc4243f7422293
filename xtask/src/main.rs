//! What a developer of Cofferdam runs, as `cargo xtask COMMAND`. Linux only; written for Debian 12 as root, where
//! missing packages are installed by themselves. Whatever it makes is below the workspace's `target`.

#![expect(
    clippy::print_stdout,
    reason = "a program's results go to its standard output"
)]

mod bench;
mod cache;
mod campaign;
mod ci;
mod cpio;
mod cross;
mod demo;
mod distro;
mod fuzz;
mod guest;
mod host;
mod mounted;
mod nested;
mod place;
mod progress;
mod test;
mod tidy;
mod wine;

use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser};

use crate::nested::{Clock, KernelChoice, NestedJob};

/// The developer's commands of Cofferdam.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, max_term_width = 100)]
enum Cli {
    /// Let an agent mend a small project in a sandbox, and look at the result from the host.
    Demo,
    /// Run all tests, each where it can run; make what they need first.
    Test,
    /// Tell what this machine is good for.
    Host,
    /// Make what guests boot: kernels, the guest program, initial RAM disks, the root file system.
    Guest {
        /// What to make.
        #[arg(default_value = "all")]
        part: guest::Part,
    },
    /// Type-check the portable crates for macOS, Windows and arm64 Linux.
    Cross,
    /// Run the share's tests for Windows under Wine.
    Wine,
    /// Run the fuzz targets for a few seconds each.
    Fuzz {
        /// Only this one.
        target: Option<String>,
        /// Seconds for each.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
    },
    /// Run everything that must pass before a change lands.
    Ci {
        /// Only these steps.
        steps: Vec<String>,
    },
    /// Check the house rules and print the figures of each crate.
    Tidy,
    /// Measure what has a target, and compare.
    Bench {
        /// What to measure.
        bench: bench::Bench,
    },
    /// Run what takes too long for `ci`.
    Campaign {
        /// What to run.
        campaign: campaign::Campaign,
        #[command(flatten)]
        lengths: campaign::Lengths,
    },
    /// Run a command in the emulated host, which has a real /dev/kvm.
    Nested(NestedArgs),
}

#[derive(Debug, Args)]
struct NestedArgs {
    /// Processors of the emulated host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    cpus: u32,
    /// Memory of the emulated host, in MiB; the files that the command writes take of it too.
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(256..))]
    memory: u32,
    /// Stop the emulated host after so many seconds, with status 124.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Deterministic time: one processor, a second is 5 x 10^8 instructions.
    #[arg(long)]
    icount: bool,
    /// Take the distribution's kernel even if our own is built.
    #[arg(long)]
    stock: bool,
    /// Keep what the command writes below $NESTED_OUT in this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl NestedArgs {
    fn job(self) -> NestedJob {
        let job = NestedJob::new(self.command)
            .cpus(self.cpus)
            .memory_mib(self.memory)
            .timeout(Duration::from_secs(self.timeout))
            .clock(if self.icount {
                Clock::Instructions
            } else {
                Clock::Wall
            })
            .kernel(if self.stock {
                KernelChoice::Stock
            } else {
                KernelChoice::Best
            });
        match self.out {
            Some(dir) => job.out(dir),
            None => job,
        }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            // As docker run has it: the tool failed, not what it ran.
            ExitCode::from(125)
        }
    }
}

fn run(command: Cli) -> Result<ExitCode> {
    match command {
        Cli::Demo => return demo::run(),
        Cli::Test => return test::run(),
        Cli::Host => println!("KVM: {:?}", host::Kvm::probe()),
        Cli::Guest { part } => {
            for file in guest::make(part)? {
                println!("{}", file.display());
            }
        }
        Cli::Cross => cross::run()?,
        Cli::Wine => wine::run()?,
        Cli::Fuzz { target, seconds } => {
            fuzz::run(target.as_deref(), Duration::from_secs(seconds))?;
        }
        Cli::Ci { steps } => ci::run(&steps)?,
        Cli::Tidy => tidy::run()?,
        Cli::Bench { bench } => bench::run(bench)?,
        Cli::Campaign { campaign, lengths } => campaign::run(campaign, &lengths)?,
        Cli::Nested(arguments) => return Ok(ExitCode::from(nested::run(&arguments.job())?.status)),
    }
    Ok(ExitCode::SUCCESS)
}
