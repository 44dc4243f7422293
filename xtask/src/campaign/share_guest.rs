//! The same suites in a guest, on its workspace.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Checks, pjdfstest::Suite, share::tools};
use crate::{
    demo,
    guest::{self, Which},
    host,
    nested::Output,
    place::{Place, Task},
};

/// Longer than it takes with emulation in software.
const LIMIT: Duration = Duration::from_secs(2400);

/// Runs all.
pub(super) fn run(checks: &mut Checks) -> Result<()> {
    let place = Place::choose();
    let tools = tools()?;
    let assets = guest::assets(Which::Ready)?;
    demo::build_coffer()?;
    let script = host::workspace().join("xtask/assets/campaign/guest.sh");
    let mut command: Vec<OsString> = vec!["sh".into(), script.into()];
    command.push(host::target().join("nested/coffer").into());
    command.extend([assets.kernel, assets.initrd, assets.root].map(OsString::from));
    command.push(tools.into());
    let done = place.run(&Task {
        command,
        env: Vec::new(),
        timeout: LIMIT,
        output: Output::Capture,
    })?;
    let text = format!("\n{}", String::from_utf8_lossy(&done.stdout));
    let said = sections(&text);
    let problem = || {
        let errors = String::from_utf8_lossy(&done.stderr);
        format!("the guest {done}: {}", errors.trim())
    };
    let section = |name: &str| said.get(name).copied().with_context(problem);
    checks.run("pjdfstest in a guest", || {
        let ours = Suite::of(section("pjdfstest on the share")?)?;
        let own = Suite::of(section("pjdfstest on the guest's own")?)?;
        let left_out = ours.left_out(&own)?;
        Ok(format!(
            "{ours}, {left_out} of the failed left out (special files, other owners), the rest as on the guest's own; there: {own}"
        ))
    });
    for (name, proof) in [
        ("fsx", "fsx: no difference"),
        ("git", "git: 50 commits"),
        ("the host looks", "fsck: clean"),
    ] {
        checks.run(name, || {
            let said = section(name)?;
            ensure!(said.lines().any(|line| line == proof), "{}", said.trim());
            Ok(proof.into())
        });
    }
    Ok(())
}

/// What is below each line that begins with `== `, by the rest of that line.
fn sections(text: &str) -> BTreeMap<&str, &str> {
    let parts = text.split("\n== ").skip(1);
    parts
        .map(|part| part.split_once('\n').unwrap_or((part, "")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_has_its_lines() {
        let said = sections("boot\n== a b\none == 1\ntwo\n== c\n== d\nthree\n");
        let expected = [("a b", "one == 1\ntwo"), ("c", ""), ("d", "three\n")];
        assert_eq!(said, BTreeMap::from(expected));
    }
}
