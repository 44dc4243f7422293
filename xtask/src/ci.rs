//! Everything that must pass before a change lands, in the order in which a mistake is found soonest.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{cross, fuzz, host, test, tidy};

/// How long each fuzz target runs: enough to see that it still builds and does not fall over at once.
const FUZZ_TIME: Duration = Duration::from_secs(5);

type Step = (&'static str, fn(&Shell) -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", |shell| cargo(shell, "fmt --all --check")),
    ("tidy", |_| tidy::run()),
    ("clippy", clippy),
    ("doc", doc),
    ("test", |_| all_tests()),
    ("cross", |_| cross::run()),
    ("fuzz", |_| fuzz::run(None, FUZZ_TIME)),
];

/// Runs all steps, or those that are named; a failed one does not keep the others from running.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let known = |name: &String| STEPS.iter().any(|(step, _)| step == name);
    if let Some(unknown) = only.iter().find(|name| !known(name)) {
        bail!(
            "there is no step {unknown}; the steps are {}",
            names().join(", ")
        );
    }
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    let mut failed = Vec::new();
    for (name, step) in STEPS
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|step| step == name))
    {
        if !passes(name, || step(&shell)) {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

/// Exactly what the README's test command runs.
fn all_tests() -> Result<()> {
    if test::run()? == ExitCode::SUCCESS {
        Ok(())
    } else {
        bail!("some tests failed")
    }
}

fn names() -> Vec<&'static str> {
    STEPS.iter().map(|(name, _)| *name).collect()
}

fn passes(name: &str, step: impl FnOnce() -> Result<()>) -> bool {
    eprintln!("xtask ci: {name}");
    let start = Instant::now();
    let result = step();
    let seconds = start.elapsed().as_secs();
    match &result {
        Ok(()) => eprintln!("xtask ci: {name} passed, {seconds} s"),
        Err(error) => eprintln!("xtask ci: {name} failed, {seconds} s: {error:#}"),
    }
    result.is_ok()
}

fn cargo(shell: &Shell, arguments: &str) -> Result<()> {
    Ok(cmd!(shell, "cargo")
        .args(arguments.split(' '))
        .quiet()
        .run()?)
}

fn clippy(shell: &Shell) -> Result<()> {
    cargo(
        shell,
        "clippy --workspace --all-targets --all-features -- -D warnings",
    )
}

fn doc(shell: &Shell) -> Result<()> {
    let _warnings_fail = shell.push_env("RUSTDOCFLAGS", "-D warnings");
    cargo(
        shell,
        "doc --workspace --all-features --no-deps --document-private-items",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_step_is_refused_with_the_known_ones() {
        let error = run(&["ftm".into()]).unwrap_err().to_string();
        assert!(error.contains("ftm") && error.contains("clippy"), "{error}");
    }

    #[test]
    fn failure_of_a_step_is_seen() {
        assert!(passes("good", || Ok(())));
        assert!(!passes("bad", || bail!("no")));
    }
}
