//! A small test runner that knows tests which cannot run here: they are printed and counted.
//!
//! Its output is that of the standard runner, so that the same tools read both.

#![expect(clippy::print_stdout, reason = "a test runner prints")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Longer than any test takes on a slow host.
const LIMIT: Duration = Duration::from_secs(300);

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
        let ended = watch(name);
        let verdict = judge(test);
        drop(ended);
        match verdict {
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

/// Ends this program when the test takes too long, so that a hang has the test's name. Dropping the sender tells its end.
fn watch(name: &'static str) -> Sender<()> {
    let (ended, end) = channel();
    std::thread::spawn(move || {
        if end.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            let limit = LIMIT.as_secs();
            println!("test {name} ... FAILED\n    it did not end within {limit} s");
            println!("{}", processes());
            std::process::exit(1);
        }
    });
    ended
}

/// The programs that run, with the state and the kernel function in which each waits.
fn processes() -> String {
    let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let line = |folder: std::fs::DirEntry| {
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
        let command = read("cmdline").replace('\0', " ");
        let state = read("stat")
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .get(..2)?
            .to_owned();
        (!command.is_empty()).then(|| format!("    {command}{state} {}\n", read("wchan")))
    };
    folders.filter_map(line).collect()
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
