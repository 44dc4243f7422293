//! `coffer policy learn`: an audit log becomes the policy that it lacks.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::ExitCode;

use sandbox::Error;
use sandbox::audit::{BrokenChain, Digest, Fault, Lines};
use sandbox::policy::learn::{Learner, Wildcards};
use sandbox::policy::{ABILITIES, Origin, Policy, PolicyError, is_public};

use super::options::LearnOptions;
use crate::failure::Failure;
use crate::log;
use crate::network;
use crate::print::{print, say};

/// Prints the rules that are missing.
pub(crate) fn main(options: &LearnOptions) -> Result<ExitCode, Failure> {
    let existing = match &options.policy {
        None => Policy::default(),
        Some(file) => {
            let (origin, text) = network::read_named(file)?;
            Policy::parse(&text, Origin::new(&origin)).map_err(|error| invalid(&error))?
        }
    };
    let learner = Learner::new(existing, ABILITIES, is_public);
    let mut learner = learner.map_err(|error| invalid(&error))?;
    for file in &options.logs {
        read(file, &mut learner, options.unverified)?;
    }
    let wildcards = match options.wildcards {
        true => Wildcards::Below,
        false => Wildcards::Never,
    };
    let learned = learner.finish(wildcards).map_err(|error| invalid(&error))?;
    print(learned.to_string().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn invalid(error: &PolicyError) -> Failure {
    Error::Config(error.to_string()).into()
}

/// Reads all files of a log, the oldest first. A line that does not fit is told, and the end of it unless that is wanted.
fn read(file: &Path, learner: &mut Learner, unverified: bool) -> Result<(), Failure> {
    let mut from: Option<Digest> = None;
    for path in log::files(file) {
        let open = File::open(&path).map_err(|error| log::unreadable(&path, &error))?;
        let mut lines = Lines::new(BufReader::new(open), from);
        loop {
            match lines.read() {
                Ok(None) => break,
                Ok(Some(line)) => learner.learn(line),
                Err(broken) => {
                    let is_readable = !matches!(broken.fault, Fault::Unreadable(_));
                    let problem = problem(&path, &broken);
                    if !(unverified && is_readable) {
                        return Err(problem.into());
                    }
                    say(&format!("coffer: {problem}"));
                    learner.learn(lines.line());
                }
            }
        }
        from = Some(lines.verified().head);
    }
    Ok(())
}

fn problem(path: &Path, broken: &BrokenChain) -> Error {
    Error::Path {
        what: "audit log",
        path: path.to_owned(),
        problem: format!(
            "{broken}: somebody changed it, or it is being written; --unverified learns from it all the same"
        ),
    }
}
