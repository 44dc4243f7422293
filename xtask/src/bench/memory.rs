//! What a sandbox takes of the host's memory.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{
    probe::{self, Probe},
    report::{Row, Target},
};
use crate::{
    guest::{self, Which},
    nested::Clock,
};

const LIMIT: Duration = Duration::from_secs(1200);

/// The guests beside which the worker's own memory is measured, in MiB.
const GUESTS: [u32; 2] = [128, 2048];

/// The guest that idles, in MiB.
const IDLE: u32 = 128;

/// Boots guests of several sizes, has them work, and looks at their workers.
pub(super) fn rows() -> Result<Vec<Row>> {
    let guest = probe::guest(&guest::assets(Which::Own)?, true);
    let job =
        json!({ "memory": { "guest": guest, "memory_mib": GUESTS, "idle_memory_mib": IDLE } });
    let samples = Probe::build()?.run_nested(&job, Clock::Instructions, LIMIT)?;
    let mut rows = Vec::new();
    for size in GUESTS {
        rows.push(Row::new(
            format!("the worker's private memory beyond guest RAM, {size} MiB guest at work"),
            samples.median(&format!("{size} MiB beyond RAM KiB"))? / 1024.0,
            "MiB",
            Target::AtMost(4.0),
        ));
    }
    rows.push(Row::new(
        format!("host memory (PSS) of a booted idle guest of {IDLE} MiB, guest RAM included"),
        samples.median("idle pss KiB")? / 1024.0,
        "MiB",
        Target::AtMost(40.0),
    ));
    Ok(rows)
}
