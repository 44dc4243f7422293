//! Starting `coffer`, and what comes of it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// `coffer` with arguments, of which the guest's files are the environment's business.
pub(crate) fn coffer<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coffer"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Runs the command to its end.
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot start coffer")?;
        Ok(Self {
            status: output.status.code().context("it was killed")?,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// Checks that it failed with `status` and one line that begins with our name and holds `part`.
    pub(crate) fn failed_with(&self, status: i32, part: &str) -> Result<()> {
        let one_line = self.stderr.lines().count() == 1 && self.stderr.starts_with("coffer: ");
        ensure!(
            self.status == status
                && one_line
                && self.stderr.contains(part)
                && self.stdout.is_empty(),
            "expected {status} and {part:?}: {self:?}"
        );
        Ok(())
    }
}

/// The worker that a running `coffer` has, when it has one.
pub(crate) fn worker_of(coffer: &Child) -> Option<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", coffer.id())).ok()?;
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .find_map(|children| {
            children
                .split_whitespace()
                .next()
                .map(|pid| PathBuf::from("/proc").join(pid))
        })
}

/// Waits until something is so; an error names it when it never is.
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = found() {
            return Ok(value);
        }
        ensure!(
            start.elapsed() < Duration::from_secs(200),
            "{what} did not come"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
