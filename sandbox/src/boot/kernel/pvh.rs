//! What a PVH kernel is handed (Xen's x86/HVM direct boot ABI): 32-bit mode, EBX on the start info.

use hv_core::GuestRam;
use hv_core::arch::x86_64::Registers;
use vm_memory::{Bytes as _, GuestAddress};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BootError, HandOff};
use crate::boot::initrd::Initrd;
use crate::boot::layout::{COMMAND_LINE, MEMORY_MAP, MODULES, START_INFO};
use crate::boot::memory_map;
use crate::boot::processor::{self, Mode};

pub(super) const START_INFO_MAGIC: u32 = 0x336E_C578;
const START_INFO_VERSION: u32 = 1;

/// `struct hvm_start_info`, version 1.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct StartInfo {
    pub(super) magic: U32,
    pub(super) version: U32,
    pub(super) flags: U32,
    pub(super) modules: U32,
    pub(super) module_list: U64,
    pub(super) command_line: U64,
    pub(super) rsdp: U64,
    pub(super) memory_map: U64,
    pub(super) memory_map_entries: U32,
    pub(super) reserved: U32,
}

/// `struct hvm_modlist_entry`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Module {
    pub(super) address: U64,
    pub(super) size: U64,
    pub(super) command_line: U64,
    pub(super) reserved: U64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct MapEntry {
    pub(super) address: U64,
    pub(super) size: U64,
    pub(super) kind: U32,
    pub(super) reserved: U32,
}

pub(super) fn hand_over(
    ram: &GuestRam,
    hand_off: &HandOff,
    entry: u32,
) -> Result<Registers, BootError> {
    write_start_info(ram, hand_off)?;
    let mode = Mode::Protected32;
    let mut registers = processor::enter(ram, mode, hand_off.lapic, entry.into())?;
    registers.general.rbx = START_INFO;
    Ok(registers)
}

fn write_memory_map(ram: &GuestRam) -> Result<u32, BootError> {
    let map: Vec<MapEntry> = memory_map::entries(ram)
        .into_iter()
        .map(|entry| MapEntry {
            address: entry.address.into(),
            size: entry.size.into(),
            kind: (entry.kind as u32).into(),
            reserved: 0.into(),
        })
        .collect();
    ram.write_slice(map.as_bytes(), GuestAddress(MEMORY_MAP))?;
    Ok(u32::try_from(map.len()).unwrap_or(0))
}

/// The list of modules has at most one: the initial RAM disk.
fn write_modules(ram: &GuestRam, initrd: Option<Initrd>) -> Result<u32, BootError> {
    let Some(initrd) = initrd else {
        return Ok(0);
    };
    let module = Module {
        address: initrd.address.into(),
        size: initrd.size.into(),
        command_line: 0.into(),
        reserved: 0.into(),
    };
    ram.write_slice(module.as_bytes(), GuestAddress(MODULES))?;
    Ok(1)
}

fn write_start_info(ram: &GuestRam, hand_off: &HandOff) -> Result<(), BootError> {
    let info = StartInfo {
        magic: START_INFO_MAGIC.into(),
        version: START_INFO_VERSION.into(),
        flags: 0.into(),
        modules: write_modules(ram, hand_off.initrd)?.into(),
        module_list: MODULES.into(),
        command_line: COMMAND_LINE.into(),
        rsdp: hand_off.rsdp.into(),
        memory_map: MEMORY_MAP.into(),
        memory_map_entries: write_memory_map(ram)?.into(),
        reserved: 0.into(),
    };
    ram.write_slice(info.as_bytes(), GuestAddress(START_INFO))?;
    Ok(())
}
