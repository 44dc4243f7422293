//! The guest stays inside the tree, whatever it names and whatever lies there.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use libc::{O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};
use zerocopy::IntoBytes;

use super::client::{Reply, Share, count_attempts, parse, text};

/// Names that no request may carry (attack F01). What follows a NUL inside is a second text and so trailing bytes.
fn bad_names() -> Vec<(Vec<u8>, i32)> {
    let mut names: Vec<_> = [
        "",
        ".",
        "..",
        "/",
        "//",
        "/etc/passwd",
        "../outside/secret",
        "..//outside",
        "./x",
        "d/x",
        "x/",
        "d/../x",
        "/..",
        "x/..",
        "../",
        "./",
        "d/./x",
        "...//",
        "\n/",
        "a/b/c/d/e/f",
        "/proc/self/root",
    ]
    .into_iter()
    .map(|name| (text(name), libc::EINVAL))
    .collect();
    names.push((b"x\0/etc\0".to_vec(), libc::EINVAL));
    names.push((b"no end".to_vec(), libc::EINVAL));
    names.push((text(&"x".repeat(256)), libc::ENAMETOOLONG));
    names.push((text(&"x".repeat(4096)), libc::ENAMETOOLONG));
    names
}

/// Every operation that carries a name, with `name` in each place that it has for one.
fn requests_with(name: &[u8], dir: u64) -> Vec<(Opcode, Vec<u8>)> {
    let good = text("good");
    let with = |opcode, head: &[u8], names: &[&[u8]]| (opcode, [head, &names.concat()].concat());
    let (mknod, mkdir) = (
        wire::MkNodIn {
            mode: 0o100_644,
            ..Default::default()
        },
        wire::MkDirIn {
            mode: 0o755,
            umask: 0,
        },
    );
    let (rename, rename2) = (
        wire::RenameIn { newdir: dir },
        wire::Rename2In {
            newdir: dir,
            ..Default::default()
        },
    );
    let (link, create) = (
        wire::LinkIn { oldnodeid: dir },
        wire::CreateIn {
            flags: 2,
            mode: 0o644,
            ..Default::default()
        },
    );
    vec![
        with(Opcode::Lookup, &[], &[name]),
        with(Opcode::Unlink, &[], &[name]),
        with(Opcode::RmDir, &[], &[name]),
        with(Opcode::Symlink, &[], &[name, &good]),
        with(Opcode::MkNod, mknod.as_bytes(), &[name]),
        with(Opcode::MkDir, mkdir.as_bytes(), &[name]),
        with(Opcode::Rename, rename.as_bytes(), &[name, &good]),
        with(Opcode::Rename, rename.as_bytes(), &[&good, name]),
        with(Opcode::Rename2, rename2.as_bytes(), &[name, &good]),
        with(Opcode::Rename2, rename2.as_bytes(), &[&good, name]),
        with(Opcode::Link, link.as_bytes(), &[name]),
        with(Opcode::Create, create.as_bytes(), &[name]),
    ]
}

#[test]
fn names_that_are_not_one_component_are_refused_by_every_operation() {
    let share = Share::new();
    let dir = share.mkdir(ROOT_ID, "d").unwrap().nodeid;
    fs::write(share.root.join("good"), "").unwrap();
    let mut attempts = 0;
    for (name, expected) in bad_names() {
        for node in [ROOT_ID, dir] {
            for (opcode, body) in requests_with(&name, dir) {
                let refused = share.call(opcode, node, &body);
                attempts += 1;
                // Two texts may still be two texts when the first is cut short; it is then the good name that is trailing.
                assert!(
                    refused == Err(expected) || refused == Err(libc::EINVAL),
                    "{opcode:?} {:?}: {refused:?}",
                    String::from_utf8_lossy(&name)
                );
            }
        }
    }
    assert_eq!(
        share.list(ROOT_ID, 4096, false).len(),
        4,
        "nothing was made"
    );
    share.assert_outside_untouched();
    count_attempts("names_that_are_not_one_component", attempts);
}

/// Symbolic links that lead out, nowhere, in circles, or through the kernel's own links (attack F02).
fn plant_links(share: &Share) -> Vec<String> {
    let outside = share.outside.display().to_string();
    let targets = [
        ("rel_file", "../outside/secret".to_owned()),
        ("rel_dir", "../outside".to_owned()),
        ("abs_file", format!("{outside}/secret")),
        ("abs_dir", outside),
        ("dangling", "../outside/new".to_owned()),
        ("loop", "loop".to_owned()),
        ("root", "/".to_owned()),
        ("up", "..".to_owned()),
        ("magic_root", "/proc/self/root".to_owned()),
        ("magic_cwd", "/proc/self/cwd".to_owned()),
        ("chain", "rel_dir".to_owned()),
    ];
    for (name, target) in &targets {
        symlink(target, share.root.join(name)).unwrap();
    }
    targets.map(|(name, _)| name.to_owned()).to_vec()
}

#[test]
fn a_link_as_the_last_name_is_never_followed() {
    let share = Share::new();
    for name in plant_links(&share) {
        let before = fs::read_link(share.root.join(&name)).unwrap();
        let found = share.lookup(ROOT_ID, &name).unwrap();
        let node = found.nodeid;
        assert_eq!(found.attr.mode & 0o170_000, 0o120_000, "{name}");
        for flags in [O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC] {
            assert_eq!(
                share.open(node, flags),
                Err(libc::ELOOP),
                "{name} {flags:o}"
            );
            assert_eq!(
                share.create(ROOT_ID, &name, flags, 0o644).err(),
                Some(libc::ELOOP),
                "{name} {flags:o}"
            );
        }
        assert_eq!(share.opendir(node), Err(libc::ENOTDIR), "{name}");
        let set = |valid: SetAttrFlags| {
            share.setattr(
                node,
                wire::SetAttrIn {
                    valid: valid.bits(),
                    mode: 0o777,
                    ..Default::default()
                },
            )
        };
        assert_eq!(set(SetAttrFlags::MODE), Err(libc::EOPNOTSUPP), "{name}");
        assert_eq!(set(SetAttrFlags::SIZE), Err(libc::ELOOP), "{name}");
        assert!(set(SetAttrFlags::MTIME).is_ok(), "{name}");
        assert_eq!(
            share.mkdir(ROOT_ID, &name).err(),
            Some(libc::EEXIST),
            "{name}"
        );
        assert_eq!(
            share.symlink(ROOT_ID, &name, "x").err(),
            Some(libc::EEXIST),
            "{name}"
        );
        share.link(node, ROOT_ID, "hard").unwrap();
        share
            .rename((ROOT_ID, "hard"), (ROOT_ID, "moved"), 0)
            .unwrap();
        assert_eq!(
            fs::read_link(share.root.join("moved")).unwrap(),
            before,
            "the link itself was linked and moved"
        );
        share.call(Opcode::Unlink, ROOT_ID, &text("moved")).unwrap();
        let access = wire::AccessIn {
            mask: 7,
            padding: 0,
        };
        share.ask(Opcode::Access, node, &access, &[]).unwrap();
        share.assert_outside_untouched();
    }
}

#[test]
fn a_link_as_a_directory_is_no_directory() {
    let share = Share::new();
    fs::write(share.root.join("good"), "").unwrap();
    let names = plant_links(&share);
    let mut attempts = 0;
    for name in names {
        let node = share.walk(&name);
        for inner in ["secret", "good", "new", "dir"] {
            for (opcode, body) in requests_with(&text(inner), ROOT_ID) {
                let refused = share.call(opcode, node, &body);
                attempts += 1;
                assert!(
                    matches!(refused, Err(libc::ENOTDIR | libc::EPERM)),
                    "{opcode:?} {name}/{inner}: {refused:?}"
                );
            }
            let into = share.rename((ROOT_ID, "good"), (node, inner), 0);
            assert_eq!(into, Err(libc::ENOTDIR), "{name}/{inner}");
        }
        share.assert_outside_untouched();
    }
    count_attempts("a_link_as_a_directory", attempts);
}

#[test]
fn a_name_that_becomes_a_link_leads_nowhere_new() {
    let share = Share::new();
    fs::create_dir(share.root.join("dir")).unwrap();
    fs::write(share.root.join("dir/secret"), "inside").unwrap();
    let (dir, file) = (share.walk("dir"), share.walk("dir/secret"));
    let fh = share.open(file, O_RDWR).unwrap();
    fs::rename(share.root.join("dir"), share.root.join("kept")).unwrap();
    symlink("../outside", share.root.join("dir")).unwrap();
    // Handles lead to what they were made for, under whatever name it is now (attack F03).
    assert_eq!(share.read(file, fh, 0, 99), Ok(b"inside".to_vec()));
    assert_eq!(share.write(file, fh, 0, b"INSIDE"), Ok(6));
    let again = share.open(file, O_RDWR).unwrap();
    assert_eq!(share.read(file, again, 0, 99), Ok(b"INSIDE".to_vec()));
    let size = wire::SetAttrIn {
        valid: SetAttrFlags::SIZE.bits(),
        size: 2,
        ..Default::default()
    };
    assert_eq!(share.setattr(file, size).unwrap().size, 2);
    assert!(share.create(dir, "made", O_RDWR, 0o644).is_ok());
    assert!(share.root.join("kept/made").exists());
    assert_eq!(fs::read(share.root.join("kept/secret")).unwrap(), b"IN");
    share.assert_outside_untouched();
}

#[test]
fn a_file_without_a_name_stays_usable_and_stays_gone() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    let node = entry.nodeid;
    share.write(node, fh, 0, b"data").unwrap();
    share.call(Opcode::Unlink, ROOT_ID, &text("f")).unwrap();
    symlink("../outside/secret", share.root.join("f")).unwrap();
    let again = share.open(node, O_RDWR | O_TRUNC).unwrap();
    assert_eq!(share.write(node, again, 0, b"new"), Ok(3));
    assert_eq!(share.getattr(node).unwrap().nlink, 0);
    assert_eq!(
        share.link(node, ROOT_ID, "again"),
        Err(libc::ENOENT),
        "the host gives no name to what is gone"
    );
    assert_ne!(share.walk("f"), node);
    share.assert_outside_untouched();
}

#[test]
fn special_nodes_are_neither_made_nor_opened() {
    let share = Share::new();
    for kind in [
        0o010_000, 0o020_000, 0o060_000, 0o140_000, 0o040_000, 0o120_000, 0o170_000, 0,
    ] {
        let body = wire::MkNodIn {
            mode: kind | 0o644,
            rdev: 0x0103,
            ..Default::default()
        };
        let refused = share.ask(Opcode::MkNod, ROOT_ID, &body, &text("node"));
        assert_eq!(refused, Err(libc::EPERM), "{kind:o}");
    }
    let fifo = std::ffi::CString::new(
        share
            .root
            .join("fifo")
            .into_os_string()
            .into_encoded_bytes(),
    )
    .unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fifo.as_c_str(),
        rustix::fs::FileType::Fifo,
        0o666.into(),
        0,
    )
    .unwrap();
    let _socket = UnixListener::bind(share.root.join("socket")).unwrap();
    for name in ["fifo", "socket"] {
        let node = share.walk(name);
        for flags in [O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC] {
            // Opening either end of a FIFO would wait for the other.
            assert_eq!(
                share.open(node, flags),
                Err(libc::EPERM),
                "{name} {flags:o}"
            );
            assert_eq!(
                share.create(ROOT_ID, name, flags, 0o644).err(),
                Some(libc::EPERM),
                "{name} {flags:o}"
            );
        }
        assert_eq!(share.opendir(node), Err(libc::ENOTDIR), "{name}");
        let size = wire::SetAttrIn {
            valid: SetAttrFlags::SIZE.bits(),
            ..Default::default()
        };
        assert_eq!(share.setattr(node, size).err(), Some(libc::EPERM), "{name}");
        share
            .rename((ROOT_ID, name), (ROOT_ID, "moved"), 0)
            .unwrap();
        share.call(Opcode::Unlink, ROOT_ID, &text("moved")).unwrap();
    }
}

#[test]
fn mount_points_are_not_crossed() {
    // The root file system has /proc mounted on it; a read-only share of it must not lead there.
    let share = Share::with(|config| {
        config.root = fs::File::open("/").unwrap().into();
        config.read_only = true;
    });
    assert!(share.getattr(ROOT_ID).is_ok());
    assert_eq!(share.lookup(ROOT_ID, "proc"), Err(libc::EXDEV));
    let listed = share.list(ROOT_ID, 1 << 16, true);
    assert!(
        listed.contains(&("proc".to_owned(), 0)),
        "it is seen and not looked up: {listed:?}"
    );
}

#[test]
fn the_kernels_own_links_lead_nowhere() {
    // These are not texts that someone follows: the kernel jumps, also past a check of the text.
    let share = Share::with(|config| {
        config.root = fs::File::open("/proc/self").unwrap().into();
        config.read_only = true;
    });
    for name in ["root", "cwd", "exe"] {
        let node = share.lookup(ROOT_ID, name).unwrap().nodeid;
        assert_eq!(share.opendir(node), Err(libc::ENOTDIR), "{name}");
        assert_eq!(share.open(node, O_RDONLY), Err(libc::ELOOP), "{name}");
        assert_eq!(share.lookup(node, "etc"), Err(libc::ENOTDIR), "{name}");
    }
    let own = share.lookup(share.walk("fd"), "0").unwrap();
    assert_eq!(share.open(own.nodeid, O_RDONLY), Err(libc::ELOOP));
}

#[test]
fn set_user_id_is_never_gained() {
    let share = Share::new();
    let mode_of = |name: &str| {
        fs::metadata(share.root.join(name))
            .unwrap()
            .permissions()
            .mode()
            & 0o7777
    };
    let (entry, _) = share.create(ROOT_ID, "created", O_RDWR, 0o6755).unwrap();
    assert_eq!(entry.attr.mode & 0o7777, 0o755);
    let mknod = wire::MkNodIn {
        mode: 0o106_755,
        ..Default::default()
    };
    share
        .ask(Opcode::MkNod, ROOT_ID, &mknod, &text("made"))
        .unwrap();
    share
        .ask(
            Opcode::MkDir,
            ROOT_ID,
            &wire::MkDirIn {
                mode: 0o7777,
                umask: 0,
            },
            &text("dir"),
        )
        .unwrap();
    let body = wire::CreateIn {
        flags: O_RDWR as u32,
        mode: 0o106_755,
        ..Default::default()
    };
    assert!(
        share
            .ask(Opcode::TmpFile, ROOT_ID, &body, &text("/"))
            .is_ok()
    );
    assert_eq!(
        (mode_of("created"), mode_of("made"), mode_of("dir")),
        (0o755, 0o755, 0o1777)
    );
    for name in ["created", "dir"] {
        let mode = wire::SetAttrIn {
            valid: SetAttrFlags::MODE.bits(),
            mode: 0o7755,
            ..Default::default()
        };
        share.setattr(share.walk(name), mode).unwrap();
        assert_eq!(mode_of(name), 0o1755, "{name}");
    }
}

/// Ways in which a guest changes what a privileged program is.
type Change = fn(&Share, u64) -> Reply;

#[test]
fn a_privileged_file_loses_its_privilege_with_its_content_or_owner() {
    const WAYS: [(&str, Change); 6] = [
        ("write", |share, node| {
            let fh = share.open(node, O_WRONLY)?;
            share.write(node, fh, 0, b"x").map(|_| vec![])
        }),
        ("truncate at open", |share, node| {
            share.open(node, O_WRONLY | O_TRUNC).map(|_| vec![])
        }),
        ("create", |share, _| {
            share
                .create(ROOT_ID, "f", O_RDWR | O_TRUNC, 0o755)
                .map(|_| vec![])
        }),
        ("truncate", |share, node| {
            let size = wire::SetAttrIn {
                valid: SetAttrFlags::SIZE.bits(),
                ..Default::default()
            };
            share.setattr(node, size).map(|_| vec![])
        }),
        ("chown", |share, node| {
            let owner = wire::SetAttrIn {
                valid: SetAttrFlags::UID.bits(),
                ..Default::default()
            };
            share.setattr(node, owner).map(|_| vec![])
        }),
        ("fallocate", |share, node| {
            let fh = share.open(node, O_WRONLY)?;
            share.ask(
                Opcode::Fallocate,
                node,
                &wire::FallocateIn {
                    fh,
                    length: 9,
                    ..Default::default()
                },
                &[],
            )
        }),
    ];
    for (way, change) in WAYS {
        let share = Share::new();
        let path = share.root.join("f");
        fs::write(&path, "program").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
        let node = share.walk("f");
        let reader = share.open(node, O_RDWR).unwrap();
        share.read(node, reader, 0, 3).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(), 0o6755, "{way}: opening alone changes nothing");
        change(&share, node).unwrap();
        assert_eq!(mode(), 0o755, "{way}");
    }
}

#[test]
fn a_socket_planted_in_the_tree_is_shown_as_what_it_is() {
    let share = Share::new();
    let _socket = UnixListener::bind(share.root.join("s")).unwrap();
    assert!(
        fs::metadata(share.root.join("s"))
            .unwrap()
            .file_type()
            .is_socket()
    );
    let attr = share.lookup(ROOT_ID, "s").unwrap().attr;
    assert_eq!((attr.mode & 0o170_000, attr.rdev), (0o140_000, 0));
}

#[test]
fn symlink_targets_are_stored_as_they_are() {
    let share = Share::new();
    let longest = "x/".repeat(2047) + "y";
    for target in ["../../../etc/shadow", "/", "..", "a\nb", &longest] {
        let node = share.symlink(ROOT_ID, "l", target).unwrap().nodeid;
        assert_eq!(
            share.call(Opcode::ReadLink, node, &[]),
            Ok(target.as_bytes().to_vec())
        );
        share.call(Opcode::Unlink, ROOT_ID, &text("l")).unwrap();
    }
    assert_eq!(share.symlink(ROOT_ID, "l", ""), Err(libc::EINVAL));
    assert_eq!(
        share.symlink(ROOT_ID, "l", &"x".repeat(4096)),
        Err(libc::ENAMETOOLONG)
    );
    let reply: Reply<wire::EntryOut> = parse(share.call(Opcode::Lookup, ROOT_ID, &text("l")));
    assert_eq!(reply, Err(libc::ENOENT));
}
