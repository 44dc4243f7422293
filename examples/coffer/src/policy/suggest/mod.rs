//! `coffer policy suggest`: rules for the hosts that this host's user has configured for package managers and git.
//!
//! No host is known here: what a tool has built in, it has to be asked for (audit mode and `coffer policy learn`). Passwords and tokens, which such files
//! are full of, are not kept and not printed: of a URL only host, port and, for apt, the folder.

mod apt;
mod files;
mod hosts;
mod parse;

use std::process::ExitCode;

use super::options::SuggestOptions;
use crate::failure::Failure;
use crate::print::{escaped, print, say};
use crate::run::absolute;
use files::Environment;
use hosts::Hosts;

/// Most problems that are told of.
const MOST_TOLD: usize = 50;

/// Prints rules for all that is found. What cannot be read is told, and the rest goes on.
pub(crate) fn main(options: &SuggestOptions) -> Result<ExitCode, Failure> {
    let environment = Environment::of(std::env::vars_os());
    let mut hosts = Hosts::default();
    files::all(&environment, &absolute(&options.workspace), &mut |found| {
        hosts.add(found);
    });
    for problem in hosts.problems().take(MOST_TOLD) {
        say(&format!("coffer: {}", escaped(problem)));
    }
    match hosts.problems().count().saturating_sub(MOST_TOLD) {
        0 => {}
        more => say(&format!("coffer: and {more} more")),
    }
    if hosts.is_empty() {
        say(
            "coffer: no host is configured; those that tools have built in are found by audit mode and `coffer policy learn`",
        );
    }
    print(hosts.to_string().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Apt,
    Cargo,
    Git,
    Go,
    Npm,
    Pip,
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Self::Apt => "apt",
            Self::Cargo => "cargo",
            Self::Git => "git",
            Self::Go => "go",
            Self::Npm => "npm",
            Self::Pip => "pip",
        }
    }
}

/// What a file or a variable says.
#[derive(Debug)]
struct Found {
    tool: Tool,
    /// The file, or the environment.
    origin: String,
    parsed: Parsed,
}

/// What was found in a text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    /// Keys, and what they name: URLs or something else, with passwords.
    urls: Vec<(String, String)>,
    /// What could not be understood. Nothing of the text is in it.
    problems: Vec<String>,
}

impl Parsed {
    fn problem(problem: impl Into<String>) -> Self {
        Self {
            urls: Vec::new(),
            problems: vec![problem.into()],
        }
    }

    fn add(&mut self, key: impl Into<String>, url: impl Into<String>) {
        self.urls.push((key.into(), url.into()));
    }
}
