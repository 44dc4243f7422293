//! What the emulated host boots: a kernel and an initrd.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{
    cache::{Key, KeyBuilder, Product, remove_dir},
    cpio::Archive,
    distro, guest,
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("qemu-system-x86_64", "qemu-system-x86"),
    Need::new("/bin/busybox", "busybox-static"),
];

const INIT: &str = include_str!("../../assets/nested-init");
const MAIN: &str = include_str!("../../assets/nested-main");

/// The metapackage of the stock kernel. The `cloud` flavour lacks 9p.
const STOCK_PACKAGE: &str = "linux-image-amd64";

/// What the stock kernel has to load: first what the host itself needs, then what VMMs and tests do.
/// `crc32c_generic` is asked for by name at run time, so it is nobody's recorded dependency.
const STOCK_MODULES: &[&str] = &[
    "crc32c_generic",
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "overlay",
    "kvm_amd",
    "fuse",
    "loop",
    "ext4",
    "erofs",
    "tun",
    "veth",
    "dummy",
    "vhost_net",
    "vhost_vsock",
    "vsock_loopback",
];

/// Which kernel the emulated host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelChoice {
    /// Our own if `cargo xtask guest host-kernel` has built it, else the distribution's.
    Best,
    /// The distribution's.
    Stock,
}

/// A kernel and an initrd, both files.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

/// Makes what the emulated host boots, unless it is there.
pub(super) fn ensure(choice: KernelChoice) -> Result<Image> {
    host::ensure(NEEDS)?;
    match guest::host_kernel_if_built()? {
        Some(kernel) if choice == KernelChoice::Best => with_own_kernel(&kernel),
        _ => with_stock_kernel(),
    }
}

fn with_own_kernel(kernel: &Path) -> Result<Image> {
    Ok(Image {
        kernel: kernel.to_owned(),
        initrd: initrd("initrd", None)?,
    })
}

fn with_stock_kernel() -> Result<Image> {
    let product = Product::new(host::target().join("nested/stock-kernel"));
    let key = KeyBuilder::new("stock 1").input(STOCK_PACKAGE.as_bytes());
    let key = STOCK_MODULES
        .iter()
        .fold(key, |key, module| key.input(module.as_bytes()))
        .finish();
    let dir = product.ensure(&key, fetch_stock)?;
    Ok(Image {
        kernel: dir.join("vmlinux"),
        initrd: initrd("stock-initrd", Some((&dir, &key)))?,
    })
}

fn fetch_stock(dir: &Path) -> Result<()> {
    let unpacked = dir.join("package");
    let package = distro::fetch_kernel(STOCK_PACKAGE, &unpacked)?;
    stage(
        &format!("prepare kernel {} for the emulated host", package.release),
        || {
            package.extract_vmlinux(&dir.join("vmlinux"))?;
            package.copy_modules(STOCK_MODULES, &dir.join("modules"))?;
            remove_dir(&unpacked)
        },
    )
}

/// The initrd that goes with a kernel: `stock` is the stock kernel's folder and key.
fn initrd(name: &str, stock: Option<(&Path, &Key)>) -> Result<PathBuf> {
    let key = KeyBuilder::new("initrd 1")
        .input(INIT.as_bytes())
        .input(MAIN.as_bytes());
    let key = key.file(Path::new("/bin/busybox"))?;
    let key = stock
        .iter()
        .fold(key, |key, (_, kernel)| {
            key.input(kernel.as_str().as_bytes())
        })
        .finish();
    let modules = stock.map(|(dir, _)| dir.join("modules"));
    let product = Product::new(host::target().join("nested").join(name));
    let dir = product.ensure(&key, |dir| {
        write_initrd(&dir.join("initrd.cpio"), modules.as_deref())
    })?;
    Ok(dir.join("initrd.cpio"))
}

/// Writes the initrd, with the modules of that folder in it, to be loaded in the order of their names.
fn write_initrd(to: &Path, modules: Option<&Path>) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(to)?));
    for dir in ["bin", "dev", "lower", "modules", "new", "proc", "upper"] {
        archive.dir(dir)?;
    }
    archive.char_device("dev/console", 5, 1)?;
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    archive.program("init", INIT.as_bytes())?;
    archive.program("nested-main", MAIN.as_bytes())?;
    if let Some(modules) = modules {
        add_modules(&mut archive, modules)?;
    }
    archive.finish()?;
    Ok(())
}

fn add_modules(archive: &mut Archive<BufWriter<File>>, dir: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    for name in &names {
        archive.copy(&format!("modules/{name}"), &dir.join(name))?;
    }
    archive.program("modules/order", (names.join("\n") + "\n").as_bytes())
}
