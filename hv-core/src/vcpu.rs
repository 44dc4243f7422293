//! One virtual processor.

use std::sync::Arc;

use crate::{Registers, Result, VcpuState};

/// Why a guest ended by its own or the platform's decision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// It powered itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
}

/// How a vCPU came to be unable to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CrashKind {
    /// A fault while delivering a double fault (x86).
    TripleFault,
    /// The hypervisor could not carry out an instruction.
    Emulation,
    /// The vCPU could not be entered: its state is not a legal one.
    EntryFailed,
    /// An exit that this project does not know.
    Unknown,
}

/// A vCPU that cannot go on, with what is known for the report. It is the guest's doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crash {
    /// How it came about.
    pub kind: CrashKind,
    /// The hypervisor's own number for it.
    pub code: u64,
    /// The registers at that point, when they could still be read.
    pub registers: Option<Registers>,
}

/// Why [`Vcpu::run`] returned. Always between two instructions, so state can be saved at any exit.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Exit {
    /// [`Kick::kick`] was called.
    Kicked,
    /// The hypervisor itself saw the guest power off or reset.
    Stopped(Stop),
    /// The guest cannot go on.
    Crash(Crash),
}

/// What a guest's accesses outside mapped memory reach. Infallible, on the vCPU's thread; must not
/// block. Widths are 1, 2, 4 or 8 bytes, little-endian.
pub trait VmIo: Send + Sync {
    /// A read of guest-physical memory; fill all of `data` (ones, where nothing is there).
    fn mmio_read(&self, address: u64, data: &mut [u8]);
    /// A write to guest-physical memory.
    fn mmio_write(&self, address: u64, data: &[u8]);
    /// A read of an I/O port (x86).
    fn pio_read(&self, port: u16, data: &mut [u8]);
    /// A write to an I/O port (x86).
    fn pio_write(&self, port: u16, data: &[u8]);
}

/// Gets a vCPU out of [`Vcpu::run`] from another thread.
///
/// Sticky: a kick before `run` makes the next `run` return at once; kicks while one is pending are
/// one. Harmless after the vCPU is gone.
pub trait Kick: Send + Sync {
    /// Makes the present or the next `run` return [`Exit::Kicked`].
    fn kick(&self);
}

/// A vCPU that is not yet tied to a thread.
pub trait VcpuSeed: Send {
    /// A handle to kick the vCPU with.
    fn kick(&self) -> Arc<dyn Kick>;

    /// Makes the vCPU on the calling thread, which is the only one that may use it from now on.
    ///
    /// # Errors
    /// The host is out of resources.
    fn bind(self: Box<Self>) -> Result<Box<dyn Vcpu>>;
}

/// A vCPU on its thread. Not `Send`: some hosts tie a vCPU to the thread that made it.
pub trait Vcpu {
    /// Runs the guest until there is an [`Exit`]. A halted processor waits inside.
    ///
    /// # Errors
    /// The hypervisor failed; the guest's own failures are exits.
    fn run(&mut self, io: &dyn VmIo) -> Result<Exit>;

    /// The general and system registers.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn registers(&self) -> Result<Registers>;

    /// Sets them.
    ///
    /// # Errors
    /// They are of another architecture or not legal (caller).
    fn set_registers(&mut self, registers: &Registers) -> Result<()>;

    /// The whole state of the vCPU.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn save(&mut self) -> Result<VcpuState>;

    /// Puts a saved state back.
    ///
    /// # Errors
    /// It is of another architecture or malformed (caller), or the hypervisor refused it.
    fn load(&mut self, state: &VcpuState) -> Result<()>;

    /// The guest-physical address of a guest-virtual one, `None` when it is not mapped.
    ///
    /// # Errors
    /// The hypervisor refused.
    fn translate(&self, address: u64) -> Result<Option<u64>>;
}
