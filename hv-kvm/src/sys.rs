//! What `kvm-ioctls` and `kvm-bindings` leave to their users: unions, and one ioctl.

#![expect(
    unsafe_code,
    reason = "reads unions that the kernel filled, and one ioctl"
)]

use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd};

use hv_core::{HvError, Result};
use kvm_bindings::{
    KVM_EXIT_INTERNAL_ERROR, KVMIO, Xsave, kvm_ioeventfd, kvm_irqchip, kvm_irqchip__bindgen_ty_1,
    kvm_run,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::{errno, ioctl_iow_nr};

ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);

/// An open `/dev/kvm`, which it owns from now on.
pub(crate) fn kvm_from(fd: OwnedFd) -> Kvm {
    // SAFETY: `into_raw_fd` gives the ownership up that `from_raw_fd` takes.
    unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) }
}

/// `KVM_IOEVENTFD` with a width but without a value, which `kvm-ioctls` cannot express.
pub(crate) fn ioeventfd(vm: &VmFd, request: &kvm_ioeventfd) -> Result<()> {
    // SAFETY: `vm` is a VM's descriptor and `request` what this ioctl reads; it writes nothing.
    match unsafe { ioctl_with_ref(vm, KVM_IOEVENTFD(), request) } {
        0 => Ok(()),
        _ => Err(HvError::from_errno(
            "KVM_IOEVENTFD",
            errno::Error::last().errno(),
        )),
    }
}

/// The sub-error of an internal error.
pub(crate) fn suberror(run: &kvm_run) -> u64 {
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return 0;
    }
    // SAFETY: the exit reason says that the kernel filled this part of the union.
    u64::from(unsafe { run.__bindgen_anon_1.internal.suberror })
}

/// `KVM_GET_XSAVE2`; `xsave` has room for the size that KVM says it needs.
pub(crate) fn get_xsave(vcpu: &VcpuFd, xsave: &mut Xsave) -> Result<()> {
    // SAFETY: `state::empty_xsave` made it with the size of KVM_CAP_XSAVE2, which cannot grow after
    // the first vCPU exists, because this process asks for no dynamic features.
    unsafe { vcpu.get_xsave2(xsave) }.map_err(crate::failed("KVM_GET_XSAVE2"))
}

/// `KVM_SET_XSAVE`; `xsave` has the size that KVM says it needs.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &Xsave) -> Result<()> {
    // SAFETY: as for `get_xsave`: the kernel reads no more than the size that it told.
    unsafe { vcpu.set_xsave2(xsave) }.map_err(crate::failed("KVM_SET_XSAVE"))
}

/// The registers of an interrupt controller as bytes.
pub(crate) fn irqchip_bytes(chip: &kvm_irqchip) -> Vec<u8> {
    // SAFETY: every bit pattern is a valid array of bytes, and `dummy` spans the whole union, which
    // was zeroed before the kernel filled a part of it.
    let bytes = unsafe { chip.chip.dummy };
    bytes.map(i8::cast_unsigned).to_vec()
}

/// The reverse; `None` when there are too few or too many bytes.
pub(crate) fn irqchip_from(chip_id: u32, bytes: &[u8]) -> Option<kvm_irqchip> {
    let bytes = <[u8; 512]>::try_from(bytes).ok()?;
    Some(kvm_irqchip {
        chip_id,
        pad: 0,
        chip: kvm_irqchip__bindgen_ty_1 {
            dummy: bytes.map(u8::cast_signed),
        },
    })
}
