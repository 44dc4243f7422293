//! Every operation's good path, driven through raw requests.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use fsshare::abi::{InitFlags, Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{LockPolicy, Owner};
use libc::{O_APPEND, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use zerocopy::FromBytes;

use super::client::{Reply, Share, parse, text};

#[test]
fn init_agrees_on_what_both_can_do() {
    let share = Share::unopened(|_| ());
    let agreed = share.init();
    let flags = InitFlags::from_halves(agreed.flags, agreed.flags2);
    assert_eq!(
        (
            agreed.major,
            agreed.minor,
            agreed.max_write,
            agreed.max_pages
        ),
        (7, 41, 1 << 20, 256)
    );
    for flag in [
        InitFlags::PARALLEL_DIROPS,
        InitFlags::DO_READDIRPLUS,
        InitFlags::ATOMIC_O_TRUNC,
    ] {
        assert!(flags.contains(flag), "{flag:?}");
    }
    let unwanted = InitFlags::WRITEBACK_CACHE | InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    assert!(!flags.intersects(unwanted), "{flags:?}");
}

#[test]
fn init_offers_locks_and_write_back_only_by_policy() {
    for (read_only, expected) in [(false, true), (true, false)] {
        let share = Share::unopened(|config| {
            config.locks = LockPolicy::Host;
            config.cache.writeback = true;
            config.read_only = read_only;
        });
        let flags = InitFlags::from_halves(share.init().flags, 0);
        assert!(flags.contains(InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS));
        assert_eq!(flags.contains(InitFlags::WRITEBACK_CACHE), expected);
    }
}

#[test]
fn init_of_other_versions() {
    let share = Share::unopened(|_| ());
    let ask = |major, minor| -> Reply<wire::InitOut> {
        parse(share.ask(
            Opcode::Init,
            0,
            &wire::InitIn {
                major,
                minor,
                ..Default::default()
            },
            &[],
        ))
    };
    assert_eq!(ask(6, 99), Err(libc::EPROTO));
    assert_eq!(ask(7, 30), Err(libc::EPROTO));
    assert_eq!(ask(8, 0).map(|out| (out.major, out.max_write)), Ok((7, 0)));
    assert_eq!(share.getattr(ROOT_ID), Err(libc::EIO), "no session yet");
    assert_eq!(
        ask(7, 31).map(|out| (out.minor, out.flags)),
        Ok((31, 0)),
        "nothing was asked for"
    );
    assert_eq!(ask(7, 99).map(|out| out.minor), Ok(41));
    assert!(share.getattr(ROOT_ID).is_ok());
}

#[test]
fn destroy_and_reset_end_the_session_and_forget_all() {
    let ways: [fn(&Share); 2] = [
        |share| assert_eq!(share.call(Opcode::Destroy, 0, &[]), Ok(vec![])),
        |share| share.server.reset(),
    ];
    for end in ways {
        let share = Share::new();
        let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
        end(&share);
        assert_eq!(share.read(entry.nodeid, fh, 0, 1), Err(libc::EIO));
        share.init();
        assert_eq!(share.read(entry.nodeid, fh, 0, 1), Err(libc::EBADF));
        assert_eq!(share.getattr(entry.nodeid), Err(libc::ESTALE));
        assert!(share.lookup(ROOT_ID, "f").is_ok());
    }
}

#[test]
fn lookup_and_getattr_tell_what_the_host_has() {
    let share = Share::with(|config| {
        config.owner = Owner {
            uid: 1000,
            gid: 100,
        }
    });
    fs::create_dir(share.root.join("d")).unwrap();
    fs::write(share.root.join("d/f"), "12345").unwrap();
    let host = fs::metadata(share.root.join("d/f")).unwrap();
    let attr = share.getattr(share.walk("d/f")).unwrap();
    assert_eq!(
        (attr.size, attr.ino, attr.mode, attr.nlink),
        (5, host.ino(), host.mode(), 1)
    );
    assert_eq!(
        (attr.mtime as i64, i64::from(attr.mtimensec)),
        (host.mtime(), host.mtime_nsec())
    );
    assert_eq!((attr.uid, attr.gid), (1000, 100));
    assert_eq!(share.lookup(ROOT_ID, "absent"), Err(libc::ENOENT));
    assert_eq!(share.lookup(share.walk("d/f"), "x"), Err(libc::ENOTDIR));
    assert_eq!(share.walk("d/f"), share.walk("d/f"), "one object, one node");
}

#[test]
fn statx_adds_the_time_of_creation() {
    let share = Share::new();
    fs::write(share.root.join("f"), "123").unwrap();
    let ask = share.ask(
        Opcode::Statx,
        share.walk("f"),
        &wire::StatxIn::default(),
        &[],
    );
    let stat = parse::<wire::StatxOut>(ask).unwrap().stat;
    assert_eq!(
        (
            stat.size,
            u32::from(stat.mode) & 0o170_000,
            stat.mask & 0x7ff
        ),
        (3, 0o100_000, 0x7ff)
    );
    let born = fs::metadata(share.root.join("f")).unwrap().created();
    assert_eq!(stat.mask & 0x800 != 0, born.is_ok());
}

#[test]
fn create_write_read_release() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o640).unwrap();
    assert_eq!(share.write(entry.nodeid, fh, 0, b"hello world"), Ok(11));
    assert_eq!(share.read(entry.nodeid, fh, 6, 100), Ok(b"world".to_vec()));
    assert_eq!(share.read(entry.nodeid, fh, 11, 100), Ok(Vec::new()));
    let flush = wire::FlushIn {
        fh,
        ..Default::default()
    };
    assert_eq!(
        share.ask(Opcode::Flush, entry.nodeid, &flush, &[]),
        Err(libc::ENOSYS),
        "with locks in the guest there is nothing to do at a close"
    );
    for fsync_flags in [0, 1] {
        let sync = wire::FsyncIn {
            fh,
            fsync_flags,
            padding: 0,
        };
        share.ask(Opcode::Fsync, entry.nodeid, &sync, &[]).unwrap();
    }
    share.release(entry.nodeid, fh).unwrap();
    assert_eq!(share.release(entry.nodeid, fh), Err(libc::EBADF));
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"hello world");
    assert_eq!(
        entry.attr.mode, 0o100_640,
        "the mode does not depend on the server's umask"
    );
}

#[test]
fn create_opens_what_is_there_unless_told_otherwise() {
    let share = Share::new();
    fs::write(share.root.join("f"), "old").unwrap();
    assert_eq!(
        share.create(ROOT_ID, "f", O_RDWR | O_EXCL, 0o644),
        Err(libc::EEXIST)
    );
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o600).unwrap();
    assert_eq!(share.read(entry.nodeid, fh, 0, 9), Ok(b"old".to_vec()));
    share.create(ROOT_ID, "f", O_RDWR | O_TRUNC, 0o600).unwrap();
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"");
}

#[test]
fn open_flags_are_honoured() {
    let share = Share::new();
    fs::write(share.root.join("f"), "abc").unwrap();
    let node = share.walk("f");
    let reader = share.open(node, O_RDONLY).unwrap();
    assert_eq!(share.write(node, reader, 0, b"x"), Err(libc::EBADF));
    let writer = share.open(node, O_WRONLY).unwrap();
    assert_eq!(share.read(node, writer, 0, 1), Err(libc::EBADF));
    let appender = share.open(node, O_WRONLY | O_APPEND).unwrap();
    assert_eq!(share.write(node, appender, 0, b"def"), Ok(3));
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"abcdef");
    share.open(node, O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"");
    assert_eq!(share.open(ROOT_ID, O_RDONLY), Err(libc::EISDIR));
}

#[test]
fn a_client_that_caches_writes_may_read_through_a_handle_for_writing() {
    let share = Share::with(|config| config.cache.writeback = true);
    fs::write(share.root.join("f"), "abc").unwrap();
    let node = share.walk("f");
    let fh = share.open(node, O_WRONLY | O_APPEND).unwrap();
    assert_eq!(share.read(node, fh, 0, 9), Ok(b"abc".to_vec()));
    assert_eq!(
        share.write(node, fh, 1, b"X"),
        Ok(1),
        "the position is the client's business"
    );
    assert_eq!(fs::read(share.root.join("f")).unwrap(), b"aXc");
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let share = Share::new();
    let body = wire::CreateIn {
        flags: O_RDWR as u32,
        mode: 0o100_600,
        umask: 0,
        open_flags: 0,
    };
    let reply = share
        .ask(Opcode::TmpFile, ROOT_ID, &body, &text("/"))
        .unwrap();
    let (entry, rest) = wire::EntryOut::read_from_prefix(&reply).unwrap();
    let fh = wire::OpenOut::read_from_bytes(rest).unwrap().fh;
    assert_eq!(
        (entry.attr.nlink, share.write(entry.nodeid, fh, 0, b"tmp")),
        (0, Ok(3))
    );
    assert_eq!(
        share.link(entry.nodeid, ROOT_ID, "named").unwrap().nodeid,
        entry.nodeid
    );
    assert_eq!(fs::read(share.root.join("named")).unwrap(), b"tmp");
}

#[test]
fn names_are_made_moved_and_removed() {
    let share = Share::new();
    let d = share.mkdir(ROOT_ID, "d").unwrap();
    assert_eq!(d.attr.mode, 0o040_755);
    let mknod = wire::MkNodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    let f: wire::EntryOut = parse(share.ask(Opcode::MkNod, d.nodeid, &mknod, &text("f"))).unwrap();
    assert_eq!(share.link(f.nodeid, ROOT_ID, "g").unwrap().attr.nlink, 2);
    let moved = [text("g"), text("h")].concat();
    share
        .ask(
            Opcode::Rename,
            ROOT_ID,
            &wire::RenameIn { newdir: d.nodeid },
            &moved,
        )
        .unwrap();
    share.call(Opcode::Unlink, d.nodeid, &text("f")).unwrap();
    assert_eq!(
        share.call(Opcode::RmDir, ROOT_ID, &text("d")),
        Err(libc::ENOTEMPTY)
    );
    assert_eq!(
        share.call(Opcode::RmDir, d.nodeid, &text("h")),
        Err(libc::ENOTDIR)
    );
    assert_eq!(
        share.call(Opcode::Unlink, ROOT_ID, &text("d")),
        Err(libc::EISDIR)
    );
    share.call(Opcode::Unlink, d.nodeid, &text("h")).unwrap();
    share.call(Opcode::RmDir, ROOT_ID, &text("d")).unwrap();
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 0);
}

#[test]
fn rename_with_conditions() {
    let share = Share::new();
    fs::write(share.root.join("a"), "a").unwrap();
    fs::write(share.root.join("b"), "b").unwrap();
    let rename = |flags| share.rename((ROOT_ID, "a"), (ROOT_ID, "b"), flags);
    assert_eq!(rename(libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    assert_eq!(rename(libc::RENAME_EXCHANGE), Ok(Vec::new()));
    assert_eq!(fs::read(share.root.join("a")).unwrap(), b"b");
    for refused in [
        libc::RENAME_WHITEOUT,
        libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE,
        8,
        1 << 31,
    ] {
        assert_eq!(rename(refused), Err(libc::EINVAL), "{refused}");
    }
    assert_eq!(rename(0), Ok(Vec::new()));
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 1);
}

#[test]
fn symbolic_links_are_made_read_and_linked() {
    let share = Share::new();
    let made = share.symlink(ROOT_ID, "l", "/no/where").unwrap();
    assert_eq!(made.attr.mode & 0o170_000, 0o120_000);
    assert_eq!(
        share.call(Opcode::ReadLink, made.nodeid, &[]),
        Ok(b"/no/where".to_vec())
    );
    assert_eq!(
        share.call(Opcode::ReadLink, ROOT_ID, &[]),
        Err(libc::EINVAL)
    );
    assert_eq!(
        share.link(made.nodeid, ROOT_ID, "m").unwrap().nodeid,
        made.nodeid
    );
    assert_eq!(
        fs::read_link(share.root.join("m")).unwrap().to_str(),
        Some("/no/where")
    );
}

#[test]
fn listings_are_complete_whatever_the_size_of_the_reply() {
    let share = Share::new();
    let mut expected: Vec<_> = (0..300)
        .map(|n| format!("{n}-{}", "x".repeat(n % 250)))
        .collect();
    expected
        .iter()
        .for_each(|name| fs::write(share.root.join(name), "").unwrap());
    expected.extend([".".into(), "..".into()]);
    expected.sort();
    for (size, plus) in [
        (280, false),
        (4096, false),
        (1 << 20, false),
        (408, true),
        (4096, true),
        (1 << 20, true),
    ] {
        let mut names: Vec<_> = share
            .list(ROOT_ID, size, plus)
            .into_iter()
            .map(|entry| entry.0)
            .collect();
        names.sort();
        assert_eq!(names, expected, "{size} {plus}");
    }
}

#[test]
fn readdirplus_looks_entries_up() {
    let share = Share::new();
    fs::write(share.root.join("f"), "").unwrap();
    symlink("/etc/passwd", share.root.join("l")).unwrap();
    for (name, node) in share.list(ROOT_ID, 4096, true) {
        match name.as_str() {
            "." | ".." => assert_eq!(node, 0, "{name}"),
            _ => assert_eq!(share.lookup(ROOT_ID, &name).unwrap().nodeid, node, "{name}"),
        }
    }
}

#[test]
fn a_listing_starts_where_its_cookie_says() {
    let share = Share::new();
    for name in ["a", "b", "c"] {
        fs::write(share.root.join(name), "").unwrap();
    }
    let fh = share.opendir(ROOT_ID).unwrap();
    let read = |offset| {
        share.ask(
            Opcode::ReadDir,
            ROOT_ID,
            &wire::ReadIn {
                fh,
                offset,
                size: 4096,
                ..Default::default()
            },
            &[],
        )
    };
    let whole = read(0).unwrap();
    let (first, _) = wire::Dirent::read_from_prefix(&whole).unwrap();
    assert_eq!(
        read(first.off).unwrap(),
        whole[32..],
        "the rest behind the first entry"
    );
    assert_eq!(read(0).unwrap(), whole, "and again from the beginning");
    for fsync_flags in [0, 1] {
        share
            .ask(
                Opcode::FsyncDir,
                ROOT_ID,
                &wire::FsyncIn {
                    fh,
                    fsync_flags,
                    padding: 0,
                },
                &[],
            )
            .unwrap();
    }
}

#[test]
fn setattr_sets_what_is_asked_and_nothing_else() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    share.write(entry.nodeid, fh, 0, b"0123456789").unwrap();
    let set = |valid: SetAttrFlags, changes: wire::SetAttrIn| {
        share.setattr(
            entry.nodeid,
            wire::SetAttrIn {
                valid: valid.bits(),
                ..changes
            },
        )
    };
    let attr = set(
        SetAttrFlags::MODE,
        wire::SetAttrIn {
            mode: 0o600,
            size: 3,
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!((attr.mode, attr.size), (0o100_600, 10));
    let attr = set(
        SetAttrFlags::SIZE,
        wire::SetAttrIn {
            size: 4,
            ..Default::default()
        },
    )
    .unwrap();
    assert_eq!((attr.mode, attr.size), (0o100_600, 4));
    let by_handle = SetAttrFlags::SIZE | SetAttrFlags::FH;
    assert_eq!(
        set(
            by_handle,
            wire::SetAttrIn {
                size: 6,
                fh,
                ..Default::default()
            }
        )
        .unwrap()
        .size,
        6
    );
    assert_eq!(
        set(
            by_handle,
            wire::SetAttrIn {
                size: 7,
                fh: fh + 1,
                ..Default::default()
            }
        ),
        Err(libc::EBADF)
    );
    let times = wire::SetAttrIn {
        atime: 11,
        atimensec: 12,
        mtime: 13,
        mtimensec: 14,
        ..Default::default()
    };
    let attr = set(SetAttrFlags::ATIME | SetAttrFlags::MTIME, times).unwrap();
    assert_eq!(
        (attr.atime, attr.atimensec, attr.mtime, attr.mtimensec),
        (11, 12, 13, 14)
    );
    let attr = set(SetAttrFlags::MTIME_NOW, times).unwrap();
    assert!(attr.atime == 11 && attr.mtime > 1_600_000_000, "{attr:?}");
    let bad = wire::SetAttrIn {
        mtimensec: 1_000_000_000,
        ..Default::default()
    };
    assert_eq!(set(SetAttrFlags::MTIME, bad), Err(libc::EINVAL));
}

#[test]
fn times_of_a_link_are_its_own() {
    let share = Share::new();
    symlink("../outside/secret", share.root.join("l")).unwrap();
    let valid = (SetAttrFlags::ATIME | SetAttrFlags::MTIME).bits();
    let attr = share.setattr(
        share.walk("l"),
        wire::SetAttrIn {
            valid,
            atime: 5,
            mtime: 6,
            ..Default::default()
        },
    );
    assert_eq!(attr.map(|attr| attr.mtime), Ok(6));
    share.assert_outside_untouched();
}

#[test]
fn owners_cannot_be_changed_but_may_be_confirmed() {
    let share = Share::with(|config| config.owner = Owner { uid: 7, gid: 8 });
    fs::write(share.root.join("f"), "").unwrap();
    let node = share.walk("f");
    let chown = |uid, gid| {
        let valid = (SetAttrFlags::UID | SetAttrFlags::GID).bits();
        share
            .setattr(
                node,
                wire::SetAttrIn {
                    valid,
                    uid,
                    gid,
                    ..Default::default()
                },
            )
            .map(|attr| (attr.uid, attr.gid))
    };
    assert_eq!(chown(7, 8), Ok((7, 8)));
    for (uid, gid) in [(0, 8), (7, 0), (1, 1), (65534, 65534)] {
        assert_eq!(chown(uid, gid), Err(libc::EPERM), "{uid}:{gid}");
    }
}

#[test]
fn statfs_access_syncfs_and_what_does_not_exist() {
    let share = Share::new();
    let stat: wire::StatFsOut = parse(share.call(Opcode::StatFs, ROOT_ID, &[])).unwrap();
    assert!(
        stat.blocks > 0 && stat.namelen >= 255 && stat.frsize > 0,
        "{stat:?}"
    );
    fs::write(share.root.join("f"), "").unwrap();
    fs::set_permissions(share.root.join("f"), fs::Permissions::from_mode(0o644)).unwrap();
    let access = |mask| {
        share.ask(
            Opcode::Access,
            share.walk("f"),
            &wire::AccessIn { mask, padding: 0 },
            &[],
        )
    };
    assert_eq!((access(0), access(6)), (Ok(vec![]), Ok(vec![])));
    assert_eq!(
        (access(1), access(8)),
        (Err(libc::EACCES), Err(libc::EINVAL))
    );
    share
        .ask(Opcode::SyncFs, ROOT_ID, &wire::SyncFsIn::default(), &[])
        .unwrap();
    for opcode in [
        Opcode::Bmap,
        Opcode::Poll,
        Opcode::SetupMapping,
        Opcode::RemoveMapping,
    ] {
        assert_eq!(
            share.call(opcode, ROOT_ID, &[]),
            Err(libc::ENOSYS),
            "{opcode:?}"
        );
    }
    assert_eq!(share.call(Opcode::Ioctl, ROOT_ID, &[]), Err(libc::ENOTTY));
    for unknown in [0, 7, 19, 53, 4096, u32::MAX] {
        assert_eq!(
            share.raw(unknown, ROOT_ID, &[], 4096),
            Err(libc::ENOSYS),
            "{unknown}"
        );
    }
}

#[test]
fn space_is_reserved_and_freed() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    let allocate = |mode, offset, length| {
        share.ask(
            Opcode::Fallocate,
            node,
            &wire::FallocateIn {
                fh,
                offset,
                length,
                mode,
                padding: 0,
            },
            &[],
        )
    };
    share.write(node, fh, 0, &[7; 3 * 65536]).unwrap();
    allocate(0, 0, 4 * 65536).unwrap();
    assert_eq!(share.getattr(node).unwrap().size, 4 * 65536);
    allocate(1, 0, 8 * 65536).unwrap();
    assert_eq!(
        share.getattr(node).unwrap().size,
        4 * 65536,
        "the size is kept"
    );
    allocate(3, 65536, 65536).unwrap();
    assert_eq!(share.read(node, fh, 65535, 2), Ok(vec![7, 0]));
    for refused in [8, 0x20, 0x40, 1 << 31] {
        assert_eq!(
            allocate(refused, 0, 65536),
            Err(libc::EOPNOTSUPP),
            "{refused}"
        );
    }
    let seek = |offset, whence| -> Reply<u64> {
        let body = wire::LseekIn {
            fh,
            offset,
            whence,
            padding: 0,
        };
        parse(share.ask(Opcode::Lseek, node, &body, &[])).map(|out: wire::LseekOut| out.offset)
    };
    assert_eq!(
        (seek(0, 4), seek(65536, 3), seek(0, 3)),
        (Ok(65536), Ok(2 * 65536), Ok(0))
    );
    assert_eq!(seek(5 * 65536, 3), Err(libc::ENXIO));
    assert_eq!(
        (seek(0, 0), seek(0, 99)),
        (Err(libc::EINVAL), Err(libc::EINVAL))
    );
}

#[test]
fn ranges_are_copied_between_files() {
    let share = Share::new();
    fs::write(share.root.join("a"), "0123456789").unwrap();
    let a = share.walk("a");
    let fh_in = share.open(a, O_RDONLY).unwrap();
    let (b, fh_out) = share.create(ROOT_ID, "b", O_RDWR, 0o644).unwrap();
    let copy = |off_in, len, flags| -> Reply<u32> {
        let body = wire::CopyFileRangeIn {
            fh_in,
            off_in,
            nodeid_out: b.nodeid,
            fh_out,
            off_out: 2,
            len,
            flags,
        };
        parse(share.ask(Opcode::CopyFileRange, a, &body, &[])).map(|out: wire::WriteOut| out.size)
    };
    assert_eq!(copy(3, 4, 0), Ok(4));
    assert_eq!(fs::read(share.root.join("b")).unwrap(), b"\0\x003456");
    assert_eq!(copy(10, 4, 0), Ok(0));
    assert_eq!(copy(0, 4, 1), Err(libc::EINVAL));
    assert_eq!(copy(u64::MAX, 4, 0), Err(libc::EINVAL));
}

#[test]
fn attributes_of_users_are_kept_and_no_others() {
    let share = Share::new();
    fs::write(share.root.join("f"), "").unwrap();
    for node in [share.walk("f"), ROOT_ID] {
        let set = |name, value: &[u8], flags| {
            let size = value.len().try_into().unwrap();
            share.ask(
                Opcode::SetXattr,
                node,
                &wire::SetXattrIn { size, flags },
                &[&text(name), value].concat(),
            )
        };
        let get = |name, size| {
            share.ask(
                Opcode::GetXattr,
                node,
                &wire::GetXattrIn { size, padding: 0 },
                &text(name),
            )
        };
        let list = |size| {
            share.ask(
                Opcode::ListXattr,
                node,
                &wire::GetXattrIn { size, padding: 0 },
                &[],
            )
        };
        assert_eq!(get("user.a", 100), Err(libc::ENODATA));
        assert_eq!(set("user.a", b"value", 0), Ok(vec![]));
        assert_eq!(
            (set("user.a", b"v", 1), set("user.b", b"v", 2)),
            (Err(libc::EEXIST), Err(libc::ENODATA))
        );
        assert_eq!(get("user.a", 100), Ok(b"value".to_vec()));
        assert_eq!(get("user.a", 4), Err(libc::ERANGE));
        assert_eq!(
            parse::<wire::GetXattrOut>(get("user.a", 0)).unwrap().size,
            5
        );
        assert_eq!(list(100), Ok(b"user.a\0".to_vec()));
        assert_eq!(
            (list(3), parse::<wire::GetXattrOut>(list(0)).unwrap().size),
            (Err(libc::ERANGE), 7)
        );
        for name in ["security.capability", "trusted.a", "security.selinux", "a"] {
            assert_eq!(
                (get(name, 100), set(name, b"v", 0)),
                (Err(libc::EOPNOTSUPP), Err(libc::EPERM)),
                "{name}"
            );
            assert_eq!(
                share.call(Opcode::RemoveXattr, node, &text(name)),
                Err(libc::EPERM),
                "{name}"
            );
        }
        assert_eq!(
            set("system.posix_acl_access", b"v", 0),
            Err(libc::EOPNOTSUPP)
        );
        assert_eq!(set("user.a", b"v", 4), Err(libc::EINVAL));
        assert_eq!(
            share.call(Opcode::RemoveXattr, node, &text("user.a")),
            Ok(vec![])
        );
        assert_eq!(list(100), Ok(vec![]));
    }
}

#[test]
fn links_carry_no_attributes_and_do_not_lead_to_others() {
    let share = Share::new();
    symlink("../outside/secret", share.root.join("l")).unwrap();
    let node = share.walk("l");
    let set = share.ask(
        Opcode::SetXattr,
        node,
        &wire::SetXattrIn { size: 1, flags: 0 },
        b"user.a\0v",
    );
    assert_eq!(set, Err(libc::EPERM));
    assert_eq!(
        share.ask(
            Opcode::ListXattr,
            node,
            &wire::GetXattrIn {
                size: 10,
                padding: 0
            },
            &[]
        ),
        Ok(vec![])
    );
    share.assert_outside_untouched();
}

#[test]
fn interrupts_and_forgets_are_not_answered() {
    let share = Share::new();
    let silent = |opcode, body: &[u8]| share.raw(opcode as u32, ROOT_ID, body, 0);
    assert_eq!(silent(Opcode::Interrupt, &5_u64.to_ne_bytes()), Ok(vec![]));
    assert_eq!(silent(Opcode::Forget, &1_u64.to_ne_bytes()), Ok(vec![]));
    assert_eq!(silent(Opcode::BatchForget, &[0; 8]), Ok(vec![]));
}
