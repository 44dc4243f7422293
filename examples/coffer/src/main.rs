//! `coffer`: runs commands in Cofferdam sandboxes from a terminal.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool prints"
)]

mod cli;
mod doctor;
mod failure;
mod run;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};

fn main() -> ExitCode {
    // This program is its own vmm worker.
    sandbox::worker::init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return failure::usage(&error),
    };
    match cli.command {
        Command::Run(options) => run::main(&options),
        Command::Doctor(options) => doctor::main(&options),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "coffer", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
