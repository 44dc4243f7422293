//! The share on this host's `/dev/fuse`, under the suites that others wrote and under attack.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::{Checks, Lengths};
use crate::{
    bench::build_release,
    host::{self, Need},
    mounted::{Mounted, Server},
    progress::stage,
    test::Tally,
};

const NEEDS: &[Need] = &[Need::new("git", "git"), Need::new("gcc", "gcc")];

/// The suite's features that every Linux file system has, and short naps.
const PJDFSTEST: &str = "[features]\nposix_fallocate = {}\nrename_ctime = {}\nutimensat = {}\nutime_now = {}\n\
    [settings]\nnaptime = 0.02\nallow_remount = false\n[dummy_auth]\nentries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]\n";

/// Tests that make files which the share does not make (FIFOs, devices, sockets), or give files to other users: all that begin so (`a::`),
/// that end so (`::a`: the last word says which kind of file a test is about), or that one.
const LEFT_OUT: &[&str] = &[
    "mknod::",
    "mkfifo::",
    "::fifo",
    "::block",
    "::char",
    "::socket",
    "chmod::clear_isgid_bit",
    "link::share_metadata::regular",
    "mkdir::uid_gid_eq_euid_egid",
    "open::uid_gid_eq_euid_egid",
    "open::socket_error",
    "open::fifo_nonblock_wronly",
];

/// Git's part of the agent's side and of the host's, in turn.
const GIT_ROUND: &str = "echo \"$1\" >> file$(($1 % 7)) && git add -A && git status --porcelain >/dev/null && git commit -qm \"$1\"";
/// What people do with a repository.
const OVERLAID: &str = "git checkout -q -b work && echo more >> README.md && git rm -q LICENSE-MIT && git commit -qam work && \
    git checkout -q -b other HEAD~20 && git merge -q -X ours --no-edit work && echo stash >> README.md && git stash -q && git stash pop -q && \
    git checkout -q . && git status --porcelain";
/// What there is in a repository's tree, and which commit it is at.
const OVERLAID_STATE: &str = "find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum; git rev-parse HEAD; git status --porcelain";
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
        overlay: Server::overlay(&programs),
        free: server(&["--no-usual-rules"]),
    };
    checks.run("pjdfstest", || site.pjdfstest(&site.server, "pjdfstest"));
    checks.run("pjdfstest in an overlay", || {
        site.pjdfstest(&site.overlay, "pjdfstest-overlay")
    });
    checks.run("fsx, two processes", || {
        site.fsx(&site.server, "fsx", lengths.operations)
    });
    checks.run("fsx in an overlay", || {
        site.fsx(&site.overlay, "fsx-overlay", lengths.operations)
    });
    checks.run("git from both sides", || site.git(lengths.rounds));
    checks.run("this repository on the share", || site.checkout());
    checks.run("this repository in an overlay", || site.overlaid());
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
    overlay: Server,
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

    fn pjdfstest(&self, server: &Server, name: &str) -> Result<String> {
        let configuration = self.place.path().join("pjdfstest.toml");
        fs::write(&configuration, PJDFSTEST)?;
        let run = |at: &Path| -> Result<Suite> {
            let mut command = Command::new(self.tools.join("pjdfstest"));
            command.arg("-c").arg(&configuration).arg("-p").arg(at);
            let output = command.env("RUST_BACKTRACE", "0").output()?;
            Suite::of(&String::from_utf8_lossy(&output.stdout))
        };
        let (mounted, _) = self.mount(server, name)?;
        let below = self.place.path().join("below");
        fs::create_dir_all(&below)?;
        let (ours, host) = (run(mounted.at())?, run(&below)?);
        let left_out = ours.left_out(&host)?;
        Ok(format!(
            "{ours}, {left_out} of the failed left out (special files, other owners), the rest as below; on the file system below: {host}"
        ))
    }

    fn fsx(&self, server: &Server, name: &str, operations: u64) -> Result<String> {
        let (mounted, _) = self.mount(server, name)?;
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
        let (mounted, tree) = self.mount(&self.server, "git")?;
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
    fn checkout(&self) -> Result<String> {
        let (mounted, tree) = self.mount(&self.free, "checkout")?;
        let source = host::workspace();
        let script = format!(
            "git clone -q file://{} copy && cd copy && {GIT_CHECK}",
            source.display()
        );
        git(mounted.at(), &script, 0)?;
        git(&tree.join("copy"), GIT_CHECK, 0)?;
        Ok("clone, fsck, gc, fsck on the share and below it".into())
    }

    /// A repository that is the host's, worked on in an overlay.
    fn overlaid(&self) -> Result<String> {
        let (mounted, tree) = self.mount(&self.overlay, "overlaid")?;
        let source = host::workspace();
        git(
            &tree,
            &format!("git clone -q file://{} .", source.display()),
            0,
        )?;
        let before = git(&tree, OVERLAID_STATE, 0)?.stdout;
        git(mounted.at(), OVERLAID, 0)?;
        git(mounted.at(), GIT_CHECK, 0)?;
        ensure!(
            git(&tree, OVERLAID_STATE, 0)?.stdout == before,
            "the repository below changed"
        );
        git(&tree, GIT_CHECK, 0)?;
        Ok("branch, commits, merge, checkout of an old state, stash, fsck, gc in the overlay; the host's tree as it was".into())
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
    let done = Command::new("cargo")
        .args(["test", "--release", "-p", "fsshare", "--test", "server"])
        .arg("--target-dir")
        .arg(host::target())
        .arg("races::")
        .current_dir(host::workspace())
        .env("COFFERDAM_EXCHANGES", exchanges.to_string())
        .output()?;
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let tally = Tally::of(&text, "the races", !done.status.success());
    if tally.failed() > 0 {
        eprintln!("{text}");
        bail!("failed: {}", tally.failures().join(", "));
    }
    ensure!(tally.passed() > 0, "no test ran: {tally}");
    Ok(format!(
        "{tally}; {exchanges} exchanges, nothing outside was touched"
    ))
}

/// What a suite said.
#[derive(Debug, Default)]
struct Suite {
    passed: usize,
    skipped: usize,
    failed: BTreeSet<String>,
    /// By its own count.
    total: usize,
}

impl Suite {
    /// Lines are a test's name and its verdict; at the end all are counted.
    fn of(text: &str) -> Result<Self> {
        let mut suite = Self::default();
        for line in text.lines() {
            suite.read(line);
        }
        let named = suite.passed + suite.skipped + suite.failed.len();
        ensure!(
            suite.passed > 0 && named == suite.total,
            "the suite told of {named} of its {} tests, and {} passed",
            suite.total,
            suite.passed
        );
        Ok(suite)
    }

    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("Summary: ") {
            let total = counts.rsplit(", ").next().unwrap_or_default();
            let total = total.strip_suffix(" total").and_then(|n| n.parse().ok());
            self.total = total.unwrap_or_default();
        }
        let mut words = line.split_whitespace();
        let (Some(name), Some(verdict)) = (words.next(), words.next()) else {
            return;
        };
        if !name.contains("::") {
            return;
        }
        match verdict {
            "ok" => self.passed += 1,
            "skipped" => self.skipped += 1,
            "FAILED" => {
                self.failed.insert(name.to_owned());
            }
            _ => {}
        }
    }

    /// How many tests failed because they are not for the share. It is an error if others failed that do not on the `host` below, if not
    /// the same tests ran there, and if a reason to leave tests out holds for none that fails.
    fn left_out(&self, host: &Self) -> Result<usize> {
        ensure!(
            (self.total, self.skipped) == (host.total, host.skipped),
            "{self}, but {host} on the file system below"
        );
        let only_here = self.failed.difference(&host.failed);
        let (left_out, unexpected): (Vec<&str>, Vec<&str>) =
            only_here.map(String::as_str).partition(|test| {
                let mut reasons = LEFT_OUT.iter();
                reasons.any(|reason| is_for(reason, test))
            });
        ensure!(
            unexpected.is_empty(),
            "these failed: {}",
            unexpected.join(", ")
        );
        let mut stale = LEFT_OUT.iter().copied();
        let is_stale = |reason: &&str| !left_out.iter().any(|test| is_for(reason, test));
        match stale.find(is_stale) {
            Some(reason) => bail!("no test of `{reason}` failed: it need not be left out"),
            None => Ok(left_out.len()),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, passed, failed) = (self.total, self.passed, self.failed.len());
        write!(
            f,
            "of {total} tests {passed} passed, {failed} failed, {} skipped",
            self.skipped
        )
    }
}

/// Whether a line of [`LEFT_OUT`] means the test.
fn is_for(reason: &str, test: &str) -> bool {
    let begins = reason.ends_with("::") && test.starts_with(reason);
    let ends = reason.starts_with("::") && test.ends_with(reason);
    begins || ends || test == reason
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output in which each of these tests failed.
    fn output(failed: &[&str]) -> String {
        let lines: String = failed
            .iter()
            .map(|test| format!("{test}   FAILED\n\tcalled `Result::unwrap()`\n"))
            .collect();
        let total = failed.len() + 2;
        format!(
            "chmod::a::regular    ok\n{lines}link::d    skipped\n   8: std::rt::lang_start::{{{{closure}}}}\n\n\
            Summary: {} failed, 1 skipped, 1 passed, 0 expected failures, {total} total\n",
            failed.len()
        )
    }

    fn suite(failed: &[&str]) -> Suite {
        Suite::of(&output(failed)).unwrap()
    }

    /// One test for each reason.
    fn left_out() -> Vec<&'static str> {
        let mut tests = vec!["mknod::a", "mkfifo::b", "open::c::fifo", "open::c::block"];
        tests.extend(["open::c::char", "open::c::socket"]);
        let named = |reason: &&str| !reason.starts_with("::") && !reason.ends_with("::");
        tests.extend(LEFT_OUT.iter().copied().filter(named));
        tests
    }

    #[test]
    fn verdicts_are_counted_and_failures_named() {
        let suite = suite(&["mkdir::b"]);
        assert_eq!((suite.passed, suite.skipped, suite.total), (1, 1, 3));
        assert_eq!(Vec::from_iter(&suite.failed), ["mkdir::b"]);
    }

    #[test]
    fn a_suite_that_breaks_off_is_an_error() {
        let whole = output(&["mkdir::b"]);
        let broken_off = whole.split_once("\n\nSummary").unwrap().0;
        assert!(Suite::of(broken_off).is_err());
        assert!(Suite::of(&whole.replace("3 total", "4 total")).is_err());
        assert!(Suite::of("").is_err());
    }

    #[test]
    fn only_what_is_left_out_may_fail_and_all_of_it_does() {
        let host = suite(&["rename::e"]);
        let mut failed = left_out();
        failed.push("rename::e");
        // As many tests as ran on the share.
        let host_of = |total| Suite {
            total,
            ..suite(&["rename::e"])
        };
        let ours = suite(&failed);
        assert_eq!(ours.left_out(&host_of(ours.total)).unwrap(), LEFT_OUT.len());
        assert!(ours.left_out(&host).is_err(), "another number of tests");
        for at in 0..LEFT_OUT.len() {
            let mut fewer = failed.clone();
            fewer.remove(at);
            let ours = suite(&fewer);
            assert!(ours.left_out(&host_of(ours.total)).is_err(), "{at}");
        }
        failed.push("mkdir::b");
        let ours = suite(&failed);
        assert!(ours.left_out(&host_of(ours.total)).is_err(), "mkdir::b");
    }
}
