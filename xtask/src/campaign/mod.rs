//! `cargo xtask campaign NAME`: what takes too long for `ci`. Prints a table and writes it to `target/campaign/NAME.json`; it fails if
//! a check fails.

mod egress;
mod pjdfstest;
mod share;
mod share_guest;

use std::{fs, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::host;

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Campaign {
    /// The share on this host's /dev/fuse: public suites, git from both sides, builds, races.
    Share,
    /// Public suites on the workspace of a guest: pjdfstest, fsx, git
    ShareGuest,
    /// The guest's network in a world without a way out: attacks, real programs, and sinks that count.
    Egress,
}

/// How long it runs.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Lengths {
    /// Operations of each of two fsx processes
    #[arg(long, default_value_t = 5_000_000)]
    operations: u64,
    /// Rounds of git from both sides
    #[arg(long, default_value_t = 10_000)]
    rounds: u64,
    /// Exchanges of a directory and a link while the guest works
    #[arg(long, default_value_t = 1_000_000)]
    exchanges: u64,
    /// Only the checks whose name contains this
    #[arg(long)]
    only: Option<String>,
}

/// One check and how it went.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    passed: bool,
    /// What was found, in one line.
    outcome: String,
    seconds: f64,
}

/// All checks so far.
#[derive(Debug, Default)]
struct Checks {
    done: Vec<Check>,
    only: Option<String>,
    /// Those that were not asked for.
    left_out: usize,
}

impl Checks {
    /// Runs a check; what went wrong is its outcome.
    fn run(&mut self, what: &'static str, check: impl FnOnce() -> Result<String>) {
        if self.only.as_ref().is_some_and(|only| !what.contains(only)) {
            self.left_out += 1;
            return;
        }
        eprintln!("xtask: {what} ...");
        let begin = Instant::now();
        let outcome = check();
        let check = Check {
            what,
            passed: outcome.is_ok(),
            outcome: outcome.unwrap_or_else(|error| format!("{error:#}")),
            seconds: begin.elapsed().as_secs_f64(),
        };
        let verdict = if check.passed { "passed" } else { "FAILED" };
        println!(
            "{verdict}  {what}: {} ({:.0} s)",
            check.outcome, check.seconds
        );
        self.done.push(check);
    }
}

/// Runs all checks and writes the file.
pub(crate) fn run(campaign: Campaign, lengths: &Lengths) -> Result<()> {
    let mut checks = Checks {
        only: lengths.only.clone(),
        ..Checks::default()
    };
    let name = match campaign {
        Campaign::Share => {
            share::run(&mut checks, lengths)?;
            "share"
        }
        Campaign::ShareGuest => {
            share_guest::run(&mut checks)?;
            "share-guest"
        }
        Campaign::Egress => {
            egress::run(&mut checks)?;
            "egress"
        }
    };
    let folder = host::target().join("campaign");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.json"));
    fs::write(&file, serde_json::to_vec_pretty(&checks.done)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    if checks.left_out > 0 {
        println!("{} checks were not asked for", checks.left_out);
    }
    ensure!(!checks.done.is_empty(), "no check has such a name");
    match checks.done.iter().filter(|check| !check.passed).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} checks failed", checks.done.len()),
    }
}
