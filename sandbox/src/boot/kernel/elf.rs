//! 64-bit ELF kernels with a note that names a PVH entry (System V ABI, chapters 4 and 5).

use hv_core::GuestRam;
use hv_core::arch::x86_64::Registers;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BootError, HEADERS, HandOff, PART, Piece, ReadAt, above_low_memory, pvh, read};

pub(super) const MAGIC: [u8; 4] = *b"\x7FELF";

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;
const LOAD: u32 = 1;
const NOTE: u32 = 4;

/// More program headers than any kernel has, and a bound on what a broken file makes us read.
const PROGRAM_HEADERS_MAX: u16 = 64;
/// Likewise for one segment of notes, in bytes. Kernels have about a hundred.
const NOTES_MAX: u64 = 64 << 10;

/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const PVH_ENTRY: u32 = 18;
const PVH_OWNER: &[u8] = b"Xen\0";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct FileHeader {
    pub(super) magic: [u8; 4],
    pub(super) class: u8,
    pub(super) data: u8,
    pub(super) version_and_abi: [u8; 10],
    pub(super) kind: U16,
    pub(super) machine: U16,
    pub(super) version: U32,
    pub(super) entry: U64,
    pub(super) program_headers: U64,
    pub(super) section_headers: U64,
    pub(super) flags: U32,
    pub(super) header_size: U16,
    pub(super) program_header_size: U16,
    pub(super) program_header_count: U16,
    pub(super) sections: [U16; 3],
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct ProgramHeader {
    pub(super) kind: U32,
    pub(super) flags: U32,
    pub(super) offset: U64,
    pub(super) virtual_address: U64,
    pub(super) address: U64,
    pub(super) file_size: U64,
    pub(super) memory_size: U64,
    pub(super) align: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct NoteHeader {
    name_size: U32,
    content_size: U32,
    kind: U32,
}

/// The checked headers of an ELF kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ElfKernel {
    segments: Vec<Segment>,
    entry: u32,
}

/// A part of the file that belongs into RAM, followed by zeros.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Segment {
    offset: u64,
    file_size: u64,
    address: u64,
    /// One past its last byte in RAM, zeros included.
    end: u64,
}

impl ElfKernel {
    pub(super) fn parse(
        source: &(impl ReadAt + ?Sized),
        size: u64,
        head: &[u8],
    ) -> Result<Self, BootError> {
        let headers = program_headers(source, size, head)?;
        let of_kind = |kind| headers.iter().filter(move |header| header.kind == kind);
        let segments = of_kind(LOAD)
            .filter(|header| header.memory_size > 0)
            .map(|header| Segment::check(header, size))
            .collect::<Result<Vec<_>, _>>()?;
        for header in of_kind(NOTE) {
            if let Some(entry) = pvh_entry(&read_notes(source, size, header)?, header) {
                return Self::with_entry(segments, entry);
            }
        }
        Err(BootError::NoPvhEntry)
    }

    fn with_entry(segments: Vec<Segment>, entry: u64) -> Result<Self, BootError> {
        let code = |segment: &Segment| segment.address..segment.address + segment.file_size;
        if !segments
            .iter()
            .any(|segment| code(segment).contains(&entry))
        {
            return Err(BootError::Broken("its PVH entry is in no segment"));
        }
        let entry =
            u32::try_from(entry).map_err(|_| BootError::Broken("its PVH entry is above 4 GiB"))?;
        Ok(Self { segments, entry })
    }

    pub(super) fn end(&self) -> u64 {
        self.segments.iter().map(|s| s.end).max().unwrap_or(0)
    }

    pub(super) fn pieces(&self) -> Vec<Piece> {
        let piece = |segment: &Segment| Piece {
            part: PART,
            offset: segment.offset,
            address: segment.address,
            bytes: segment.file_size,
        };
        self.segments.iter().map(piece).collect()
    }

    pub(super) fn hand_over(
        &self,
        ram: &GuestRam,
        hand_off: &HandOff,
    ) -> Result<Registers, BootError> {
        pvh::hand_over(ram, hand_off, self.entry)
    }
}

impl Segment {
    fn check(header: &ProgramHeader, size: u64) -> Result<Self, BootError> {
        let segment = Self {
            offset: header.offset.get(),
            file_size: header.file_size.get(),
            address: header.address.get(),
            end: header
                .address
                .get()
                .checked_add(header.memory_size.get())
                .ok_or(BootError::Broken("a segment wraps around memory"))?,
        };
        if header.file_size > header.memory_size {
            return Err(BootError::Broken("a segment is smaller than its file part"));
        }
        inside(segment.offset, segment.file_size, size, "a kernel segment")?;
        above_low_memory(segment.address)?;
        Ok(segment)
    }
}

/// An error unless `bytes` bytes from `offset` are inside a file of `size` bytes.
fn inside(offset: u64, bytes: u64, size: u64, part: &'static str) -> Result<(), BootError> {
    match offset.checked_add(bytes) {
        Some(end) if end <= size => Ok(()),
        _ => Err(BootError::Truncated { part }),
    }
}

fn program_headers(
    source: &(impl ReadAt + ?Sized),
    size: u64,
    head: &[u8],
) -> Result<Vec<ProgramHeader>, BootError> {
    let header = file_header(head)?;
    let (start, count) = (
        header.program_headers.get(),
        header.program_header_count.get(),
    );
    if count > PROGRAM_HEADERS_MAX {
        return Err(BootError::Broken("it has too many program headers"));
    }
    let bytes = usize::from(count) * size_of::<ProgramHeader>();
    inside(start, bytes as u64, size, HEADERS)?;
    let table = read(source, HEADERS, start, bytes)?;
    Ok(table
        .chunks_exact(size_of::<ProgramHeader>())
        .filter_map(|bytes| ProgramHeader::read_from_bytes(bytes).ok())
        .collect())
}

fn file_header(head: &[u8]) -> Result<FileHeader, BootError> {
    let wrong = |found| Err(BootError::WrongArchitecture { found });
    let (header, _) =
        FileHeader::read_from_prefix(head).map_err(|_| BootError::Truncated { part: HEADERS })?;
    match header.machine.get() {
        MACHINE_X86_64 if header.class == CLASS_64 => {}
        MACHINE_AARCH64 => return wrong("arm64"),
        MACHINE_386 | MACHINE_X86_64 => return wrong("32-bit x86"),
        _ => return wrong("another processor"),
    }
    if header.data != LITTLE_ENDIAN {
        return wrong("a big-endian processor");
    }
    if ![TYPE_EXECUTABLE, TYPE_SHARED].contains(&header.kind.get()) {
        return Err(BootError::NotAKernel);
    }
    if usize::from(header.program_header_size.get()) != size_of::<ProgramHeader>() {
        return Err(BootError::Broken("its program headers have a wrong size"));
    }
    Ok(header)
}

fn read_notes(
    source: &(impl ReadAt + ?Sized),
    size: u64,
    header: &ProgramHeader,
) -> Result<Vec<u8>, BootError> {
    let (offset, bytes) = (header.offset.get(), header.file_size.get());
    inside(offset, bytes, size, "the kernel's notes")?;
    let bytes = Some(bytes)
        .filter(|&bytes| bytes <= NOTES_MAX)
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or(BootError::Broken("its notes are too large"))?;
    read(source, "the kernel's notes", offset, bytes)
}

/// The PVH entry's physical address, if one of the notes names it.
fn pvh_entry(mut notes: &[u8], header: &ProgramHeader) -> Option<u64> {
    let align = if header.align == 8 { 8 } else { 4 };
    loop {
        let (note, rest) = NoteHeader::read_from_prefix(notes).ok()?;
        let (name, rest) = take(rest, note.name_size, align)?;
        let (content, rest) = take(rest, note.content_size, align)?;
        if name == PVH_OWNER && note.kind == PVH_ENTRY {
            return entry_address(content);
        }
        notes = rest;
    }
}

/// The first `size` bytes, and what follows them and their padding.
fn take(bytes: &[u8], size: U32, align: usize) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(size.get()).ok()?;
    let taken = bytes.get(..size)?;
    let padded = size.checked_next_multiple_of(align)?;
    // The last note's padding may be missing.
    Some((taken, bytes.get(padded..).unwrap_or_default()))
}

/// The entry is 32 bits wide, and 64-bit kernels store it in 64.
fn entry_address(content: &[u8]) -> Option<u64> {
    match content.len() {
        4 => U32::read_from_bytes(content).ok().map(|v| v.get().into()),
        8 => U64::read_from_bytes(content).ok().map(U64::get),
        _ => None,
    }
}
