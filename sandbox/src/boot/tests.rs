//! Whole loads of synthetic kernels, read back from guest RAM.

pub(super) mod images;

use std::fs::File;
use std::io::Write as _;

use hv_core::RamRange;
use proptest::prelude::*;

use super::layout::*;
use super::*;
use images::{BZ_ADDRESS, ELF_ADDRESS, ELF_ENTRY};

const MIB: u64 = 1 << 20;
const LAPIC: u64 = 0xFEE0_0000;
const IRQ: IrqLayout = IrqLayout::X86_64 {
    lapic: LAPIC,
    ioapic: 0xFEC0_0000,
    lines: 24,
};

pub(super) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

pub(super) fn spec<'a>(kernel: &'a File, initrd: Option<&'a File>) -> BootSpec<'a> {
    BootSpec {
        kernel,
        initrd,
        command_line: "console=hvc0 root=/dev/vda",
        vcpus: 2,
        devices: &[],
        irq: IRQ,
        serial: true,
    }
}

fn ram(mib: u64) -> GuestRam {
    GuestRam::new(&ram_ranges(mib * MIB)).unwrap()
}

fn bytes(ram: &GuestRam, address: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

fn u32_at(ram: &GuestRam, address: u64) -> u32 {
    ram.read_obj(GuestAddress(address)).unwrap()
}

fn u64_at(ram: &GuestRam, address: u64) -> u64 {
    ram.read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn ram_leaves_the_hole_free() {
    let range = |start, size| RamRange { start, size };
    for (size, expected) in [
        (0, vec![]),
        (64 * MIB, vec![range(0, 64 * MIB)]),
        (LOW_RAM_LIMIT, vec![range(0, LOW_RAM_LIMIT)]),
        (
            LOW_RAM_LIMIT + PAGE,
            vec![range(0, LOW_RAM_LIMIT), range(HIGH_RAM, PAGE)],
        ),
    ] {
        assert_eq!(ram_ranges(size), expected, "{size:#x}");
    }
}

#[test]
fn windows_and_lines_are_distinct_and_end() {
    let mut windows = DeviceWindows::new(24).unwrap();
    let devices: Vec<_> = std::iter::from_fn(|| windows.allocate().ok()).collect();
    let lines: Vec<u32> = devices.iter().map(|device| device.line).collect();
    let expected: Vec<u32> = (5..24).filter(|&line| line != 8).collect();
    assert_eq!(lines, expected);
    for (index, device) in (0_u64..).zip(&devices) {
        assert_eq!(device.address, DEVICE_WINDOWS + index * DEVICE_WINDOW_SIZE);
        assert_eq!(device.size, DEVICE_WINDOW_SIZE);
    }
    assert!(matches!(windows.allocate(), Err(BootError::NoWindow(_))));
    assert!(DeviceWindows::new(5).is_err());
    assert!(DeviceWindows::new(0).is_err());
}

#[test]
fn an_elf_kernel_lies_where_it_says_and_starts_by_pvh() {
    let (ram, kernel) = (ram(32), file(&images::elf()));
    let loaded = load(&ram, &spec(&kernel, None)).unwrap();
    let payload = images::payload();
    assert_eq!(bytes(&ram, ELF_ADDRESS, payload.len()), payload);
    let after = bytes(&ram, ELF_ADDRESS + payload.len() as u64, 4096);
    assert_eq!(after, [0; 4096], "what follows the file part is zero");
    assert_eq!(loaded.kernel_end, ELF_ADDRESS + images::ELF_MEMORY);

    let Registers { general, system } = loaded.registers;
    assert_eq!((general.rip, general.rflags), (ELF_ENTRY, 2));
    assert_eq!((system.cr0 & 1, system.cr0 >> 31, system.efer), (1, 0, 0));
    assert!(system.cs.default_big && !system.cs.long && system.cs.limit == u32::MAX);
    assert_eq!((system.tr.kind, system.tr.limit), (0xB, 0x67));
    assert_eq!(system.apic_base, LAPIC | 0x900);

    let info = general.rbx;
    assert_eq!(
        (u32_at(&ram, info), u32_at(&ram, info + 4)),
        (0x336E_C578, 1)
    );
    assert_eq!(u32_at(&ram, info + 12), 0, "no module");
    assert_eq!(bytes(&ram, u64_at(&ram, info + 32), 8), b"RSD PTR ");
    let line = bytes(&ram, u64_at(&ram, info + 24), 27);
    assert_eq!(line, b"console=hvc0 root=/dev/vda\0");
}

#[test]
fn pvh_memory_map_and_module_are_right() {
    let (kernel, disk) = (file(&images::elf()), file(&vec![7; 10_000]));
    let ram = GuestRam::new(&[
        RamRange {
            start: 0,
            size: 32 * MIB,
        },
        RamRange {
            start: HIGH_RAM,
            size: 8 * MIB,
        },
    ])
    .unwrap();
    let info = load(&ram, &spec(&kernel, Some(&disk)))
        .unwrap()
        .registers
        .general
        .rbx;
    let map = u64_at(&ram, info + 40);
    let entries: Vec<_> = (0..u64::from(u32_at(&ram, info + 48)))
        .map(|i| map + i * 24)
        .map(|at| {
            (
                u64_at(&ram, at),
                u64_at(&ram, at + 8),
                u32_at(&ram, at + 16),
            )
        })
        .collect();
    let expected = [
        (0, 0x9_FC00, 1),
        (0x9_FC00, 0x6_0400, 2),
        (MIB, 31 * MIB, 1),
        (HIGH_RAM, 8 * MIB, 1),
    ];
    assert_eq!(entries, expected);
    assert_eq!(u32_at(&ram, info + 12), 1);
    let module = u64_at(&ram, info + 16);
    let (address, size) = (u64_at(&ram, module), u64_at(&ram, module + 8));
    assert_eq!((address, size), (32 * MIB - 3 * PAGE, 10_000));
    assert_eq!(bytes(&ram, address, 10_000), vec![7; 10_000]);
}

#[test]
fn a_bzimage_starts_in_long_mode_with_its_zero_page() {
    let (kernel, disk) = (file(&images::bzimage()), file(&[9; 5000]));
    let ram = ram(64);
    let loaded = load(&ram, &spec(&kernel, Some(&disk))).unwrap();
    let Registers { general, system } = loaded.registers;
    assert_eq!(general.rip, BZ_ADDRESS + 0x200);
    assert_eq!(
        bytes(&ram, BZ_ADDRESS, 4096),
        images::bzimage()[5 * 512..][..4096]
    );
    assert!(system.cs.long && !system.cs.default_big);
    assert_eq!(
        (system.cr0 >> 31, system.cr4, system.efer),
        (1, 0x20, 0x500)
    );
    assert_eq!(loaded.kernel_end, BZ_ADDRESS + images::BZ_INIT_SIZE);

    let zero = general.rsi;
    let initrd = (u32_at(&ram, zero + 0x218), u32_at(&ram, zero + 0x21C));
    assert_eq!(
        initrd,
        (48 * 1024 * 1024 - 8192, 5000),
        "below initrd_addr_max"
    );
    assert_eq!(bytes(&ram, zero + 0x210, 1), [0xFF]);
    assert_eq!(bytes(&ram, zero + 0x202, 4), b"HdrS");
    assert_eq!(
        bytes(&ram, u32_at(&ram, zero + 0x228).into(), 7),
        b"console"
    );
    assert_eq!(bytes(&ram, u64_at(&ram, zero + 0x70), 8), b"RSD PTR ");
    assert_eq!(bytes(&ram, zero + 0x1E8, 1), [3]);
    let second = zero + 0x2D0 + 20;
    assert_eq!(
        (u64_at(&ram, second), u32_at(&ram, second + 16)),
        (0x9_FC00, 2)
    );
}

/// Walks the page tables as a processor does.
fn translate(ram: &GuestRam, cr3: u64, address: u64) -> u64 {
    let entry = |table: u64, shift: u32| u64_at(ram, table + (address >> shift & 0x1FF) * 8);
    let pdpt = entry(cr3, 39);
    let directory = entry(pdpt & !0xFFF, 30);
    let page = entry(directory & !0xFFF, 21);
    assert_eq!((pdpt & 3, directory & 0x83, page & 0x83), (3, 3, 0x83));
    (page & !0x1F_FFFF) + (address & 0x1F_FFFF)
}

#[test]
fn page_tables_map_the_first_4_gib_one_to_one() {
    let (ram, kernel) = (ram(64), file(&images::bzimage()));
    let registers = load(&ram, &spec(&kernel, None)).unwrap().registers;
    for address in [0, 0x1234, BZ_ADDRESS, 0x3FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF] {
        assert_eq!(translate(&ram, registers.system.cr3, address), address);
    }
}

#[test]
fn the_gdt_in_ram_agrees_with_the_registers() {
    for (image, code) in [
        (images::elf(), 0x00CF_9B00_0000_FFFF),
        (images::bzimage(), 0x00AF_9B00_0000_FFFF),
    ] {
        let (ram, kernel) = (ram(64), file(&image));
        let system = load(&ram, &spec(&kernel, None)).unwrap().registers.system;
        let at = |selector: u16| u64_at(&ram, system.gdt.base + u64::from(selector));
        assert_eq!(at(0), 0);
        assert_eq!(at(system.cs.selector), code);
        assert_eq!(at(system.ds.selector), 0x00CF_9300_0000_FFFF);
        assert_eq!(at(system.tr.selector), 0x0000_8B00_0000_0067);
        assert!(system.gdt.limit >= system.tr.selector + 15);
    }
}

#[test]
fn the_reset_vector_writes_the_reset_register() {
    let (ram, kernel) = (ram(64), file(&images::elf()));
    load(&ram, &spec(&kernel, None)).unwrap();
    let code = [0xB0, 0x01, 0xBA, 0x02, 0x06, 0xEE, 0xF4, 0xEB, 0xFD];
    assert_eq!(bytes(&ram, 0xF_FFF0, 9), code);
}

#[test]
fn what_does_not_fit_is_named() {
    let (elf, bz) = (file(&images::elf()), file(&images::bzimage()));
    let disk = file(&vec![1; 8 << 20]);
    let no_fit = |mib, boot: &BootSpec<'_>| match load(&ram(mib), boot) {
        Err(BootError::DoesNotFit { part, .. }) => part,
        other => panic!("{other:?}"),
    };
    assert_eq!(no_fit(2, &spec(&elf, None)), "the kernel");
    assert_eq!(no_fit(18, &spec(&bz, None)), "the kernel");
    let with_disk = spec(&elf, Some(&disk));
    assert_eq!(no_fit(10, &with_disk), "the initial RAM disk");
    // 2 MiB of RAM less than it takes, then exactly what it takes.
    assert!(load(&ram(ELF_ADDRESS / MIB + 1 + 8), &with_disk).is_ok());
}

#[test]
fn the_callers_mistakes_are_refused() {
    let (kernel, empty) = (file(&images::elf()), file(b""));
    let good = spec(&kernel, None);
    let refused = |boot: &BootSpec<'_>| load(&ram(32), boot).unwrap_err();
    let long = "x".repeat(COMMAND_LINE_MAX + 1);
    for command_line in [&long[..], "a\0b"] {
        let error = refused(&BootSpec {
            command_line,
            ..good
        });
        assert!(matches!(error, BootError::CommandLine { max: 2047 }));
    }
    let error = refused(&spec(&kernel, Some(&empty)));
    assert!(matches!(error, BootError::Truncated { .. }));
    for ranges in [(PAGE, 32 * MIB), (0, MIB)] {
        let (start, size) = ranges;
        let ram = GuestRam::new(&[RamRange { start, size }]).unwrap();
        assert!(matches!(load(&ram, &good), Err(BootError::RamLayout)));
    }
    let longest = &long[1..];
    let fits = BootSpec {
        command_line: longest,
        ..good
    };
    assert!(load(&ram(32), &fits).is_ok());
}

#[test]
fn the_kernels_own_command_line_limit_holds() {
    let mut image = images::bzimage();
    image[0x238..0x23C].copy_from_slice(&10_u32.to_le_bytes());
    let kernel = file(&image);
    let error = load(&ram(64), &spec(&kernel, None)).unwrap_err();
    assert!(matches!(error, BootError::CommandLine { max: 10 }));
}

#[cfg(target_os = "linux")]
#[test]
fn whole_pages_are_mapped_and_the_file_is_never_written() {
    use vm_memory::GuestMemoryBackend as _;
    let image = images::elf();
    let (ram, kernel) = (ram(32), file(&image));
    load(&ram, &spec(&kernel, None)).unwrap();
    let host = ram
        .get_host_address(GuestAddress(ELF_ADDRESS))
        .unwrap()
        .addr();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapping = maps
        .lines()
        .find(|line| line.starts_with(&format!("{host:x}-")))
        .expect("the segment begins a mapping of its own");
    assert!(
        mapping.contains("rw-p") && mapping.contains("(deleted)"),
        "{mapping}"
    );
    ram.write_obj(0_u64, GuestAddress(ELF_ADDRESS)).unwrap();
    let mut on_disk = vec![0; image.len()];
    ReadAt::read_exact_at(&kernel, &mut on_disk, 0).unwrap();
    assert_eq!(on_disk, image);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However file and RAM lie relative to pages, exactly the piece arrives.
    #[test]
    fn a_piece_arrives_whole(
        offset in 0_u64..9000,
        shift in prop::sample::select(vec![0_u64, 1, 2048]),
        size in 0_u64..20_000,
    ) {
        let content: Vec<u8> = (0..30_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1] | 1).collect();
        let (ram, file) = (ram(4), file(&content));
        let address = MIB + offset % PAGE + shift;
        source::Piece { part: "it", offset, address, bytes: size }.place(&ram, &file).unwrap();
        let (from, length) = (usize::try_from(offset).unwrap(), usize::try_from(size).unwrap());
        prop_assert_eq!(&bytes(&ram, address, length), &content[from..from + length]);
        prop_assert_eq!(bytes(&ram, address - 64, 64), vec![0; 64]);
        prop_assert_eq!(bytes(&ram, address + size, 8192), vec![0; 8192]);
    }

    /// A broken file ends in an error or a load, never in a panic.
    #[test]
    fn broken_files_never_panic(
        elf in any::<bool>(),
        changes in prop::collection::vec((0_usize..0x270, any::<u8>()), 1..6),
    ) {
        let mut image = if elf { images::elf() } else { images::bzimage() };
        for (offset, value) in changes {
            image[offset] = value;
        }
        let kernel = file(&image);
        if let Ok(loaded) = load(&ram(64), &spec(&kernel, None)) {
            prop_assert!(loaded.kernel_end <= 64 * MIB);
        }
    }
}
