//! The distribution's kernel as a guest kernel: it keeps us honest, and it needs no build.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    cache::{KeyBuilder, Product, remove_dir},
    distro,
    guest::kernel::Description,
    host,
    progress::stage,
};

/// The metapackage; the `cloud` flavour has what a virtual machine needs.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// What the guest has to load.
const MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "vmw_vsock_virtio_transport",
    "virtiofs",
    "erofs",
    "overlay",
    "ext4",
];

/// Fetches the kernel unless it is there. Returns the folder with `vmlinux`, `bzImage`, `kernel.json` and `modules`.
pub(super) fn ensure() -> Result<PathBuf> {
    let key = KeyBuilder::new("stock 1").input(PACKAGE.as_bytes());
    let key = MODULES
        .iter()
        .fold(key, |key, module| key.input(module.as_bytes()))
        .finish();
    Product::new(host::target().join("guest/stock")).ensure(&key, build)
}

fn build(dir: &Path) -> Result<()> {
    let unpacked = dir.join("package");
    let package = distro::fetch_kernel(PACKAGE, &unpacked)?;
    stage(
        &format!("prepare kernel {} for the guest", package.release),
        || {
            package.extract_vmlinux(&dir.join("vmlinux"))?;
            fs::copy(package.bzimage(), dir.join("bzImage"))?;
            package.copy_modules(MODULES, &dir.join("modules"))?;
            Description::of(dir, &package.version, &package.config())?.write(dir)?;
            remove_dir(&unpacked)
        },
    )
}
