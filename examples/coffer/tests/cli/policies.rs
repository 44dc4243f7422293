//! `coffer policy`, which needs no guest.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::program::{Ended, coffer};

/// `coffer policy` of a user whose home is `home` and who has nothing else.
fn policy(home: &Path, arguments: &[&str]) -> Command {
    let mut command = coffer(["policy"].iter().chain(arguments));
    command.env_clear().env("HOME", home).current_dir(home);
    command
}

/// The exit status is the answer, and all layers that `coffer run` has are asked.
pub(crate) fn a_url_is_checked_by_all_layers() -> Result<()> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    let global = home.join(".config/cofferdam");
    let repository = home.join("w/.cofferdam");
    fs::create_dir_all(&global)?;
    fs::create_dir_all(&repository)?;
    let rule = |list: &str, host: &str| format!("[[{list}]]\nhost = '{host}.example'\n");
    fs::write(global.join("policy.toml"), rule("allow", "global"))?;
    fs::write(home.join("own.toml"), rule("allow", "own"))?;
    fs::write(repository.join("policy.toml"), rule("deny", "global"))?;
    let own = ["--policy", "own.toml"];
    for (url, options, status, part) in [
        ("https://own.example/", &own[..], 0, "rule: own.toml:1: "),
        (
            "https://global.example/",
            &own,
            0,
            ".config/cofferdam/policy.toml:1: ",
        ),
        (
            "https://global.example/",
            &["--policy", "own.toml", "-w", "w"],
            1,
            ".cofferdam/policy.toml:1: deny",
        ),
        (
            "https://x.example/",
            &own,
            1,
            "to allow it: allow = [{ host = \"x.example\" }]",
        ),
        (
            "https://x.example/",
            &["--allow", "x.example"],
            0,
            "rule: --allow:2: ",
        ),
        (
            "https://own.example/",
            &[],
            1,
            "the guest connects to nothing",
        ),
    ] {
        let mut arguments = vec!["check", url];
        arguments.extend(options);
        let ended = Ended::of(&mut policy(home, &arguments))?;
        ensure!(
            ended.status == status && ended.stdout.contains(part) && ended.stderr.is_empty(),
            "{arguments:?}: {ended:?}"
        );
        arguments.push("--json");
        let ended = Ended::of(&mut policy(home, &arguments))?;
        let json: serde_json::Value = serde_json::from_str(&ended.stdout)?;
        let verdict = if status == 0 { "allow" } else { "deny" };
        ensure!(
            ended.status == status && json["verdict"] == verdict,
            "{ended:?}"
        );
    }
    for (arguments, part) in [
        (
            &["check", "own.example"][..],
            "does not begin with https://",
        ),
        (&["check", "tcp://own.example"], "needs a port"),
        (
            &["check", "https://own.example/", "--policy", "none"],
            "none cannot be read",
        ),
        (
            &["check", "https://own.example/", "--allow", "*"],
            "would match every host",
        ),
    ] {
        Ended::of(&mut policy(home, arguments))?.failed_with(125, part)?;
    }
    fs::write(repository.join("policy.toml"), "mode = 'audit'\n")?;
    let arguments = [
        "check",
        "https://own.example/",
        "--policy",
        "own.toml",
        "-w",
        "w",
    ];
    let tightens =
        "`mode = \"audit\"` has no place in a repository's policy: that can only tighten";
    Ended::of(&mut policy(home, &arguments))?.failed_with(125, tightens)
}
