//! Why a kernel cannot be booted.

use std::io;

/// A failure to put a kernel and its boot data into RAM. Unless it says otherwise, the file or the
/// configuration that the caller gave is at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// The file is none that this machine can boot.
    #[error("the kernel file is neither an x86-64 ELF kernel nor a bzImage")]
    NotAKernel,
    /// The kernel is for another processor.
    #[error("the kernel is for {found}, this machine is x86-64")]
    WrongArchitecture {
        /// What it is for.
        found: &'static str,
    },
    /// The ELF file has no note that names a PVH entry.
    #[error(
        "the ELF kernel has no PVH entry: build it with CONFIG_PVH=y or give its bzImage instead"
    )]
    NoPvhEntry,
    /// The bzImage is too old to have a 64-bit entry.
    #[error("the bzImage follows boot protocol {major}.{minor}, at least 2.12 is needed")]
    OldProtocol {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The file ends too early.
    #[error("the file ends inside {part}: it is incomplete")]
    Truncated {
        /// What is cut off.
        part: &'static str,
    },
    /// A header field contradicts the format.
    #[error("the kernel's header is broken: {0}")]
    Broken(&'static str),
    /// RAM is too small.
    #[error("{part} needs memory up to {end:#x}, but usable RAM ends at {limit:#x}")]
    DoesNotFit {
        /// What does not fit.
        part: &'static str,
        /// One past its last byte.
        end: u64,
        /// One past the last byte it may have.
        limit: u64,
    },
    /// RAM does not begin at 0 or has no byte above 1 MiB.
    #[error("RAM must begin at address 0 and be larger than 1 MiB")]
    RamLayout,
    /// The command line cannot be handed over.
    #[error("the kernel command line must have at most {max} bytes and no NUL")]
    CommandLine {
        /// The longest that this kernel takes, in bytes.
        max: usize,
    },
    /// No virtio-mmio window or interrupt line is left.
    #[error("the machine has more devices than windows or interrupt lines")]
    NoWindow(#[source] vm_allocator::Error),
    /// A device cannot be described to the guest.
    #[error("the device window at {address:#x} with line {line} cannot be announced to the guest")]
    Device {
        /// Guest-physical address.
        address: u64,
        /// Interrupt line.
        line: u32,
    },
    /// The number of vCPUs cannot be described to the guest.
    #[error("{0} vCPUs cannot be announced to the guest, 1 to 255 can")]
    Vcpus(u32),
    /// The interrupt controller is not one of an x86-64 machine.
    #[error("the interrupt controller cannot be announced to an x86-64 guest")]
    Irq,
    /// A file could not be read (host).
    #[error("cannot read {part}")]
    Read {
        /// What was read.
        part: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The host could not map a file over RAM.
    #[error("cannot lay {part} over guest memory")]
    Overlay {
        /// What was mapped.
        part: &'static str,
        /// The host's answer.
        #[source]
        source: hv_core::MemoryError,
    },
    /// Boot data lie outside RAM.
    #[error("cannot write boot data into guest memory")]
    Ram(#[from] vm_memory::GuestMemoryError),
}
