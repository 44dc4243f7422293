//! The hypervisor contract.
//!
//! A backend (`hv-kvm`, later Hypervisor.framework and the Windows Hypervisor Platform) implements
//! the traits of this crate; everything above it (devices, the machine builder) sees nothing else.
//! The order of calls is the order of the types:
//!
//! ```text
//! Hypervisor --prepare--> Draft --finish--> Partition (memory, interrupts, doorbells, dirty log)
//!                                        `-> VcpuSeed --bind, on its own thread--> Vcpu --run--> Exit
//! ```
//!
//! The crate holds no host service: no files, no sockets, no policy. Architecture logic
//! ([`arch`]) is plain data code that compiles and is tested on every host.
//!
//! Two features are for tests: `fake` is a scripted hypervisor, `conformance` a suite of tiny
//! bare-metal guests that every backend must run alike.

pub mod arch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod event;
#[cfg(feature = "fake")]
pub mod fake;
mod hypervisor;
mod irq;
mod memory;
mod partition;
mod state;
mod vcpu;
mod vcpu_set;

pub use error::{Fault, HvError, HvErrorKind, OsCode, Result};
pub use event::Event;
pub use hypervisor::{Arch, Draft, HostFacts, Hypervisor, Limits, Parts, VmSpec};
pub use irq::{IrqChip, IrqLayout, IrqPlan, Msi};
pub use memory::{GuestRam, HostMemory, MemoryError, RamRange, RamRegion};
pub use partition::{
    Access, Attached, DirtyLog, DirtyPages, DoorbellSpace, Doorbells, EventIrqs, GuestMap, Mapping,
    Partition,
};
pub use state::{PartitionState, Registers, VcpuState};
pub use vcpu::{Crash, CrashKind, Exit, Kick, Stop, Vcpu, VcpuSeed, VmIo};
pub use vcpu_set::{Outcome, StopHandle, VcpuSet};
