//! Failures: one line on standard error and an exit status as `docker run` has them.

use std::error::Error as _;
use std::process::ExitCode;

use sandbox::Error;
use sandbox::agent::AgentError;

/// The sandbox itself failed.
pub(crate) const SANDBOX_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// The command was ended by `--timeout`, as `timeout(1)` has it.
pub(crate) const TIMED_OUT: u8 = 124;

/// A message with the chain of its sources, in one line.
pub(crate) fn one_line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        line.push_str(": ");
        line.push_str(&error.to_string());
        source = error.source();
    }
    line.replace(['\n', '\r'], " ")
}

/// Prints the failure and gives the exit status for it.
pub(crate) fn report(error: &Error, json: bool) -> ExitCode {
    let line = one_line(error);
    if json {
        let fault = format!("{:?}", error.fault()).to_lowercase();
        eprintln!("{}", serde_json::json!({ "error": line, "fault": fault }));
    } else {
        eprintln!("coffer: {line}");
    }
    ExitCode::from(status(error))
}

/// Prints what clap says of the command line, or the help that was asked for. A mistake in it is a failure of ours, not a
/// status that the command could have had.
pub(crate) fn usage(said: &clap::Error) -> ExitCode {
    // Nobody is there to be told when it cannot be printed.
    drop(said.print());
    ExitCode::from(if said.use_stderr() { SANDBOX_FAILED } else { 0 })
}

fn status(error: &Error) -> u8 {
    use sandbox::protocol::ExecFailure::{NoSuchDirectory, NotExecutable, NotFound};
    match error {
        Error::Agent(AgentError::Refused(NotFound)) => NOT_FOUND,
        Error::Agent(AgentError::Refused(NotExecutable | NoSuchDirectory)) => NOT_EXECUTABLE,
        _ => SANDBOX_FAILED,
    }
}
