//! What the guest sees of two trees in one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{Quota, Rules};
use libc::{EDQUOT, EPERM, EXDEV, O_RDONLY};
use zerocopy::IntoBytes as _;

use super::super::client::{Share, allow, as_nobody, fingerprint, text};
use super::{Paths as _, fill};

fn overlay() -> Share {
    let share = Share::overlay(|_| ());
    fill(&share.root);
    share
}

#[test]
fn what_is_open_shows_what_is_written_later() {
    let share = overlay();
    let node = share.node("d/a").unwrap();
    let fh = share.open(node, O_RDONLY).unwrap();
    let number = share.getattr(node).unwrap().ino;
    share.put("d/a", 2, b"XX").unwrap();
    assert_eq!(share.read(node, fh, 0, 100).unwrap(), b"beXXw");
    assert_eq!(share.node("d/a").unwrap(), node, "the same node");
    assert_ne!(share.getattr(node).unwrap().ino, number, "another file");
    assert_eq!(fs::read(share.root.join("d/a")).unwrap(), b"below");
}

#[test]
fn a_file_that_cannot_be_truncated_keeps_its_content() {
    let share = overlay();
    let changes = wire::SetAttrIn {
        valid: (SetAttrFlags::SIZE | SetAttrFlags::FH).bits(),
        fh: 999,
        ..Default::default()
    };
    assert!(share.setattr(share.node("a").unwrap(), changes).is_err());
    assert_eq!(share.get("a").unwrap(), b"alpha");
}

#[test]
fn a_directory_can_be_emptied_while_it_is_listed() {
    let share = overlay();
    let names: BTreeSet<String> = (0..500).map(|number| format!("file{number}")).collect();
    for name in &names {
        fs::write(share.root.join("empty").join(name), name).unwrap();
    }
    let node = share.node("empty").unwrap();
    let fh = share.opendir(node).unwrap();
    let (mut seen, mut offset) = (BTreeSet::new(), 0);
    loop {
        let body = wire::ReadIn {
            fh,
            offset,
            size: 700,
            ..Default::default()
        };
        let reply = share.ask(Opcode::ReadDir, node, &body, &[]).unwrap();
        if reply.is_empty() {
            break;
        }
        let mut part = Vec::new();
        offset = super::super::client::entries(&reply, false, &mut part);
        for (name, _) in part.into_iter().filter(|(name, _)| name.len() > 2) {
            share.remove(&format!("empty/{name}")).unwrap();
            assert!(seen.insert(name), "listed twice");
        }
    }
    assert_eq!(seen, names);
    share.remove_dir("empty").unwrap();
    assert_eq!(fs::read_dir(share.root.join("empty")).unwrap().count(), 500);
}

#[test]
fn a_listing_is_of_both_trees() {
    let share = overlay();
    for number in 0..300 {
        fs::write(share.root.join(format!("full/host{number:03}")), "").unwrap();
    }
    for number in 0..300 {
        share.make(&format!("full/guest{number:03}")).unwrap();
        if number % 3 == 0 {
            share.remove(&format!("full/host{number:03}")).unwrap();
        }
        if number % 7 == 0 && number % 3 != 0 {
            // What is changed is there once.
            share
                .put(&format!("full/host{number:03}"), 0, b"x")
                .unwrap();
        }
    }
    let guests = (0..300).map(|number| format!("guest{number:03}"));
    let hosts = (0..300).filter(|number| number % 3 != 0);
    let expected = guests.chain(hosts.map(|number| format!("host{number:03}")));
    let expected: Vec<String> = expected.chain(["of".into(), "one".into()]).collect();
    assert_eq!(share.names("full").unwrap(), expected);
}

#[test]
fn the_hosts_changes_are_seen_until_the_guest_makes_its_own() {
    let share = overlay();
    fs::write(share.root.join("a"), "by the host").unwrap();
    assert_eq!(share.get("a").unwrap(), b"by the host");
    share.put("a", 0, b"BY").unwrap();
    fs::write(share.root.join("a"), "later").unwrap();
    assert_eq!(share.get("a").unwrap(), b"BY the host");
    fs::write(share.root.join("new"), "new").unwrap();
    assert_eq!(share.get("new").unwrap(), b"new");
}

#[test]
fn a_directory_that_was_made_anew_holds_nothing_of_the_old_one() {
    let share = overlay();
    share.remove("d/e/a").unwrap();
    share.remove_dir("d/e").unwrap();
    share.make_dir("d/e").unwrap();
    fs::write(share.root.join("d/e/later"), "by the host").unwrap();
    assert_eq!(share.names("d/e").unwrap(), [""; 0]);
    let share = share.again(|_| ());
    assert_eq!(share.names("d/e").unwrap(), [""; 0]);
    assert!(share.root.join("d/e/a").exists());
}

#[test]
fn directories_of_the_host_are_copied_not_moved() {
    let share = overlay();
    assert_eq!(share.mv("d", "moved", 0), Err(EXDEV));
    share.make("d/new").unwrap();
    assert_eq!(share.mv("d", "moved", 0), Err(EXDEV));
    // Those that the guest made move as ever.
    share.make_dir("own").unwrap();
    share.make("own/file").unwrap();
    share.mv("own", "d/moved", 0).unwrap();
    assert_eq!(share.names("d/moved").unwrap(), ["file"]);
}

#[test]
fn a_file_with_several_names_on_the_host_stays_what_it_is() {
    let share = overlay();
    fs::hard_link(share.root.join("a"), share.outside.join("other")).unwrap();
    assert_eq!(share.put("a", 0, b"x"), Err(EPERM));
    share.remove("a").unwrap();
    share.make("a").unwrap();
    share.put("a", 0, b"x").unwrap();
    // Its own may have as many as it likes.
    share.ln("a", "again").unwrap();
    let share = share.again(|_| ());
    share.put("again", 0, b"y").unwrap();
    assert_eq!(share.get("a").unwrap(), b"y");
    assert_eq!(fs::read(share.outside.join("other")).unwrap(), b"alpha");
}

#[test]
fn rules_hold_in_an_overlay() {
    let share = Share::overlay(|config| config.rules = Rules::usual());
    fill(&share.root);
    fs::create_dir_all(share.root.join(".git/hooks")).unwrap();
    fs::write(share.root.join(".git/hooks/pre-commit"), "").unwrap();
    fs::write(share.root.join(".env"), "secret").unwrap();
    assert_eq!(share.get(".env"), Err(libc::ENOENT));
    assert_eq!(share.make(".env"), Err(EPERM));
    assert_eq!(share.put(".git/hooks/pre-commit", 0, b"x"), Err(EPERM));
    assert_eq!(share.remove(".git/hooks/pre-commit"), Err(EPERM));
    assert_eq!(share.make_dir(".vscode"), Err(EPERM));
    assert_eq!(share.mv("d", ".vscode", 0), Err(EPERM));
    share.make_dir("own").unwrap();
    assert_eq!(share.mv("own", ".vscode", 0), Err(EPERM));
}

#[test]
fn what_the_rules_keep_is_not_copied_either() {
    let share = Share::overlay(|config| {
        config.rules = Rules::usual();
        config.quota.bytes = Some(10);
    });
    fill(&share.root);
    fs::create_dir_all(share.root.join(".git/hooks")).unwrap();
    fs::write(share.root.join(".git/hooks/pre-commit"), "hook").unwrap();
    fs::write(
        share.root.join(".env"),
        "secret that is longer than the quota",
    )
    .unwrap();
    assert_eq!(share.mv(".env", "x", 0), Err(libc::ENOENT));
    assert_eq!(share.mv(".env", "x", 2), Err(libc::ENOENT));
    assert_eq!(share.mv("a", ".env", 0), Err(EPERM));
    assert_eq!(share.mv(".git/hooks/pre-commit", "x", 0), Err(EPERM));
    assert_eq!(
        fs::read_dir(share.changes.join("upper")).unwrap().count(),
        0
    );
}

#[test]
fn what_is_refused_again_and_again_is_written_down_once() {
    let share = overlay();
    for _ in 0..100 {
        assert_eq!(share.remove_dir("full"), Err(libc::ENOTEMPTY));
        assert_eq!(share.remove("d"), Err(libc::EISDIR));
    }
    let length = fs::metadata(share.changes.join("origins")).unwrap().len();
    assert!(length < 200, "{length} bytes");
}

#[test]
fn what_is_copied_up_counts() {
    let quota = |bytes, inodes| Quota {
        bytes: Some(bytes),
        inodes: Some(inodes),
    };
    let share = Share::overlay(|config| config.quota = quota(6, 3));
    fill(&share.root);
    // The directories count, too.
    assert_eq!(share.put("d/e/a", 0, b"x"), Err(EDQUOT));
    share.put("d/a", 0, b"X").unwrap();
    assert_eq!(share.put("d/a", 5, b"YZ"), Err(EDQUOT));
    share.put("d/a", 5, b"Y").unwrap();
    assert_eq!(share.make("other"), Err(EDQUOT), "d, d/e and d/a");
    let node = share.node("d/a").unwrap();
    share.remove("d/a").unwrap();
    share.forget(node, 100);
    share.overwrite("a", b"123456").unwrap();
    assert_eq!(share.make("other"), Err(EDQUOT));
    // What was not the guest's gives nothing back.
    share.remove("b").unwrap();
    assert_eq!(share.make("other"), Err(EDQUOT));
}

#[test]
fn a_guest_makes_neither_whiteouts_nor_opaque_directories() {
    let share = overlay();
    let fifo = wire::MkNodIn {
        mode: 0o010_644,
        ..Default::default()
    };
    let body = [fifo.as_bytes(), &text("fifo")].concat();
    assert_eq!(share.call(Opcode::MkNod, ROOT_ID, &body), Err(EPERM));
    share.chmod("full", 0o4755).unwrap();
    let share = share.again(|_| ());
    assert_eq!(share.names("full").unwrap(), ["of", "one"]);
    assert_eq!(
        share.getattr(share.node("full").unwrap()).unwrap().mode,
        0o040_755
    );
    // What it made stays its own when it sets a mode.
    share.make_dir("own").unwrap();
    share.chmod("own", 0o700).unwrap();
    share.mv("own", "moved", 0).unwrap();
    assert_eq!(
        share.getattr(share.node("moved").unwrap()).unwrap().mode,
        0o040_700
    );
}

#[test]
fn special_files_of_the_host_can_be_removed_and_nothing_else() {
    let share = overlay();
    let fifo = share.root.join("fifo");
    rustix_fifo(&fifo);
    let before = fs::symlink_metadata(&fifo).unwrap().ino();
    assert_eq!(share.mv("fifo", "moved", 0), Err(EPERM));
    assert_eq!(share.chmod("fifo", 0o600), Err(EPERM));
    share.remove("fifo").unwrap();
    assert_eq!(share.node("fifo"), Err(libc::ENOENT));
    assert_eq!(fs::symlink_metadata(&fifo).unwrap().ino(), before);
}

fn rustix_fifo(path: &Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status();
    assert!(status.unwrap().success());
}

#[test]
fn holes_stay_holes() {
    let share = overlay();
    let file = fs::File::create(share.root.join("sparse")).unwrap();
    file.set_len(1 << 40).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 1 << 39).unwrap();
    share.put("sparse", 0, b"begin").unwrap();
    let node = share.node("sparse").unwrap();
    let fh = share.open(node, O_RDONLY).unwrap();
    assert_eq!(share.read(node, fh, 1 << 39, 6).unwrap(), b"middle");
    let attr = share.getattr(node).unwrap();
    assert_eq!(attr.size, 1 << 40);
    assert!(attr.blocks < 1 << 14, "{} blocks", attr.blocks);
}

#[test]
fn attributes_come_along() {
    let share = overlay();
    let path = share.root.join("d/a");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6751)).unwrap();
    let before = fs::metadata(&path).unwrap();
    share.chmod("d/a", 0o741).unwrap();
    let attr = share.getattr(share.node("d/a").unwrap()).unwrap();
    assert_eq!(attr.mode, 0o100_741);
    let modified = (attr.mtime.cast_signed(), i64::from(attr.mtimensec));
    assert_eq!(modified, (before.mtime(), before.mtime_nsec()));
    let directory = share.getattr(share.node("d").unwrap()).unwrap();
    assert_eq!(
        directory.ino,
        fs::metadata(share.root.join("d")).unwrap().ino()
    );
}

#[test]
fn nothing_is_left_half_made() {
    let share = overlay();
    let untouched = fingerprint(&share.root);
    share.remove("full/one").unwrap();
    share.make_dir("full/one").unwrap();
    share.mv("a", "b", 0).unwrap();
    assert_eq!(share.make("b"), Err(libc::EEXIST));
    assert_eq!(share.remove_dir("full"), Err(libc::ENOTEMPTY));
    assert_eq!(fs::read_dir(share.changes.join("work")).unwrap().count(), 0);
    // One that was ended leaves something behind.
    fs::create_dir(share.changes.join("work/0")).unwrap();
    fs::write(share.changes.join("work/1"), "").unwrap();
    let share = share.again(|_| ());
    for number in 0..4 {
        share.make_dir(&format!("again{number}")).unwrap();
    }
    assert_eq!(fs::read_dir(share.changes.join("work")).unwrap().count(), 0);
    assert_eq!(fingerprint(&share.root), untouched);
}

fn mode(share: &Share, path: &str) -> u32 {
    let node = share.node(path).unwrap();
    share.getattr(node).unwrap().mode & 0o7777
}

#[test]
fn without_privileges_it_is_as_good_as_the_tree() {
    for is_overlay in [false, true] {
        let share = match is_overlay {
            true => Share::overlay(|_| ()),
            false => Share::new(),
        };
        fill(&share.root);
        share.give_to_nobody();
        allow(&share.root.join("d/e"), 0o555);
        allow(&share.root.join("d"), 0o555);
        allow(&share.root.join("full"), 0o500);
        as_nobody("without_privileges_it_is_as_good_as_the_tree", || {
            // In directories that cannot be written, files can.
            share.put("d/e/a", 0, b"guest").unwrap();
            share.chmod("d/a", 0o400).unwrap();
            assert_eq!(share.make("d/e/new"), Err(libc::EACCES));
            assert_eq!(share.remove("d/e/a"), Err(libc::EACCES));
            assert_eq!((mode(&share, "d/e"), mode(&share, "d")), (0o555, 0o555));
            share.chmod("full", 0o700).unwrap();
            share.remove("full/one").unwrap();
            // New ones, made, moved about and removed.
            let (parent, name) = share.parent("empty/closed").unwrap();
            let body = wire::MkDirIn {
                mode: 0o555,
                umask: 0,
            };
            share
                .ask(Opcode::MkDir, parent, &body, &text(name))
                .unwrap();
            assert_eq!(mode(&share, "empty/closed"), 0o555);
            share.mv("empty/closed", "empty/moved", 0).unwrap();
            share.make_dir("empty/other").unwrap();
            share.mv("empty/other", "empty/moved", 0).unwrap();
            share.chmod("empty/moved", 0o000).unwrap();
            share.remove_dir("empty/moved").unwrap();
            assert_eq!(share.names("empty").unwrap(), [""; 0]);
            share.chmod("d", 0o755).unwrap();
            share.remove("d/a").unwrap();
        });
    }
}

#[test]
fn a_listing_has_the_numbers_that_files_have() {
    let share = Share::overlay(|_| ());
    fill(&share.root);
    share.put("a", 0, b"A").unwrap();
    share.make("new").unwrap();
    share.make_dir("mine").unwrap();
    share.make("mine/file").unwrap();
    for directory in ["", "mine"] {
        let node = share.node(directory).unwrap();
        for (name, listed) in share.list(node, 4096, false) {
            if matches!(name.as_str(), "." | "..") {
                continue;
            }
            let found = share.lookup(node, &name).unwrap();
            assert_eq!(listed, found.attr.ino, "{name}");
        }
    }
}

#[test]
fn a_read_only_share_of_two_trees_shows_both_and_takes_nothing() {
    let share = overlay();
    share.put("a", 0, b"A").unwrap();
    share.remove("b").unwrap();
    share.make("new").unwrap();
    let share = share.again(|config| config.read_only = true);
    assert_eq!(share.get("a").unwrap(), b"Alpha");
    assert_eq!(share.node("b"), Err(libc::ENOENT));
    for outcome in [
        share.put("a", 0, b"x"),
        share.put("d/a", 0, b"x"),
        share.make("more"),
        share.remove("new"),
        share.remove("full/one"),
        share.mv("new", "old", 0),
        share.mv("d/a", "d/b", 0),
        share.chmod("d/a", 0o600),
    ] {
        assert_eq!(outcome, Err(libc::EROFS));
    }
    assert_eq!(share.get("d/a").unwrap(), b"below");
}
