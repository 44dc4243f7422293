//! Counting tests from what their runners print.

use std::fmt;

/// Tests that ran, and that could not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
}

impl Tally {
    /// Reads the output of the standard runner, or of ours. A `part` that `failed` without a test that did, did not get
    /// as far as its tests: that is a failure of its own.
    pub(crate) fn of(output: &str, part: &str, failed: bool) -> Self {
        let mut tally = Self::default();
        output.lines().for_each(|line| tally.read(line));
        tally.pass_only_what_ran();
        if failed && tally.failed.is_empty() {
            tally.failed.push(format!("{part} itself"));
        }
        tally
    }

    fn read(&mut self, line: &str) {
        if let Some((name, reason)) = line
            .strip_prefix("SKIP ")
            .and_then(|rest| rest.split_once(": "))
        {
            self.skipped.push((name.into(), reason.into()));
        }
        let test = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "));
        match test {
            Some((name, "ok")) => self.passed.push(name.into()),
            Some((name, "FAILED")) => self.failed.push(name.into()),
            Some((name, rest)) if rest.starts_with("ignored") => {
                let reason = rest.strip_prefix("ignored, ").unwrap_or("it is ignored");
                self.skipped.push((name.into(), reason.into()));
            }
            _ => {}
        }
    }

    /// A test of the standard runner that skips itself is "ok" for that runner.
    fn pass_only_what_ran(&mut self) {
        for (skipped, _) in &self.skipped {
            let is_it = |passed: &String| {
                let path = passed.strip_suffix(skipped.as_str());
                path.is_some_and(|path| path.is_empty() || path.ends_with("::"))
            };
            if let Some(position) = self.passed.iter().position(is_it) {
                self.passed.remove(position);
            }
        }
    }

    /// Adds a later part, in which tests may have run that were skipped before.
    pub(crate) fn add(&mut self, later: Self) {
        let ran = |name: &String| later.passed.contains(name) || later.failed.contains(name);
        let told = |name: &String| later.skipped.iter().any(|(skipped, _)| skipped == name);
        self.skipped.retain(|(name, _)| !ran(name) && !told(name));
        self.passed.extend(later.passed);
        self.failed.extend(later.failed);
        self.skipped.extend(later.skipped);
    }

    /// How many passed.
    pub(crate) fn passed(&self) -> usize {
        self.passed.len()
    }

    /// How many failed.
    pub(crate) fn failed(&self) -> usize {
        self.failed.len()
    }

    /// Those that failed.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failed
    }

    /// Those that could not run, with the reason.
    pub(crate) fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, skipped) = (self.passed.len(), self.failed.len(), self.skipped.len());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests
test memory::maps ... ok
test irq::line - should panic ... ok
test slow ... ignored, needs an hour
test bad ... FAILED
SKIP guest::facts::clock: hypervisor: there is none
test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out";

    #[test]
    fn both_runners_are_understood() {
        let tally = Tally::of(OUTPUT, "part", true);
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 2 skipped");
        assert_eq!(tally.failures(), ["bad"]);
        assert_eq!(
            tally.skipped()[1],
            (
                "guest::facts::clock".into(),
                "hypervisor: there is none".into()
            )
        );
    }

    #[test]
    fn test_that_skipped_itself_has_not_passed() {
        let output = "test a::b ... ok\ntest ab ... ok\ntest c ... ok\nSKIP b: why\nSKIP c: why\n";
        let tally = Tally::of(output, "part", false);
        assert_eq!(tally.to_string(), "1 passed, 0 failed, 2 skipped");
    }

    #[test]
    fn part_without_tests_fails_only_with_its_status() {
        assert_eq!(Tally::of("", "build", true).failures(), ["build itself"]);
        assert_eq!(Tally::of("", "build", false), Tally::default());
    }

    #[test]
    fn what_a_later_part_ran_was_not_skipped() {
        let mut sum = Tally::of(OUTPUT, "here", true);
        let later = "test guest::facts::clock ... ok\nSKIP slow: still\n";
        sum.add(Tally::of(later, "there", false));
        assert_eq!(sum.to_string(), "3 passed, 1 failed, 1 skipped");
        assert_eq!(sum.skipped(), [("slow".into(), "still".into())]);
    }
}
