//! bzImage kernels, started at their 64-bit entry (Linux's x86 boot protocol, 2.12 or later).

use hv_core::GuestRam;
use hv_core::arch::x86_64::Registers;
use vm_memory::{Bytes as _, GuestAddress};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BootError, HEADERS, HandOff, PART, Piece, above_low_memory};
use crate::boot::layout::{COMMAND_LINE, PAGE, ZERO_PAGE};
use crate::boot::memory_map::{self, Entry};
use crate::boot::processor::{self, Mode};

/// Where the setup header is, both in the file and in `boot_params`.
const HEADER_AT: usize = 0x1F1;
/// Bytes of a file that hold all that is read of its headers.
pub(super) const HEAD: usize = HEADER_AT + size_of::<SetupHeader>();

const BOOT_SIGNATURE: u16 = 0xAA55;
const MAGIC: [u8; 4] = *b"HdrS";
const MAGIC_AT: usize = 0x202;
const OLDEST_PROTOCOL: u16 = 0x020C;
const LOADED_HIGH: u8 = 1;
const KERNEL_64: u16 = 1;
const SECTOR: u64 = 512;
/// Sectors of real-mode code when the header says 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// Unit of the header's `syssize`, in bytes.
const PARAGRAPH: u64 = 16;
/// The 64-bit entry's distance from the load address.
const ENTRY_64: u64 = 0x200;
/// `type_of_loader` of those who have no number.
const LOADER_UNKNOWN: u8 = 0xFF;

// Fields of `boot_params` outside the setup header.
const RSDP_AT: u64 = 0x070;
const MAP_COUNT_AT: u64 = 0x1E8;
const MAP_AT: u64 = 0x2D0;

/// The setup header as far as protocol 2.12 has it, all its fields in order.
#[derive(Clone, Debug, Eq, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct SetupHeader {
    pub(super) setup_sectors: u8,
    pub(super) root_flags: U16,
    pub(super) system_size: U32,
    pub(super) obsolete: [U16; 3],
    pub(super) boot_signature: U16,
    pub(super) jump: [u8; 2],
    pub(super) magic: [u8; 4],
    pub(super) version: U16,
    pub(super) real_mode: [U16; 4],
    pub(super) loader: u8,
    pub(super) load_flags: u8,
    pub(super) move_size: U16,
    pub(super) code32_start: U32,
    pub(super) initrd_address: U32,
    pub(super) initrd_size: U32,
    pub(super) obsolete_loader: [u8; 8],
    pub(super) command_line: U32,
    pub(super) initrd_address_max: U32,
    pub(super) alignment: U32,
    pub(super) relocatable: u8,
    pub(super) min_alignment: u8,
    pub(super) extended_load_flags: U16,
    pub(super) command_line_size: U32,
    pub(super) hardware: [U32; 3],
    pub(super) payload: [U32; 2],
    pub(super) setup_data: U64,
    pub(super) preferred_address: U64,
    pub(super) init_size: U32,
    pub(super) handover_offset: U32,
}

/// The checked header of a bzImage.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BzImage {
    header: SetupHeader,
    piece: Piece,
    end: u64,
}

/// Whether a file that begins with `head` is a bzImage.
pub(super) fn recognise(head: &[u8]) -> bool {
    head.get(MAGIC_AT..MAGIC_AT + MAGIC.len()) == Some(&MAGIC)
}

impl BzImage {
    pub(super) fn parse(size: u64, head: &[u8]) -> Result<Self, BootError> {
        let header = head
            .get(HEADER_AT..)
            .and_then(|bytes| SetupHeader::read_from_prefix(bytes).ok())
            .map(|(header, _)| header)
            .ok_or(BootError::Truncated { part: HEADERS })?;
        check_flags(&header)?;
        let piece = protected_mode_part(&header, size)?;
        // `init_size` is what the kernel needs until it knows its memory map; it covers the file.
        let room = u64::from(header.init_size.get()).max(piece.bytes);
        let end = piece
            .address
            .checked_add(room)
            .ok_or(BootError::Broken("its load address wraps around memory"))?;
        Ok(Self { header, piece, end })
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn initrd_limit(&self) -> u64 {
        u64::from(self.header.initrd_address_max.get()) + 1
    }

    pub(super) fn command_line_max(&self) -> usize {
        usize::try_from(self.header.command_line_size.get()).unwrap_or(usize::MAX)
    }

    pub(super) fn piece(&self) -> Piece {
        self.piece
    }

    pub(super) fn hand_over(
        &self,
        ram: &GuestRam,
        hand_off: &HandOff,
    ) -> Result<Registers, BootError> {
        self.write_boot_params(ram, hand_off)?;
        let entry = self.piece.address + ENTRY_64;
        let mut registers = processor::enter(ram, Mode::Long, hand_off.lapic, entry)?;
        registers.general.rsi = ZERO_PAGE;
        Ok(registers)
    }

    fn write_boot_params(&self, ram: &GuestRam, hand_off: &HandOff) -> Result<(), BootError> {
        let header = self.filled_header(hand_off)?;
        let at = |offset| GuestAddress(ZERO_PAGE + offset);
        ram.write_slice(header.as_bytes(), at(HEADER_AT as u64))?;
        ram.write_obj(hand_off.rsdp.to_le(), at(RSDP_AT))?;
        let map = memory_map::entries(ram);
        let count = u8::try_from(map.len()).map_err(|_| BootError::RamLayout)?;
        ram.write_obj(count, at(MAP_COUNT_AT))?;
        let map: Vec<u8> = map.iter().flat_map(map_entry).collect();
        ram.write_slice(&map, at(MAP_AT))?;
        Ok(())
    }

    /// The file's header with the fields that the boot protocol wants from a loader.
    fn filled_header(&self, hand_off: &HandOff) -> Result<SetupHeader, BootError> {
        let low = |address: u64| {
            u32::try_from(address)
                .map(U32::new)
                .map_err(|_| BootError::RamLayout)
        };
        let mut header = self.header.clone();
        header.loader = LOADER_UNKNOWN;
        header.code32_start = low(self.piece.address)?;
        header.command_line = low(COMMAND_LINE)?;
        if let Some(initrd) = hand_off.initrd {
            header.initrd_address = low(initrd.address)?;
            header.initrd_size = low(initrd.size)?;
        }
        Ok(header)
    }
}

fn check_flags(header: &SetupHeader) -> Result<(), BootError> {
    if header.boot_signature != BOOT_SIGNATURE {
        return Err(BootError::Broken("its boot sector has no signature"));
    }
    if header.version < U16::new(OLDEST_PROTOCOL) {
        let [minor, major] = header.version.get().to_le_bytes();
        return Err(BootError::OldProtocol { major, minor });
    }
    if header.extended_load_flags.get() & KERNEL_64 == 0 {
        return Err(BootError::WrongArchitecture {
            found: "32-bit x86",
        });
    }
    if header.load_flags & LOADED_HIGH == 0 {
        return Err(BootError::Broken("it wants to be loaded below 1 MiB"));
    }
    Ok(())
}

/// The part of the file that follows the real-mode code, for the address where the kernel was built
/// to run. A relocatable kernel never runs below that one, so there is nothing to gain elsewhere.
fn protected_mode_part(header: &SetupHeader, size: u64) -> Result<Piece, BootError> {
    let sectors = match header.setup_sectors {
        0 => DEFAULT_SETUP_SECTORS,
        sectors => sectors,
    };
    let piece = Piece {
        part: PART,
        offset: (u64::from(sectors) + 1) * SECTOR,
        address: header.preferred_address.get(),
        bytes: u64::from(header.system_size.get()) * PARAGRAPH,
    };
    if piece.offset + piece.bytes > size {
        return Err(BootError::Truncated { part: PART });
    }
    if piece.bytes <= ENTRY_64 {
        return Err(BootError::Broken("it has no code at its 64-bit entry"));
    }
    if !piece.address.is_multiple_of(PAGE) {
        return Err(BootError::Broken("its load address is inside a page"));
    }
    above_low_memory(piece.address)?;
    Ok(piece)
}

/// An entry as `boot_params` has it: without padding.
fn map_entry(entry: &Entry) -> Vec<u8> {
    let kind = entry.kind as u32;
    [
        &entry.address.to_le_bytes()[..],
        &entry.size.to_le_bytes(),
        &kind.to_le_bytes(),
    ]
    .concat()
}
