//! The guest's network in a world of its own: attacks and real programs in a guest, with sinks that count whatever gets out.
//!
//! The world (`assets/campaign/egress`) is two network namespaces without a link to the outside. In one the sandbox's host lives, the other
//! answers at every address there is, so that what policy should have stopped would come up, and is counted.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::Checks;
use crate::{
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
    "attacks, sandbox restarted",
    "allowed flows, sandbox restarted",
    "flood",
];

/// What the network is to be tried with and is not yet, each with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    (
        "apt, pip, npm, cargo",
        "the world has no mirrors yet, and the guest's root no such programs",
    ),
    (
        "iodine, a ping tunnel",
        "not in the guest's root; names that carry data and pings are tried instead",
    ),
    (
        "10^5 attempts, 10^4 answers, 500 connections, 1 GiB",
        "fewer, as the outcomes say: the emulated host is slow",
    ),
];

/// Runs all.
pub(super) fn run(checks: &mut Checks) -> Result<()> {
    ensure!(
        host::is_root(),
        "namespaces of a network are made by root only"
    );
    let place = Place::choose();
    host::ensure(NEEDS)?;
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
    let text = String::from_utf8_lossy(&done.stdout);
    let said = outcomes(&text);
    for what in CHECKS {
        checks.run(what, || {
            let outcome = said.get(what).with_context(|| {
                let errors = String::from_utf8_lossy(&done.stderr);
                format!("the world {done}, and told nothing: {}", errors.trim())
            })?;
            match outcome.split_once(' ') {
                Some(("PASS", outcome)) => Ok(outcome.to_owned()),
                Some(("FAIL", outcome)) => bail!("{outcome}"),
                _ => bail!("cannot be understood: {outcome}"),
            }
        });
    }
    for (what, reason) in NOT_RUN {
        println!("SKIP  {what}: {reason}");
    }
    Ok(())
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
        let driver = std::fs::read_to_string(folder.join("driver.py")).unwrap();
        for what in CHECKS {
            assert!(driver.contains(&format!("site.check(\"{what}\"")), "{what}");
        }
    }
}
