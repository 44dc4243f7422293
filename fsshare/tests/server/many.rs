//! Several shares in one session: each is what it would be alone, and nothing gets from one to another.

use std::fs;
use std::sync::{Arc, Mutex};

use fsshare::abi::{InitFlags, Opcode, ROOT_ID, wire};
use fsshare::{
    CachePolicy, Config, Error, LockPolicy, Observer, Owner, Quota, Refusal, Rules, Shares,
};
use libc::{
    EBADF, EDQUOT, EINVAL, EIO, EISDIR, ENOENT, ENOTDIR, EOPNOTSUPP, EPERM, EPROTO, EROFS, ESTALE,
    EXDEV, O_RDONLY, O_RDWR, O_WRONLY,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::client::{Reply, Share, parse, text};

/// Where the share's number is in that of a node.
const SHARE: u32 = 56;

fn root(share: u64) -> u64 {
    share << SHARE | ROOT_ID
}

fn many(configure: impl FnOnce(&mut [Config; 3])) -> Share {
    let share = Share::many(configure);
    share.init();
    share
}

/// Three shares with the same names in them.
fn alike() -> Share {
    let share = many(|_| ());
    for number in ["1", "2", "3"] {
        let place = share.root.join(number);
        fs::create_dir(place.join("d")).unwrap();
        fs::write(place.join("d/f"), number).unwrap();
    }
    share
}

fn error<T>(reply: Reply<T>) -> Option<i32> {
    reply.err()
}

/// The bytes of one node of BATCH_FORGET.
fn forgotten(nodeid: u64, nlookup: u64) -> Vec<u8> {
    wire::ForgetOne { nodeid, nlookup }.as_bytes().to_vec()
}

fn forget_all(share: &Share, nodes: &[Vec<u8>]) {
    let count = nodes.len().try_into().unwrap();
    let head = wire::BatchForgetIn { count, dummy: 0 };
    let reply = share.ask(Opcode::BatchForget, 0, &head, &nodes.concat());
    assert_eq!(reply, Ok(Vec::new()));
}

fn copy(share: &Share, from: (u64, u64), to: (u64, u64)) -> Reply<wire::WriteOut> {
    let body = wire::CopyFileRangeIn {
        fh_in: from.1,
        nodeid_out: to.0,
        fh_out: to.1,
        len: 10,
        ..Default::default()
    };
    parse(share.ask(Opcode::CopyFileRange, from.0, &body, &[]))
}

#[test]
fn each_share_is_found_by_its_number_and_is_a_file_system_of_its_own() {
    let share = alike();
    for number in 1..=3_u64 {
        let name = number.to_string();
        let entry = share.lookup(ROOT_ID, &name).unwrap();
        assert_eq!(entry.nodeid, root(number));
        assert_eq!(entry.attr.flags, wire::ATTR_SUBMOUNT);
        let host = fs::metadata(share.root.join(&name)).unwrap();
        assert_eq!(
            entry.attr.ino,
            std::os::unix::fs::MetadataExt::ino(&host),
            "the tree's own root"
        );
        assert_eq!(share.getattr(entry.nodeid).unwrap().flags, 0);
        let file = share.walk(&format!("{name}/d/f"));
        assert_eq!(file >> SHARE, number);
        assert_eq!(
            share.getattr(file).unwrap().flags,
            0,
            "no other directory is"
        );
        let fh = share.open(file, O_RDONLY).unwrap();
        assert_eq!(share.read(file, fh, 0, 10).unwrap(), name.as_bytes());
        let listed = share.list(root(number), 4096, true);
        assert!(listed.iter().any(|(name, node)| name == "d" && *node != 0));
    }
}

#[test]
fn only_numbers_of_shares_are_names_above_them() {
    let share = alike();
    for name in [
        "0",
        "4",
        "01",
        "+1",
        "-1",
        " 1",
        "1 ",
        "256",
        "257",
        "d",
        "a",
        "99999999999999999999999",
    ] {
        assert_eq!(error(share.lookup(ROOT_ID, name)), Some(ENOENT), "{name}");
    }
    for name in ["", ".", "..", "1/d", "/"] {
        assert_eq!(error(share.lookup(ROOT_ID, name)), Some(EINVAL), "{name}");
    }
    let not_utf8 = share.call(Opcode::Lookup, ROOT_ID, b"\xff\0");
    assert_eq!(not_utf8.err(), Some(ENOENT));
    for name in ["", ".", ".."] {
        assert_eq!(error(share.lookup(root(2), name)), Some(EINVAL), "{name}");
    }
}

#[test]
fn the_directory_above_the_shares_is_one() {
    let share = alike();
    let attr = share.getattr(ROOT_ID).unwrap();
    assert_eq!((attr.mode, attr.nlink), (0o040_555, 5));
    let statx = wire::StatxIn::default();
    let statx: wire::StatxOut = parse(share.ask(Opcode::Statx, ROOT_ID, &statx, &[])).unwrap();
    assert_eq!(u32::from(statx.stat.mode), attr.mode);
    for plus in [false, true] {
        // Two entries at a time, or all at once.
        for size in [if plus { 320 } else { 64 }, 4096] {
            let listed = share.list(ROOT_ID, size, plus);
            let names: Vec<_> = listed.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, [".", "..", "1", "2", "3"]);
        }
    }
    for offset in [5, 6, u64::MAX] {
        let read = wire::ReadIn {
            offset,
            size: 4096,
            ..Default::default()
        };
        let rest = share.ask(Opcode::ReadDir, ROOT_ID, &read, &[]);
        assert_eq!(rest, Ok(Vec::new()), "{offset}");
    }
    let small = wire::ReadIn {
        size: 8,
        ..Default::default()
    };
    let refused = share.ask(Opcode::ReadDir, ROOT_ID, &small, &[]);
    assert_eq!(refused, Err(EINVAL));
    let space: wire::StatFsOut = parse(share.call(Opcode::StatFs, ROOT_ID, &[])).unwrap();
    assert_eq!(space.namelen, 255);
    for (mask, expected) in [(0, Ok(())), (5, Ok(())), (2, Err(EROFS))] {
        let access = wire::AccessIn { mask, padding: 0 };
        let reply = share.ask(Opcode::Access, ROOT_ID, &access, &[]);
        assert_eq!(reply.map(drop), expected, "{mask}");
    }
}

#[test]
fn the_directory_above_the_shares_cannot_be_changed() {
    let share = alike();
    let fh = share.opendir(ROOT_ID).unwrap();
    assert_eq!(error(share.mkdir(ROOT_ID, "4")), Some(EROFS));
    assert_eq!(
        error(share.create(ROOT_ID, "4", O_RDWR, 0o644)),
        Some(EROFS)
    );
    assert_eq!(error(share.symlink(ROOT_ID, "4", "1")), Some(EROFS));
    assert_eq!(
        error(share.rename((ROOT_ID, "1"), (ROOT_ID, "2"), 0)),
        Some(EROFS)
    );
    for opcode in [Opcode::Unlink, Opcode::RmDir] {
        assert_eq!(share.call(opcode, ROOT_ID, &text("1")), Err(EROFS));
    }
    let changes = wire::SetAttrIn {
        valid: 1,
        mode: 0o777,
        ..Default::default()
    };
    assert_eq!(error(share.setattr(ROOT_ID, changes)), Some(EROFS));
    for flags in [O_RDONLY, O_RDWR] {
        assert_eq!(error(share.open(ROOT_ID, flags)), Some(EISDIR));
    }
    assert_eq!(error(share.read(ROOT_ID, fh, 0, 10)), Some(EBADF));
    assert_eq!(error(share.write(ROOT_ID, fh, 0, b"x")), Some(EROFS));
    assert_eq!(share.call(Opcode::ReadLink, ROOT_ID, &[]), Err(EINVAL));
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 3);
}

#[test]
fn nothing_above_the_shares_turns_off_what_shares_can_do() {
    let share = alike();
    for number in 0..60 {
        // For the guest's kernel ENOSYS is said of the whole session.
        let above = share.raw(number, ROOT_ID, &[0; 80], 4096).err();
        let below = share.raw(number, root(1), &[0; 80], 4096).err();
        let is_unknown = |errno: Option<i32>| errno == Some(libc::ENOSYS);
        assert!(!is_unknown(above) || is_unknown(below), "{number}");
    }
    let get = [
        wire::GetXattrIn::default().as_bytes(),
        &text("security.capability"),
    ]
    .concat();
    let told = share.call(Opcode::GetXattr, ROOT_ID, &get);
    assert_eq!(told, Err(EOPNOTSUPP));
}

#[test]
fn nothing_is_moved_linked_or_copied_between_shares() {
    let share = alike();
    let (one, two) = (root(1), root(2));
    let (file, other) = (share.walk("1/d/f"), share.walk("2/d/f"));
    let (fh, other_fh) = (
        share.open(file, O_RDWR).unwrap(),
        share.open(other, O_RDWR).unwrap(),
    );
    for (from, to) in [(one, two), (two, one), (one, ROOT_ID), (ROOT_ID, one)] {
        for flags in [0, libc::RENAME_EXCHANGE, libc::RENAME_NOREPLACE] {
            let moved = share.rename((from, "d"), (to, "new"), flags);
            assert_eq!(moved, Err(EXDEV), "{from:x} {to:x}");
        }
    }
    for target in [two, ROOT_ID, root(3)] {
        assert_eq!(error(share.link(file, target, "new")), Some(EXDEV));
    }
    assert_eq!(error(share.link(ROOT_ID, two, "new")), Some(EXDEV));
    for to in [(other, other_fh), (other, fh), (ROOT_ID, 0)] {
        assert_eq!(error(copy(&share, (file, fh), to)), Some(EXDEV));
    }
    // Within one they are.
    share.rename((one, "d"), (one, "e"), 0).unwrap();
    share.link(file, one, "new").unwrap();
    let new = share.create(one, "copy", O_RDWR, 0o644).unwrap();
    let copied = copy(&share, (file, fh), (new.0.nodeid, new.1)).unwrap();
    assert_eq!(copied.size, 1);
    assert_eq!(fs::read(share.root.join("2/d/f")).unwrap(), b"2");
}

#[test]
fn handles_of_one_share_are_none_of_another() {
    let share = alike();
    let nodes: Vec<u64> = (1..=3)
        .map(|number| share.walk(&format!("{number}/d/f")))
        .collect();
    // The numbers of handles are the same in each.
    let handles: Vec<u64> = nodes
        .iter()
        .map(|node| share.open(*node, O_RDWR).unwrap())
        .collect();
    assert!(handles.iter().all(|fh| *fh == handles[0]), "{handles:?}");
    share.release(nodes[0], handles[0]).unwrap();
    assert_eq!(error(share.read(nodes[0], handles[0], 0, 9)), Some(EBADF));
    for (number, node) in (1..).zip(&nodes).skip(1) {
        let content = share.read(*node, handles[0], 0, 9).unwrap();
        assert_eq!(content, number.to_string().as_bytes());
    }
    // A second one of the second share: no other has it.
    let second = share.open(nodes[1], O_RDWR).unwrap();
    assert_eq!(error(share.read(nodes[2], second, 0, 9)), Some(EBADF));
    assert_eq!(error(share.write(nodes[2], second, 0, b"x")), Some(EBADF));
    assert_eq!(error(share.release(nodes[2], second)), Some(EBADF));
    let directory = share.opendir(root(1)).unwrap();
    let read = wire::ReadIn {
        fh: directory,
        size: 4096,
        ..Default::default()
    };
    for elsewhere in [root(2), nodes[0]] {
        let listed = share.ask(Opcode::ReadDir, elsewhere, &read, &[]);
        assert_eq!(listed, Err(EBADF));
    }
}

#[test]
fn nodes_that_nobody_has_are_refused() {
    let share = alike();
    let file = share.walk("1/d/f");
    let hostile = [
        0,
        2,
        file & u64::MAX >> 8,
        file ^ 3 << SHARE,
        root(4),
        root(255),
        root(200) | 1 << 40,
        root(1) | 1 << 32,
        root(2) | 1 << 55,
        1 << SHARE,
        u64::MAX,
        u64::MAX >> 8,
        u64::from(u32::MAX),
    ];
    for node in hostile {
        assert_eq!(error(share.getattr(node)), Some(ESTALE), "{node:x}");
        assert_eq!(error(share.lookup(node, "1")), Some(ESTALE), "{node:x}");
        assert_eq!(error(share.open(node, O_RDONLY)), Some(ESTALE), "{node:x}");
        assert_eq!(error(share.mkdir(node, "new")), Some(ESTALE), "{node:x}");
        share.forget(node, u64::MAX);
        let moved = share.rename((node, "d"), (root(1), "new"), 0);
        assert!([EXDEV, ESTALE].contains(&moved.unwrap_err()), "{node:x}");
    }
    assert_eq!(share.getattr(file).unwrap().size, 1, "it is there still");
    assert_eq!(error(share.lookup(file, "x")), Some(ENOTDIR));
    assert!(!share.root.join("1/new").exists());
}

#[test]
fn a_million_are_forgotten_each_by_its_own_share() {
    let share = alike();
    let (one, two) = (share.walk("1/d/f"), share.walk("2/d/f"));
    share.lookup(share.walk("2/d"), "f").unwrap();
    let mut nodes = Vec::new();
    for number in 0..15_000_u64 {
        nodes.push(forgotten(
            root(number % 256) | number << 3,
            1 + number % 1000,
        ));
        nodes.push(forgotten(root(1 + number % 4), u64::MAX));
        nodes.push(forgotten(ROOT_ID, 1));
    }
    for _ in 0..22 {
        forget_all(&share, &nodes);
    }
    assert_eq!(share.getattr(one).unwrap().size, 1);
    // One share's node goes, that of another with all the same but the share stays.
    forget_all(&share, &[forgotten(one, 1), forgotten(two, 1)]);
    assert_eq!(error(share.getattr(one)), Some(ESTALE));
    assert_eq!(share.getattr(two).unwrap().size, 1);
    share.forget(two, 1);
    assert_eq!(error(share.getattr(two)), Some(ESTALE));
    assert_eq!(share.getattr(root(1)).unwrap().flags, 0, "a root stays");
    assert!(share.lookup(ROOT_ID, "1").is_ok());
}

#[test]
fn each_share_keeps_its_own_settings() {
    let share = many(|[one, two, three]| {
        one.read_only = true;
        two.rules = Rules::usual();
        two.owner = Owner { uid: 7, gid: 8 };
        three.quota = Quota {
            bytes: Some(5),
            inodes: Some(1),
        };
    });
    fs::write(share.root.join("2/.env"), "secret").unwrap();
    fs::write(share.root.join("3/.env"), "none").unwrap();
    assert_eq!(error(share.mkdir(root(1), "new")), Some(EROFS));
    share.mkdir(root(2), "new").unwrap();
    assert_eq!(error(share.lookup(root(2), ".env")), Some(ENOENT));
    assert_eq!(
        error(share.create(root(2), ".envrc", O_RDWR, 0o644)),
        Some(EPERM)
    );
    assert_eq!(share.getattr(root(2)).unwrap().uid, 7);
    share.lookup(root(3), ".env").unwrap();
    assert_eq!(share.getattr(root(3)).unwrap().uid, 0);
    let (file, fh) = share.create(root(3), "f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(file.nodeid, fh, 0, b"five!"), Ok(5));
    assert_eq!(share.write(file.nodeid, fh, 5, b"x"), Err(EDQUOT));
    assert_eq!(error(share.mkdir(root(3), "more")), Some(EDQUOT));
    let (file, fh) = share.create(root(2), "f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(file.nodeid, fh, 0, &[1; 100]), Ok(100));
    share.assert_outside_untouched();
}

#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn refused(&self, refusal: &Refusal) {
        self.0.lock().unwrap().push(refusal.path.clone());
    }
}

#[test]
fn refusals_are_told_to_whom_the_share_has_named() {
    let told = [(); 3].map(|()| Arc::<Told>::default());
    let share = many(|configs| {
        for (config, told) in configs.iter_mut().zip(&told) {
            config.rules = Rules::usual();
            config.observer = Some(Arc::clone(told) as Arc<dyn Observer>);
        }
    });
    fs::create_dir(share.root.join("2/d")).unwrap();
    fs::write(share.root.join("2/d/.env"), "secret").unwrap();
    let directory = share.walk("2/d");
    assert_eq!(error(share.lookup(directory, ".env")), Some(ENOENT));
    let said = told.map(|told| told.0.lock().unwrap().clone());
    assert_eq!(said, [vec![], vec!["d/.env".to_owned()], vec![]]);
}

#[test]
fn a_client_without_file_systems_in_file_systems_is_refused() {
    let share = Share::many(|_| ());
    let refused = share.try_init(InitFlags::all() - InitFlags::SUBMOUNTS);
    assert_eq!(error(refused), Some(EPROTO));
    assert_eq!(error(share.getattr(ROOT_ID)), Some(EIO));
    let agreed = share.init();
    assert_ne!(agreed.flags & InitFlags::SUBMOUNTS.low(), 0);
    // One share alone does not say that it is one of many.
    let alone = Share::unopened(|_| ()).init();
    assert_eq!(alone.flags & InitFlags::SUBMOUNTS.low(), 0);
}

#[test]
fn a_session_begins_and_ends_for_all_shares() {
    let share = Share::many(|_| ());
    for node in [ROOT_ID, root(1), root(3), root(9)] {
        assert_eq!(error(share.getattr(node)), Some(EIO), "{node:x}");
        share.forget(node, 1);
    }
    share.init();
    for ends in 0..3 {
        let made: Vec<_> = (1..=3)
            .map(|number| share.create(root(number), "f", O_WRONLY, 0o644).unwrap())
            .collect();
        match ends {
            0 => share.server.reset(),
            1 => drop(share.call(Opcode::Destroy, 0, &[]).unwrap()),
            _ => drop(share.init()),
        }
        let gone = if ends == 2 { ESTALE } else { EIO };
        for (entry, _) in &made {
            assert_eq!(error(share.getattr(entry.nodeid)), Some(gone));
        }
        share.init();
        for (entry, fh) in made {
            assert_eq!(error(share.getattr(entry.nodeid)), Some(ESTALE));
            assert_eq!(error(share.write(entry.nodeid, fh, 0, b"x")), Some(EBADF));
        }
        assert!(share.getattr(root(3)).is_ok());
    }
    // A client of a later version is told ours, and tries again.
    let body = wire::InitIn {
        major: 8,
        ..Default::default()
    };
    let reply = share.ask(Opcode::Init, 0, &body, &[]).unwrap();
    assert_eq!(wire::InitOut::read_from_bytes(&reply).unwrap().major, 7);
}

fn agreed(configure: impl FnOnce(&mut [Config; 3])) -> InitFlags {
    let out = Share::many(configure).init();
    InitFlags::from_halves(out.flags, out.flags2)
}

#[test]
fn what_is_agreed_on_holds_for_all_shares() {
    let always = |config: &mut Config| {
        config.cache = CachePolicy {
            writeback: true,
            ..CachePolicy::always()
        };
    };
    let with_host_locks = |config: &mut Config| config.locks = LockPolicy::Host;
    let writeback = InitFlags::WRITEBACK_CACHE;
    let locks = InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS;
    assert!(!agreed(|_| ()).intersects(writeback | locks));
    assert!(agreed(|all| all.iter_mut().for_each(always)).contains(writeback));
    let one_differs = agreed(|[one, two, _]| [one, two].into_iter().for_each(always));
    assert!(!one_differs.intersects(writeback));
    let one_reads = agreed(|all| {
        all.iter_mut().for_each(always);
        all[1].read_only = true;
    });
    assert!(!one_reads.intersects(writeback));
    assert!(agreed(|all| all.iter_mut().for_each(with_host_locks)).contains(locks));
    assert!(!agreed(|[one, ..]| with_host_locks(one)).intersects(locks));
    let share = Share::many(|all| all[2].limits.max_write = 8192);
    assert_eq!(share.init().max_write, 8192);
}

#[test]
fn there_is_a_number_for_each_share_or_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let configs = |count: usize| -> Vec<Config> {
        let open = || fs::File::open(folder.path()).unwrap();
        (0..count).map(|_| Config::new(open().into())).collect()
    };
    for count in [0, 256, 300] {
        let refused = Shares::new(configs(count));
        assert!(matches!(refused, Err(Error::Shares(number)) if number == count));
    }
    assert!(Shares::new(configs(1)).is_ok());
}

#[test]
fn each_share_works_while_others_do() {
    let share = alike();
    std::thread::scope(|scope| {
        for number in 1..=3_u64 {
            let share = &share;
            scope.spawn(move || {
                for round in 0..200 {
                    let name = format!("n{round}");
                    let (entry, fh) = share.create(root(number), &name, O_RDWR, 0o644).unwrap();
                    let content = format!("{number} {round}");
                    share
                        .write(entry.nodeid, fh, 0, content.as_bytes())
                        .unwrap();
                    let read = share.read(entry.nodeid, fh, 0, 100).unwrap();
                    assert_eq!(read, content.as_bytes());
                    share.release(entry.nodeid, fh).unwrap();
                    share.forget(entry.nodeid, 1);
                }
            });
        }
    });
    for number in ["1", "2", "3"] {
        let made = fs::read_dir(share.root.join(number)).unwrap().count();
        assert_eq!(made, 201);
        let last = fs::read_to_string(share.root.join(number).join("n199")).unwrap();
        assert_eq!(last, format!("{number} 199"));
    }
}
