//! Header parsing on synthetic kernels: each check, every truncation, boundary values.

use proptest::prelude::*;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::elf::{FileHeader, ProgramHeader};
use super::*;
use crate::boot::tests::images::{self, BZ_HEADER_AT, ELF_ADDRESS, ELF_ENTRY};

/// Writes `value` over an image at `offset`.
fn put(image: &mut [u8], offset: usize, value: &[u8]) {
    image[offset..offset + value.len()].copy_from_slice(value);
}

/// Parses `image` after `value` was written at `offset`.
fn patched(mut image: Vec<u8>, offset: usize, value: &[u8]) -> Result<Kernel, BootError> {
    put(&mut image, offset, value);
    Kernel::parse(&image[..])
}

fn elf_file_header(change: impl Fn(&mut FileHeader)) -> Result<Kernel, BootError> {
    let mut image = images::elf();
    let (mut header, _) = FileHeader::read_from_prefix(&image).unwrap();
    change(&mut header);
    put(&mut image, 0, header.as_bytes());
    Kernel::parse(&image[..])
}

/// Changes the program header with number `index`: 0 loads, 1 is the notes.
fn elf_program_header(
    index: usize,
    change: impl Fn(&mut ProgramHeader),
) -> Result<Kernel, BootError> {
    let mut image = images::elf();
    let at = size_of::<FileHeader>() + index * size_of::<ProgramHeader>();
    let (mut header, _) = ProgramHeader::read_from_prefix(&image[at..]).unwrap();
    change(&mut header);
    put(&mut image, at, header.as_bytes());
    Kernel::parse(&image[..])
}

#[test]
fn formats_are_told_apart_by_content() {
    assert!(matches!(
        Kernel::parse(&images::elf()[..]),
        Ok(Kernel::Elf(_))
    ));
    assert!(matches!(
        Kernel::parse(&images::bzimage()[..]),
        Ok(Kernel::BzImage(_))
    ));
    let mut arm = vec![0; 4096];
    put(&mut arm, ARM64_MAGIC_AT, &ARM64_MAGIC);
    assert!(matches!(
        Kernel::parse(&arm[..]),
        Err(BootError::WrongArchitecture { found: "arm64" })
    ));
    for file in [&b""[..], b"\x7F", b"#!/bin/sh\n", &[0; 4096], &[0xFF; 100]] {
        assert!(matches!(Kernel::parse(file), Err(BootError::NotAKernel)));
    }
}

#[test]
fn an_elf_for_another_machine_is_named() {
    for (machine, class, expected) in [
        (183, 2, "arm64"),
        (3, 1, "32-bit x86"),
        (62, 1, "32-bit x86"),
        (243, 2, "another processor"),
    ] {
        let result = elf_file_header(|h| {
            h.machine = machine.into();
            h.class = class;
        });
        assert!(
            matches!(result, Err(BootError::WrongArchitecture { found }) if found == expected),
            "{machine} {class}: {result:?}"
        );
    }
    let big = elf_file_header(|h| h.data = 2);
    assert!(matches!(big, Err(BootError::WrongArchitecture { .. })));
    // A kernel module is a relocatable file.
    let module = elf_file_header(|h| h.kind = 1.into());
    assert!(matches!(module, Err(BootError::NotAKernel)));
}

#[test]
fn program_header_tables_at_the_edge_are_refused() {
    let size = images::elf().len() as u64;
    for offset in [size, size - 1, u64::MAX, u64::MAX - 55] {
        let result = elf_file_header(|h| h.program_headers = offset.into());
        assert!(
            matches!(result, Err(BootError::Truncated { .. })),
            "{offset:#x}"
        );
    }
    for (count, entry) in [(65, 56), (u16::MAX, 56), (2, 0), (2, 55), (2, u16::MAX)] {
        let result = elf_file_header(|h| {
            h.program_header_count = count.into();
            h.program_header_size = entry.into();
        });
        assert!(
            matches!(result, Err(BootError::Broken(_))),
            "{count} {entry}"
        );
    }
    let none = elf_file_header(|h| h.program_header_count = 0.into());
    assert!(matches!(none, Err(BootError::NoPvhEntry)));
}

#[test]
fn segments_that_cannot_be_are_refused() {
    let check = |change: fn(&mut ProgramHeader)| elf_program_header(0, change).unwrap_err();
    let broken: [fn(&mut ProgramHeader); 5] = [
        |h| h.memory_size = (h.file_size.get() - 1).into(),
        |h| h.memory_size = u64::MAX.into(),
        |h| h.address = u64::MAX.into(),
        |h| h.address = (KERNEL_MIN - 1).into(),
        |h| h.address = 0.into(),
    ];
    for change in broken {
        let error = check(change);
        assert!(matches!(error, BootError::Broken(_)), "{error:?}");
    }
    let truncated: [fn(&mut ProgramHeader); 2] = [
        |h| h.offset = u64::MAX.into(),
        |h| h.offset = (h.offset.get() + (1 << 20)).into(),
    ];
    for change in truncated {
        let error = check(change);
        assert!(matches!(error, BootError::Truncated { .. }), "{error:?}");
    }
}

#[test]
fn a_kernel_without_a_usable_pvh_note_is_refused() {
    let other = elf_program_header(1, |h| h.kind = 0.into());
    assert!(matches!(other, Err(BootError::NoPvhEntry)));
    let cut = elf_program_header(1, |h| h.file_size = (h.file_size.get() - 1).into());
    assert!(matches!(cut, Err(BootError::NoPvhEntry)), "{cut:?}");
    let huge = elf_program_header(1, |h| h.file_size = u64::MAX.into());
    assert!(matches!(huge, Err(BootError::Truncated { .. })));
    let file_end = ELF_ADDRESS + images::payload().len() as u64;
    for entry in [0, ELF_ADDRESS - 1, file_end, u64::MAX] {
        let result =
            Kernel::parse(&images::elf_with_note(&images::note(18, &entry.to_le_bytes()))[..]);
        assert!(
            matches!(result, Err(BootError::Broken(_))),
            "{entry:#x}: {result:?}"
        );
    }
}

#[test]
fn the_pvh_note_is_found_among_others_in_both_widths() {
    let wide = images::note(18, &ELF_ENTRY.to_le_bytes());
    let narrow = images::note(18, &u32::try_from(ELF_ENTRY).unwrap().to_le_bytes());
    let padded = images::note(5, b"odd");
    for notes in [wide.clone(), narrow, [padded, wide].concat()] {
        assert!(Kernel::parse(&images::elf_with_note(&notes)[..]).is_ok());
    }
    let odd = images::note(18, &[0; 5]);
    let result = Kernel::parse(&images::elf_with_note(&odd)[..]);
    assert!(matches!(result, Err(BootError::NoPvhEntry)));
    // More notes than a kernel has are not read at all.
    let many = vec![0; 65 << 10];
    let result = Kernel::parse(&images::elf_with_note(&many)[..]);
    assert!(matches!(result, Err(BootError::Broken(_))));
}

#[test]
fn bzimage_header_fields_are_checked() {
    let field = |offset: usize, value: &[u8]| patched(images::bzimage(), offset, value);
    assert!(matches!(
        field(0x206, &0x020B_u16.to_le_bytes()),
        Err(BootError::OldProtocol {
            major: 2,
            minor: 11
        })
    ));
    assert!(matches!(
        field(0x236, &[0, 0]),
        Err(BootError::WrongArchitecture {
            found: "32-bit x86"
        })
    ));
    for (offset, value) in [
        (0x1FE, &[0, 0][..]),
        (0x211, &[0]),
        (0x1F4, &[0; 4]),
        (0x258, &0x10_0001_u64.to_le_bytes()),
        (0x258, &0_u64.to_le_bytes()),
        (0x258, &(u64::MAX - 0xFFF).to_le_bytes()),
    ] {
        let result = field(offset, value);
        assert!(
            matches!(result, Err(BootError::Broken(_))),
            "{offset:#x}: {result:?}"
        );
    }
    for (offset, value) in [(0x1F4, &[0xFF; 4][..]), (BZ_HEADER_AT, &[0xFF])] {
        let result = field(offset, value);
        assert!(
            matches!(result, Err(BootError::Truncated { .. })),
            "{offset:#x}"
        );
    }
}

#[test]
fn no_setup_sectors_mean_four() {
    let four = patched(images::bzimage(), BZ_HEADER_AT, &[4]).unwrap();
    let none = patched(images::bzimage(), BZ_HEADER_AT, &[0]).unwrap();
    let (Kernel::BzImage(four), Kernel::BzImage(none)) = (four, none) else {
        panic!("not a bzImage");
    };
    assert_eq!(four.piece(), none.piece());
    assert_eq!(four.piece().offset, 5 * 512);
}

#[test]
fn every_truncation_is_an_error() {
    for image in [images::elf(), images::bzimage()] {
        for length in 0..image.len() {
            let result = Kernel::parse(&image[..length]);
            assert!(
                matches!(
                    result,
                    Err(BootError::Truncated { .. } | BootError::NotAKernel)
                ),
                "{length} of {}: {result:?}",
                image.len()
            );
        }
        assert!(Kernel::parse(&image[..]).is_ok());
    }
}

/// What must hold of every kernel that is accepted, however its file came about.
fn check_accepted(image: &[u8]) {
    let Ok(kernel) = Kernel::parse(image) else {
        return;
    };
    let pieces = match &kernel {
        Kernel::Elf(kernel) => kernel.pieces(),
        Kernel::BzImage(kernel) => vec![kernel.piece()],
    };
    for piece in pieces {
        assert!(piece.address >= KERNEL_MIN);
        assert!(piece.offset + piece.bytes <= image.len() as u64);
        assert!(piece.address + piece.bytes <= kernel.end());
    }
}

proptest! {
    #[test]
    fn broken_headers_never_panic(
        elf in any::<bool>(),
        changes in prop::collection::vec((0_usize..0x270, any::<u8>()), 1..8),
    ) {
        let mut image = if elf { images::elf() } else { images::bzimage() };
        for (offset, value) in changes {
            put(&mut image, offset, &[value]);
        }
        check_accepted(&image);
    }

    #[test]
    fn extreme_fields_never_panic(
        elf in any::<bool>(),
        word in 0_usize..0x26C / 4,
        value in prop::sample::select(vec![0_u64, 1, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 63, u64::MAX]),
    ) {
        let mut image = if elf { images::elf() } else { images::bzimage() };
        put(&mut image, word * 4, &value.to_le_bytes());
        check_accepted(&image);
    }
}
