//! What a guest is: processors, memory, time, and how its start went.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use sandbox::Phase;

use crate::fixture::{Fixture, MEMORY_MIB, cases};

cases!(Guest: processors, memory, clock, kernel_and_name, timeline_rises, entropy_is_there);

/// Every phase, in order.
const PHASES: [Phase; 9] = [
    Phase::Spawned,
    Phase::WorkerStarted,
    Phase::Confined,
    Phase::Built,
    Phase::VcpuEntered,
    Phase::FirstAccess,
    Phase::FirstByte,
    Phase::InitStarted,
    Phase::AgentReady,
];

async fn processors(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    assert_eq!(guest.answer("nproc").await?, "2");
    // Both do work: each is asked to run something.
    assert_eq!(
        guest
            .answer("taskset -c 0 echo a; taskset -c 1 echo b")
            .await?,
        "a\nb"
    );
    Ok(())
}

async fn memory(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let kib: u64 = guest
        .answer("awk '/^MemTotal/ { print $2 }' /proc/meminfo")
        .await?
        .parse()?;
    // The kernel keeps some for itself before it counts.
    assert!(
        (MEMORY_MIB * 3 / 4..=MEMORY_MIB).contains(&(kib >> 10)),
        "{kib} KiB"
    );
    Ok(())
}

async fn clock(fixture: &Fixture) -> Result<()> {
    const TOLERANCE: Duration = Duration::from_secs(2);
    let guest = fixture.shared().await?;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let inside = Duration::from_secs_f64(guest.answer("date +%s.%N").await?.parse()?);
    let after = SystemTime::now().duration_since(UNIX_EPOCH)?;
    assert!(
        before.saturating_sub(TOLERANCE) <= inside && inside <= after + TOLERANCE,
        "the guest says {inside:?} between {before:?} and {after:?}"
    );
    Ok(())
}

async fn kernel_and_name(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    assert_eq!(guest.answer("uname -r").await?, guest.sandbox.kernel());
    assert_eq!(guest.answer("uname -n").await?, "cofferdam");
    let known = guest.answer("getent hosts $(uname -n)").await?;
    assert_eq!(
        known.split_whitespace().next(),
        Some("127.0.1.1"),
        "{known}"
    );
    Ok(())
}

async fn timeline_rises(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let reached: Vec<_> = guest.sandbox.timeline().phases().collect();
    assert_eq!(
        reached.iter().map(|(phase, _)| *phase).collect::<Vec<_>>(),
        PHASES
    );
    assert!(reached.is_sorted_by_key(|(_, at)| *at), "{reached:?}");
    Ok(())
}

async fn entropy_is_there(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    // It would say that it blocks instead.
    let script = "python3 -c 'import os; print(len(os.getrandom(32, os.GRND_NONBLOCK)))'";
    assert_eq!(guest.answer(script).await?, "32");
    Ok(())
}
