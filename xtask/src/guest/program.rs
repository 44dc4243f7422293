//! The guest program: package `sandbox-guest`, static, because it is the only file of the initrd.

use std::{env, fs, path::PathBuf};

use anyhow::Result;
use xshell::{Shell, cmd};

use crate::{cache::sha256_file, host};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Neither position-independent nor dynamically linked: nothing to relocate before `main`.
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// Builds the program if cargo finds that it is not up to date.
pub(super) fn ensure() -> Result<PathBuf> {
    let shell = Shell::new()?;
    let built = build(&shell)?;
    let program = host::target().join("guest/program/sandbox-guest");
    if !program.exists() || sha256_file(&program)? != sha256_file(&built)? {
        shell.create_dir(host::target().join("guest/program"))?;
        shell.copy_file(&built, &program)?;
        let kib = fs::metadata(&program)?.len() / 1024;
        eprintln!("xtask: guest program built, {kib} KiB");
    }
    Ok(program)
}

fn build(shell: &Shell) -> Result<PathBuf> {
    shell.change_dir(host::workspace());
    shell.set_var("RUSTFLAGS", FLAGS);
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let dir = host::target().join("guest/build/program");
    cmd!(
        shell,
        "{cargo} build --quiet -p sandbox-guest --profile guest --target {TARGET}"
    )
    .arg("--target-dir")
    .arg(&dir)
    .quiet()
    .run()?;
    Ok(dir.join(TARGET).join("guest/sandbox-guest"))
}
