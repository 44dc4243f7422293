//! What pjdfstest says, and which of its tests are not for a share.

use std::{collections::BTreeSet, fmt};

use anyhow::{Result, bail, ensure};

/// The suite's features that every Linux file system has, and short naps.
pub(super) const CONFIGURATION: &str = include_str!("../../assets/campaign/pjdfstest.toml");

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

/// What the suite said.
#[derive(Debug, Default)]
pub(super) struct Suite {
    passed: usize,
    skipped: usize,
    failed: BTreeSet<String>,
    /// By its own count.
    total: usize,
}

impl Suite {
    /// Lines are a test's name and its verdict; at the end all are counted.
    pub(super) fn of(text: &str) -> Result<Self> {
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
    pub(super) fn left_out(&self, host: &Self) -> Result<usize> {
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
