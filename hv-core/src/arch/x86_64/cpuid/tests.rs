use super::*;
use proptest::prelude::*;

const ONE: VcpuPlace = VcpuPlace { index: 0, count: 1 };
const THIRD_OF_SIX: VcpuPlace = VcpuPlace { index: 2, count: 6 };

fn leaf(function: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> CpuidEntry {
    CpuidEntry {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..CpuidEntry::default()
    }
}

fn vendor_leaf(name: &str, max: u32) -> CpuidEntry {
    let name = name.as_bytes().try_into().unwrap();
    leaf(0, [max, u32::from_le_bytes(name), 0, 0])
}

fn amd() -> CpuidEntry {
    vendor_leaf("Auth", 0xd)
}

/// The registers that a guest sees for `entry` of a host with the vendor leaf `vendor`.
fn shown(vendor: CpuidEntry, entry: CpuidEntry, place: VcpuPlace) -> Option<[u32; 4]> {
    let all = guest_entries(&[vendor, entry], place);
    let found = all
        .iter()
        .find(|e| (e.function, e.index) == (entry.function, entry.index))?;
    Some([found.eax, found.ebx, found.ecx, found.edx])
}

/// What, the vendor, the vCPU, the leaf, the host's answer, the guest's answer.
type Leaf = (
    &'static str,
    &'static str,
    VcpuPlace,
    u32,
    [u32; 4],
    [u32; 4],
);

const ALL: [u32; 4] = [u32::MAX; 4];

#[rustfmt::skip]
const LEAVES: [Leaf; 18] = [
    ("family kept", "Auth", ONE, 1, [7, 0, 0, 0], [7, 0x0001_0000, 0x8120_0000, 0]),
    ("features", "Auth", ONE, 1, ALL, [u32::MAX, 0x0001_ffff, 0xffff_7f93, 0xefff_ffff]),
    ("ids", "Auth", THIRD_OF_SIX, 1, [0; 4], [0, 0x0206_0000, 0x8120_0000, 0x1000_0000]),
    ("power", "Auth", ONE, 6, ALL, [4, 0, 0, 0]),
    ("no enclaves", "Auth", ONE, 7, ALL, [u32::MAX, 0xfdff_fffb, 0xbfff_ffff, u32::MAX]),
    ("private cache", "Genu", THIRD_OF_SIX, 4, [0xffff_c021, 1, 2, 3], [0x1c00_0021, 1, 2, 3]),
    ("shared cache", "Genu", THIRD_OF_SIX, 4, [0x0000_0063, 1, 2, 3], [0x1c01_c063, 1, 2, 3]),
    ("end of caches", "Genu", THIRD_OF_SIX, 4, [0; 4], [0; 4]),
    ("KVM signature", "Auth", ONE, 0x4000_0000, [0x4000_0010, 1, 2, 3], [0x4000_0001, 1, 2, 3]),
    ("KVM features", "Auth", ONE, 0x4000_0001, ALL, [0x0100_08cb, u32::MAX, u32::MAX, 0]),
    ("no SVM", "Auth", ONE, 0x8000_0001, [0, 0, u32::MAX, 9], [0, 0, 0xc67f_6bf9, 9]),
    ("multicore", "Auth", THIRD_OF_SIX, 0x8000_0001, [0; 4], [0, 0, 2, 0]),
    ("Intel's extended", "Genu", THIRD_OF_SIX, 0x8000_0001, [0; 4], [0; 4]),
    ("cores", "Auth", THIRD_OF_SIX, 0x8000_0008, [0x3030, 5, 0x30fff, 0], [0x3030, 5, 0x3005, 0]),
    ("Intel's width", "Genu", THIRD_OF_SIX, 0x8000_0008, [0x3027, 0, 0, 0], [0x3027, 0, 0, 0]),
    ("AMD cache", "Auth", THIRD_OF_SIX, 0x8000_001d, [0x163, 1, 2, 3], [0x1_4163, 1, 2, 3]),
    ("AMD topology", "Auth", THIRD_OF_SIX, 0x8000_001e, [9, 0x109, 1, 0], [2, 2, 0, 0]),
    ("brand", "Auth", ONE, 0x8000_0002, [1, 2, 3, 4], [1, 2, 3, 4]),
];

#[test]
fn each_leaf_is_adapted() {
    for (what, name, place, function, host, guest) in LEAVES {
        let vendor = vendor_leaf(name, 0x20);
        assert_eq!(
            shown(vendor, leaf(function, host), place),
            Some(guest),
            "{what}: {:x?}",
            shown(vendor, leaf(function, host), place)
        );
    }
}

#[test]
fn what_a_guest_must_not_see_is_gone() {
    for function in [
        0x5,
        0xa,
        0x12,
        0x14,
        0x1f,
        0x4000_0003,
        0x4000_0100,
        0x8000_000a,
        0x8000_001f,
    ] {
        let host = leaf(function, [u32::MAX; 4]);
        let seen = guest_entries(&[amd(), host], ONE)
            .iter()
            .any(|entry| entry.function == function && entry.eax == u32::MAX);
        assert!(!seen, "{function:#x}");
    }
}

#[test]
fn topology_is_one_package_of_single_threaded_cores() {
    let entries = guest_entries(&[amd()], THIRD_OF_SIX);
    let levels: Vec<_> = entries
        .iter()
        .filter(|entry| entry.function == 0xb)
        .map(|e| [e.index, e.eax, e.ebx, e.ecx, e.edx])
        .collect();
    assert_eq!(
        levels,
        [[0, 0, 1, 0x100, 2], [1, 3, 6, 0x201, 2], [2, 0, 0, 2, 2]]
    );
    assert!(entries.iter().all(|entry| entry.function != 0x1f));
}

#[test]
fn the_second_topology_leaf_is_there_when_the_host_has_it() {
    let entries = guest_entries(&[amd(), leaf(0x1f, [0; 4])], ONE);
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry.function == 0x1f)
            .count(),
        3
    );
}

#[test]
fn address_width_is_read_or_assumed() {
    assert_eq!(address_bits(&[leaf(0x8000_0008, [0x3930, 0, 0, 0])]), 0x30);
    assert_eq!(address_bits(&[]), 36);
}

proptest! {
    /// Whatever the host says and however many vCPUs there are: no nested virtualization, an APIC
    /// id of its own, and no arithmetic goes wrong.
    #[test]
    fn any_host_gives_a_sound_guest(
        raw in prop::collection::vec((any::<u32>(), 0_u32..4, any::<[u32; 4]>()), 0..20),
        fixed in any::<[u32; 4]>(),
        count in 1_u32..=1024,
        pick in any::<u32>(),
    ) {
        let place = VcpuPlace { index: pick % count, count };
        let mut host: Vec<_> = raw
            .into_iter()
            .filter(|(function, ..)| ![1, 0x8000_0001].contains(function))
            .map(|(function, index, registers)| CpuidEntry { index, ..leaf(function, registers) })
            .collect();
        host.extend([leaf(1, fixed), leaf(0x8000_0001, fixed)]);
        let guest = guest_entries(&host, place);
        for entry in &guest {
            match entry.function {
                1 => prop_assert_eq!(entry.ecx >> 5 & 1, 0),
                0x8000_0001 => prop_assert_eq!(entry.ecx >> 2 & 1, 0),
                0xb => prop_assert_eq!(entry.edx, place.index),
                _ => {}
            }
        }
    }
}
