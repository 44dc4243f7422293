//! The share on this host's `/dev/fuse`, under the suites that others wrote and under attack.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::{Checks, Lengths};
use crate::{
    bench::build_release,
    host::{self, Need},
    mounted::{Mounted, Server},
    progress::stage,
};

const NEEDS: &[Need] = &[Need::new("git", "git"), Need::new("gcc", "gcc")];

/// The suite's features that every Linux file system has, and short naps.
const PJDFSTEST: &str = "[features]\nposix_fallocate = {}\nrename_ctime = {}\nutimensat = {}\nutime_now = {}\n\
    [settings]\nnaptime = 0.02\nallow_remount = false\n[dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n";

/// Kinds of file that the share does not make: each test's last word says which it is about.
const NOT_MADE: &[&str] = &["fifo", "block", "char", "socket"];
/// Tests that make such files, or give files to other users, without saying so in their names.
const LEFT_OUT: &[&str] = &[
    "chmod::clear_isgid_bit",
    "link::share_metadata::regular",
    "mkdir::uid_gid_eq_euid_egid",
    "open::uid_gid_eq_euid_egid",
    "open::socket_error",
    "open::fifo_nonblock_wronly",
];

/// Git's part of the agent's side and of the host's, in turn.
const GIT_ROUND: &str = "echo \"$1\" >> file$(($1 % 7)) && git add -A && git status --porcelain >/dev/null && git commit -qm \"$1\"";
/// Git's look at everything, every hundredth round.
const GIT_CHECK: &str = "git fsck --full --strict >/dev/null && git gc -q && git fsck --full --strict >/dev/null && git diff --quiet HEAD";

/// Runs all.
pub(super) fn run(checks: &mut Checks, lengths: Lengths) -> Result<()> {
    ensure!(
        host::is_root() && Path::new("/dev/fuse").exists(),
        "mounting a share takes root and /dev/fuse"
    );
    host::ensure(NEEDS)?;
    let tools = tools()?;
    let place = tempfile::Builder::new()
        .prefix("campaign-share-")
        .tempdir_in("/dev/shm")?;
    let programs = build_release("share_mount")?;
    let server = |options| Server::ours(&programs, options);
    let site = Site {
        tools,
        place,
        server: server(&[]),
        exact: server(&["--cache", "never"]),
        free: server(&["--no-usual-rules"]),
    };
    checks.run("pjdfstest", || site.pjdfstest());
    checks.run("fsx, two processes", || site.fsx(lengths.operations));
    checks.run("git from both sides", || site.git(lengths.rounds));
    checks.run("this repository on the share", || site.clone());
    checks.run("exchanges of a directory and a link", || {
        races(lengths.exchanges)
    });
    Ok(())
}

/// Where everything happens.
struct Site {
    /// The folder with the suites' programs.
    tools: PathBuf,
    place: TempDir,
    server: Server,
    /// One whose clients see each change at once.
    exact: Server,
    /// One without rules: they keep a checkout from making what this repository has, `.cargo/config.toml`.
    free: Server,
}

/// The suites, built from the registry.
fn tools() -> Result<PathBuf> {
    let root = host::target().join("peers/tools");
    let shell = Shell::new()?;
    for (name, version) in [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")] {
        if !root.join("bin").join(name).exists() {
            stage(&format!("build {name} {version}"), || {
                cmd!(
                    shell,
                    "cargo install --quiet --locked --root {root} --version {version} {name}"
                )
                .quiet()
                .run()?;
                Ok(())
            })?;
        }
    }
    Ok(root.join("bin"))
}

impl Site {
    /// Mounts a new directory; gives its own path too.
    fn mount(&self, server: &Server, name: &str) -> Result<(Mounted, PathBuf)> {
        let tree = self.place.path().join(name);
        fs::create_dir(&tree)?;
        let mounted = server.mount(&tree, self.place.path())?;
        Ok((mounted, tree))
    }

    fn pjdfstest(&self) -> Result<String> {
        let configuration = self.place.path().join("pjdfstest.toml");
        fs::write(&configuration, PJDFSTEST)?;
        let run = |at: &Path| -> Result<Tally> {
            let mut command = Command::new(self.tools.join("pjdfstest"));
            command.arg("-c").arg(&configuration).arg("-p").arg(at);
            let output = command.env("RUST_BACKTRACE", "0").output()?;
            Ok(Tally::of(&String::from_utf8_lossy(&output.stdout)))
        };
        let (mounted, tree) = self.mount(&self.server, "pjdfstest")?;
        let below = self.place.path().join("below");
        fs::create_dir(&below)?;
        let (ours, host) = (run(mounted.at())?, run(&below)?);
        drop(tree);
        ensure!(ours.passed > 0, "the suite ran nothing");
        let unexpected: Vec<&str> = ours
            .failed
            .difference(&host.failed)
            .map(String::as_str)
            .filter(|test| !is_left_out(test))
            .collect();
        ensure!(
            unexpected.is_empty(),
            "these failed: {}",
            unexpected.join(", ")
        );
        Ok(format!(
            "{} passed, {} left out (special files, other owners), {} skipped; on the file system below: {} passed, {} failed",
            ours.passed,
            ours.failed.len(),
            ours.skipped,
            host.passed,
            host.failed.len()
        ))
    }

    fn fsx(&self, operations: u64) -> Result<String> {
        let (mounted, _) = self.mount(&self.server, "fsx")?;
        let start = |seed: &str| {
            let mut command = Command::new(self.tools.join("fsx"));
            command.args(["-q", "-S", seed, "-N", &operations.to_string(), "-P"]);
            command.arg(self.place.path());
            command
                .arg(mounted.at().join(format!("file{seed}")))
                .spawn()
        };
        let children = [start("7")?, start("11")?];
        for mut child in children {
            let status = child.wait()?;
            ensure!(status.success(), "a difference was found: {status}");
        }
        Ok(format!("2 x {operations} operations without a difference"))
    }

    fn git(&self, rounds: u64) -> Result<String> {
        let (mounted, tree) = self.mount(&self.exact, "git")?;
        git(&tree, "git init -q .", 0)?;
        for round in 0..rounds {
            let side = if round % 2 == 0 { mounted.at() } else { &tree };
            git(side, GIT_ROUND, round).with_context(|| format!("round {round}"))?;
            if round % 100 == 99 {
                for side in [mounted.at(), &tree] {
                    git(side, GIT_CHECK, round).with_context(|| format!("after round {round}"))?;
                }
            }
        }
        let count = git(&tree, "git rev-list --count HEAD", 0)?;
        let count = String::from_utf8_lossy(&count.stdout);
        ensure!(
            count.trim() == rounds.to_string(),
            "{count} commits of {rounds}"
        );
        Ok(format!("{rounds} rounds without an error"))
    }

    /// This repository itself, fetched onto the share.
    fn clone(&self) -> Result<String> {
        let (mounted, tree) = self.mount(&self.free, "clone")?;
        let source = host::workspace();
        let script = format!(
            "git clone -q file://{} copy && cd copy && {GIT_CHECK}",
            source.display()
        );
        git(mounted.at(), &script, 0)?;
        git(&tree.join("copy"), GIT_CHECK, 0)?;
        Ok("clone, fsck, gc, fsck on the share and below it".into())
    }
}

/// Runs a script with git's settings for strangers' repositories.
fn git(directory: &Path, script: &str, argument: u64) -> Result<Output> {
    let output = Command::new("sh")
        .args(["-c", script, "sh", &argument.to_string()])
        .current_dir(directory)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_TEMPLATE_DIR", "")
        .env("GIT_AUTHOR_NAME", "campaign")
        .env("GIT_AUTHOR_EMAIL", "campaign@localhost")
        .env("GIT_COMMITTER_NAME", "campaign")
        .env("GIT_COMMITTER_EMAIL", "campaign@localhost")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{script}`: {}", error.trim());
    Ok(output)
}

/// The race of `fsshare`'s own tests, for longer.
fn races(exchanges: u64) -> Result<String> {
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    let target = host::target();
    let exchanges = exchanges.to_string();
    let _longer = shell.push_env("COFFERDAM_EXCHANGES", &exchanges);
    cmd!(
        shell,
        "cargo test --quiet --release --target-dir {target} -p fsshare --test server races::"
    )
    .quiet()
    .run()?;
    Ok(format!(
        "{exchanges} exchanges, nothing outside was touched"
    ))
}

/// What a suite said.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failed: BTreeSet<String>,
}

impl Tally {
    /// Lines are a test's name and its verdict.
    fn of(text: &str) -> Self {
        let mut tally = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(name), Some(verdict)) = (words.next(), words.next()) else {
                continue;
            };
            if !name.contains("::") {
                continue;
            }
            match verdict {
                "ok" => tally.passed += 1,
                "skipped" => tally.skipped += 1,
                "FAILED" => {
                    tally.failed.insert(name.to_owned());
                }
                _ => {}
            }
        }
        tally
    }
}

fn is_left_out(test: &str) -> bool {
    let last = test.rsplit("::").next().unwrap_or_default();
    let makes = test.starts_with("mknod::") || test.starts_with("mkfifo::");
    makes || NOT_MADE.contains(&last) || LEFT_OUT.contains(&test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_counted_and_failures_named() {
        let text = "chmod::a::regular    ok\nmkdir::b   FAILED\n\tcalled `Result::unwrap()`\n\
            open::c::fifo   FAILED\nlink::d    skipped\n   8: std::rt::lang_start::{{closure}}\n";
        let tally = Tally::of(text);
        assert_eq!((tally.passed, tally.skipped), (1, 1));
        let failed: Vec<_> = tally
            .failed
            .iter()
            .map(|test| (test.as_str(), is_left_out(test)))
            .collect();
        assert_eq!(failed, [("mkdir::b", false), ("open::c::fifo", true)]);
    }
}
