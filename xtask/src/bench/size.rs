//! The sizes of the programs.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    probe::build_release,
    report::{Row, Target},
};
use crate::guest::{self, Part};

/// Looks at the stripped release builds.
pub(super) fn rows() -> Result<Vec<Row>> {
    let coffer = build_release("coffer")?.join("coffer");
    let small = build_release("hello_exec")?.join("hello_exec");
    let mut rows = vec![
        row("coffer, which is its own vmm worker", &coffer, 6.0)?,
        row(
            "hello_exec, the least program that embeds a sandbox",
            &small,
            6.0,
        )?,
    ];
    for program in guest::make(Part::Program)? {
        rows.push(row("the guest program", &program, 3.0)?);
    }
    Ok(rows)
}

fn row(what: &str, program: &Path, limit: f64) -> Result<Row> {
    let size = fs::metadata(program).with_context(|| format!("no {}", program.display()))?;
    let kib = u32::try_from(size.len() / 1024)?;
    Ok(Row::new(
        what,
        f64::from(kib) / 1024.0,
        "MiB",
        Target::AtMost(limit),
    ))
}
