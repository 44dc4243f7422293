//! Numbers at their ends: caps, sizes, offsets, ids, and too little room.

use std::fs;

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{Config, Error, Fault, Server};
use libc::{O_RDONLY, O_RDWR};
use zerocopy::IntoBytes;

use super::client::{Share, request, text};

/// The ends of what numbers can be.
const EDGES: [u64; 9] = [
    0,
    1,
    4095,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    (1 << 63) + 1,
    u64::MAX - 1,
    u64::MAX,
];

#[test]
fn forgetting_too_much_or_nothing_does_no_harm() {
    let share = Share::new();
    fs::write(share.root.join("f"), "").unwrap();
    let node = share.walk("f");
    share.walk("f");
    share.forget(node, 1);
    assert!(share.getattr(node).is_ok(), "one lookup is left");
    share.forget(node, 0);
    share.forget(node, u64::MAX);
    assert_eq!(share.getattr(node), Err(libc::ESTALE));
    share.forget(node, 1);
    for id in EDGES {
        share.forget(id, u64::MAX);
    }
    assert!(share.getattr(ROOT_ID).is_ok(), "the root stays");
    let new = share.walk("f");
    assert!(new > node, "numbers are not used twice");
}

#[test]
fn many_are_forgotten_at_once() {
    let share = Share::new();
    let nodes: Vec<_> = (0..3)
        .map(|n| share.mkdir(ROOT_ID, &n.to_string()).unwrap().nodeid)
        .collect();
    let mut body = wire::BatchForgetIn { count: 3, dummy: 0 }
        .as_bytes()
        .to_vec();
    for (nodeid, nlookup) in [(nodes[0], 1), (u64::MAX, 7), (nodes[2], u64::MAX)] {
        body.extend_from_slice(wire::ForgetOne { nodeid, nlookup }.as_bytes());
    }
    assert_eq!(share.call(Opcode::BatchForget, 0, &body), Ok(vec![]));
    let known: Vec<_> = nodes
        .iter()
        .map(|node| share.getattr(*node).is_ok())
        .collect();
    assert_eq!(known, [false, true, false]);
}

#[test]
fn unknown_nodes_and_handles_are_refused() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    for id in EDGES.into_iter().filter(|id| *id != ROOT_ID) {
        assert_eq!(share.getattr(id), Err(libc::ESTALE), "{id}");
        assert_eq!(share.lookup(id, "f"), Err(libc::ESTALE), "{id}");
        assert_eq!(share.link(id, ROOT_ID, "x"), Err(libc::ESTALE), "{id}");
        assert_eq!(share.read(id, fh, 0, 1), Err(libc::EBADF), "{id}");
    }
    for other in EDGES.into_iter().filter(|other| *other != fh) {
        assert_eq!(share.read(node, other, 0, 1), Err(libc::EBADF), "{other}");
        assert_eq!(
            share.write(node, other, 0, b"x"),
            Err(libc::EBADF),
            "{other}"
        );
        assert_eq!(share.release(node, other), Err(libc::EBADF), "{other}");
    }
    assert_eq!(
        share.read(ROOT_ID, fh, 0, 1),
        Err(libc::EBADF),
        "a handle on another node"
    );
    let listing = wire::ReadIn {
        fh,
        size: 4096,
        ..Default::default()
    };
    assert_eq!(
        share.ask(Opcode::ReadDir, node, &listing, &[]),
        Err(libc::EBADF),
        "a file is not listed"
    );
    let dir = share.opendir(ROOT_ID).unwrap();
    assert_eq!(
        share.read(ROOT_ID, dir, 0, 1),
        Err(libc::EBADF),
        "a directory is not read"
    );
}

#[test]
fn a_forgotten_file_stays_open() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    share.forget(entry.nodeid, 1);
    assert_eq!(share.write(entry.nodeid, fh, 0, b"x"), Ok(1));
    share.release(entry.nodeid, fh).unwrap();
}

#[test]
fn the_cap_on_nodes_is_exact_and_frees_with_forgetting() {
    let share = Share::with(|config| config.limits.max_inodes = 10);
    let nodes: Vec<_> = (0..10)
        .map(|n| share.mkdir(ROOT_ID, &n.to_string()).unwrap().nodeid)
        .collect();
    assert_eq!(share.mkdir(ROOT_ID, "more"), Err(libc::ENFILE));
    assert_eq!(
        share.create(ROOT_ID, "more", O_RDWR, 0o644),
        Err(libc::ENFILE)
    );
    assert!(
        !share.root.join("more").exists(),
        "nothing is made that could not be told"
    );
    fs::write(share.root.join("host"), "").unwrap();
    assert_eq!(share.lookup(ROOT_ID, "host"), Err(libc::ENFILE));
    assert_eq!(
        share.lookup(ROOT_ID, "3").unwrap().nodeid,
        nodes[3],
        "what is held can be looked up again"
    );
    assert_eq!(
        share.list(ROOT_ID, 1 << 16, true).len(),
        13,
        "listings go on without lookups"
    );
    share.forget(nodes[0], 1);
    assert!(share.lookup(ROOT_ID, "host").is_ok());
}

#[test]
fn listings_leave_room_for_lookups() {
    let share = Share::with(|config| config.limits.max_inodes = 40);
    for n in 0..100 {
        fs::write(share.root.join(n.to_string()), "").unwrap();
    }
    let looked_up = share
        .list(ROOT_ID, 1 << 16, true)
        .iter()
        .filter(|entry| entry.1 != 0)
        .count();
    assert!((30..40).contains(&looked_up), "{looked_up}");
    assert!(share.mkdir(ROOT_ID, "more").is_ok());
}

#[test]
fn the_cap_on_handles_is_exact_and_frees_with_closing() {
    let share = Share::with(|config| config.limits.max_handles = 3);
    fs::write(share.root.join("f"), "").unwrap();
    let node = share.walk("f");
    let handles = [
        share.open(node, O_RDONLY),
        share.open(node, O_RDWR),
        share.opendir(ROOT_ID),
    ]
    .map(Result::unwrap);
    assert_eq!(
        (share.open(node, O_RDONLY), share.opendir(ROOT_ID)),
        (Err(libc::ENFILE), Err(libc::ENFILE))
    );
    assert_eq!(
        share.create(ROOT_ID, "more", O_RDWR, 0o644),
        Err(libc::ENFILE)
    );
    assert!(!share.root.join("more").exists());
    share.release(node, handles[0]).unwrap();
    assert!(share.opendir(ROOT_ID).is_ok());
}

#[test]
fn offsets_and_sizes_at_their_ends_are_refused_or_harmless() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let (node, dir) = (entry.nodeid, share.opendir(ROOT_ID).unwrap());
    for edge in EDGES {
        let beyond = edge >= i64::MAX as u64;
        let read = share.read(node, fh, edge, 4096);
        assert!(
            read == Ok(vec![]) || (edge > 1 << 60 && read == Err(libc::EINVAL)),
            "{edge}: {read:?}"
        );
        let seek = wire::LseekIn {
            fh,
            offset: edge,
            whence: 3,
            padding: 0,
        };
        let found = share.ask(Opcode::Lseek, node, &seek, &[]);
        assert!(
            matches!(found, Err(libc::EINVAL | libc::ENXIO)),
            "{edge}: {found:?}"
        );
        let listing = wire::ReadIn {
            fh: dir,
            offset: edge,
            size: 4096,
            ..Default::default()
        };
        let listed = share.ask(Opcode::ReadDir, ROOT_ID, &listing, &[]);
        assert!(listed.is_ok() || edge >> 63 == 1, "{edge}: {listed:?}");
        for length in EDGES
            .into_iter()
            .filter(|length| beyond || *length > 1 << 60)
        {
            let body = wire::FallocateIn {
                fh,
                offset: edge,
                length,
                mode: 3,
                padding: 0,
            };
            let refused = share.ask(Opcode::Fallocate, node, &body, &[]);
            assert!(
                matches!(refused, Err(libc::EFBIG | libc::EINVAL)) || edge <= 4095,
                "{edge} {length}: {refused:?}"
            );
        }
        if beyond {
            assert_eq!(
                share.write(node, fh, edge, b"x"),
                Err(libc::EFBIG),
                "{edge}"
            );
            let size = wire::SetAttrIn {
                valid: SetAttrFlags::SIZE.bits(),
                size: edge,
                ..Default::default()
            };
            let resized = share.setattr(node, size);
            assert!(
                matches!(resized, Err(libc::EFBIG | libc::EINVAL)),
                "{edge}: {resized:?}"
            );
        }
    }
    assert_eq!(share.getattr(node).unwrap().size, 0);
}

#[test]
fn a_copy_onto_itself_is_refused() {
    let share = Share::new();
    fs::write(share.root.join("f"), "0123456789").unwrap();
    let node = share.walk("f");
    let fh = share.open(node, O_RDWR).unwrap();
    let copy = |off_in, off_out, len| {
        let body = wire::CopyFileRangeIn {
            fh_in: fh,
            off_in,
            nodeid_out: node,
            fh_out: fh,
            off_out,
            len,
            flags: 0,
        };
        share.ask(Opcode::CopyFileRange, node, &body, &[])
    };
    assert_eq!(copy(0, 2, 5), Err(libc::EINVAL));
    for edge in EDGES.into_iter().filter(|edge| *edge > i64::MAX as u64) {
        assert_eq!(copy(edge, 0, 1), Err(libc::EINVAL), "{edge}");
        assert_eq!(copy(0, edge, 1), Err(libc::EFBIG), "{edge}");
        assert_eq!(copy(0, 0, edge), Err(libc::EINVAL), "{edge}");
    }
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"0123456789");
}

#[test]
fn reads_that_do_not_fit_are_refused_and_not_cut() {
    let share = Share::with(|config| config.limits.max_write = 8192);
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    assert_eq!(share.write(node, fh, 0, &[1; 8192]), Ok(8192));
    assert_eq!(share.write(node, fh, 0, &[1; 8193]), Err(libc::EINVAL));
    assert_eq!(share.read(node, fh, 0, 8193), Err(libc::EINVAL));
    assert_eq!(share.read(node, fh, 0, u32::MAX), Err(libc::EINVAL));
    let read = wire::ReadIn {
        fh,
        size: 100,
        ..Default::default()
    };
    let with_room = |room| share.raw(Opcode::Read as u32, node, read.as_bytes(), room);
    assert_eq!(with_room(116).map(|data| data.len()), Ok(100));
    assert_eq!(
        (with_room(115), with_room(16)),
        (Err(libc::EINVAL), Err(libc::EINVAL))
    );
    // The largest request is one byte beyond what is gathered.
    assert_eq!(
        share.write(node, fh, 0, &vec![1; 1 << 20]),
        Err(libc::EINVAL)
    );
    assert_eq!(share.getattr(node).unwrap().size, 8192);
}

#[test]
fn a_listing_that_holds_no_entry_is_an_error_and_not_the_end() {
    let share = Share::new();
    let fh = share.opendir(ROOT_ID).unwrap();
    for (opcode, size) in [
        (Opcode::ReadDir, 31),
        (Opcode::ReadDirPlus, 159),
        (Opcode::ReadDir, 0),
    ] {
        let body = wire::ReadIn {
            fh,
            size,
            ..Default::default()
        };
        assert_eq!(
            share.ask(opcode, ROOT_ID, &body, &[]),
            Err(libc::EINVAL),
            "{opcode:?}"
        );
    }
    let body = wire::ReadIn {
        fh,
        size: 4096,
        ..Default::default()
    };
    assert_eq!(
        share.raw(Opcode::ReadDir as u32, ROOT_ID, body.as_bytes(), 16),
        Err(libc::EINVAL)
    );
}

#[test]
fn values_of_attributes_end_at_64_kib() {
    let share = Share::new();
    let value = vec![b'v'; 65_537];
    let body = wire::SetXattrIn {
        size: 65_537,
        flags: 0,
    };
    let refused = share.ask(
        Opcode::SetXattr,
        ROOT_ID,
        &body,
        &[&text("user.a"), value.as_slice()].concat(),
    );
    assert_eq!(refused, Err(libc::E2BIG));
    let get = wire::GetXattrIn {
        size: u32::MAX,
        padding: 0,
    };
    assert_eq!(share.ask(Opcode::ListXattr, ROOT_ID, &get, &[]), Ok(vec![]));
}

#[test]
fn a_reply_that_has_no_room_is_the_guests_fault() {
    let share = Share::new();
    let request = request(Opcode::StatFs as u32, 1, ROOT_ID, &[]);
    for room in [0, 15] {
        let mut reply = vec![0_u8; room];
        let error = share
            .server
            .handle(&mut request.as_slice(), &mut reply.as_mut_slice())
            .unwrap_err();
        assert_eq!(error.fault(), Fault::Guest);
        assert!(matches!(error, Error::NoRoom { available } if available == room));
        assert_eq!(reply, vec![0; room]);
    }
    assert_eq!(
        share.raw(Opcode::StatFs as u32, ROOT_ID, &[], 95),
        Err(libc::EINVAL)
    );
    assert_eq!(
        share
            .raw(Opcode::StatFs as u32, ROOT_ID, &[], 96)
            .map(|reply| reply.len()),
        Ok(80)
    );
}

#[test]
fn what_is_no_request_gets_no_reply() {
    let share = Share::new();
    for len in [0, 1, 39] {
        let bytes = vec![0xff_u8; len];
        let mut reply = [0_u8; 64];
        let error = share
            .server
            .handle(&mut bytes.as_slice(), &mut reply.as_mut_slice())
            .unwrap_err();
        assert_eq!((error.fault(), reply), (Fault::Guest, [0; 64]), "{len}");
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let server = |path, max_write| {
        let mut config = Config::new(fs::File::open(path).unwrap().into());
        config.limits.max_write = max_write;
        Server::new(config)
    };
    for bad in [0, 1, 4095, 4097, (1 << 20) + 4096, u32::MAX] {
        assert!(
            matches!(server(place.path(), bad), Err(Error::MaxWrite(size)) if size == bad),
            "{bad}"
        );
    }
    assert!(
        matches!(server(&file, 4096), Err(error @ Error::Root(_)) if error.fault() == Fault::Caller)
    );
    assert!(server(place.path(), 4096).is_ok());
}

#[test]
fn renaming_for_ever_does_not_fill_the_memory() {
    let share = Share::new();
    let names = ["a".repeat(255), "b".repeat(255)];
    share.create(ROOT_ID, &names[0], O_RDWR, 0o644).unwrap();
    let before = resident();
    for round in 0..400_000 {
        let (from, to) = (&names[round % 2], &names[(round + 1) % 2]);
        share.rename((ROOT_ID, from), (ROOT_ID, to), 0).unwrap();
    }
    // All names that the file had are 100 MB.
    let grown = resident().saturating_sub(before);
    assert!(grown < 60 << 20, "{grown} bytes");
}

/// Bytes of this process that are in memory and no file's. Other tests run beside, with some megabytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

#[test]
fn numbers_are_not_given_again_after_starting_over() {
    let share = Share::new();
    let old: Vec<_> = (0..50)
        .map(|number| share.mkdir(ROOT_ID, &number.to_string()).unwrap().nodeid)
        .collect();
    share.call(Opcode::Destroy, 0, &[]).unwrap();
    share.init();
    for number in 0..50 {
        let new = share.lookup(ROOT_ID, &number.to_string()).unwrap().nodeid;
        assert!(!old.contains(&new), "{new}");
    }
    assert_eq!(share.getattr(old[7]).err(), Some(libc::ESTALE));
}

/// Descriptors of this process that lead into the share's trees.
fn descriptors(share: &Share) -> usize {
    let place = share.root.parent().unwrap();
    let all = fs::read_dir("/proc/self/fd").unwrap();
    let paths = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(place)).count()
}

#[test]
fn descriptors_are_those_that_are_counted() {
    const HANDLES: usize = 40;
    const HELD: usize = 60;
    let few = |config: &mut Config| {
        config.limits.max_handles = HANDLES;
        config.limits.max_held = HELD;
    };
    // A directory that is in both trees takes two.
    for (share, of_one) in [(Share::with(few), 1), (Share::overlay(few), 2)] {
        for number in 0..200 {
            fs::create_dir(share.root.join(format!("host{number}"))).unwrap();
        }
        let before = descriptors(&share);
        let mut handles = 0;
        for number in 0..200 {
            let found = share.lookup(ROOT_ID, &format!("host{number}")).unwrap();
            share.mkdir(found.nodeid, "new").unwrap();
            if share.opendir(found.nodeid).is_ok() {
                handles += 1;
                // What is open stays open.
                share.forget(found.nodeid, 1);
            }
        }
        let taken = descriptors(&share) - before;
        assert_eq!(handles, HANDLES);
        assert!(taken > (HANDLES + HELD) * of_one, "one each would not do");
        assert!(taken <= (2 * HANDLES + HELD) * of_one, "{taken}");
    }
}
