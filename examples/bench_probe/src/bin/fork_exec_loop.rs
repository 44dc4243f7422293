//! Prints the seconds that one fork, exec of `/bin/true` and wait take, as the median of many. It
//! runs in the guest, beside which the round trip of a command from the host is put.

use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const ROUNDS: usize = 51;

fn main() -> ExitCode {
    let times: Option<Vec<Duration>> = (0..ROUNDS).map(|_| once()).collect();
    let Some(mut times) = times else {
        return ExitCode::FAILURE;
    };
    times.sort_unstable();
    let median = times.get(ROUNDS / 2).map_or(0.0, Duration::as_secs_f64);
    match writeln!(std::io::stdout(), "{median}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn once() -> Option<Duration> {
    let mut command = Command::new("/bin/true");
    // A fork, not the library's faster spawn: with a group to set it has no other way.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::gid(&mut command, 0);
    let start = Instant::now();
    let status = command.status().ok()?;
    status.success().then(|| start.elapsed())
}
