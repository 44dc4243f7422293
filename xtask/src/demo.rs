//! `cargo xtask demo`: an agent mends a project in a sandbox, and the host looks at the result.
//!
//! What happens is in `assets/demo`: the project, the agent, and the script that runs on the host of the sandbox.

use std::{ffi::OsString, process::ExitCode, thread, time::Duration};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::{
    guest::{self, Assets, Which},
    host::{self, Need},
    nested::Output,
    place::{Place, Task},
    progress::stage,
};

/// Longer than it takes on a busy machine with emulation in software.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs the demonstration; the exit status says whether every check of it held.
pub(crate) fn run() -> Result<ExitCode> {
    let place = Place::choose();
    host::ensure(&[Need::new("git", "git")])?;
    let assets = prepare()?;
    println!("Guest kernel: {}", kernel_in_words(&assets));
    let done = place.run(&Task {
        command: command(&assets),
        env: Vec::new(),
        timeout: LIMIT,
        output: Output::Inherit,
    })?;
    Ok(ExitCode::from(done.status))
}

fn kernel_in_words(assets: &Assets) -> &'static str {
    if assets.own_kernel {
        "our own"
    } else {
        "the distribution's, as ours is not built (`cargo xtask guest kernel` builds it in 10 to 20 minutes)"
    }
}

/// Makes the guest's files and builds `coffer` meanwhile: one mostly loads, the other computes.
fn prepare() -> Result<Assets> {
    let build = thread::spawn(build_coffer);
    let assets = guest::assets(Which::Ready)?;
    stage("build coffer", || match build.join() {
        Ok(result) => result,
        Err(_) => bail!("the thread that builds it failed"),
    })?;
    Ok(assets)
}

/// The profile `nested` is optimised like a release, and builds in a fraction of its time.
pub(crate) fn build_coffer() -> Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(host::workspace());
    let target = host::target();
    cmd!(
        shell,
        "cargo build --quiet --profile nested -p coffer --target-dir {target}"
    )
    .quiet()
    .run()?;
    Ok(())
}

fn command(assets: &Assets) -> Vec<OsString> {
    let script = host::workspace().join("xtask/assets/demo/demo.sh");
    let coffer = host::target().join("nested/coffer");
    vec![
        "sh".into(),
        script.into(),
        coffer.into(),
        assets.kernel.clone().into(),
        assets.initrd.clone().into(),
        assets.root.clone().into(),
    ]
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::Command};

    use super::*;

    fn in_demo(command: &mut Command) -> std::process::Output {
        command
            .current_dir(host::workspace().join("xtask/assets/demo"))
            .output()
            .unwrap()
    }

    #[test]
    fn both_suites_of_the_project_fail_before_the_agent_came() {
        let copy = tempfile::tempdir().unwrap();
        let copied = in_demo(Command::new("cp").args(["-r", "project"]).arg(copy.path()));
        assert!(copied.status.success());
        for suite in ["test-python", "test-c"] {
            let project = copy.path().join("project");
            let test = in_demo(Command::new("make").arg("-C").arg(project).arg(suite));
            let text = String::from_utf8_lossy(&test.stderr).to_lowercase();
            assert!(!test.status.success() && text.contains("assert"), "{text}");
        }
    }

    #[test]
    fn script_is_given_files_by_absolute_paths() {
        let assets = Assets {
            own_kernel: false,
            kernel: "/k".into(),
            initrd: "/i".into(),
            root: "/r".into(),
        };
        let command = command(&assets);
        assert!(Path::new(&command[1]).is_file() && Path::new(&command[2]).is_absolute());
        assert_eq!(command[3..], ["/k", "/i", "/r"].map(OsString::from));
    }
}
