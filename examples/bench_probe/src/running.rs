//! What is measured on sandboxes in which commands run: round trips, starts and stops.

use std::collections::BTreeSet;
use std::env::temp_dir;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use sandbox::{ExecSpec, Sandbox};
use serde::Deserialize;

use crate::census::{Census, resident_kib};
use crate::job::{Guest, Samples};

/// Where the guest gets the program of the in-guest loop.
const LOOP: &str = "/root/fork_exec_loop";

/// Round trips of `/bin/true`.
#[derive(Debug, Deserialize)]
pub(crate) struct Execs {
    guest: Guest,
    memory_mib: u64,
    rounds: usize,
    /// The program that forks and executes `/bin/true` inside the guest.
    fork_exec_loop: PathBuf,
}

/// Measures the round trips, and fork and exec in the guest itself, in turn.
pub(crate) async fn measure_execs(execs: &Execs, samples: &mut Samples) -> Result<()> {
    let sandbox = execs.guest.builder(execs.memory_mib).start().await?;
    let program = std::fs::read(&execs.fork_exec_loop)
        .with_context(|| format!("cannot read {}", execs.fork_exec_loop.display()))?;
    sandbox.write_file(LOOP, 0o755, &program).await?;
    exec_true(&sandbox).await?;
    in_guest(&sandbox).await?;
    for _ in 0..execs.rounds {
        let start = Instant::now();
        exec_true(&sandbox).await?;
        samples.note("exec ours", start.elapsed().as_secs_f64());
        samples.note("exec peer", in_guest(&sandbox).await?);
    }
    drop(sandbox.stop().await?);
    Ok(())
}

async fn exec_true(sandbox: &Sandbox) -> Result<()> {
    let output = sandbox.output(ExecSpec::new("/bin/true")).await?;
    if !output.success() {
        bail!("/bin/true: {:?}", output.status);
    }
    Ok(())
}

/// Seconds of one fork, exec and wait, as the guest's loop has it.
async fn in_guest(sandbox: &Sandbox) -> Result<f64> {
    let output = sandbox.output(ExecSpec::new(LOOP)).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text.trim().parse();
    seconds.with_context(|| format!("the guest's loop: {:?} {text}", output.status))
}

/// Starts and stops.
#[derive(Debug, Deserialize)]
pub(crate) struct Cycles {
    guest: Guest,
    memory_mib: u64,
    count: usize,
    /// What the program itself needs once is there after so many.
    settled_after: usize,
}

/// Starts and stops a sandbox with a workspace again and again and compares what is there.
pub(crate) async fn measure_cycles(cycles: &Cycles, samples: &mut Samples) -> Result<()> {
    let workspace = temp_dir().join(format!("bench-workspace-{}", std::process::id()));
    std::fs::create_dir(&workspace)?;
    let mut settled = None;
    for done in 0..cycles.count {
        if done == cycles.settled_after {
            settled = Some((Census::take()?, resident_kib()?));
        }
        let start = Instant::now();
        cycle(cycles, &workspace).await?;
        samples.note("cycle", start.elapsed().as_secs_f64());
    }
    let (census, resident) = settled.context("no cycle is left after the settling")?;
    let grown = resident_kib()?.saturating_sub(resident);
    samples.note("cycle resident KiB", f64::from(u32::try_from(grown)?));
    let now = Census::take()?;
    note_new(samples, "processes", &census.processes, &now.processes)?;
    note_new(
        samples,
        "descriptors",
        &census.descriptors,
        &now.descriptors,
    )?;
    note_new(samples, "files", &census.files, &now.files)?;
    Ok(std::fs::remove_dir_all(&workspace)?)
}

async fn cycle(cycles: &Cycles, workspace: &Path) -> Result<()> {
    let builder = cycles.guest.builder(cycles.memory_mib).workspace(workspace);
    let sandbox = builder.start().await?;
    exec_true(&sandbox).await?;
    drop(sandbox.stop().await?);
    Ok(())
}

fn note_new(
    samples: &mut Samples,
    what: &str,
    before: &BTreeSet<String>,
    now: &BTreeSet<String>,
) -> Result<()> {
    let new: Vec<_> = now.difference(before).collect();
    for one in &new {
        eprintln!("left behind ({what}): {one}");
    }
    samples.note(
        format!("cycle {what}"),
        f64::from(u32::try_from(new.len())?),
    );
    Ok(())
}
