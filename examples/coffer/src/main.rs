//! `coffer`: runs commands in Cofferdam sandboxes from a terminal.

mod changes;
mod cli;
mod doctor;
mod failure;
mod log;
mod network;
mod policy;
mod policy_watch;
mod print;
mod run;
mod streams;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    // This program is its own vmm worker.
    sandbox::worker::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    let (result, json) = match &cli.command {
        Command::Run(options) => (run::main(options), options.json),
        Command::Diff(options) => (changes::diff(options), options.json),
        Command::Apply(options) => (changes::apply(options), false),
        Command::Discard(options) => (changes::discard(options), false),
        Command::Log(options) => (log::main(options), false),
        Command::Policy { command } => (policy::main(command), command.is_json()),
        Command::Doctor(options) => (doctor::main(options), options.json),
        Command::Completions { shell } => (completions(*shell), false),
    };
    result.unwrap_or_else(|failure| failure.report(json))
}

fn completions(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "coffer", &mut script);
    print::print(&script)?;
    Ok(ExitCode::SUCCESS)
}
