//! Where sandboxes run: on this machine's KVM, or in the emulated host.

use std::{
    ffi::OsString,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    host::Kvm,
    nested::{self, Clock, NestedJob, NestedResult, Output},
};

/// The better of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// This machine, whose KVM boots Linux.
    Native,
    /// The emulated host.
    Emulated,
}

/// A command for a place.
#[derive(Debug, Clone)]
pub(crate) struct Task {
    /// The program and its arguments.
    pub(crate) command: Vec<OsString>,
    /// Variables added to its environment.
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// After this time it is stopped, with [`nested::TIMED_OUT`].
    pub(crate) timeout: Duration,
    /// What happens with its output.
    pub(crate) output: Output,
}

impl Place {
    /// Chooses, and says why in one line.
    pub(crate) fn choose() -> Self {
        match Kvm::probe() {
            Kvm::Native => {
                println!("KVM: this machine's, which boots an unmodified kernel");
                Self::Native
            }
            Kvm::Unfit(reason) => {
                println!("KVM: in the emulated host, because {reason}");
                Self::Emulated
            }
        }
    }

    /// Runs a command there and waits for it. That it fails is no error.
    pub(crate) fn run(self, task: &Task) -> Result<NestedResult> {
        match self {
            Self::Native => run_here(task),
            Self::Emulated => {
                // This machine's time: with time by instructions QEMU too often gives a guest interrupts twice (`nested`).
                let job = NestedJob::new(&task.command)
                    .clock(Clock::Wall)
                    .timeout(task.timeout)
                    .output(task.output);
                let set = |job: NestedJob, (name, value): &(&str, OsString)| job.env(name, value);
                nested::run(&task.env.iter().fold(job, set))
            }
        }
    }
}

fn run_here(task: &Task) -> Result<NestedResult> {
    let stream = || match task.output {
        Output::Inherit => Stdio::inherit(),
        Output::Capture => Stdio::piped(),
    };
    let done = Command::new("timeout")
        .args(["--kill-after=10", &task.timeout.as_secs().to_string()])
        .args(&task.command)
        .envs(task.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stream())
        .stderr(stream())
        .output()
        .context("cannot start `timeout`")?;
    Ok(NestedResult {
        // Without a status a signal ended it, which is a failure like any other.
        status: done
            .status
            .code()
            .and_then(|code| code.try_into().ok())
            .unwrap_or(1),
        stdout: done.stdout,
        stderr: done.stderr,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: u64) -> Task {
        Task {
            command: ["sh", "-c", script].map(OsString::from).to_vec(),
            env: vec![("GREETING", "hello".into())],
            timeout: Duration::from_secs(timeout),
            output: Output::Capture,
        }
    }

    #[test]
    fn task_gives_its_output_and_status() {
        let result = run_here(&shell("echo $GREETING; echo oops >&2; exit 3", 60)).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert_eq!(
            (result.status, text(&result.stdout), text(&result.stderr)),
            (3, "hello\n".into(), "oops\n".into())
        );
    }

    #[test]
    fn task_that_hangs_is_stopped() {
        let result = run_here(&shell("sleep 1000", 1)).unwrap();
        assert_eq!(result.status, nested::TIMED_OUT);
    }
}
