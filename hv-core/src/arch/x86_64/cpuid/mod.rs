//! What CPUID shows a guest, made from what the hypervisor can show.
//!
//! One package, one thread a core, one core a vCPU; the vCPU's index is its APIC id. Nothing of
//! nested virtualization, enclaves, processor tracing or performance counters is shown, and of KVM's
//! own leaves only what a guest gains from without sharing memory with the host beyond the clock.
//!
//! References: APM volume 3, appendix E; Intel SDM volume 2, CPUID; Linux `kvm/x86/cpuid.rst`.

#[cfg(test)]
mod tests;

/// The answer to CPUID for one function and, where it has several, one index.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CpuidEntry {
    /// EAX on entry.
    pub function: u32,
    /// ECX on entry.
    pub index: u32,
    /// ECX on entry matters for this function.
    pub indexed: bool,
    /// EAX of the answer.
    pub eax: u32,
    /// EBX of the answer.
    pub ebx: u32,
    /// ECX of the answer.
    pub ecx: u32,
    /// EDX of the answer.
    pub edx: u32,
}

/// Which of how many vCPUs an answer is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VcpuPlace {
    /// Its index, which is its APIC id.
    pub index: u32,
    /// How many there are, at least 1.
    pub count: u32,
}

impl VcpuPlace {
    /// Width in bits of the part of an APIC id that tells cores apart.
    const fn id_bits(self) -> u32 {
        self.count.next_power_of_two().trailing_zeros()
    }

    /// The highest number that `bits` bits hold, at most that of the last core's APIC id.
    fn last_id(self, bits: u32) -> u32 {
        (self.count.next_power_of_two() - 1).min((1 << bits) - 1)
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Vendor {
    /// AMD and Hygon: the core count is in the extended leaves.
    Amd,
    /// Intel and all else.
    Other,
}

const TOPOLOGY: u32 = 0xb;
const TOPOLOGY_V2: u32 = 0x1f;

/// Leaves that are not passed on; the topology leaves are made anew.
const HIDDEN: [u32; 12] = [
    0x5, // MONITOR/MWAIT
    0xa, // performance counters
    TOPOLOGY,
    0x12, // SGX
    0x14, // processor trace
    TOPOLOGY_V2,
    0x8000_000a, // SVM
    0x8000_001b, // instruction-based sampling
    0x8000_001c, // lightweight profiling
    0x8000_001f, // memory encryption
    0x8000_0022, // performance monitoring v2
    0x8000_0026, // extended topology v2
];

mod feature {
    //! Bits of the feature leaves, by leaf and register.
    pub(super) const LEAF1_ECX_OFF: u32 = 1 << 2 // DTES64
        | 1 << 3 // MONITOR
        | 1 << 5 // VMX
        | 1 << 6 // SMX
        | 1 << 15; // PDCM
    pub(super) const LEAF1_ECX_ON: u32 = 1 << 21 // x2APIC
        | 1 << 24 // TSC deadline timer, which the in-kernel local APIC has
        | 1 << 31; // hypervisor present
    pub(super) const LEAF1_EDX_HTT: u32 = 1 << 28;
    pub(super) const LEAF6_EAX_ARAT: u32 = 1 << 2;
    pub(super) const LEAF7_EBX_OFF: u32 = 1 << 2 /* SGX */ | 1 << 25 /* processor trace */;
    pub(super) const LEAF7_ECX_OFF: u32 = 1 << 30; // SGX launch control
    pub(super) const EXT1_ECX_CMP_LEGACY: u32 = 1 << 1;
    pub(super) const EXT1_ECX_OFF: u32 = EXT1_ECX_CMP_LEGACY
        | 1 << 2 // SVM
        | 1 << 10 // instruction-based sampling
        | 1 << 12 // SKINIT
        | 1 << 15 // lightweight profiling
        | 1 << 23 // core performance counters
        | 1 << 24 // northbridge performance counters
        | 1 << 27 // performance time-stamp counter
        | 1 << 28 // L2/L3 performance counters
        | 1 << 29; // MONITORX/MWAITX
    /// KVM's features: clock, no I/O delay, clock 2, EOI, unhalt, IPI, stable clock. Steal time and
    /// asynchronous page faults stay off: both tell the guest about the host's load.
    pub(super) const KVM_EAX: u32 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7 | 1 << 11 | 1 << 24;
}

const KVM_SIGNATURE: u32 = 0x4000_0000;
const KVM_FEATURES: u32 = 0x4000_0001;
const HYPERVISOR_LEAVES: std::ops::Range<u32> = KVM_SIGNATURE..0x5000_0000;

/// What one vCPU shows, given what the hypervisor supports.
#[must_use]
pub fn guest_entries(host: &[CpuidEntry], place: VcpuPlace) -> Vec<CpuidEntry> {
    let vendor = vendor(host);
    let has_v2 = host.iter().any(|entry| entry.function == TOPOLOGY_V2);
    let shown = host.iter().filter(|entry| is_shown(entry.function));
    let mut entries: Vec<_> = shown.map(|entry| adapt(*entry, vendor, place)).collect();
    entries.extend(topology(TOPOLOGY, place));
    if has_v2 {
        entries.extend(topology(TOPOLOGY_V2, place));
    }
    entries
}

/// The width of a guest-physical address in bits (leaf `0x8000_0008`); 36 where it is not told.
#[must_use]
pub fn address_bits(host: &[CpuidEntry]) -> u8 {
    let leaf = host.iter().find(|entry| entry.function == 0x8000_0008);
    leaf.map_or(36, |entry| entry.eax.to_le_bytes()[0])
}

fn vendor(host: &[CpuidEntry]) -> Vendor {
    let name = host.iter().find(|entry| entry.function == 0);
    // EBX holds the first four letters.
    match name.map(|entry| entry.ebx.to_le_bytes()) {
        Some([b'A', b'u', b't', b'h'] | [b'H', b'y', b'g', b'o']) => Vendor::Amd,
        _ => Vendor::Other,
    }
}

fn is_shown(function: u32) -> bool {
    let foreign = HYPERVISOR_LEAVES.contains(&function) && function > KVM_FEATURES;
    !foreign && !HIDDEN.contains(&function)
}

fn adapt(mut entry: CpuidEntry, vendor: Vendor, place: VcpuPlace) -> CpuidEntry {
    match entry.function {
        0 => entry.eax = entry.eax.max(TOPOLOGY),
        1 => leaf1(&mut entry, place),
        4 => cache(&mut entry, place.last_id(12), place.last_id(6)),
        6 => entry = only_arat(entry),
        7 if entry.index == 0 => {
            entry.ebx &= !feature::LEAF7_EBX_OFF;
            entry.ecx &= !feature::LEAF7_ECX_OFF;
        }
        KVM_SIGNATURE => entry.eax = KVM_FEATURES,
        KVM_FEATURES => {
            entry.eax &= feature::KVM_EAX;
            entry.edx = 0;
        }
        0x8000_0001 => extended1(&mut entry, vendor, place),
        0x8000_0008 if vendor == Vendor::Amd => {
            let cores = (place.count - 1).min(0xff);
            entry.ecx = place.id_bits() << 12 | cores;
        }
        0x8000_001d => cache(&mut entry, (place.count - 1).min(0xfff), 0),
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (place.index, place.index & 0xff, 0),
        _ => {}
    }
    entry
}

fn leaf1(entry: &mut CpuidEntry, place: VcpuPlace) {
    entry.ebx = place.index << 24 | place.count.min(0xff) << 16 | entry.ebx & 0xffff;
    entry.ecx = entry.ecx & !feature::LEAF1_ECX_OFF | feature::LEAF1_ECX_ON;
    entry.edx &= !feature::LEAF1_EDX_HTT;
    if place.count > 1 {
        entry.edx |= feature::LEAF1_EDX_HTT;
    }
}

fn extended1(entry: &mut CpuidEntry, vendor: Vendor, place: VcpuPlace) {
    entry.ecx &= !feature::EXT1_ECX_OFF;
    if vendor == Vendor::Amd && place.count > 1 {
        entry.ecx |= feature::EXT1_ECX_CMP_LEGACY;
    }
}

/// Leaf 6 with nothing but "the local APIC's timer always runs".
const fn only_arat(entry: CpuidEntry) -> CpuidEntry {
    CpuidEntry {
        eax: entry.eax & feature::LEAF6_EAX_ARAT,
        ebx: 0,
        ecx: 0,
        edx: 0,
        ..entry
    }
}

/// A cache of level 1 or 2 belongs to one core, that of level 3 to all of them.
const fn cache(entry: &mut CpuidEntry, last_sharer: u32, last_core: u32) {
    if entry.eax & 0x1f == 0 {
        return; // the end of the list
    }
    let level = entry.eax >> 5 & 7;
    let sharers = if level >= 3 { last_sharer } else { 0 };
    entry.eax = entry.eax & 0x3fff | sharers << 14 | last_core << 26;
}

/// Leaf 0xB or 0x1F: a level of threads (one a core), a level of cores, the end.
fn topology(function: u32, place: VcpuPlace) -> [CpuidEntry; 3] {
    const THREADS: u32 = 1 << 8;
    const CORES: u32 = 2 << 8;
    let level = |index: u32, eax, ebx, kind| CpuidEntry {
        function,
        index,
        indexed: true,
        eax,
        ebx,
        ecx: kind | index,
        edx: place.index,
    };
    [
        level(0, 0, 1, THREADS),
        level(1, place.id_bits(), place.count, CORES),
        level(2, 0, 0, 0),
    ]
}
