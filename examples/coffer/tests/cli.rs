//! What `coffer` does with bad input and how it ends: an exit status as `docker run` has them, one line on standard
//! error, nothing left behind.
//!
//! What needs a guest says `SKIP` where none can be started; `COFFERDAM_GUEST` names the folder with its files.

#[cfg(target_os = "linux")]
#[path = "cli/cases.rs"]
mod cases;
#[cfg(all(target_os = "linux", feature = "otel"))]
#[path = "cli/exported.rs"]
mod exported;
#[cfg(target_os = "linux")]
#[path = "cli/policies.rs"]
mod policies;
#[cfg(target_os = "linux")]
#[path = "cli/program.rs"]
mod program;
// The runner of the sandbox's own tests; a crate for it would be more than it is.
#[cfg(target_os = "linux")]
#[path = "../../../sandbox/tests/guest/runner.rs"]
mod runner;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    cases::run()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
