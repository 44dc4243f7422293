//! Which model-specific registers are state, in which order they go back, and what firmware would
//! have left in them.
//!
//! Names and numbers: APM volume 2, appendix A; Intel SDM volume 4; Linux `kvm/x86/msr.rst`. Counters
//! for performance and debugging are not state, because [`super::cpuid`] does not show them.

use super::MsrValue;

/// `IA32_TSC`, the time-stamp counter.
pub const TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`, when the local APIC's timer fires.
pub const TSC_DEADLINE: u32 = 0x6e0;
/// `IA32_MISC_ENABLE`.
pub const MISC_ENABLE: u32 = 0x1a0;
/// `IA32_MTRR_DEF_TYPE`.
pub const MTRR_DEF_TYPE: u32 = 0x2ff;

/// State that every KVM keeps but only newer ones list: the memory types.
const MTRRS: [u32; 28] = [
    0x200,
    0x201,
    0x202,
    0x203,
    0x204,
    0x205,
    0x206,
    0x207,
    0x208,
    0x209,
    0x20a,
    0x20b,
    0x20c,
    0x20d,
    0x20e,
    0x20f, // variable ranges: base, mask
    0x250,
    0x258,
    0x259,
    0x268,
    0x269,
    0x26a,
    0x26b,
    0x26c,
    0x26d,
    0x26e,
    0x26f, // fixed ranges
    MTRR_DEF_TYPE,
];

/// What has to be written first: others are checked against it or count from it.
const FIRST: [u32; 10] = [
    0x3a,        // FEATURE_CONTROL: what other registers allow depends on it
    0x10a,       // ARCH_CAPABILITIES
    0xce,        // PLATFORM_INFO
    MISC_ENABLE, // changes CPUID
    0xda0,       // XSS: supervisor parts of the XSAVE area
    0x1c4,       // XFD
    0x1c5,       // XFD_ERR
    TSC,         // everything that is a moment in time comes after it
    0x3b,        // TSC_ADJUST: after TSC, whose writing changes it
    0xc000_0103, // TSC_AUX
];

/// In no particular order.
const MIDDLE: [u32; 23] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0102, // KERNEL_GS_BASE
    0x277,       // PAT
    0x48,        // SPEC_CTRL
    0xc001_011f, // VIRT_SPEC_CTRL
    0x140,       // MISC_FEATURES_ENABLES
    0x6a0,       // U_CET
    0x6a2,       // S_CET
    0x6a4,       // PL0_SSP
    0x6a5,       // PL1_SSP
    0x6a6,       // PL2_SSP
    0x6a7,       // PL3_SSP
    0x6a8,       // INTERRUPT_SSP_TABLE
    0xe1,        // UMWAIT_CONTROL
    0x17a,       // MCG_STATUS
    0x17b,       // MCG_CTL
    0xd90,       // BNDCFGS
];

/// What has to be written last.
const LAST: [u32; 6] = [
    0x11,         // KVM wall clock, first interface
    0x12,         // KVM system time, first interface
    0x4b56_4d00,  // KVM wall clock
    0x4b56_4d01,  // KVM system time: KVM begins to write the guest's page, so TSC must be right
    0x4b56_4d04,  // KVM paravirtual EOI: the local APIC must be right
    TSC_DEADLINE, // arms the timer, against the TSC
];

/// The registers to save, in the order in which they must be written back. `listed` is what the
/// hypervisor says it keeps; some may still turn out not to be readable.
#[must_use]
pub fn state(listed: &[u32]) -> Vec<u32> {
    let of = |group: &'static [u32]| group.iter().copied().filter(|index| listed.contains(index));
    of(&FIRST)
        .chain(of(&MIDDLE))
        .chain(MTRRS)
        .chain(of(&LAST))
        .collect()
}

/// What firmware leaves behind and an operating system takes for granted.
///
/// Fast string operations are on (Linux refuses its fast memory copy otherwise); memory without a
/// range register is write-back, and the range registers are on (Linux would take all memory for
/// uncached otherwise and complain).
#[must_use]
pub const fn at_boot() -> [MsrValue; 2] {
    const FAST_STRINGS: u64 = 1;
    const ENABLED: u64 = 1 << 11;
    const WRITE_BACK: u64 = 6;
    [
        MsrValue {
            index: MISC_ENABLE,
            value: FAST_STRINGS,
        },
        MsrValue {
            index: MTRR_DEF_TYPE,
            value: ENABLED | WRITE_BACK,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn position(order: &[u32], index: u32) -> usize {
        order.iter().position(|&i| i == index).unwrap()
    }

    #[test]
    fn what_depends_on_another_register_comes_after_it() {
        let everything: Vec<u32> = FIRST.into_iter().chain(MIDDLE).chain(LAST).collect();
        let order = state(&everything);
        assert_eq!(order.len(), everything.len() + MTRRS.len());
        for (before, after) in [
            (TSC, TSC_DEADLINE),
            (TSC, 0x3b),
            (TSC, 0x4b56_4d01),
            (MISC_ENABLE, 0xc000_0082),
            (0x4b56_4d04, TSC_DEADLINE),
        ] {
            assert!(
                position(&order, before) < position(&order, after),
                "{before:#x} {after:#x}"
            );
        }
    }

    #[test]
    fn boot_values_are_state_too() {
        let order = state(&[MISC_ENABLE]);
        assert!(at_boot().iter().all(|msr| order.contains(&msr.index)));
    }

    proptest! {
        #[test]
        fn only_listed_registers_and_each_once(listed in prop::collection::vec(0_u32..0x800, 0..300)) {
            let order = state(&listed);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.dedup();
            prop_assert_eq!(sorted.len(), order.len());
            prop_assert!(order.iter().all(|i| listed.contains(i) || MTRRS.contains(i)));
        }
    }
}
