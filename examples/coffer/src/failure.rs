//! Failures: one line on standard error and an exit status as `docker run` has them.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use sandbox::Error;
use sandbox::agent::AgentError;

use crate::print::say;

/// The sandbox itself failed.
const SANDBOX_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The command was ended by `--timeout`, as `timeout(1)` has it.
const TIMED_OUT: u8 = 124;
/// Added to the number of the signal that ended something, as a shell has it.
const SIGNAL: u8 = 128;
/// The signal that ends a program whose output nobody reads; we get an error in its place.
const SIGPIPE: u8 = 13;

/// Why there is no exit status of a command.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The sandbox failed, or the command could not be started.
    Sandbox(Error),
    /// A stream of ours cannot be written.
    Output(&'static str, io::Error),
    /// The command ran for longer than this.
    TimedOut(Duration),
    /// A signal with this number ended us.
    Signal(u8),
    /// The runtime could not be started.
    Start(io::Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Sandbox(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sandbox(error) => f.write_str(&one_line(error)),
            Self::Output(stream, error) => write!(f, "cannot write {stream}: {error}"),
            Self::TimedOut(limit) => {
                let millis = limit.as_millis();
                let (number, unit) = match millis % 1000 {
                    0 => (millis / 1000, "s"),
                    _ => (millis, "ms"),
                };
                write!(f, "the command did not end within {number} {unit}")
            }
            Self::Signal(_) => f.write_str("ended by a signal"),
            Self::Start(error) => write!(f, "cannot start: {error}"),
        }
    }
}

impl Failure {
    /// Prints the failure and gives the exit status for it.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if json && !self.is_silent() {
            let error = serde_json::json!({ "error": self.to_string(), "fault": self.fault() });
            say(&error.to_string());
        } else if !self.is_silent() {
            say(&format!("coffer: {self}"));
        }
        ExitCode::from(self.status())
    }

    /// Whoever reads our output went away, as `head` does: that is no news to anybody.
    fn is_silent(&self) -> bool {
        matches!(self, Self::Output(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn fault(&self) -> String {
        match self {
            Self::Sandbox(error) => format!("{:?}", error.fault()).to_lowercase(),
            Self::Output(..) | Self::Start(_) => "host".into(),
            Self::TimedOut(_) => "guest".into(),
            Self::Signal(_) => "caller".into(),
        }
    }

    fn status(&self) -> u8 {
        use sandbox::protocol::ExecFailure::{NoSuchDirectory, NotExecutable, NotFound};
        match self {
            Self::Sandbox(Error::Agent(AgentError::Refused(NotFound))) => NOT_FOUND,
            Self::Sandbox(Error::Agent(AgentError::Refused(NotExecutable | NoSuchDirectory))) => {
                NOT_EXECUTABLE
            }
            Self::TimedOut(_) => TIMED_OUT,
            Self::Signal(number) => SIGNAL.saturating_add(*number),
            Self::Output(..) if self.is_silent() => SIGNAL + SIGPIPE,
            Self::Sandbox(_) | Self::Output(..) | Self::Start(_) => SANDBOX_FAILED,
        }
    }
}

/// A message with the chain of its sources, in one line.
fn one_line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line.replace(['\n', '\r'], " ")
}

/// Prints what clap says of the command line, or the help that was asked for. A mistake in it is a failure of ours, not a
/// status that the command could have had.
pub(crate) fn usage(said: &clap::Error) -> ExitCode {
    // Nobody is there to be told when it cannot be printed.
    drop(said.print());
    ExitCode::from(if said.use_stderr() { SANDBOX_FAILED } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_line_and_status() {
        let output = |kind: io::ErrorKind| Failure::Output("standard output", kind.into());
        let table = [
            (
                Failure::TimedOut(Duration::from_millis(500)),
                "did not end within 500 ms",
                124,
            ),
            (
                Failure::TimedOut(Duration::from_secs(90)),
                "did not end within 90 s",
                124,
            ),
            (Failure::Signal(2), "ended by a signal", 130),
            (Failure::Signal(15), "ended by a signal", 143),
            (
                output(io::ErrorKind::StorageFull),
                "cannot write standard output: no storage space",
                125,
            ),
            (
                Failure::from(Error::Config("x".into())),
                "x",
                SANDBOX_FAILED,
            ),
        ];
        for (failure, part, status) in table {
            assert!(failure.to_string().contains(part), "{failure}");
            assert_eq!((failure.status(), failure.is_silent()), (status, false));
        }
        let closed = output(io::ErrorKind::BrokenPipe);
        assert_eq!((closed.status(), closed.is_silent()), (141, true));
    }
}
