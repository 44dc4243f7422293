//! Type-checks the portable crates for systems that this machine is not.
//!
//! rustup's targets cannot be had everywhere, so this takes Debian's compiler, whose package of the standard library's
//! source makes every target possible. It only checks: nothing is linked and nothing runs, so what the other system *does*
//! stays unproved.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use xshell::{Shell, cmd};

use crate::{
    host::{self, Need},
    progress::stage,
};

/// What a build for another system takes.
pub(crate) const NEEDS: &[Need] = &[
    Need::new("/usr/bin/rustc", "rustc-web"),
    Need::new("/usr/bin/cargo", "cargo-web"),
    Need::new(
        "/usr/lib/rustlib/src/rust/library/sysroot/Cargo.toml",
        "rust-web-src",
    ),
    // Import libraries of Windows are made by it, also for a check.
    Need::new("x86_64-w64-mingw32-dlltool", "binutils-mingw-w64-x86-64"),
];

/// All checks together must be done within this time; each target costs a build of the standard library when new.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// What timeout(1) exits with when it ended the command.
const TIMED_OUT: i32 = 124;

const TARGETS: &[&str] = &[
    "aarch64-apple-darwin",
    "x86_64-pc-windows-gnu",
    "x86_64-pc-windows-msvc",
    "aarch64-unknown-linux-gnu",
];

/// A package that promises to compile elsewhere.
#[derive(Debug)]
struct Portable {
    package: &'static str,
    features: &'static str,
}

const PACKAGES: &[Portable] = &[
    Portable {
        package: "hv-core",
        features: "fake,conformance",
    },
    Portable {
        package: "devices",
        features: "testkit",
    },
    Portable {
        package: "fsshare",
        features: "",
    },
    Portable {
        package: "netproxy",
        features: "testkit",
    },
    Portable {
        package: "sandbox",
        features: "otel",
    },
];

/// Checks every package for every target. Goes on after a failure, so that one run tells all of them.
pub(crate) fn run() -> Result<()> {
    host::ensure(NEEDS)?;
    let end = Instant::now() + LIMIT;
    let mut failed = Vec::new();
    for target in TARGETS {
        for portable in PACKAGES {
            let name = format!("{} for {target}", portable.package);
            if let Err(error) = check(&name, portable, target, end) {
                eprintln!("{error}");
                failed.push(name);
            }
        }
    }
    ensure!(failed.is_empty(), "these failed: {}", failed.join(", "));
    Ok(())
}

/// Checks one package. An error is what the compiler says; its warnings are printed.
fn check(name: &str, portable: &Portable, target: &str, end: Instant) -> Result<()> {
    let shell = debian_cargo()?;
    let Portable {
        package, features, ..
    } = portable;
    let left = end
        .saturating_duration_since(Instant::now())
        .as_secs()
        .max(1)
        .to_string();
    let arguments = [
        "-Zbuild-std=std,panic_abort",
        "--target",
        target,
        "-p",
        package,
        "--features",
        features,
    ];
    let said = stage(&format!("check {name}"), || {
        let command = cmd!(shell, "timeout {left} /usr/bin/cargo check {arguments...}");
        let output = command.quiet().ignore_status().output()?;
        ensure!(
            output.status.code() != Some(TIMED_OUT),
            "the time for all checks, {LIMIT:?}, is over"
        );
        let said = diagnostics(&String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{said}");
        Ok(said)
    })?;
    eprint!("{said}");
    Ok(())
}

/// Debian's cargo with Debian's compiler: left alone it would take rustup's from `PATH`, which lacks the targets.
pub(crate) fn debian_cargo() -> Result<Shell> {
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    for (name, value) in [
        ("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"),
        ("RUSTC", "/usr/bin/rustc"),
        ("RUSTC_BOOTSTRAP", "1"), // `-Zbuild-std` is not stable
        ("RUSTFLAGS", ""),
        ("CARGO_ENCODED_RUSTFLAGS", ""),
        ("CARGO_PROFILE_DEV_DEBUG", "0"), // nobody debugs it, and the standard library is compiled in full
    ] {
        shell.set_var(name, value);
    }
    shell.set_var("CARGO_TARGET_DIR", host::target().join("cross"));
    Ok(shell)
}

/// cargo's output without the lines that only tell of progress.
fn diagnostics(output: &str) -> String {
    let progress = [
        "Compiling ",
        "Checking ",
        "Downloading ",
        "Downloaded ",
        "Finished ",
        "Locking ",
        "Updating ",
        "Blocking ",
    ];
    let is_progress = |line: &&str| {
        progress
            .iter()
            .any(|word| line.trim_start().starts_with(word))
    };
    output
        .lines()
        .filter(|line| !is_progress(line))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diagnostics_lose_progress_and_nothing_else() {
        let output = "   Compiling core v0\n    Checking devices v0\nerror[E0433]: no\n --> x.rs:1\n    Finished `dev`\n";
        assert_eq!(diagnostics(output), "error[E0433]: no\n --> x.rs:1\n");
    }
}
