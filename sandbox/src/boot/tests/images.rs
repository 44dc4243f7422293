//! Tiny kernels made of nothing but headers and a recognisable payload.

/// Where the ELF kernel's only segment goes.
pub(in crate::boot) const ELF_ADDRESS: u64 = 4 << 20;
/// Its PVH entry.
pub(in crate::boot) const ELF_ENTRY: u64 = ELF_ADDRESS + 0x40;
/// Its size in RAM: a megabyte, most of it zero.
pub(in crate::boot) const ELF_MEMORY: u64 = 1 << 20;
const ELF_OFFSET: usize = 0x1000;

/// Where the bzImage goes.
pub(in crate::boot) const BZ_ADDRESS: u64 = 16 << 20;
/// How much RAM it asks for from there.
pub(in crate::boot) const BZ_INIT_SIZE: u64 = 3 << 20;
/// Where its setup header begins.
pub(in crate::boot) const BZ_HEADER_AT: usize = 0x1F1;
const BZ_SECTORS: u8 = 4;

/// Two pages and a half of bytes that are not zero and do not repeat by page.
pub(in crate::boot) fn payload() -> Vec<u8> {
    (0..10_240_u32)
        .map(|i| (i % 251).to_le_bytes()[0] + 1)
        .collect()
}

/// An ELF note of Xen's.
pub(in crate::boot) fn note(kind: u32, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap();
    let mut note = [4, size, kind].map(u32::to_le_bytes).concat();
    note.extend(b"Xen\0");
    note.extend(content);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// An ELF kernel with its PVH note.
pub(in crate::boot) fn elf() -> Vec<u8> {
    elf_with_note(&note(18, &ELF_ENTRY.to_le_bytes()))
}

/// An ELF kernel: file header, two program headers, payload, notes.
pub(in crate::boot) fn elf_with_note(notes: &[u8]) -> Vec<u8> {
    let payload = payload();
    let file_size = payload.len() as u64;
    let notes_at = ELF_OFFSET as u64 + file_size;
    let notes_size = notes.len() as u64;
    let mut image = b"\x7FELF\x02\x01\x01".to_vec();
    image.resize(16, 0);
    image.extend([2, 62].map(u16::to_le_bytes).concat());
    image.extend(1_u32.to_le_bytes());
    image.extend([ELF_ENTRY, 64, 0].map(u64::to_le_bytes).concat());
    image.extend(0_u32.to_le_bytes());
    image.extend([64, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let offset = ELF_OFFSET as u64;
    image.extend(program_header(
        1,
        [offset, ELF_ADDRESS, file_size, ELF_MEMORY],
    ));
    image.extend(program_header(4, [notes_at, 0, notes_size, notes_size]));
    image.resize(ELF_OFFSET, 0);
    image.extend(payload);
    image.extend(notes);
    image
}

/// A program header from file offset, address, size in the file, size in RAM.
fn program_header(kind: u32, [offset, address, file, memory]: [u64; 4]) -> Vec<u8> {
    let mut header = [kind, 7].map(u32::to_le_bytes).concat();
    header.extend(
        [offset, address, address, file, memory, 4]
            .map(u64::to_le_bytes)
            .concat(),
    );
    header
}

/// A bzImage of boot protocol 2.12.
pub(in crate::boot) fn bzimage() -> Vec<u8> {
    let payload = payload();
    let mut image = vec![0; (usize::from(BZ_SECTORS) + 1) * 512];
    let paragraphs = u32::try_from(payload.len() / 16).unwrap();
    let init_size = u32::try_from(BZ_INIT_SIZE).unwrap();
    let fields: [(usize, &[u8]); 12] = [
        (BZ_HEADER_AT, &[BZ_SECTORS]),
        (0x1F4, &paragraphs.to_le_bytes()),
        (0x1FE, &[0x55, 0xAA]),
        (0x200, &[0xEB, 0x66]),
        (0x202, b"HdrS"),
        (0x206, &0x020C_u16.to_le_bytes()),
        (0x211, &[1]),
        (0x22C, &((48_u32 << 20) - 1).to_le_bytes()),
        (0x236, &[1, 0]),
        (0x238, &2047_u32.to_le_bytes()),
        (0x258, &BZ_ADDRESS.to_le_bytes()),
        (0x260, &init_size.to_le_bytes()),
    ];
    for (offset, value) in fields {
        image[offset..offset + value.len()].copy_from_slice(value);
    }
    image.extend(payload);
    image
}
