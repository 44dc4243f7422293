//! A read-only share refuses every change in the server (attack F04).

use std::fs;

use fsshare::LockPolicy;
use fsshare::abi::{Opcode, ROOT_ID, wire};
use libc::{O_APPEND, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use zerocopy::IntoBytes;

use super::client::{Reply, Share, text};

type Request = (Opcode, u64, Vec<u8>);

/// One valid request for each changing operation; `fh` is a handle on `file`.
fn changing_requests(file: u64, fh: u64) -> Vec<Request> {
    let mut requests = changes_of_names(file);
    requests.extend(changes_of_files(file, fh));
    for flags in [
        O_WRONLY,
        O_RDWR,
        O_RDONLY | O_TRUNC,
        O_WRONLY | O_APPEND,
        O_RDWR | O_TRUNC,
        3,
    ] {
        let open = wire::OpenIn {
            flags: flags as u32,
            open_flags: 0,
        };
        requests.push((Opcode::Open, file, open.as_bytes().to_vec()));
    }
    requests
}

fn changes_of_names(file: u64) -> Vec<Request> {
    let with = |head: &[u8], tail: &[u8]| [head, tail].concat();
    let two = [text("f"), text("g")].concat();
    let mknod = wire::MkNodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    let rename = wire::RenameIn { newdir: ROOT_ID };
    let rename2 = wire::Rename2In {
        newdir: ROOT_ID,
        ..Default::default()
    };
    let create = wire::CreateIn {
        flags: O_RDONLY as u32,
        mode: 0o644,
        ..Default::default()
    };
    [
        (Opcode::Symlink, two.clone()),
        (Opcode::MkNod, with(mknod.as_bytes(), &text("g"))),
        (
            Opcode::MkDir,
            with(wire::MkDirIn::default().as_bytes(), &text("g")),
        ),
        (Opcode::Unlink, text("f")),
        (Opcode::RmDir, text("d")),
        (Opcode::Rename, with(rename.as_bytes(), &two)),
        (Opcode::Rename2, with(rename2.as_bytes(), &two)),
        (
            Opcode::Link,
            with(wire::LinkIn { oldnodeid: file }.as_bytes(), &text("g")),
        ),
        (Opcode::Create, with(create.as_bytes(), &text("f"))),
        (Opcode::TmpFile, with(create.as_bytes(), &text("/"))),
    ]
    .map(|(opcode, body)| (opcode, ROOT_ID, body))
    .to_vec()
}

fn changes_of_files(file: u64, fh: u64) -> Vec<Request> {
    let with = |head: &[u8], tail: &[u8]| [head, tail].concat();
    let write = wire::WriteIn {
        fh,
        size: 1,
        ..Default::default()
    };
    let allocate = wire::FallocateIn {
        fh,
        length: 1,
        ..Default::default()
    };
    let copy = wire::CopyFileRangeIn {
        fh_in: fh,
        nodeid_out: file,
        fh_out: fh,
        len: 1,
        ..Default::default()
    };
    [
        (
            Opcode::SetAttr,
            wire::SetAttrIn::default().as_bytes().to_vec(),
        ),
        (Opcode::Write, with(write.as_bytes(), b"x")),
        (Opcode::Fallocate, allocate.as_bytes().to_vec()),
        (Opcode::CopyFileRange, copy.as_bytes().to_vec()),
        (
            Opcode::SetXattr,
            with(
                wire::SetXattrIn { size: 1, flags: 0 }.as_bytes(),
                b"user.a\0v",
            ),
        ),
        (Opcode::RemoveXattr, text("user.a")),
        (
            Opcode::Access,
            wire::AccessIn {
                mask: 2,
                padding: 0,
            }
            .as_bytes()
            .to_vec(),
        ),
    ]
    .map(|(opcode, body)| (opcode, file, body))
    .to_vec()
}

/// Operations that a read-only share performs. Together with the changing ones, and those that need no share, these are all.
const HARMLESS: [Opcode; 25] = [
    Opcode::Lookup,
    Opcode::Forget,
    Opcode::GetAttr,
    Opcode::ReadLink,
    Opcode::Read,
    Opcode::StatFs,
    Opcode::Release,
    Opcode::Fsync,
    Opcode::GetXattr,
    Opcode::ListXattr,
    Opcode::Flush,
    Opcode::Init,
    Opcode::OpenDir,
    Opcode::ReadDir,
    Opcode::ReleaseDir,
    Opcode::FsyncDir,
    Opcode::GetLk,
    Opcode::SetLk,
    Opcode::SetLkW,
    Opcode::Interrupt,
    Opcode::Destroy,
    Opcode::BatchForget,
    Opcode::ReadDirPlus,
    Opcode::Lseek,
    Opcode::SyncFs,
];

fn planted(share: &Share) -> (u64, u64) {
    fs::create_dir(share.root.join("d")).unwrap();
    fs::write(share.root.join("f"), "content").unwrap();
    let file = share.walk("f");
    (file, share.open(file, O_RDONLY).unwrap())
}

#[test]
fn every_changing_operation_fails_with_erofs() {
    let share = Share::read_only();
    let (file, fh) = planted(&share);
    let before = fs::metadata(share.root.join("f")).unwrap();
    let requests = changing_requests(file, fh);
    for (opcode, node, body) in &requests {
        assert_eq!(
            share.call(*opcode, *node, body),
            Err(libc::EROFS),
            "{opcode:?}"
        );
    }
    let after = fs::metadata(share.root.join("f")).unwrap();
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"content");
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 2);
    share.assert_outside_untouched();
}

#[test]
fn the_same_requests_are_not_refused_so_where_changes_are_allowed() {
    let share = Share::new();
    let (file, fh) = planted(&share);
    for (opcode, node, body) in changing_requests(file, fh) {
        assert_ne!(
            share.call(opcode, node, &body),
            Err(libc::EROFS),
            "{opcode:?}"
        );
    }
}

#[test]
fn no_operation_is_left_out() {
    let changing = changing_requests(0, 0);
    let never_offered = [
        Opcode::Bmap,
        Opcode::Ioctl,
        Opcode::Poll,
        Opcode::NotifyReply,
        Opcode::SetupMapping,
        Opcode::RemoveMapping,
        Opcode::Statx,
    ];
    for opcode in Opcode::ALL {
        let lists = usize::from(changing.iter().any(|request| request.0 == *opcode))
            + usize::from(HARMLESS.contains(opcode))
            + usize::from(never_offered.contains(opcode));
        assert_eq!(lists, 1, "{opcode:?} must be in exactly one list");
    }
}

#[test]
fn reading_works() {
    let share = Share::read_only();
    let (file, fh) = planted(&share);
    assert_eq!(share.read(file, fh, 0, 99), Ok(b"content".to_vec()));
    assert_eq!(share.list(ROOT_ID, 4096, true).len(), 4);
    let ask = |mask| -> Reply {
        share.ask(
            Opcode::Access,
            file,
            &wire::AccessIn { mask, padding: 0 },
            &[],
        )
    };
    assert_eq!(ask(4), Ok(vec![]));
    share
        .ask(
            Opcode::Fsync,
            file,
            &wire::FsyncIn {
                fh,
                ..Default::default()
            },
            &[],
        )
        .unwrap();
    share
        .ask(Opcode::SyncFs, ROOT_ID, &wire::SyncFsIn::default(), &[])
        .unwrap();
}

/// Whether reading a file and a directory through `share` leaves a time of access on the host.
fn leaves_traces(share: &Share) -> [bool; 2] {
    let (file, fh) = planted(share);
    let paths = ["f", "d"].map(|name| share.root.join(name));
    // As old as this, even a mount with `relatime` records the next access.
    let long_ago = fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    for path in &paths {
        let object = fs::File::open(path).unwrap();
        object.set_times(long_ago).unwrap();
    }
    share.read(file, fh, 0, 99).unwrap();
    let directory = share.walk("d");
    share.list(directory, 4096, true);
    paths.map(|path| fs::metadata(path).unwrap().accessed().unwrap() != std::time::UNIX_EPOCH)
}

#[test]
fn reading_leaves_no_time_of_access() {
    if leaves_traces(&Share::new()) != [true; 2] {
        // Past the harness's capture.
        let skip = b"SKIP reading_leaves_no_time_of_access: temporary files record no access\n";
        std::io::Write::write_all(&mut std::io::stderr(), skip).unwrap();
        return;
    }
    assert_eq!(leaves_traces(&Share::read_only()), [false; 2]);
}

#[test]
fn shared_locks_work_without_a_handle_for_writing() {
    let share = Share::with(|config| {
        config.read_only = true;
        config.locks = LockPolicy::Host;
    });
    let (file, fh) = planted(&share);
    let lock = |kind| {
        let lock = wire::FileLock {
            start: 0,
            end: 9,
            kind,
            pid: 0,
        };
        share.ask(
            Opcode::SetLk,
            file,
            &wire::LockIn {
                fh,
                owner: 1,
                lock,
                ..Default::default()
            },
            &[],
        )
    };
    assert_eq!(
        (lock(0), lock(1), lock(2)),
        (Ok(vec![]), Err(libc::EBADF), Ok(vec![]))
    );
}
