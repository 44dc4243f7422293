//! What goes wrong outside: name servers and servers that are dead, slow or lie, and links that lose, shrink or vanish. The guest's network has to
//! stay small, say what is wrong, and work again by itself.
//!
//! The worker is the process that a sandbox has, within its walls and followed as there; the guest is a TCP stack without a machine. The world is two
//! network namespaces, for which it takes root; elsewhere the tests say `SKIP`. A name under `testworld.net` is served as its first label says.

#![cfg_attr(
    target_os = "linux",
    expect(
        clippy::print_stdout,
        clippy::unwrap_used,
        reason = "it says what came of each check; what answers in the test world fails by panicking"
    )
)]

#[cfg(target_os = "linux")]
mod bench;
#[cfg(target_os = "linux")]
mod checks;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod outside;
#[cfg(target_os = "linux")]
#[path = "../guest/runner.rs"]
mod runner;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use std::process::{Command, ExitCode};

    use runner::{Test, Verdict};

    // This program is its own worker.
    sandbox::worker::init();
    match std::env::var(world::VARIABLE).as_deref() {
        Ok("outside") => outside::serve(),
        Ok(_) => return checks::run(),
        Err(_) => {
            let words = ["--net", "--mount"];
            let has_namespaces = Command::new("unshare").args(words).arg("true").status();
            if !has_namespaces.is_ok_and(|status| status.success()) {
                let why = "network namespaces are made by root only".into();
                return runner::run([Test {
                    name: "all",
                    run: Box::new(|| Verdict::Skipped(why)),
                }]);
            }
            let within = Command::new("unshare")
                .args(words)
                .args(std::env::args_os())
                .env(world::VARIABLE, "host")
                .status();
            if !within.is_ok_and(|status| status.success()) {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

#[cfg(not(target_os = "linux"))]
fn main() {}
