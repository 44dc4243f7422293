//! One line for each stage of work, with its time, on standard error.

use std::time::Instant;

use anyhow::Result;

/// Runs `work` as a stage: says what it is at its start and how long it took at its end.
pub(crate) fn stage<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprint!("xtask: {what} ... ");
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "failed" };
    eprintln!("{verdict}, {:.1} s", start.elapsed().as_secs_f64());
    result
}
