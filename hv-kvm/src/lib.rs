//! Cofferdam's hypervisor contract ([`hv_core`]) on Linux KVM, x86-64.
//!
//! Needs Linux 5.17 or newer (`KVM_CAP_XSAVE2`) and an in-kernel interrupt controller. It holds no
//! policy and nothing that could be tested without KVM; that is in `hv-core`. It refuses to
//! emulate anything: what KVM does not do in the kernel ends the guest with a report.
//!
//! # What KVM demands of its user, and where it is kept
//!
//! * The order: `KVM_SET_TSS_ADDR` and `KVM_SET_IDENTITY_MAP_ADDR` (Intel processors without
//!   unrestricted guest mode use them for real mode) and `KVM_CREATE_IRQCHIP` before the first
//!   `KVM_CREATE_VCPU`; CPUID before anything whose legality CPUID decides; the APIC base before the
//!   local APIC, the TSC before its deadline ([`hv_core::arch::x86_64::msr`]).
//! * The guest-physical range `0xfffb_c000..0xfffc_0000` belongs to KVM from then on, as the two
//!   APIC windows do. [`GuestMap::map`](hv_core::GuestMap::map) and RAM are refused there; a machine
//!   must leave it out of its layout.
//! * A port or memory access is finished by the *next* `KVM_RUN`. Before state is read, the vCPU has to
//!   enter once more with `immediate_exit` set; hence [`Vcpu::run`](hv_core::Vcpu::run) reports a kick
//!   only when `KVM_RUN` itself answered `EINTR`, which it does after finishing the access.
//! * A vCPU's descriptor keeps the VM alive in the kernel, so every vCPU also holds the VM's memory.
//! * A slot cannot change between read-only and writable; it is removed and made again, so a vCPU that
//!   runs meanwhile can see the range as MMIO for a moment.
//! * `KVM_CREATE_IRQCHIP` makes two 8259s as well. They are masked once; the routes stay as KVM sets them,
//!   line n to pin n of the I/O APIC, because `KVM_SET_GSI_ROUTING` waits for a grace period.
//! * No PIT is made: guests have the TSC deadline timer and the paravirtual clock, and ACPI tells them
//!   that the hardware is reduced.
//! * The first real-time signal (`SIGRTMIN`) wakes a vCPU's thread. Its handler is installed with the first
//!   VM; the host program must not use that signal for anything else.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod dirty;
mod doorbell;
mod draft;
mod hypervisor;
mod irq;
mod kick;
mod memory;
mod quirk;
mod slots;
mod state;
mod sys;
mod vcpu;
mod vm;

pub use hypervisor::KvmHypervisor;

use hv_core::HvError;

/// Names the ioctl that failed.
fn failed(op: &'static str) -> impl Fn(kvm_ioctls::Error) -> HvError {
    move |error| HvError::from_errno(op, error.errno())
}
