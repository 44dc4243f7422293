//! A small test runner that knows tests which cannot run here: they are printed and counted.
//!
//! Its output is that of the standard runner, so that the same tools read both.

#![expect(clippy::print_stdout, reason = "a test runner prints")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// How a test ended.
pub(crate) enum Verdict {
    Passed,
    /// It cannot run here; why.
    Skipped(String),
    /// What was wrong.
    Failed(String),
}

impl From<anyhow::Result<()>> for Verdict {
    fn from(result: anyhow::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Passed,
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// A test. A panic in it is a failure too.
pub(crate) struct Test<'a> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn FnOnce() -> Verdict + 'a>,
}

/// Runs the tests one after the other; those whose names hold one of the program's arguments, if
/// it has any that are no options.
pub(crate) fn run<'a>(tests: impl IntoIterator<Item = Test<'a>>) -> ExitCode {
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for test in tests {
        let is_meant = |word: &String| test.name.contains(word.as_str());
        if !wanted.is_empty() && !wanted.iter().any(is_meant) {
            continue;
        }
        let name = test.name;
        match judge(test) {
            Verdict::Passed => passed += 1,
            Verdict::Failed(reason) => {
                failed += 1;
                println!("test {name} ... FAILED\n    {reason}");
                continue;
            }
            Verdict::Skipped(reason) => {
                skipped += 1;
                println!("SKIP {name}: {reason}");
                continue;
            }
        }
        println!("test {name} ... ok");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; {skipped} ignored; 0 measured; 0 filtered out"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn judge(test: Test<'_>) -> Verdict {
    catch_unwind(AssertUnwindSafe(test.run)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| {
            payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
        });
        Verdict::Failed(text.unwrap_or_else(|| "it panicked".into()))
    })
}
