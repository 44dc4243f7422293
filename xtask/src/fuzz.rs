//! Runs the fuzz targets of `fuzz/` for a few seconds each: a smoke test, not a campaign.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

use crate::{
    host::{self, Need},
    progress::stage,
};

/// libFuzzer is C++, compiled by its crate.
const NEEDS: &[Need] = &[Need::new("c++", "g++")];

/// Seconds after which one input counts as a hang. Wide, for a loaded machine and the sanitizer.
const HANG: u64 = 20;

/// Inputs that a target begins with when it has none.
const SEEDS: u32 = 32;

/// Lines of a failed run that are printed: the sanitizer's report and the stack.
const REPORT_LINES: usize = 60;

/// Builds the targets and runs each, or only `target`, for `time`. Goes on after a failure, so that one run tells all.
pub(crate) fn run(target: Option<&str>, time: Duration) -> Result<()> {
    host::ensure(NEEDS)?;
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    ensure_cargo_fuzz(&shell)?;
    let targets = select(targets()?, target)?;
    stage("build the fuzz targets", || build(&shell, target))?;
    let mut failed = Vec::new();
    for name in &targets {
        if !fuzz(&shell, name, time)? {
            failed.push(name.as_str());
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("these targets failed: {}", failed.join(", "))
    }
}

fn ensure_cargo_fuzz(shell: &Shell) -> Result<()> {
    if cmd!(shell, "cargo fuzz --version")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
    {
        return Ok(());
    }
    stage("cargo install cargo-fuzz", || {
        Ok(cmd!(shell, "cargo install --quiet --locked cargo-fuzz")
            .quiet()
            .run()?)
    })
}

/// The names of all targets: one file each.
fn targets() -> Result<Vec<String>> {
    let dir = host::workspace().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn select(all: Vec<String>, wanted: Option<&str>) -> Result<Vec<String>> {
    let Some(wanted) = wanted else { return Ok(all) };
    ensure!(
        all.iter().any(|name| name == wanted),
        "no fuzz target {wanted}; there are: {}",
        all.join(", ")
    );
    Ok(vec![wanted.to_owned()])
}

fn build(shell: &Shell, target: Option<&str>) -> Result<()> {
    let dir = host::target().join("fuzz");
    let output = cmd!(
        shell,
        "cargo +nightly fuzz build --target-dir {dir} {target...}"
    )
    .quiet()
    .ignore_status()
    .output()?;
    ensure!(
        output.status.success(),
        "the build failed\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Gives a target its first inputs: noise of rising length. An input is a program to a target, so noise is a good start, and
/// without it libFuzzer would spend a short run on inputs of a few bytes.
fn seed(corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus)?;
    if fs::read_dir(corpus)?.next().is_none() {
        for number in 0..SEEDS {
            fs::write(corpus.join(format!("seed-{number}")), noise(number))?;
        }
    }
    Ok(())
}

/// The same bytes each time; `number + 1` blocks of a digest.
fn noise(number: u32) -> Vec<u8> {
    (0..=number)
        .flat_map(|block| Sha256::digest([number.to_le_bytes(), block.to_le_bytes()].concat()))
        .collect()
}

/// Says whether the target ran for `time` without a finding; else prints the report and how to see it again.
fn fuzz(shell: &Shell, name: &str, time: Duration) -> Result<bool> {
    let dir = host::target().join("fuzz");
    let options = [
        format!("-max_total_time={}", time.as_secs()),
        format!("-timeout={HANG}"),
        "-rss_limit_mb=1024".to_owned(),
        "-len_control=0".to_owned(),
        "-print_final_stats=1".to_owned(),
    ];
    seed(&host::workspace().join("fuzz/corpus").join(name))?;
    eprint!("xtask: fuzz {name} ... ");
    let output = cmd!(
        shell,
        "cargo +nightly fuzz run --target-dir {dir} {name} -- {options...}"
    )
    .quiet()
    .ignore_status()
    .output()?;
    let report = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        eprintln!("{}", summary(&report));
    } else {
        eprintln!("failed\n{}", finding(&report));
        eprintln!("xtask: {}", advice(name, &report));
    }
    Ok(output.status.success())
}

/// How much was done, of libFuzzer's final figures.
fn summary(report: &str) -> String {
    let executed = report
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let coverage = report
        .lines()
        .rev()
        .find_map(|line| line.split_once(" cov: ")?.1.split(' ').next());
    format!(
        "{} inputs, {} edges",
        executed.unwrap_or("?").trim(),
        coverage.unwrap_or("?")
    )
}

fn advice(name: &str, report: &str) -> String {
    match report
        .lines()
        .find_map(|line| line.split_once("Test unit written to "))
    {
        Some((_, path)) => format!(
            "see it again with: cargo +nightly fuzz run --target-dir target/fuzz {name} {path}"
        ),
        None => format!(
            "no input was written; run it by hand: cargo +nightly fuzz run --target-dir target/fuzz {name}"
        ),
    }
}

/// The report from the first sign of a finding on; without one, its end.
fn finding(report: &str) -> String {
    let all: Vec<_> = report.lines().collect();
    let is_sign = |line: &&str| {
        ["panicked at", "ERROR: ", "ALARM: "]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let start = all
        .iter()
        .position(is_sign)
        .unwrap_or(all.len().saturating_sub(REPORT_LINES));
    all.into_iter()
        .skip(start)
        .take(REPORT_LINES)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "#2\tINITED cov: 10 ft: 11 corp: 1/1b\n#99\tDONE   cov: 123 ft: 300 corp: 9/1Kb\n\
                        stat::number_of_executed_units: 51234\nstat::peak_rss_mb: 44\n";

    #[test]
    fn summary_takes_the_last_figures() {
        assert_eq!(summary(DONE), "51234 inputs, 123 edges");
        assert_eq!(summary(""), "? inputs, ? edges");
    }

    #[test]
    fn advice_names_the_reproducer_if_there_is_one() {
        let report = "==1== ERROR\nartifact_prefix='a/'; Test unit written to fuzz/artifacts/t/crash-1\nBase64: AA==\n";
        assert!(advice("t", report).ends_with(" t fuzz/artifacts/t/crash-1"));
        assert!(advice("t", "killed").starts_with("no input"));
    }

    #[test]
    fn an_unknown_target_is_told_with_the_known_ones() {
        let all = || vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(select(all(), None).unwrap(), all());
        assert_eq!(select(all(), Some("b")).unwrap(), ["b"]);
        assert!(
            select(all(), Some("c"))
                .unwrap_err()
                .to_string()
                .contains("a, b")
        );
    }

    #[test]
    fn seeds_are_the_same_each_time_and_only_for_an_empty_corpus() {
        let temp = tempfile::tempdir().unwrap();
        let corpus = temp.path().join("deep/target");
        seed(&corpus).unwrap();
        let last = corpus.join(format!("seed-{}", SEEDS - 1));
        assert_eq!(fs::read(&last).unwrap(), noise(SEEDS - 1));
        assert_eq!(noise(3).len(), 4 * 32);
        fs::remove_file(&last).unwrap();
        seed(&corpus).unwrap();
        assert!(!last.exists());
    }

    #[test]
    fn finding_begins_at_its_sign() {
        assert_eq!(finding("1\n2 panicked at x\n3\n"), "2 panicked at x\n3");
        let long: String = (0..99).map(|number| format!("{number}\n")).collect();
        assert!(finding(&long).starts_with("39\n") && finding(&long).ends_with("98"));
    }
}
