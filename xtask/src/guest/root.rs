//! The base root file system: a small Debian with what coding agents call first, as a read-only EROFS image.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure as require};
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::{
    cache::{KeyBuilder, Product, remove_dir, sha256_file},
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("mmdebstrap", "mmdebstrap"),
    Need::new("mkfs.erofs", "erofs-utils"),
    Need::new("chroot", "coreutils"),
];

const SUITE: &str = "bookworm";
const SETUP: &str = include_str!("../../assets/root-setup");

const PACKAGES: &[&str] = &[
    "bash",
    "ca-certificates",
    "curl",
    "gcc",
    "git",
    "iproute2",
    "less",
    "libc6-dev",
    "make",
    "procps",
    "python3",
    "python3-pytest",
    "sudo",
    "vim-tiny",
];

/// What dpkg does not unpack. Copyright files stay: the licences ask for it.
const LEFT_OUT: &[&str] = &[
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/vim/vim90/doc/*",
    // 32 MB that show the innards of object files.
    "path-exclude=/usr/bin/*-lto-dump-*",
];

/// Any fixed value will do: the same content gives the same image.
const UUID: &str = "c0ffe2da-0000-4000-8000-000000000001";

/// `root.json`: what the image was made from.
#[derive(Debug, Serialize)]
struct Description {
    suite: &'static str,
    sha256: String,
    size: u64,
    packages: Vec<String>,
}

/// Makes the image unless it is there. Returns its path; `root.json` is beside it.
pub(super) fn ensure() -> Result<PathBuf> {
    let key = KeyBuilder::new("root 1")
        .input(SUITE.as_bytes())
        .input(SETUP.as_bytes());
    let key = PACKAGES
        .iter()
        .chain(LEFT_OUT)
        .fold(key, |key, text| key.input(text.as_bytes()))
        .finish();
    let product = Product::new(host::target().join("guest/root"));
    Ok(product.ensure(&key, build)?.join("root.erofs"))
}

fn build(dir: &Path) -> Result<()> {
    require!(
        host::is_root(),
        "the root file system can be made by root only; run: sudo cargo xtask guest root"
    );
    host::ensure(NEEDS)?;
    let shell = Shell::new()?;
    let tree = dir.join("tree");
    let image = dir.join("root.erofs");
    stage(
        &format!("install {SUITE} with {} packages", PACKAGES.len()),
        || bootstrap(&shell, &tree),
    )?;
    stage("make root.erofs", || pack(&shell, &tree, &image))?;
    let description = Description {
        suite: SUITE,
        sha256: sha256_file(&image)?,
        size: fs::metadata(&image)?.len(),
        packages: installed(&shell, &tree)?,
    };
    fs::write(
        dir.join("root.json"),
        serde_json::to_vec_pretty(&description)?,
    )?;
    remove_dir(&tree)
}

fn bootstrap(shell: &Shell, tree: &Path) -> Result<()> {
    let include = PACKAGES.join(",");
    let options = LEFT_OUT.iter().map(|option| format!("--dpkgopt={option}"));
    let log = host::target().join("guest/root.log");
    let script = r#"log=$1; shift; exec mmdebstrap "$@" >"$log" 2>&1"#;
    cmd!(
        shell,
        "sh -c {script} mmdebstrap {log} --mode=root --variant=minbase --include={include}"
    )
    .args(options)
    .arg(SUITE)
    .arg(tree)
    .quiet()
    .run()
    .with_context(|| format!("mmdebstrap failed; see {}", log.display()))?;
    cmd!(shell, "sh -c {SETUP} setup {tree}")
        .quiet()
        .run()
        .context("cannot finish the root file system")
}

/// Uncompressed: the pages go as they are from the host's page cache to the guest's.
fn pack(shell: &Shell, tree: &Path, image: &Path) -> Result<()> {
    cmd!(shell, "mkfs.erofs -U {UUID} {image} {tree}")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .context("cannot make the EROFS image")
}

fn installed(shell: &Shell, tree: &Path) -> Result<Vec<String>> {
    let format = "${Package} ${Version}\n";
    let list = cmd!(
        shell,
        "dpkg-query --root={tree} --show --showformat={format}"
    )
    .quiet()
    .read()?;
    Ok(list.lines().map(str::to_owned).collect())
}
