//! `coffer policy`, which needs no guest.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use sandbox::audit::Digest;

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

/// A line of an audit log that continues `prev`.
fn line(prev: Digest, rest: &str) -> String {
    format!(
        "{{\"prev\":\"{prev}\",\"time\":\"2026-08-01T12:00:00.000Z\",\"sandbox\":\"box\",{rest}}}"
    )
}

/// An audit log with these lines.
fn log(rest: &[&str], mut head: Digest) -> (String, Digest) {
    let mut log = String::new();
    for rest in rest {
        let line = line(head, rest);
        head = Digest::of(line.as_bytes());
        log.push_str(&line);
        log.push('\n');
    }
    (log, head)
}

const OPENED: &str =
    r#""event":"opened","flow":1,"host":"a.example","port":443,"scheme":"https","verdict":"audit""#;
const OTHER: &str =
    r#""event":"opened","flow":2,"host":"b.example","port":443,"scheme":"https","verdict":"allow""#;
const DENIED: &str = r#""event":"denied","host":"c.example","port":443,"verdict":"deny","reason":"the address may not be dialled""#;

/// All files of a log are read, and one that was changed is not learned from unless that is wanted.
pub(crate) fn a_log_becomes_a_policy() -> Result<()> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    let (older, head) = log(&[OPENED], Digest::default());
    let (newer, _) = log(&[OTHER, DENIED, OTHER], head);
    fs::write(home.join("net.log.1"), &older)?;
    fs::write(home.join("net.log"), &newer)?;
    fs::write(home.join("p.toml"), "[[allow]]\nhost = 'a.example'\n")?;
    let learned = Ended::of(&mut policy(home, &["learn", "net.log"]))?;
    ensure!(
        learned.status == 0 && learned.stderr.is_empty(),
        "{learned:?}"
    );
    for part in [
        "[[allow]]\nhost = \"a.example\"\n",
        "# 2 connections, 2026-08-01T12:00:00Z to 2026-08-01T12:00:00Z, by box\n[[allow]]\nhost = \"b.example\"\n",
        "#   c.example:443: the address may not be dialled (1 time)\n",
    ] {
        ensure!(learned.stdout.contains(part), "{part}: {learned:?}");
    }
    // What was learned allows it.
    fs::write(home.join("learned.toml"), &learned.stdout)?;
    let check = |host: &str| {
        let url = format!("https://{host}.example/");
        Ended::of(&mut policy(
            home,
            &["check", &url, "--policy", "learned.toml"],
        ))
    };
    ensure!(check("a")?.status == 0 && check("b")?.status == 0 && check("c")?.status == 1);
    let more = Ended::of(&mut policy(
        home,
        &["learn", "net.log", "--policy", "p.toml"],
    ))?;
    ensure!(
        !more.stdout.contains("host = \"a.") && more.stdout.contains("host = \"b."),
        "{more:?}"
    );

    fs::write(
        home.join("net.log"),
        newer.replacen("b.example", "d.example", 1),
    )?;
    let arguments = ["learn", "net.log"];
    Ended::of(&mut policy(home, &arguments))?.failed_with(
        125,
        "net.log: line 2: it does not continue the line before it",
    )?;
    let unverified = Ended::of(&mut policy(home, &["learn", "--unverified", "net.log"]))?;
    ensure!(
        unverified.status == 0
            && unverified.stderr.lines().count() == 1
            && unverified.stdout.matches("[[allow]]").count() == 3,
        "{unverified:?}"
    );
    for (file, part) in [
        ("none", "none"),
        ("p.toml", "line 1: it is no record"),
        (".", "is a directory"),
    ] {
        let ended = Ended::of(&mut policy(home, &["learn", file]))?;
        ensure!(
            ended.status == 125 && ended.stderr.to_lowercase().contains(part),
            "{ended:?}"
        );
    }
    Ok(())
}

/// What is suggested is a policy, without passwords; what is broken is told, and the rest goes on.
pub(crate) fn settings_of_tools_become_rules() -> Result<()> {
    let home = tempfile::tempdir()?;
    let home = home.path();
    fs::create_dir_all(home.join(".cargo"))?;
    fs::create_dir_all(home.join("w/.git"))?;
    fs::write(
        home.join(".npmrc"),
        "registry=https://me:secret@npm.example/\n//npm.example/:_authToken=secret\n",
    )?;
    fs::write(
        home.join(".cargo/config.toml"),
        "[registries.x]\ntoken = secret\n",
    )?;
    fs::write(
        home.join("w/.git/config"),
        "[remote \"origin\"]\n\turl = git@git.example:x.git\n",
    )?;
    let mut command = policy(home, &["suggest", "-w", "w"]);
    command.env("PIP_INDEX_URL", "http://pip.example/simple");
    let ended = Ended::of(&mut command)?;
    ensure!(ended.status == 0, "{ended:?}");
    for part in [
        ".npmrc: registry\n[[allow]]\nhost = \"npm.example\"\n",
        "remote \"origin\" url\n[[allow]]\nhost = \"git.example\"\nscheme = \"tcp\"\nports = [22]\n",
        "# pip: environment: PIP_INDEX_URL\n[[allow]]\nhost = \"pip.example\"\nscheme = \"http\"\nmethods = [\"GET\", \"HEAD\"]\n",
    ] {
        ensure!(ended.stdout.contains(part), "{part}: {ended:?}");
    }
    ensure!(
        ended.stderr.contains("config.toml: line 2 is no TOML\n"),
        "{ended:?}"
    );
    ensure!(!format!("{ended:?}").contains("secret"), "{ended:?}");
    fs::write(home.join("p.toml"), &ended.stdout)?;
    for (url, status) in [
        ("https://npm.example/", 0),
        ("ssh://git.example/", 0),
        ("http://pip.example/simple/x", 0),
        ("https://pip.example/", 1),
    ] {
        let checked = Ended::of(&mut policy(home, &["check", url, "--policy", "p.toml"]))?;
        ensure!(checked.status == status, "{url}: {checked:?}");
    }
    Ok(())
}
