//! The ACPI tables that tell a guest of its machine (ACPI 6.5, chapter 5).
//!
//! The machine is hardware-reduced (ACPI 4.1): no system management, no power management timer, no
//! fixed events, hence nothing that a kernel would wait for. Power-off and reset are one register
//! each. All interrupts are edge-triggered and active high, so there is nothing to override.
//! Processors are in the MADT only: a processor object would add idle states that we do not have.

use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ONE, Package, Path, ResourceTemplate,
    Scope, ZERO,
};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use hv_core::IrqLayout;

use super::layout::{
    ACPI_TABLES, RESET_PORT, RESET_VALUE, RESET_VECTOR, RTC_PORT, RTC_PORTS, SERIAL_LINE,
    SERIAL_PORT, SERIAL_PORTS, SLEEP_CONTROL_PORT, SLEEP_STATUS_PORT, SLEEP_TYPE_OFF,
};
use super::{AnnouncedDevice, BootError, BootSpec};

const OEM: [u8; 6] = *b"COFFER";
const OEM_TABLE: [u8; 8] = *b"COFFERDM";
const OEM_REVISION: u32 = 1;
/// Bytes of a table's header.
const HEADER: u32 = 36;
/// From revision 2 on, integers of a DSDT have 64 bits.
const DSDT_REVISION: u8 = 2;
/// Where tables begin: the RSDP must be on such a boundary to be found by a scan.
const ALIGN: usize = 16;
/// The largest vCPU count whose identifiers a local APIC entry can name; 255 means all of them.
const VCPUS_MAX: u32 = 255;
/// IAPC_BOOT_ARCH: there is no VGA. Its other bits say that there is no keyboard controller and
/// that the clock at port 0x70 is there.
const NO_VGA: u16 = 1 << 2;

/// The tables as they lie in RAM, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tables {
    /// Guest-physical address of the first byte.
    pub address: u64,
    /// All tables.
    pub bytes: Vec<u8>,
    /// Guest-physical address of the root pointer (RSDP), by which the others are found.
    pub rsdp: u64,
}

impl Tables {
    /// Describes the machine of `boot`; its kernel does not matter.
    ///
    /// # Errors
    /// A device, the number of vCPUs or the interrupt controller cannot be described (caller).
    pub fn build(boot: &BootSpec<'_>) -> Result<Self, BootError> {
        let mut tables = Self {
            address: ACPI_TABLES,
            bytes: Vec::new(),
            rsdp: ACPI_TABLES,
        };
        let dsdt = tables.push(&dsdt(boot)?);
        let fadt = tables.push(&fadt(dsdt));
        let madt = tables.push(&madt(boot)?);
        let mut root = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        root.add_entry(fadt);
        root.add_entry(madt);
        let root = tables.push(&root);
        tables.rsdp = tables.push(&Rsdp::new(OEM, root));
        tables.check_size()
    }

    /// Appends a table and gives its address.
    fn push(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len().next_multiple_of(ALIGN);
        self.bytes.resize(start, 0);
        table.to_aml_bytes(&mut self.bytes);
        self.address + start as u64
    }

    fn check_size(self) -> Result<Self, BootError> {
        let end = self.address + self.bytes.len() as u64;
        if end > RESET_VECTOR {
            return Err(BootError::DoesNotFit {
                part: "the description of the devices",
                end,
                limit: RESET_VECTOR,
            });
        }
        Ok(self)
    }
}

/// Guest-physical address of the local APICs.
pub(super) fn lapic(irq: IrqLayout) -> Result<u64, BootError> {
    match irq {
        IrqLayout::X86_64 { lapic, .. } => Ok(lapic),
        _ => Err(BootError::Irq),
    }
}

fn fadt(dsdt: u64) -> FADT {
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION).dsdt_64(dsdt);
    for flag in [
        Flags::HwReducedAcpi,
        Flags::ResetRegSup,
        Flags::Wbinvd,
        Flags::Headless,
        // Set means that there is no such fixed button, and no alarm that could wake.
        Flags::PwrButton,
        Flags::SlpButton,
        Flags::FixRtc,
    ] {
        fadt = fadt.flag(flag);
    }
    fadt.iapc_boot_arch = NO_VGA.into();
    fadt.reset_reg = byte_port(RESET_PORT);
    fadt.reset_value = RESET_VALUE;
    fadt.sleep_control_reg = byte_port(SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = byte_port(SLEEP_STATUS_PORT);
    fadt.finalize()
}

fn byte_port(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        port.into(),
    )
}

/// Processors and interrupt controllers (ACPI 5.2.12). No flag: there are no 8259s.
fn madt(boot: &BootSpec<'_>) -> Result<MADT, BootError> {
    let IrqLayout::X86_64 { lapic, ioapic, .. } = boot.irq else {
        return Err(BootError::Irq);
    };
    let window = |address: u64| u32::try_from(address).map_err(|_| BootError::Irq);
    let local = LocalInterruptController::Address(window(lapic)?);
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, local);
    if !(1..=VCPUS_MAX).contains(&boot.vcpus) {
        return Err(BootError::Vcpus(boot.vcpus));
    }
    for index in 0..boot.vcpus {
        let id = u8::try_from(index).map_err(|_| BootError::Vcpus(boot.vcpus))?;
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, window(ioapic)?, 0));
    Ok(madt)
}

/// The devices, which cannot be found by looking, and the soft-off state (ACPI 7.4.2.6).
fn dsdt(boot: &BootSpec<'_>) -> Result<Sdt, BootError> {
    let mut devices = Vec::new();
    for (index, device) in (0..).zip(boot.devices) {
        devices.extend(virtio(index, device, boot.irq)?);
    }
    if boot.serial {
        devices.extend(serial());
    }
    devices.extend(rtc());
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    let off = Package::new(vec![&SLEEP_TYPE_OFF, &ZERO, &ZERO, &ZERO]);
    Name::new(Path::new("\\_S5_"), &off).to_aml_bytes(&mut body);
    let mut table = Sdt::new(
        *b"DSDT",
        HEADER,
        DSDT_REVISION,
        OEM,
        OEM_TABLE,
        OEM_REVISION,
    );
    table.append_slice(&body);
    Ok(table)
}

/// A virtio-mmio device, by the identifier that Linux knows it by.
fn virtio(index: u16, device: &AnnouncedDevice, irq: IrqLayout) -> Result<Vec<u8>, BootError> {
    let refused = || BootError::Device {
        address: device.address,
        line: device.line,
    };
    let base = u32::try_from(device.address).map_err(|_| refused())?;
    let size = u32::try_from(device.size).map_err(|_| refused())?;
    let fits = size > 0 && base.checked_add(size - 1).is_some();
    if !fits || !has_line(irq, device.line) || index > 0xFFF {
        return Err(refused());
    }
    Ok(bytes(&Device::new(
        Path::new(&format!("V{index:03X}")),
        vec![
            &Name::new(Path::new("_HID"), &"LNRO0005"),
            &Name::new(Path::new("_UID"), &index),
            &Name::new(Path::new("_CCA"), &ONE),
            &resources(vec![
                &Memory32Fixed::new(true, base, size),
                &edge(device.line),
            ]),
        ],
    )))
}

fn has_line(irq: IrqLayout, line: u32) -> bool {
    matches!(irq, IrqLayout::X86_64 { lines, .. } if line < lines)
}

/// A 16550 (PNP0501).
fn serial() -> Vec<u8> {
    bytes(&Device::new(
        Path::new("COM1"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0501")),
            &Name::new(Path::new("_UID"), &ZERO),
            &resources(vec![
                &IO::new(SERIAL_PORT, SERIAL_PORT, 1, SERIAL_PORTS),
                &edge(SERIAL_LINE),
            ]),
        ],
    ))
}

/// A PC's real-time clock (PNP0B00), without its alarm interrupt.
fn rtc() -> Vec<u8> {
    bytes(&Device::new(
        Path::new("RTC_"),
        vec![
            &Name::new(Path::new("_HID"), &EISAName::new("PNP0B00")),
            &resources(vec![&IO::new(RTC_PORT, RTC_PORT, 1, RTC_PORTS)]),
        ],
    ))
}

fn resources(list: Vec<&dyn Aml>) -> Name {
    Name::new(Path::new("_CRS"), &ResourceTemplate::new(list))
}

/// A line that is edge-triggered, active high and not shared.
fn edge(line: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, line)
}

fn bytes(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests;
