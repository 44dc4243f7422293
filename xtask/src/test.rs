//! `cargo xtask test`: all tests, each where it can run.
//!
//! The workspace's tests run here. Those that need a KVM which boots Linux run in the emulated host if this machine's
//! does not; there the hypervisor's conformance suite runs again, because its KVM is another one.

mod tally;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

pub(crate) use self::tally::Tally;
use crate::{
    guest::{self, Part},
    host::{self, Need},
    nested::Output,
    place::{Place, Task},
    progress::stage,
};

/// For one part in the emulated host; a machine that does other work too takes its time.
const LIMIT: Duration = Duration::from_secs(900);

/// The lines of a failed part's output that are shown.
const SHOWN: usize = 40;

/// The test programs that boot Linux, or run on the KVM that does: package and target.
const IN_PLACE: [(&str, &str); 3] = [
    ("hv-kvm", "conformance"),
    ("sandbox", "guest"),
    ("coffer", "cli"),
];

/// What tests of the workspace compare ours with.
const NEEDS: &[Need] = &[
    Need::new("cpio", "cpio"),
    Need::new("git", "git"),
    Need::new("ip", "iproute2"),
    Need::new("iasl", "acpica-tools"),
    Need::new("setpriv", "util-linux"),
];

/// Runs everything; the last line sums it up.
pub(crate) fn run() -> Result<ExitCode> {
    host::ensure(NEEDS)?;
    let place = Place::choose();
    guest::make(Part::All)?;
    let programs = stage("build the tests for the guest", build)?;
    let mut sum = workspace()?;
    for (package, target) in IN_PLACE {
        // On this machine's own KVM the workspace's tests have run it already.
        if place == Place::Emulated || package != "hv-kvm" {
            sum.add(in_place(place, package, program(&programs, target)?)?);
        }
    }
    for (name, reason) in sum.skipped() {
        println!("skipped {name}: {reason}");
    }
    println!("{sum}");
    Ok(ExitCode::from(u8::from(sum.failed() > 0)))
}

/// The workspace's tests on this machine, whatever its KVM can do.
fn workspace() -> Result<Tally> {
    part("workspace, on this machine", || {
        let done = Command::new("cargo")
            .args(["test", "--workspace", "--all-features", "--no-fail-fast"])
            .current_dir(host::workspace())
            .output()
            .context("cannot start cargo")?;
        let failed = !done.status.success();
        Ok((failed, [done.stdout, done.stderr].concat()))
    })
}

/// One test program in the place where sandboxes run.
fn in_place(place: Place, package: &str, program: &Path) -> Result<Tally> {
    let name = match place {
        Place::Native => format!("{package}, on this machine"),
        Place::Emulated => format!("{package}, in the emulated host"),
    };
    part(&name, || {
        let done = place.run(&Task {
            command: vec![program.into()],
            env: vec![("COFFERDAM_GUEST", guest_folder())],
            timeout: LIMIT,
            output: Output::Capture,
        })?;
        Ok((done.status != 0, [done.stdout, done.stderr].concat()))
    })
}

fn guest_folder() -> OsString {
    host::target().join("guest").into()
}

/// Runs one part, prints its line, and keeps its output when something failed.
fn part(name: &str, run: impl FnOnce() -> Result<(bool, Vec<u8>)>) -> Result<Tally> {
    let start = Instant::now();
    let (failed, output) = run()?;
    let tally = Tally::of(&String::from_utf8_lossy(&output), name, failed);
    let seconds = start.elapsed().as_secs();
    println!("{name}: {tally} ({seconds} s)");
    if tally.failed() > 0 {
        for failure in tally.failures() {
            println!("failed {failure}");
        }
        println!("{}", end_of(&String::from_utf8_lossy(&output)));
        println!("  see {}", keep(name, &output)?.display());
    }
    Ok(tally)
}

/// The last lines, without those of tests that passed.
fn end_of(output: &str) -> String {
    let telling = |line: &&str| !line.is_empty() && !line.ends_with(" ... ok");
    let lines: Vec<_> = output.lines().filter(telling).collect();
    let from = lines.len().saturating_sub(SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

fn keep(name: &str, output: &[u8]) -> Result<PathBuf> {
    let folder = host::target().join("test");
    fs::create_dir_all(&folder)?;
    let word = name.split(',').next().unwrap_or(name);
    let file = folder.join(format!("{word}.log"));
    fs::write(&file, output)?;
    Ok(file)
}

/// A line of `cargo build --message-format=json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct BuildMessage {
    target: Option<BuildTarget>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct BuildTarget {
    name: String,
}

/// Builds the test programs of [`IN_PLACE`], optimised for emulation; gives each one's target and file.
fn build() -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["test", "--quiet", "--no-run", "--profile", "nested"])
        .arg("--message-format=json-render-diagnostics")
        // The one feature that changes what a guest's host program does.
        .args(["--features", "coffer/otel"]);
    for (package, target) in IN_PLACE {
        cargo.args(["-p", package, "--test", target]);
    }
    let done = cargo
        .current_dir(host::workspace())
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !done.status.success() {
        bail!("the tests do not build");
    }
    Ok(executables(&String::from_utf8_lossy(&done.stdout)))
}

fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<BuildMessage>(line).ok())
        .filter_map(|message| Some((message.target?.name, message.executable?)))
        .collect()
}

fn program<'a>(programs: &'a [(String, PathBuf)], target: &str) -> Result<&'a Path> {
    programs
        .iter()
        .find(|(name, _)| name == target)
        .map(|(_, program)| program.as_path())
        .with_context(|| format!("cargo built no test {target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_shown_without_what_passed() {
        let output = "test a ... ok\ntest b ... FAILED\n\n    why\n";
        assert_eq!(end_of(output), "test b ... FAILED\n    why");
        let long = "line\n".repeat(SHOWN + 9);
        assert_eq!(end_of(&long).lines().count(), SHOWN);
    }

    #[test]
    fn executables_are_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"libc"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"guest","kind":["test"]},"executable":"/t/guest-1"}
not JSON
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found, [("guest".to_owned(), PathBuf::from("/t/guest-1"))]);
        assert_eq!(program(&found, "guest").unwrap(), Path::new("/t/guest-1"));
        assert!(program(&found, "cli").is_err());
    }
}
