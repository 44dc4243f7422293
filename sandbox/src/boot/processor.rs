//! The boot processor's registers at a kernel's first instruction (APM volume 2, chapters 3 and 4).

use hv_core::GuestRam;
use hv_core::arch::x86_64::{
    DescriptorTable, GeneralRegisters, Registers, Segment, SystemRegisters,
};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};

use super::layout::{GDT, PAGE_TABLES};

// Selectors that Linux's boot protocol fixes: __BOOT_CS and __BOOT_DS.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
const TASK_SELECTOR: u16 = 0x20;

const CODE: u8 = 0xB; // execute, read, accessed
const DATA: u8 = 0x3; // read, write, accessed
const BUSY_TASK: u8 = 0xB;

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one; interrupts are off.
const RFLAGS: u64 = 1 << 1;
const APIC_BASE_BOOT_PROCESSOR: u64 = 1 << 8;
const APIC_BASE_ENABLE: u64 = 1 << 11;

/// Which of the two entry states a kernel wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// Flat 32-bit segments, paging off.
    Protected32,
    /// 64-bit code, identity page tables over the first 4 GiB.
    Long,
}

/// Writes the tables that `mode` needs into RAM and gives the matching registers, with local APIC
/// at `lapic` and execution about to begin at `rip`.
pub(super) fn enter(
    ram: &GuestRam,
    mode: Mode,
    lapic: u64,
    rip: u64,
) -> Result<Registers, GuestMemoryError> {
    let system = system_registers(mode, lapic);
    write_gdt(ram, &system)?;
    if mode == Mode::Long {
        write_page_tables(ram)?;
    }
    let general = GeneralRegisters {
        rip,
        rflags: RFLAGS,
        ..GeneralRegisters::default()
    };
    Ok(Registers { general, system })
}

fn system_registers(mode: Mode, lapic: u64) -> SystemRegisters {
    let long = mode == Mode::Long;
    let data = flat(DATA_SELECTOR, DATA, false);
    SystemRegisters {
        cs: flat(CODE_SELECTOR, CODE, long),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task(),
        ldt: Segment {
            unusable: true,
            ..Segment::default()
        },
        gdt: DescriptorTable {
            base: GDT,
            limit: TASK_SELECTOR + 15,
        },
        cr0: CR0_PE | CR0_ET | if long { CR0_PG } else { 0 },
        cr3: if long { PAGE_TABLES } else { 0 },
        cr4: if long { CR4_PAE } else { 0 },
        efer: if long { EFER_LME | EFER_LMA } else { 0 },
        apic_base: lapic | APIC_BASE_ENABLE | APIC_BASE_BOOT_PROCESSOR,
        ..SystemRegisters::default()
    }
}

/// A segment over all 4 GiB.
fn flat(selector: u16, kind: u8, long: bool) -> Segment {
    Segment {
        limit: u32::MAX,
        selector,
        kind,
        code_or_data: true,
        present: true,
        long,
        default_big: !long,
        granularity: true,
        ..Segment::default()
    }
}

/// PVH asks for a task segment at 0 of the smallest legal size.
fn task() -> Segment {
    Segment {
        limit: 0x67,
        selector: TASK_SELECTOR,
        kind: BUSY_TASK,
        present: true,
        ..Segment::default()
    }
}

fn write_gdt(ram: &GuestRam, system: &SystemRegisters) -> Result<(), GuestMemoryError> {
    for segment in [&system.cs, &system.ds, &system.tr] {
        let address = GDT + u64::from(segment.selector);
        ram.write_obj(descriptor(segment).to_le(), GuestAddress(address))?;
    }
    Ok(())
}

/// The descriptor of a segment whose base is 0 (APM volume 2, section 4.7).
fn descriptor(segment: &Segment) -> u64 {
    let limit = u64::from(if segment.granularity {
        segment.limit >> 12
    } else {
        segment.limit
    });
    limit & 0xFFFF
        | u64::from(segment.kind) << 40
        | u64::from(segment.code_or_data) << 44
        | u64::from(segment.dpl) << 45
        | u64::from(segment.present) << 47
        | (limit >> 16) << 48
        | u64::from(segment.available) << 52
        | u64::from(segment.long) << 53
        | u64::from(segment.default_big) << 54
        | u64::from(segment.granularity) << 55
}

const TABLE: u64 = 0x1000;
const ENTRIES: u64 = 512;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const GIBS: u64 = 4;

/// Maps the first 4 GiB one to one with 2 MiB pages, which every x86-64 processor has.
fn write_page_tables(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    let (pml4, pdpt, directories) = (PAGE_TABLES, PAGE_TABLES + TABLE, PAGE_TABLES + 2 * TABLE);
    let upper = (0..GIBS).map(|gib| (pdpt + gib * 8, directories + gib * TABLE));
    for (slot, table) in upper.chain([(pml4, pdpt)]) {
        ram.write_obj((table | PRESENT_WRITABLE).to_le(), GuestAddress(slot))?;
    }
    let pages: Vec<u8> = (0..GIBS * ENTRIES)
        .flat_map(|page| (page << 21 | LARGE | PRESENT_WRITABLE).to_le_bytes())
        .collect();
    ram.write_slice(&pages, GuestAddress(directories))
}
