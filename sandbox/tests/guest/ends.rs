//! The ends of a sandbox, each with its reason and with nothing left behind.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::{EndReason, Error, ExecSpec, Sandbox};
use tokio::time::sleep;

use crate::fixture::{Fixture, cases};

cases!(Guest:
    stop_powers_off,
    kill_ends_at_once,
    guest_that_powers_off,
    guest_that_panics,
    worker_that_is_killed,
    dropped_handle_leaves_no_worker,
    dropped_start_leaves_no_worker,
);

async fn stop_powers_off(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    let worker = worker(&guest)?;
    assert_eq!(guest.stop().await?, EndReason::PoweredOff);
    until_gone(&worker).await
}

async fn kill_ends_at_once(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    let worker = worker(&guest)?;
    guest.kill();
    assert_eq!(guest.wait().await, EndReason::Killed);
    until_gone(&worker).await?;
    // Calls after the end say that it ended, and why.
    let late = guest.output(ExecSpec::new("true")).await;
    assert!(
        matches!(late, Err(Error::Ended(EndReason::Killed))),
        "{late:?}"
    );
    Ok(())
}

async fn guest_that_powers_off(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    // As an agent with root in the guest would: without a word to process 1.
    let script = "import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)";
    let _cut_short = guest
        .output(ExecSpec::new("python3").args(["-c", script]))
        .await;
    assert_eq!(guest.wait().await, EndReason::PoweredOff);
    Ok(())
}

async fn guest_that_panics(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    // A kernel that must panic when a group's memory runs out, and a program that takes all of a
    // small group's: soon done, unlike taking all of the guest's.
    let script = "echo 2 > /proc/sys/vm/panic_on_oom; cd /sys/fs/cgroup; \
        echo +memory > cgroup.subtree_control; mkdir full; echo 8M > full/memory.max; \
        echo $$ > full/cgroup.procs; tail /dev/zero";
    let cut_short = guest.output(ExecSpec::new("sh").args(["-c", script])).await;
    let reason = guest.wait().await;
    let EndReason::Panicked(text) = &reason else {
        bail!("{reason:?}; the command: {cut_short:?}");
    };
    assert!(text.contains("Out of memory"), "{text}");
    assert!(
        matches!(&cut_short, Err(Error::Ended(told)) if *told == reason),
        "{cut_short:?}"
    );
    Ok(())
}

async fn worker_that_is_killed(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    let id = guest.worker_id().context("no worker")?;
    let pid = Pid::from_raw(id.try_into()?).context("no process id")?;
    kill_process(pid, Signal::KILL)?;
    let reason = guest.wait().await;
    assert!(
        matches!(&reason, EndReason::WorkerDied(words) if words.contains("signal: 9")),
        "{reason:?}"
    );
    Ok(())
}

async fn dropped_handle_leaves_no_worker(fixture: &Fixture) -> Result<()> {
    let guest = fixture.small().start().await?;
    let worker = worker(&guest)?;
    drop(guest);
    until_gone(&worker).await
}

async fn dropped_start_leaves_no_worker(fixture: &Fixture) -> Result<()> {
    let before = children()?;
    let worker = async {
        loop {
            let new = |child: &PathBuf| !before.contains(child);
            if let Some(worker) = children()?.into_iter().find(new) {
                return anyhow::Ok(worker);
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    // The start comes first, so that there is something to see; seeing it drops the start.
    let worker = tokio::select! {
        biased;
        started = fixture.small().start() => bail!("no worker was seen before the end: {started:?}"),
        worker = worker => worker?,
    };
    until_gone(&worker).await
}

/// The folder of `/proc` that is there as long as the worker is.
fn worker(guest: &Sandbox) -> Result<PathBuf> {
    let folder = PathBuf::from(format!("/proc/{}", guest.worker_id().context("no worker")?));
    ensure!(folder.exists(), "the worker is not running");
    Ok(folder)
}

/// The folders of `/proc` of this process's children.
fn children() -> Result<Vec<PathBuf>> {
    let mut children = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        let Ok(list) = std::fs::read_to_string(thread?.path().join("children")) else {
            continue;
        };
        children.extend(
            list.split_whitespace()
                .map(|pid| PathBuf::from("/proc").join(pid)),
        );
    }
    Ok(children)
}

async fn until_gone(process: &std::path::Path) -> Result<()> {
    for _ in 0..1000 {
        if !process.exists() {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    ensure!(false, "{} is still there", process.display());
    Ok(())
}
