//! Starts and stops, and what they leave behind.

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

const LIMIT: Duration = Duration::from_secs(2200);

/// What counts, and what comes first so that the program has all that it needs once.
const COUNT: u32 = 100;
const SETTLING: u32 = 5;

/// Memory of the host program that is noise: a few pages of its allocator.
const FLAT_KIB: f64 = 128.0;

/// Starts a sandbox with a workspace, runs a command in it and stops it, again and again.
pub(super) fn rows() -> Result<Vec<Row>> {
    let guest = probe::guest(&guest::assets(Which::Own)?, true);
    let job = json!({ "cycle": {
        "guest": guest,
        "memory_mib": 128,
        "count": COUNT + SETTLING,
        "settled_after": SETTLING,
    } });
    let samples = Probe::build()?.run_nested(&job, Clock::Wall, LIMIT)?;
    let left = |what: &str, sample: &str, limit| -> Result<Row> {
        let what = format!("{what} after {COUNT} starts and stops");
        let unit = if limit > 0.0 { "KiB" } else { "left" };
        Ok(Row::new(
            what,
            samples.median(sample)?,
            unit,
            Target::AtMost(limit),
        ))
    };
    Ok(vec![
        left("processes", "cycle processes", 0.0)?,
        left("descriptors of the host program", "cycle descriptors", 0.0)?,
        left("temporary files and named sockets", "cycle files", 0.0)?,
        left("growth of the host program", "cycle resident KiB", FLAT_KIB)?,
    ])
}
