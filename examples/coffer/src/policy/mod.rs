//! `coffer policy`: what a policy says, and what one could be made of.

mod check;
mod learn;
pub(crate) mod options;
mod suggest;
mod url;

use std::process::ExitCode;

use crate::failure::Failure;
use options::PolicyCommand;

/// Does what was asked for.
pub(crate) fn main(command: &PolicyCommand) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Check(options) => check::main(options),
        PolicyCommand::Learn(options) => learn::main(options),
        PolicyCommand::Suggest(options) => suggest::main(options),
    }
}
