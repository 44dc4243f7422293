//! Shares a directory with a guest: the guest's change is on the host at once, and a second
//! guest that has the directory read-only cannot change it.
//!
//! `share_workspace DIR`; `cargo xtask guest` makes the guest's files.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::path::{Path, PathBuf};

use sandbox::{Error, ExecSpec, Mount, Sandbox, ShareMode};

fn main() -> Result<(), Error> {
    sandbox::worker::init();
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let directory = directory.canonicalize().unwrap_or(directory);
    run(&directory)
}

#[tokio::main(flavor = "current_thread")]
async fn run(directory: &Path) -> Result<(), Error> {
    let write = ExecSpec::new("sh")
        .arg("-c")
        .arg("date > from-the-guest")
        .directory(directory);

    let sandbox = Sandbox::builder().workspace(directory).start().await?;
    let output = sandbox.output(write.clone()).await?;
    println!(
        "read-write: {:?}; on the host: {:?}",
        output.status,
        read(directory)
    );
    sandbox.stop().await?;

    let mount = Mount {
        host: directory.to_owned(),
        guest: None,
        mode: ShareMode::ReadOnly,
    };
    let sandbox = Sandbox::builder().mount(mount).start().await?;
    let output = sandbox.output(write).await?;
    let why = String::from_utf8_lossy(&output.stderr)
        .trim_end()
        .to_owned();
    println!("read-only: {:?}: {why}", output.status);
    sandbox.stop().await?;
    Ok(())
}

fn read(directory: &Path) -> Option<String> {
    let text = std::fs::read_to_string(directory.join("from-the-guest")).ok()?;
    Some(text.trim_end().to_owned())
}
