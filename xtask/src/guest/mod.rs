//! What the guest boots: kernels, the initrd with the guest program in it, the root file system.
//!
//! Everything is below `target/guest` and is reused as long as its inputs are the same.

mod initrd;
mod kernel;
mod program;
mod root;
mod stock;

use std::path::PathBuf;

use anyhow::Result;

use self::kernel::Flavour;
pub(crate) use self::kernel::host_kernel_if_built;

/// One thing that `cargo xtask guest` makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The guest's own kernel.
    Kernel,
    /// The distribution's kernel and its modules.
    Stock,
    /// The emulated host's kernel.
    HostKernel,
    /// The static program that is process 1 in the guest.
    Program,
    /// The initial RAM disks for both guest kernels.
    Initrd,
    /// The base root file system.
    Root,
    /// All that a guest boots. The emulated host's own kernel only makes that host start faster.
    All,
}

/// Which guest kernel is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Our own; built if it is not there, which takes 10 to 20 minutes.
    Own,
    /// The distribution's.
    Stock,
    /// Our own if it is built, else the distribution's: never a long wait.
    Ready,
}

/// What a sandbox needs to boot; all are files.
#[derive(Debug, Clone)]
pub(crate) struct Assets {
    /// Whether [`Assets::kernel`] is our own.
    pub(crate) own_kernel: bool,
    /// The kernel as 64-bit ELF with a PVH entry.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk for this kernel.
    pub(crate) initrd: PathBuf,
    /// The EROFS image of the root file system.
    pub(crate) root: PathBuf,
}

/// Makes sure that everything a sandbox needs is there, and says where.
pub(crate) fn assets(which: Which) -> Result<Assets> {
    let own = match which {
        Which::Own => Some(kernel::ensure(Flavour::Guest)?),
        Which::Ready => kernel::dir_if_built(Flavour::Guest),
        Which::Stock => None,
    };
    let (kernel_dir, initrd) = match &own {
        Some(dir) => (dir.clone(), initrd::for_own_kernel()?),
        None => (stock::ensure()?, initrd::for_stock_kernel()?),
    };
    Ok(Assets {
        own_kernel: own.is_some(),
        kernel: kernel_dir.join("vmlinux"),
        initrd,
        root: root::ensure()?,
    })
}

/// Makes one part, or all, and gives the files that it consists of.
pub(crate) fn make(part: Part) -> Result<Vec<PathBuf>> {
    Ok(match part {
        Part::Kernel => kernel_files(kernel::ensure(Flavour::Guest)?),
        Part::HostKernel => kernel_files(kernel::ensure(Flavour::Host)?),
        Part::Stock => kernel_files(stock::ensure()?),
        Part::Program => vec![program::ensure()?],
        Part::Initrd => vec![initrd::for_own_kernel()?, initrd::for_stock_kernel()?],
        Part::Root => vec![root::ensure()?],
        Part::All => make_all()?,
    })
}

fn make_all() -> Result<Vec<PathBuf>> {
    // What is quick comes first: whoever waits for the root need not wait for the kernel.
    let parts = [
        Part::Stock,
        Part::Program,
        Part::Initrd,
        Part::Root,
        Part::Kernel,
    ];
    let made: Result<Vec<_>> = parts.into_iter().map(make).collect();
    Ok(made?.concat())
}

#[expect(clippy::needless_pass_by_value, reason = "the folder's name ends here")]
fn kernel_files(dir: PathBuf) -> Vec<PathBuf> {
    ["vmlinux", "bzImage", "kernel.json"]
        .map(|name| dir.join(name))
        .to_vec()
}
