//! The guest's network in a world of its own: attacks and real programs in a guest, with sinks that count whatever gets out.
//!
//! The world (`assets/campaign/egress`) is two network namespaces without a link to the outside. In one the sandbox's host lives, the other
//! answers at every address there is, so that what policy should have stopped would come up, and is counted.

use std::{collections::BTreeMap, ffi::OsString, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::Checks;
use crate::{
    bench::build_release,
    demo,
    guest::{self, Which},
    host::{self, Need},
    nested::Output,
    place::{Place, Task},
};

const NEEDS: &[Need] = &[
    Need::new("ip", "iproute2"),
    Need::new("openssl", "openssl"),
    Need::new("/usr/bin/python3", "python3"),
    Need::new("unshare", "util-linux"),
];

/// Longer than it takes with emulation in software.
const LIMIT: Duration = Duration::from_secs(1500);

/// What the script tells of. A check of which it says nothing has failed.
const CHECKS: &[&str] = &[
    "sinks count",
    "allowed flows",
    "attacks, fresh",
    "rebinding",
    "transfer",
    "git over https",
    "websocket",
    "server-sent events",
    "parallel connections",
    "attacks, policy reloaded",
    "attacks, egress worker killed",
    "allowed flows, egress worker killed",
    "attacks, sandbox restarted",
    "allowed flows, sandbox restarted",
    "flood",
];

/// The same of the script that runs on this machine.
const NATIVE_CHECKS: &[&str] = &[
    "native, sinks count",
    "native, allowed flows",
    "native, attacks",
    "native, package managers",
    "native, rebinding",
    "native, transfer",
    "native, git over https",
    "native, websocket",
    "native, server-sent events",
    "native, parallel connections",
    "native, flood",
    "native, tunnels",
];

/// The tests of `sandbox` by that, with those that are too slow for `cargo xtask test`.
const OUTSIDE: &str = "what goes wrong outside";

const NATIVE_NEEDS: &[Need] = &[
    Need::new("/usr/bin/python3", "python3"),
    Need::new("/usr/lib/python3/dist-packages/pip", "python3-pip"),
    Need::new("apt-get", "apt"),
    Need::new("curl", "curl"),
    Need::new("dpkg-deb", "dpkg"),
    Need::new("git", "git"),
    Need::new("iodine", "iodine"),
    Need::new("iodined", "iodine"),
    Need::new("npm", "npm"),
    Need::new("ping", "iputils-ping"),
    Need::new("ptunnel", "ptunnel"),
];

/// What the network is to be tried with in a guest and is not yet, with the reason.
const NOT_RUN: &[(&str, &str)] = &[(
    "package managers, tunnels, 10^5 attempts, 500 connections, 1 GiB in a machine's guest",
    "the guest's root has no such programs and the emulated host is slow: natively only, without a machine",
)];

/// Runs all.
pub(super) fn run(checks: &mut Checks) -> Result<()> {
    ensure!(
        host::is_root(),
        "namespaces of a network are made by root only"
    );
    host::ensure(NEEDS)?;
    native(checks)?;
    checks.run(OUTSIDE, what_goes_wrong_outside);
    let place = Place::choose();
    let assets = guest::assets(Which::Ready)?;
    demo::build_coffer()?;
    let script = host::workspace().join("xtask/assets/campaign/egress/run.sh");
    let mut command: Vec<OsString> = vec!["sh".into(), script.into()];
    command.push(host::target().join("nested/coffer").into());
    command.extend([assets.kernel, assets.initrd, assets.root].map(OsString::from));
    let done = place.run(&Task {
        command,
        env: Vec::new(),
        timeout: LIMIT,
        output: Output::Capture,
    })?;
    let ended = done.to_string();
    take(checks, CHECKS, &done.stdout, &done.stderr, &ended);
    for (what, reason) in NOT_RUN {
        println!("SKIP  {what}: {reason}");
    }
    Ok(())
}

/// On this machine, without a machine for the guest.
fn native(checks: &mut Checks) -> Result<()> {
    host::ensure(NATIVE_NEEDS)?;
    let program = build_release("egress_load")?.join("egress_load");
    let script = host::workspace().join("xtask/assets/campaign/egress/native.py");
    let place = tempfile::tempdir()?;
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string());
    command.args(["unshare", "--net", "--mount", "/usr/bin/python3", "-B"]);
    let done = command
        .arg(script)
        .arg(place.path())
        .arg(program)
        .output()?;
    let ended = done.status.to_string();
    take(checks, NATIVE_CHECKS, &done.stdout, &done.stderr, &ended);
    Ok(())
}

fn what_goes_wrong_outside() -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string());
    command.args(
        "cargo test --quiet -p sandbox --features testkit --test egress -- --include-ignored"
            .split(' '),
    );
    let done = command.current_dir(host::workspace()).output()?;
    let text = String::from_utf8_lossy(&done.stdout);
    let result = text.lines().rfind(|line| line.starts_with("test result: "));
    let result = result.unwrap_or("no result").to_owned();
    ensure!(done.status.success(), "{result}: {}", text.trim());
    Ok(result)
}

/// Takes what a script told of its checks, and that it ended so.
fn take(checks: &mut Checks, all: &[&'static str], stdout: &[u8], stderr: &[u8], ended: &str) {
    let text = String::from_utf8_lossy(stdout);
    let said = outcomes(&text);
    for what in all {
        checks.run(what, || {
            let outcome = said.get(what).with_context(|| {
                let errors = String::from_utf8_lossy(stderr);
                format!("the world {ended}, and told nothing: {}", errors.trim())
            })?;
            match outcome.split_once(' ') {
                Some(("PASS", outcome)) => Ok(outcome.to_owned()),
                Some(("FAIL", outcome)) => bail!("{outcome}"),
                _ => bail!("cannot be understood: {outcome}"),
            }
        });
    }
}

/// What is behind the name in each line `== NAME: VERDICT OUTCOME`.
fn outcomes(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("== "));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_check_has_its_outcome() {
        let said = outcomes("boot\n== a, b: PASS 3 packets: seen\n== c: FAIL x\n== d\n");
        let expected = [("a, b", "PASS 3 packets: seen"), ("c", "FAIL x")];
        assert_eq!(said, BTreeMap::from(expected));
    }

    #[test]
    fn script_tells_of_every_check() {
        let folder = host::workspace().join("xtask/assets/campaign/egress");
        for (script, checks) in [("driver.py", CHECKS), ("native.py", NATIVE_CHECKS)] {
            let script = std::fs::read_to_string(folder.join(script)).unwrap();
            for what in checks {
                // It is what ends a name.
                assert!(!what.contains(": "), "{what}");
                assert!(script.contains(&format!("site.check(\"{what}\"")), "{what}");
            }
        }
    }
}
