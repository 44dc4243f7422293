//! Kernels: those that must be refused, on any host, and the distribution's.

use std::fs;
use std::path::Path;

use anyhow::Result;
use hv_core::Fault;
use sandbox::{Error, ExecSpec, GuestFiles, Sandbox};

use crate::fixture::{Fixture, START_LIMIT, cases};

cases!(
    Hypervisor: unusable_kernels_are_refused;
    StockGuest: stock_kernel_boots_and_mounts_the_share
);

const X86_64: u8 = 62;
const AARCH64: u8 = 183;

/// The header of a 64-bit ELF program for this machine type, with one program header that the
/// file does not hold.
fn elf(machine: u8) -> Vec<u8> {
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(64, 0);
    for (at, byte) in [
        (16, 2),
        (18, machine),
        (20, 1),
        (32, 64),
        (52, 64),
        (54, 56),
        (56, 1),
    ] {
        if let Some(field) = header.get_mut(at) {
            *field = byte;
        }
    }
    header
}

/// The header of an arm64 `Image` (Documentation/arch/arm64/booting.rst).
fn arm64_image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    if let Some(magic) = image.get_mut(56..60) {
        magic.copy_from_slice(b"ARM\x64");
    }
    image
}

async fn unusable_kernels_are_refused(_: &Fixture) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (content, expected) in [
        (b"this is no kernel at all\n".repeat(500), "neither"),
        (elf(X86_64), "incomplete"),
        (elf(AARCH64), "this machine is x86-64"),
        (arm64_image(), "this machine is x86-64"),
    ] {
        let message = refusal(folder.path(), &content).await?;
        assert!(
            message.contains(expected),
            "{expected:?} is not in {message:?}"
        );
        assert!(!message.contains('\n'), "{message:?}");
    }
    Ok(())
}

/// How the worker refuses a kernel file with this content.
async fn refusal(folder: &Path, content: &[u8]) -> Result<String> {
    let files = GuestFiles {
        kernel: folder.join("kernel"),
        initrd: folder.join("initrd"),
        root: None,
    };
    fs::write(&files.kernel, content)?;
    fs::write(&files.initrd, b"unread")?;
    match Sandbox::of(files).slow_hypervisor(true).start().await {
        Err(Error::NotStarted {
            fault: Fault::Caller,
            message,
        }) => Ok(message),
        other => anyhow::bail!("not refused: {other:?}"),
    }
}

async fn stock_kernel_boots_and_mounts_the_share(fixture: &Fixture) -> Result<()> {
    let workspace = tempfile::tempdir()?;
    let guest = Sandbox::of(fixture.stock_files())
        .start_timeout(START_LIMIT)
        .workspace(workspace.path())
        .start()
        .await?;
    let command = ExecSpec::new("sh").args(["-c", "uname -r | tee release"]);
    let output = guest.output(command.directory(workspace.path())).await?;
    assert!(output.success(), "{output:?}");
    assert_eq!(fs::read(workspace.path().join("release"))?, output.stdout);
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim_end(),
        guest.kernel()
    );
    drop(guest.stop().await?);
    Ok(())
}
