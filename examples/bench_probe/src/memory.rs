//! The worker's memory beside a guest whose console, sockets, share and disk were in use.

use std::env::temp_dir;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sandbox::{ExecSpec, Sandbox};
use serde::Deserialize;

use crate::job::{Guest, Samples};
use crate::smaps::Memory;

/// Uses every device: files of the share are written, read and removed, files of the root disk are
/// read, lines are written to the console.
const WORK: &str = "set -e; for i in 1 2 3 4; do head -c 1000000 /dev/urandom >f$i; cat f$i >g$i; cmp f$i g$i; done; \
                    ls -l; rm f* g*; cat /usr/bin/* 2>/dev/null | head -c 4000000 | cksum; \
                    for i in 1 2 3 4 5 6 7 8; do echo line $i >/dev/console; done";

/// Guests of several sizes.
#[derive(Debug, Deserialize)]
pub(crate) struct Sizes {
    guest: Guest,
    /// For the memory beyond the guest's.
    memory_mib: Vec<u64>,
    /// For the memory of an idle guest with its worker.
    idle_memory_mib: u64,
}

/// Measures each size.
pub(crate) async fn measure(sizes: &Sizes, samples: &mut Samples) -> Result<()> {
    let workspace = temp_dir().join(format!("bench-workspace-{}", std::process::id()));
    std::fs::create_dir(&workspace)?;
    idle(sizes, &workspace, samples).await?;
    for &memory_mib in &sizes.memory_mib {
        beyond_ram(&sizes.guest, memory_mib, &workspace, samples).await?;
    }
    Ok(std::fs::remove_dir_all(&workspace)?)
}

async fn start(guest: &Guest, memory_mib: u64, workspace: &Path) -> Result<(Sandbox, u32)> {
    let builder = guest.builder(memory_mib).workspace(workspace);
    let sandbox = builder.start().await?;
    let worker = sandbox.worker_id().context("the worker has no process")?;
    Ok((sandbox, worker))
}

async fn idle(sizes: &Sizes, workspace: &Path, samples: &mut Samples) -> Result<()> {
    let (sandbox, worker) = start(&sizes.guest, sizes.idle_memory_mib, workspace).await?;
    let memory = Memory::of(worker)?;
    samples.note("idle pss KiB", kib(memory.pss_kib()));
    let beyond = memory.beyond(sizes.idle_memory_mib << 20)?;
    let private: u64 = beyond.iter().map(|mapping| mapping.private_kib()).sum();
    samples.note("idle private beyond RAM KiB", kib(private));
    drop(sandbox.stop().await?);
    Ok(())
}

async fn beyond_ram(
    guest: &Guest,
    memory_mib: u64,
    workspace: &Path,
    samples: &mut Samples,
) -> Result<()> {
    let (sandbox, worker) = start(guest, memory_mib, workspace).await?;
    let work = ExecSpec::new("sh").args(["-c", WORK]).directory(workspace);
    let output = sandbox.output(work).await?;
    if !output.success() {
        bail!(
            "the guest's work failed: {:?} {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let memory = Memory::of(worker)?;
    let mut beyond = memory.beyond(memory_mib << 20)?;
    let private: u64 = beyond.iter().map(|mapping| mapping.private_kib()).sum();
    samples.note(format!("{memory_mib} MiB beyond RAM KiB"), kib(private));
    beyond.sort_by_key(|mapping| std::cmp::Reverse(mapping.private_kib()));
    for mapping in beyond.iter().take(12) {
        eprintln!("  {:6} KiB {}", mapping.private_kib(), mapping.label());
    }
    drop(sandbox.stop().await?);
    Ok(())
}

/// A size as a figure; no process has so much memory that a bit is lost.
fn kib(kib: u64) -> f64 {
    u32::try_from(kib).map_or(f64::INFINITY, f64::from)
}
