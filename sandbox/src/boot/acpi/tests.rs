//! The tables as a guest reads them, and as the ACPI compiler does where it is installed.

use std::io::Write as _;
use std::process::Command;

use super::*;
use crate::boot::tests::{file, images, spec};
use crate::boot::{DeviceWindows, layout};

/// Follows the root pointer to every table, checking signatures' checksums on the way.
struct Guest(Tables);

impl Guest {
    fn with(change: impl FnOnce(&mut BootSpec<'_>)) -> Result<Self, BootError> {
        let kernel = file(&images::elf());
        let mut boot = spec(&kernel, None);
        change(&mut boot);
        Tables::build(&boot).map(Self)
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.0.bytes[usize::try_from(address - self.0.address).unwrap()..]
    }

    fn word(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn table(&self, address: u64) -> &[u8] {
        let bytes = self.at(address);
        let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        let table = &bytes[..usize::try_from(length).unwrap()];
        assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
        table
    }

    fn root(&self) -> &[u8] {
        let rsdp = &self.at(self.0.rsdp)[..36];
        assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
        assert_eq!((&rsdp[..8], rsdp[15]), (&b"RSD PTR "[..], 2));
        self.table(Self::word(rsdp, 24))
    }

    fn find(&self, signature: &[u8; 4]) -> &[u8] {
        self.root()[36..]
            .chunks_exact(8)
            .map(|entry| self.table(Self::word(entry, 0)))
            .find(|table| table.starts_with(signature))
            .unwrap()
    }

    fn dsdt(&self) -> &[u8] {
        self.table(Self::word(self.find(b"FACP"), 140))
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn devices(count: usize) -> Vec<AnnouncedDevice> {
    let mut windows = DeviceWindows::new(24).unwrap();
    (0..count).map(|_| windows.allocate().unwrap()).collect()
}

#[test]
fn the_machine_is_hardware_reduced_and_can_stop_and_reset() {
    let guest = Guest::with(|_| ()).unwrap();
    let fadt = guest.find(b"FACP");
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_eq!(flags & (1 << 20 | 1 << 10), 1 << 20 | 1 << 10);
    let register = |at: usize| (fadt[at..at + 4].to_vec(), Guest::word(fadt, at + 4));
    let byte_port = vec![1, 8, 0, 1];
    assert_eq!(register(116), (byte_port.clone(), RESET_PORT.into()));
    assert_eq!(fadt[128], RESET_VALUE);
    assert_eq!(
        register(244),
        (byte_port.clone(), SLEEP_CONTROL_PORT.into())
    );
    assert_eq!(register(256), (byte_port, SLEEP_STATUS_PORT.into()));
    assert_eq!(
        fadt[48..76],
        [0; 28],
        "no SMI command, fixed registers or timer"
    );
    assert_eq!(layout::SLEEP_CONTROL_OFF, 0x34);
    // \_S5 is a package of four that begins with the sleep type.
    assert!(contains(
        guest.dsdt(),
        &[b'_', b'S', b'5', b'_', 0x12, 7, 4, 0x0A, 5]
    ));
}

#[test]
fn every_vcpu_and_the_io_apic_are_in_the_madt() {
    for vcpus in [1, 2, 255] {
        let guest = Guest::with(|boot| boot.vcpus = vcpus).unwrap();
        let madt = guest.find(b"APIC");
        assert_eq!(madt[36..44], [0, 0, 0xE0, 0xFE, 0, 0, 0, 0]);
        let (processors, rest) = madt[44..].split_at(usize::try_from(vcpus).unwrap() * 8);
        for (id, entry) in (0..=254).zip(processors.chunks_exact(8)) {
            assert_eq!(entry, [0, 8, id, id, 1, 0, 0, 0]);
        }
        assert_eq!(rest, [1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]);
    }
}

#[test]
fn each_device_has_its_window_and_line() {
    let devices = devices(18);
    let guest = Guest::with(|boot| boot.devices = devices.leak()).unwrap();
    let dsdt = guest.dsdt();
    let announced = dsdt.windows(8).filter(|w| w == b"LNRO0005").count();
    assert_eq!(announced, 18);
    for device in self::devices(18) {
        let mut resources = vec![0x86, 9, 0, 1];
        resources.extend(u32::try_from(device.address).unwrap().to_le_bytes());
        resources.extend([0, 0x10, 0, 0, 0x89, 6, 0, 0b0011, 1]);
        resources.extend(device.line.to_le_bytes());
        assert!(contains(dsdt, &resources), "{device:?}");
    }
}

#[test]
fn serial_port_and_clock_are_described() {
    let com1 = [0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x89, 6, 0, 0b0011, 1, 4];
    let clock = [0x47, 1, 0x70, 0, 0x70, 0, 1, 2];
    let with = Guest::with(|boot| boot.serial = true).unwrap();
    assert!(contains(with.dsdt(), &com1) && contains(with.dsdt(), &clock));
    let without = Guest::with(|boot| boot.serial = false).unwrap();
    assert!(!contains(without.dsdt(), b"COM1") && contains(without.dsdt(), &clock));
}

#[test]
fn machines_that_cannot_be_described_are_refused() {
    for vcpus in [0, 256, u32::MAX] {
        let error = Guest::with(|boot| boot.vcpus = vcpus).err().unwrap();
        assert!(matches!(error, BootError::Vcpus(n) if n == vcpus));
    }
    let device = |address, size, line| AnnouncedDevice {
        address,
        size,
        line,
    };
    for bad in [
        device(1 << 32, 4096, 5),
        device(0xFFFF_F000, 4097, 5),
        device(0xD000_0000, 0, 5),
        device(0xD000_0000, 1 << 32, 5),
        device(0xD000_0000, 4096, 24),
    ] {
        let error = Guest::with(|boot| boot.devices = vec![bad].leak()).err();
        assert!(matches!(error, Some(BootError::Device { .. })), "{bad:?}");
    }
    let many = vec![device(0xD000_0000, 4096, 5); 4096];
    let error = Guest::with(|boot| boot.devices = many.leak()).err();
    assert!(matches!(error, Some(BootError::DoesNotFit { .. })));
    let high = IrqLayout::X86_64 {
        lapic: 1 << 32,
        ioapic: 0,
        lines: 24,
    };
    let error = Guest::with(|boot| boot.irq = high).err();
    assert!(matches!(error, Some(BootError::Irq)));
}

#[test]
fn the_acpi_compiler_reads_every_table() {
    let version = Command::new("iasl").arg("-v").output();
    if version.is_err() {
        // Past the test runner's capture. A closed standard error is no reason to fail.
        let skip =
            "SKIP boot::acpi::tests::the_acpi_compiler_reads_every_table: iasl is not installed\n";
        drop(std::io::stderr().write_all(skip.as_bytes()));
        return;
    }
    let devices = devices(8);
    let guest = Guest::with(|boot| boot.devices = devices.leak()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in [
        ("dsdt", guest.dsdt()),
        ("facp", guest.find(b"FACP")),
        ("apic", guest.find(b"APIC")),
        ("xsdt", guest.root()),
    ] {
        let file = folder.path().join(format!("{name}.aml"));
        std::fs::write(&file, table).unwrap();
        let output = Command::new("iasl").arg("-d").arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !said.contains("rror"),
            "{name}: {said}"
        );
        let text = std::fs::read_to_string(file.with_extension("dsl")).unwrap();
        assert!(
            !text.contains("Error") && !text.contains("Invalid"),
            "{text}"
        );
        if name == "dsdt" {
            // What was read compiles again without an error or a warning.
            let source = file.with_extension("dsl");
            let output = Command::new("iasl").arg(&source).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("0 Errors, 0 Warnings"), "{said}");
        }
    }
}
