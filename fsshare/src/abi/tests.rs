//! Tables over every operation, and properties over all bytes.

#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test may panic: that is how it fails"
)]

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::wire::*;
use super::*;
use crate::errno::Errno;

const HEADER: usize = size_of::<InHeader>();

fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap();
    let head = InHeader {
        len,
        opcode,
        unique: 77,
        nodeid: 5,
        ..InHeader::default()
    };
    [head.as_bytes(), body].concat()
}

/// A valid body for each operation whose content is checked.
fn good_bodies() -> Vec<(Opcode, Vec<u8>)> {
    let with = |head: &[u8], tail: &[u8]| [head, tail].concat();
    let init = InitIn {
        major: 7,
        minor: 41,
        ..InitIn::default()
    };
    let forgets = with(BatchForgetIn { count: 2, dummy: 0 }.as_bytes(), &[0; 32]);
    vec![
        (Opcode::Lookup, b"name\0".to_vec()),
        (Opcode::Forget, vec![0; 8]),
        (Opcode::GetAttr, vec![0; 16]),
        (Opcode::SetAttr, vec![0; 88]),
        (Opcode::ReadLink, vec![]),
        (Opcode::Symlink, b"name\0target/of/it\0".to_vec()),
        (Opcode::MkNod, with(&[0; 16], b"name\0")),
        (Opcode::MkDir, with(&[0; 8], b"name\0")),
        (Opcode::Unlink, b"name\0".to_vec()),
        (Opcode::RmDir, b"name\0".to_vec()),
        (Opcode::Rename, with(&[0; 8], b"from\0to\0")),
        (Opcode::Link, with(&[0; 8], b"name\0")),
        (Opcode::Open, vec![0; 8]),
        (Opcode::Read, vec![0; 40]),
        (
            Opcode::Write,
            with(
                WriteIn {
                    size: 3,
                    ..WriteIn::default()
                }
                .as_bytes(),
                b"abc",
            ),
        ),
        (Opcode::StatFs, vec![]),
        (Opcode::Release, vec![0; 24]),
        (Opcode::Fsync, vec![0; 16]),
        (
            Opcode::SetXattr,
            with(SetXattrIn { size: 3, flags: 1 }.as_bytes(), b"user.a\0abc"),
        ),
        (Opcode::GetXattr, with(&[0; 8], b"user.a\0")),
        (Opcode::ListXattr, vec![0; 8]),
        (Opcode::RemoveXattr, b"user.a\0".to_vec()),
        (Opcode::Flush, vec![0; 24]),
        (
            Opcode::Init,
            with(init.as_bytes(), InitInExt::default().as_bytes()),
        ),
        (Opcode::OpenDir, vec![0; 8]),
        (Opcode::ReadDir, vec![0; 40]),
        (Opcode::ReleaseDir, vec![0; 24]),
        (Opcode::FsyncDir, vec![0; 16]),
        (Opcode::GetLk, vec![0; 48]),
        (Opcode::SetLk, vec![0; 48]),
        (Opcode::SetLkW, vec![0; 48]),
        (Opcode::Access, vec![0; 8]),
        (Opcode::Create, with(&[0; 16], b"name\0")),
        (Opcode::Interrupt, vec![0; 8]),
        (Opcode::Destroy, vec![]),
        (Opcode::BatchForget, forgets),
        (Opcode::Fallocate, vec![0; 32]),
        (Opcode::ReadDirPlus, vec![0; 40]),
        (Opcode::Rename2, with(&[0; 16], b"from\0to\0")),
        (Opcode::Lseek, vec![0; 24]),
        (Opcode::CopyFileRange, vec![0; 56]),
        (Opcode::SyncFs, vec![0; 8]),
        (Opcode::TmpFile, with(&[0; 16], b"/\0")),
        (Opcode::Statx, vec![0; 24]),
    ]
}

/// Operations that are known and never performed; their bodies are not looked at.
const UNCHECKED: [Opcode; 6] = [
    Opcode::Bmap,
    Opcode::Ioctl,
    Opcode::Poll,
    Opcode::NotifyReply,
    Opcode::SetupMapping,
    Opcode::RemoveMapping,
];

#[test]
fn structures_have_the_sizes_of_the_kernels_header() {
    macro_rules! sizes {
        ($($name:ident $size:literal)*) => { $(assert_eq!(size_of::<$name>(), $size, stringify!($name));)* };
    }
    sizes! {
        InHeader 40 OutHeader 16 Attr 88 EntryOut 128 AttrOut 104 InitIn 16 InitInExt 48 InitOut 64 ForgetIn 8
        BatchForgetIn 8 ForgetOne 16 GetAttrIn 16 StatxIn 24 SxTime 16 Statx 256 StatxOut 288 SetAttrIn 88 MkNodIn 16
        MkDirIn 8 RenameIn 8 Rename2In 16 LinkIn 8 OpenIn 8 CreateIn 16 OpenOut 16 ReleaseIn 24 FlushIn 24 ReadIn 40
        WriteIn 40 WriteOut 8 StatFsOut 80 FsyncIn 16 SetXattrIn 8 GetXattrIn 8 GetXattrOut 8 FileLock 24 LockIn 48
        AccessIn 8 InterruptIn 8 FallocateIn 32 LseekIn 24 LseekOut 8 CopyFileRangeIn 56 SyncFsIn 8 Dirent 24
    }
}

#[test]
fn every_operation_is_in_the_tables() {
    let checked = good_bodies();
    for opcode in Opcode::ALL {
        let tables = checked.iter().filter(|body| body.0 == *opcode).count()
            + usize::from(UNCHECKED.contains(opcode));
        assert_eq!(tables, 1, "{opcode:?}");
        assert_eq!(Opcode::from_number(*opcode as u32), Some(*opcode));
    }
}

#[test]
fn good_requests_are_accepted() {
    for (opcode, body) in good_bodies() {
        let bytes = request(opcode as u32, &body);
        let request = parse(&bytes).unwrap_or_else(|error| panic!("{opcode:?}: {error}"));
        assert_eq!((request.unique, request.node), (77, 5));
        assert_eq!(
            request.operation.is_answered(),
            opcode.is_answered(),
            "{opcode:?}"
        );
    }
    for opcode in UNCHECKED {
        assert!(
            parse(&request(opcode as u32, b"anything")).is_ok(),
            "{opcode:?}"
        );
    }
}

#[test]
fn requests_that_end_early_are_refused() {
    for (opcode, body) in good_bodies() {
        // INIT had only its first part before 7.36.
        for cut in
            (0..body.len()).filter(|cut| (opcode, *cut) != (Opcode::Init, size_of::<InitIn>()))
        {
            let bytes = request(opcode as u32, &body[..cut]);
            let Err(ParseError::Refused {
                refusal,
                unique: 77,
                ..
            }) = parse(&bytes)
            else {
                panic!("{opcode:?} cut at {cut} was accepted");
            };
            assert_eq!(refusal, Refusal::Truncated, "{opcode:?} cut at {cut}");
        }
    }
}

#[test]
fn requests_that_go_on_too_long_are_refused() {
    for (opcode, mut body) in good_bodies() {
        body.push(0);
        let bytes = request(opcode as u32, &body);
        let Err(error) = parse(&bytes) else {
            panic!("{opcode:?} with a byte more was accepted")
        };
        assert!(
            matches!(
                error,
                ParseError::Refused {
                    refusal: Refusal::Trailing,
                    ..
                }
            ),
            "{opcode:?}: {error}"
        );
        let expected = opcode.is_answered().then_some((77, Errno::EINVAL));
        assert_eq!(error.answer(), expected, "{opcode:?}");
    }
}

#[test]
fn heads_that_lie_are_refused() {
    let good = request(Opcode::StatFs as u32, &[]);
    for (len, extensions, refusal) in [
        (39, 0, Refusal::Length),
        (41, 0, Refusal::Length),
        (0, 0, Refusal::Length),
        (u32::MAX, 0, Refusal::Length),
        (40, 1, Refusal::Extension),
        (40, u16::MAX, Refusal::Extension),
    ] {
        let head = InHeader {
            len,
            total_extlen: extensions,
            ..InHeader::read_from_bytes(&good).unwrap()
        };
        let expected = ParseError::Refused {
            unique: 77,
            opcode: Opcode::StatFs as u32,
            refusal,
        };
        assert_eq!(parse(head.as_bytes()).err(), Some(expected));
    }
    for len in 0..HEADER {
        let error = parse(&good[..len]).unwrap_err();
        assert_eq!(
            (error, error.answer()),
            (ParseError::NoHeader { len }, None)
        );
    }
}

#[test]
fn unknown_operations_are_not_implemented() {
    for number in [0, 7, 19, 53, 100, 4096, u32::MAX] {
        let error = parse(&request(number, &[])).unwrap_err();
        assert_eq!(error.answer(), Some((77, Errno::ENOSYS)), "{number}");
    }
}

#[test]
fn names_are_one_component() {
    let longest = [vec![b'x'; 255], vec![0]].concat();
    for good in [
        &b"a\0"[..],
        b"...\0",
        b".a\0",
        b"a.\0",
        b" \0",
        b"-\0",
        b"\xff\xfe\0",
        b"a\nb\0",
        &longest,
    ] {
        assert!(
            parse(&request(Opcode::Lookup as u32, good)).is_ok(),
            "{good:?}"
        );
    }
    let too_long = [vec![b'x'; 256], vec![0]].concat();
    for (bad, refusal) in [
        (&b"\0"[..], Refusal::BadName),
        (b".\0", Refusal::BadName),
        (b"..\0", Refusal::BadName),
        (b"/\0", Refusal::BadName),
        (b"a/\0", Refusal::BadName),
        (b"/a\0", Refusal::BadName),
        (b"a/b\0", Refusal::BadName),
        (b"../a\0", Refusal::BadName),
        (b"a\0b\0", Refusal::Trailing),
        (b"a", Refusal::Truncated),
        (&too_long, Refusal::NameTooLong),
    ] {
        let expected = ParseError::Refused {
            unique: 77,
            opcode: Opcode::Lookup as u32,
            refusal,
        };
        assert_eq!(
            parse(&request(Opcode::Lookup as u32, bad)).err(),
            Some(expected),
            "{bad:?}"
        );
    }
}

#[test]
fn sizes_inside_a_request_are_checked_against_it() {
    for size in [0, 2, 4, 1 << 20, u32::MAX] {
        let write = [
            WriteIn {
                size,
                ..WriteIn::default()
            }
            .as_bytes(),
            b"abc",
        ]
        .concat();
        let xattr = [SetXattrIn { size, flags: 0 }.as_bytes(), b"user.a\0abc"].concat();
        assert!(
            parse(&request(Opcode::Write as u32, &write)).is_err(),
            "{size}"
        );
        assert!(
            parse(&request(Opcode::SetXattr as u32, &xattr)).is_err(),
            "{size}"
        );
    }
    for count in [0, 1, 3, 1 << 28, u32::MAX] {
        let body = [BatchForgetIn { count, dummy: 0 }.as_bytes(), &[0; 32]].concat();
        assert!(
            parse(&request(Opcode::BatchForget as u32, &body)).is_err(),
            "{count}"
        );
    }
}

#[test]
fn only_the_content_of_a_write_may_be_left_out() {
    for (opcode, body) in good_bodies() {
        let whole = request(opcode as u32, &body);
        let is_write = opcode == Opcode::Write;
        assert_eq!(has_content(&whole), is_write, "{opcode:?}");
        assert!(!has_content(&whole[..HEADER - 1]));
        for len in HEADER..whole.len() {
            let parsed = parse_without(&whole[..len], whole.len() - len);
            let fits = is_write && len >= BEFORE_CONTENT;
            assert_eq!(parsed.is_ok(), fits, "{opcode:?} without all but {len}");
        }
        // What follows a whole request is no part of it.
        let longer = InHeader {
            len: u32::try_from(whole.len() + 1).unwrap(),
            ..InHeader::read_from_prefix(&whole).unwrap().0
        };
        let longer = [longer.as_bytes(), &whole[HEADER..]].concat();
        let refused = |bytes, left| parse_without(bytes, left).is_err();
        assert!(
            UNCHECKED.contains(&opcode) || refused(&longer, 1),
            "{opcode:?}"
        );
        assert!(refused(&whole, 1) && refused(&longer, 0) && refused(&longer, usize::MAX));
    }
}

#[test]
fn a_size_is_checked_against_content_that_is_elsewhere() {
    for size in [0, 1, 2, 3, 4, 83, 1 << 20, u32::MAX] {
        let head = WriteIn {
            size,
            ..WriteIn::default()
        };
        let whole = request(Opcode::Write as u32, &[head.as_bytes(), b"abc"].concat());
        let apart = parse_without(&whole[..BEFORE_CONTENT], 3);
        let together = parse(&whole);
        assert_eq!(
            apart.map(|parsed| parsed.unique).map_err(|e| e.answer()),
            together.map(|parsed| parsed.unique).map_err(|e| e.answer()),
        );
        assert_eq!(apart.is_ok(), size == 3, "{size}");
    }
}

#[test]
fn contents_arrive_as_they_were_sent() {
    let body = [
        WriteIn {
            fh: 9,
            offset: 1 << 40,
            size: 3,
            ..WriteIn::default()
        }
        .as_bytes(),
        b"abc",
    ]
    .concat();
    let bytes = request(Opcode::Write as u32, &body);
    for here in [bytes.len(), BEFORE_CONTENT, BEFORE_CONTENT + 1] {
        let parsed = parse_without(&bytes[..here], bytes.len() - here).unwrap();
        let Operation::Write {
            fh: 9,
            offset,
            size: 3,
        } = parsed.operation
        else {
            panic!("another write");
        };
        assert_eq!(offset, 1 << 40);
    }
    let body = [
        BatchForgetIn { count: 1, dummy: 0 }.as_bytes(),
        ForgetOne {
            nodeid: 3,
            nlookup: 4,
        }
        .as_bytes(),
    ]
    .concat();
    let bytes = request(Opcode::BatchForget as u32, &body);
    let Operation::BatchForget { forgets } = parse(&bytes).unwrap().operation else {
        panic!("another operation")
    };
    assert_eq!(
        forgets.collect::<Vec<_>>(),
        [ForgetOne {
            nodeid: 3,
            nlookup: 4
        }]
    );
}

#[test]
fn the_high_half_of_init_counts_only_when_announced() {
    let ask = |flags, body: &[u8]| {
        let init = InitIn {
            major: 7,
            minor: 41,
            max_readahead: 0,
            flags,
        };
        let bytes = request(Opcode::Init as u32, &[init.as_bytes(), body].concat());
        let Operation::Init { flags, .. } = parse(&bytes).unwrap().operation else {
            panic!("another operation")
        };
        flags
    };
    let extension = InitInExt {
        flags2: u32::MAX,
        unused: [0; 11],
    };
    assert_eq!(ask(1, &[]), InitFlags::ASYNC_READ);
    assert_eq!(ask(1, extension.as_bytes()), InitFlags::ASYNC_READ);
    assert!(ask(u32::MAX, extension.as_bytes()).contains(InitFlags::INIT_EXT));
    let flags = InitFlags::all();
    assert_eq!(InitFlags::from_halves(flags.low(), flags.high()), flags);
}

#[test]
fn heads_of_replies() {
    assert_eq!(
        head(9, Ok(24)),
        OutHeader {
            len: 40,
            error: 0,
            unique: 9
        }
    );
    assert_eq!(
        head(9, Err(Errno::EROFS)),
        OutHeader {
            len: 16,
            error: -30,
            unique: 9
        }
    );
}

fn entry(name: &[u8]) -> DirEntry<'_> {
    DirEntry {
        ino: 3,
        next: 4,
        kind: 8,
        name,
    }
}

#[test]
fn entries_of_a_listing_are_aligned_and_end_at_the_limit() {
    for plus in [false, true] {
        let mut out = Vec::new();
        let each = if plus { 128 + 32 } else { 32 };
        let mut listing = Listing::new(&mut out, 2 * each + 8, plus);
        let found = EntryOut {
            nodeid: 6,
            ..EntryOut::default()
        };
        for name in [&b"a"[..], b"12345678"] {
            assert!(listing.fits(&entry(name)));
            listing.push(&entry(name), &found);
        }
        assert!(!listing.fits(&entry(b"b")));
        listing.push(&entry(b"b"), &found);
        assert_eq!(out.len(), 2 * each);
        let (head, name) = Dirent::read_from_prefix(&out[each - 32..]).unwrap();
        assert_eq!(
            head,
            Dirent {
                ino: 3,
                off: 4,
                namelen: 1,
                kind: 8
            }
        );
        assert_eq!(name[..8], *b"a\0\0\0\0\0\0\0", "padding is zero");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_body_makes_the_parser_panic(opcode in 0_u32..60, body in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = parse(&request(opcode, &body)) {
            let answered = Opcode::from_number(opcode).is_none_or(Opcode::is_answered);
            prop_assert_eq!(error.answer().is_some(), answered);
        }
    }

    #[test]
    fn a_changed_byte_never_lets_a_bad_name_through(which in 0_usize..44, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (opcode, mut body) = good_bodies().swap_remove(which);
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let bytes = request(opcode as u32, &body);
        if let Ok(request) = parse(&bytes) {
            for name in names_in(&request.operation) {
                let name = name.as_c_str().to_bytes();
                prop_assert!(!name.is_empty() && name != b"." && name != b"..");
                prop_assert!(name.len() <= 255 && !name.contains(&b'/'));
            }
        }
    }

    #[test]
    fn names_are_accepted_exactly_when_they_are_one_component(text in "[a./\\PC]{0,6}") {
        let expected = !matches!(text.as_str(), "" | "." | "..") && !text.contains(['/', '\0']);
        let parsed = parse(&request(Opcode::Lookup as u32, &[text.as_bytes(), b"\0"].concat())).is_ok();
        prop_assert_eq!(parsed, expected);
    }
}

fn names_in<'a>(operation: &Operation<'a>) -> Vec<Name<'a>> {
    match *operation {
        Operation::Lookup { name }
        | Operation::Symlink { name, .. }
        | Operation::MkNod { name, .. }
        | Operation::MkDir { name, .. }
        | Operation::Unlink { name }
        | Operation::RmDir { name }
        | Operation::Link { name, .. }
        | Operation::Create { name, .. } => vec![name],
        Operation::Rename { name, new_name, .. } => vec![name, new_name],
        _ => vec![],
    }
}
