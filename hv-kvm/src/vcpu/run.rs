//! One entry into the guest and what its exit asks for.

use hv_core::arch::x86_64::pieces;
use hv_core::{Crash, CrashKind, Exit, Result, Stop, Vcpu as _, VmIo};
use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::VcpuExit;

use super::KvmVcpu;
use crate::{failed, sys};

/// An exit without what borrows the page that is shared with KVM.
enum Next {
    /// The access was carried out: enter again, which finishes it.
    Enter,
    /// A signal, or nothing to do yet: enter again unless a kick is pending.
    Interrupted,
    Stopped(Stop),
    Crashed(CrashKind, u64),
    /// KVM gave up on an instruction.
    InternalError,
    /// An exit that we never asked for.
    Unknown,
}

impl KvmVcpu {
    /// Enters the guest once; `None`: enter again.
    pub(super) fn step(&mut self, io: &dyn VmIo) -> Result<Option<Exit>> {
        Ok(match self.enter(io)? {
            Next::Enter => None,
            Next::Interrupted => self.page.take().then_some(Exit::Kicked),
            Next::Stopped(stop) => Some(Exit::Stopped(stop)),
            Next::Crashed(kind, code) => Some(self.crash(kind, code)),
            Next::InternalError => {
                let suberror = sys::suberror(self.fd.get_kvm_run());
                Some(self.crash(CrashKind::Emulation, suberror))
            }
            Next::Unknown => {
                let reason = self.fd.get_kvm_run().exit_reason;
                Some(self.crash(CrashKind::Unknown, reason.into()))
            }
        })
    }

    fn enter(&mut self, io: &dyn VmIo) -> Result<Next> {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, data)) => {
                let items = data.chunks_exact(self.page.port_width());
                items.for_each(|item| io.pio_write(port, item));
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                let items = data.chunks_exact_mut(self.page.port_width());
                items.for_each(|item| io.pio_read(port, item));
            }
            Ok(VcpuExit::MmioRead(address, data)) => mmio_read(io, address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => mmio_write(io, address, data),
            Ok(exit) => return Ok(without_access(&exit)),
            Err(error) => {
                return match error.errno() {
                    // EAGAIN: a processor that waited for its start-up got it.
                    libc::EINTR | libc::EAGAIN => Ok(Next::Interrupted),
                    _ => Err(failed("KVM_RUN")(error)),
                };
            }
        }
        Ok(Next::Enter)
    }

    fn crash(&self, kind: CrashKind, code: u64) -> Exit {
        Exit::Crash(Crash {
            kind,
            code,
            registers: self.registers().ok(),
        })
    }
}

const fn without_access(exit: &VcpuExit<'_>) -> Next {
    match exit {
        VcpuExit::Intr | VcpuExit::IrqWindowOpen => Next::Interrupted,
        VcpuExit::Shutdown => Next::Crashed(CrashKind::TripleFault, 0),
        VcpuExit::FailEntry(reason, _) => Next::Crashed(CrashKind::EntryFailed, *reason),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => Next::Stopped(Stop::PowerOff),
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => Next::Stopped(Stop::Reset),
        VcpuExit::InternalError => Next::InternalError,
        _ => Next::Unknown,
    }
}

fn mmio_read(io: &dyn VmIo, address: u64, data: &mut [u8]) {
    for piece in pieces(address, data.len()) {
        let at = address.wrapping_add(piece.start as u64);
        if let Some(part) = data.get_mut(piece) {
            io.mmio_read(at, part);
        }
    }
}

fn mmio_write(io: &dyn VmIo, address: u64, data: &[u8]) {
    for piece in pieces(address, data.len()) {
        let at = address.wrapping_add(piece.start as u64);
        if let Some(part) = data.get(piece) {
            io.mmio_write(at, part);
        }
    }
}
