//! What a host needs to be spared.

use std::arch::x86_64::__cpuid;

use hv_core::arch::x86_64::cpuid::CpuidEntry;

const SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;
/// `KVM_FEATURE_PV_EOI`.
const PARAVIRTUAL_EOI: u32 = 1 << 6;

/// Takes away from what KVM supports what does not work on this processor.
///
/// QEMU's emulator, when it runs a guest of ours, keeps the vector that KVM injected until the guest's next exit. Should the emulator
/// pause before that, it delivers the interrupt again, also into code that has interrupts disabled, which deadlocks or
/// crashes the guest's kernel. (`helper_vmrun` leaves `exception_index` set; QEMU 7.2 to 10 at least.) Without
/// paravirtual ends of interrupts each interrupt is followed by an exit at once.
pub(crate) fn spare(supported: &mut [CpuidEntry]) {
    spare_on(hypervisor_below(), supported);
}

fn spare_on(below: [u8; 12], supported: &mut [CpuidEntry]) {
    if below != *b"TCGTCGTCGTCG" {
        return;
    }
    for entry in supported {
        if entry.function == KVM_FEATURES {
            entry.eax &= !PARAVIRTUAL_EOI;
        }
    }
}

/// The signature of the hypervisor or emulator that this host runs in; anything on bare metal.
fn hypervisor_below() -> [u8; 12] {
    let leaf = __cpuid(SIGNATURE);
    let mut name = [0; 12];
    for (part, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_interrupts_are_real_in_an_emulator_only() {
        for (below, expected) in [(b"TCGTCGTCGTCG", 0xbf), (b"KVMKVMKVM\0\0\0", 0xff)] {
            let mut supported = [SIGNATURE, KVM_FEATURES].map(|function| CpuidEntry {
                function,
                eax: 0xff,
                ..CpuidEntry::default()
            });
            spare_on(*below, &mut supported);
            assert_eq!(supported.map(|entry| entry.eax), [0xff, expected]);
        }
    }
}
