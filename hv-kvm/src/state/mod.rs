//! KVM's structures to `hv-core`'s plain data and back. Pure: no call to KVM.

mod events;
mod registers;
#[cfg(test)]
mod tests;

use hv_core::arch::x86_64::cpuid::CpuidEntry;
use hv_core::arch::x86_64::{DebugRegisters, MsrValue};
use hv_core::{HvError, Result};
use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, Msrs, Xsave, kvm_cpuid_entry2, kvm_debugregs,
    kvm_lapic_state, kvm_msr_entry, kvm_xcr, kvm_xcrs, kvm_xsave, kvm_xsave2,
};

pub(crate) use events::{events_from, events_to, mp_state_from, mp_state_to};
pub(crate) use registers::{general_from, general_to, system_from, system_to};

pub(crate) fn cpuid_entries(cpuid: &CpuId) -> Vec<CpuidEntry> {
    let entry = |e: &kvm_cpuid_entry2| CpuidEntry {
        function: e.function,
        index: e.index,
        indexed: e.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0,
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
    };
    cpuid.as_slice().iter().map(entry).collect()
}

pub(crate) fn cpuid_table(entries: &[CpuidEntry]) -> Result<CpuId> {
    let entry = |e: &CpuidEntry| kvm_cpuid_entry2 {
        function: e.function,
        index: e.index,
        flags: if e.indexed {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax: e.eax,
        ebx: e.ebx,
        ecx: e.ecx,
        edx: e.edx,
        ..kvm_cpuid_entry2::default()
    };
    let entries: Vec<_> = entries.iter().map(entry).collect();
    CpuId::from_entries(&entries).map_err(|_| HvError::invalid("KVM_SET_CPUID2: entries"))
}

pub(crate) fn debug_from(registers: &kvm_debugregs) -> DebugRegisters {
    DebugRegisters {
        dr: registers.db,
        dr6: registers.dr6,
        dr7: registers.dr7,
    }
}

pub(crate) fn debug_to(registers: &DebugRegisters) -> kvm_debugregs {
    kvm_debugregs {
        db: registers.dr,
        dr6: registers.dr6,
        dr7: registers.dr7,
        ..kvm_debugregs::default()
    }
}

pub(crate) fn xcrs_from(xcrs: &kvm_xcrs) -> Vec<(u32, u64)> {
    let count = usize::try_from(xcrs.nr_xcrs).unwrap_or(0);
    let known = xcrs.xcrs.iter().take(count);
    known.map(|xcr| (xcr.xcr, xcr.value)).collect()
}

pub(crate) fn xcrs_to(xcrs: &[(u32, u64)]) -> Result<kvm_xcrs> {
    let mut table = kvm_xcrs::default();
    if xcrs.len() > table.xcrs.len() {
        return Err(HvError::invalid(
            "load: number of extended control registers",
        ));
    }
    for (slot, (xcr, value)) in table.xcrs.iter_mut().zip(xcrs) {
        *slot = kvm_xcr {
            xcr: *xcr,
            value: *value,
            ..kvm_xcr::default()
        };
        table.nr_xcrs += 1;
    }
    Ok(table)
}

pub(crate) fn lapic_from(lapic: &kvm_lapic_state) -> Vec<u8> {
    lapic.regs.map(i8::cast_unsigned).to_vec()
}

pub(crate) fn lapic_to(bytes: &[u8]) -> Result<kvm_lapic_state> {
    let bytes = <[u8; 1024]>::try_from(bytes)
        .map_err(|_| HvError::invalid("load: the local APIC's size"))?;
    Ok(kvm_lapic_state {
        regs: bytes.map(u8::cast_signed),
    })
}

/// The part of the XSAVE area that every processor has, in 32-bit words.
const XSAVE_FIXED: usize = 1024;

/// An XSAVE area of `bytes` bytes, the answer of `KVM_CAP_XSAVE2`.
pub(crate) fn empty_xsave(bytes: usize) -> Result<Xsave> {
    let extra = bytes.div_ceil(4).saturating_sub(XSAVE_FIXED);
    Xsave::new(extra).map_err(|_| HvError::invalid("KVM_CAP_XSAVE2: size"))
}

pub(crate) fn xsave_from(xsave: &Xsave) -> Vec<u8> {
    let fixed = xsave.as_fam_struct_ref().xsave.region;
    let words = fixed.iter().chain(xsave.as_slice());
    words.flat_map(|word| word.to_le_bytes()).collect()
}

/// The reverse, for a host whose areas have `size` bytes.
pub(crate) fn xsave_to(bytes: &[u8], size: usize) -> Result<Xsave> {
    let wrong = || HvError::invalid("load: the XSAVE area's size");
    let words: Vec<u32> = bytes
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok().map(u32::from_le_bytes))
        .collect();
    let (fixed, extra) = words.split_first_chunk().ok_or_else(wrong)?;
    let header = kvm_xsave2 {
        len: 0,
        xsave: kvm_xsave {
            region: *fixed,
            ..kvm_xsave::default()
        },
    };
    let mut xsave = Xsave::from_header(header).map_err(|_| wrong())?;
    for word in extra {
        xsave.push(*word).map_err(|_| wrong())?;
    }
    if bytes.len() == size.next_multiple_of(4) {
        Ok(xsave)
    } else {
        Err(wrong())
    }
}

pub(crate) fn msr_table(msrs: &[MsrValue]) -> Result<Msrs> {
    let entry = |msr: &MsrValue| kvm_msr_entry {
        index: msr.index,
        data: msr.value,
        ..kvm_msr_entry::default()
    };
    let entries: Vec<_> = msrs.iter().map(entry).collect();
    Msrs::from_entries(&entries).map_err(|_| HvError::invalid("too many MSRs"))
}
