//! How much the guest may add: hit exactly, by every way of adding, and given back when what it counts is gone.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fsshare::abi::{FallocateMode, Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{HardLinkPolicy, Quota};
use libc::{O_APPEND, O_RDWR, O_TRUNC, O_WRONLY};

use super::client::{Share, parse, text};

const FULL: Result<(), i32> = Err(libc::EDQUOT);

fn limited(bytes: u64, inodes: u64) -> Share {
    Share::with(|config| {
        config.quota = Quota {
            bytes: Some(bytes),
            inodes: Some(inodes),
        };
        config.hard_links = HardLinkPolicy::Writable;
    })
}

fn made(share: &Share, name: &str) -> (u64, u64) {
    let (entry, fh) = share.create(ROOT_ID, name, O_RDWR, 0o644).unwrap();
    (entry.nodeid, fh)
}

fn resize(share: &Share, node: u64, size: u64) -> Result<(), i32> {
    let changes = wire::SetAttrIn {
        valid: SetAttrFlags::SIZE.bits(),
        size,
        ..Default::default()
    };
    share.setattr(node, changes).map(drop)
}

fn allocate(share: &Share, (node, fh): (u64, u64), length: u64, mode: u32) -> Result<(), i32> {
    let asked = wire::FallocateIn {
        fh,
        offset: 0,
        length,
        mode,
        padding: 0,
    };
    share.ask(Opcode::Fallocate, node, &asked, &[]).map(drop)
}

/// The whole of `bytes` can be written and not one more: what is left.
fn assert_left(share: &Share, bytes: u64) {
    let (node, fh) = made(share, "rest");
    assert_eq!(resize(share, node, bytes + 1), FULL);
    assert_eq!(resize(share, node, bytes), Ok(()));
    share.release(node, fh).unwrap();
    share.call(Opcode::Unlink, ROOT_ID, &text("rest")).unwrap();
    share.forget(node, 1);
}

#[test]
fn bytes_are_hit_exactly_by_every_way_of_writing() {
    let share = limited(100, 10);
    let (node, fh) = made(&share, "f");
    assert_eq!(share.write(node, fh, 0, &[1; 60]), Ok(60));
    assert_eq!(share.write(node, fh, 60, &[1; 41]).map(drop), FULL);
    assert_eq!(share.write(node, fh, 60, &[1; 40]), Ok(40));
    assert_eq!(share.write(node, fh, 0, &[2; 100]), Ok(100), "adds nothing");
    assert_eq!(share.write(node, fh, 100, b"x").map(drop), FULL);
    assert_eq!(resize(&share, node, 101), FULL);
    assert_eq!(resize(&share, node, 30), Ok(()));
    assert_eq!(
        share.write(node, fh, 1 << 40, b"x").map(drop),
        FULL,
        "holes count"
    );
    assert_eq!(allocate(&share, (node, fh), 101, 0), FULL);
    assert_eq!(allocate(&share, (node, fh), 100, 0), Ok(()));
    let keep = FallocateMode::KEEP_SIZE.bits();
    assert_eq!(
        allocate(&share, (node, fh), 1 << 30, keep),
        Err(libc::EOPNOTSUPP)
    );
    let punch = keep | FallocateMode::PUNCH_HOLE.bits();
    assert_eq!(allocate(&share, (node, fh), 100, punch), Ok(()));
    assert_eq!(fs::metadata(share.root.join("f")).unwrap().len(), 100);
    let other = made(&share, "other");
    let copy = wire::CopyFileRangeIn {
        fh_in: fh,
        nodeid_out: other.0,
        fh_out: other.1,
        len: 1,
        ..Default::default()
    };
    let outcome = share.ask(Opcode::CopyFileRange, node, &copy, &[]);
    assert_eq!(outcome.map(drop), FULL);
}

#[test]
fn appending_counts_from_the_files_end() {
    let share = limited(10, 10);
    let (node, _) = made(&share, "f");
    let fh = share.open(node, O_WRONLY | O_APPEND).unwrap();
    assert_eq!(share.write(node, fh, 0, &[1; 6]), Ok(6));
    assert_eq!(share.write(node, fh, 0, &[1; 5]).map(drop), FULL);
    assert_eq!(share.write(node, fh, 0, &[1; 4]), Ok(4));
}

#[test]
fn inodes_are_hit_exactly_by_every_way_of_making() {
    let share = limited(1 << 20, 4);
    let (node, _) = made(&share, "file");
    share.mkdir(ROOT_ID, "dir").unwrap();
    share.symlink(ROOT_ID, "link", "file").unwrap();
    let mknod = [&wire_mknod()[..], &text("node")].concat();
    share.call(Opcode::MkNod, ROOT_ID, &mknod).unwrap();
    assert_eq!(share.create(ROOT_ID, "more", O_RDWR, 0o644).map(drop), FULL);
    assert_eq!(share.mkdir(ROOT_ID, "more").map(drop), FULL);
    assert_eq!(share.symlink(ROOT_ID, "more", "x").map(drop), FULL);
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 4);
    share.link(node, ROOT_ID, "second name").unwrap();
    assert!(
        share.create(ROOT_ID, "file", O_RDWR, 0o644).is_ok(),
        "it is there"
    );
    share.call(Opcode::RmDir, ROOT_ID, &text("dir")).unwrap();
    share.forget(share.walk("link"), 2);
    share.call(Opcode::Unlink, ROOT_ID, &text("link")).unwrap();
    share.mkdir(ROOT_ID, "more").unwrap();
}

fn wire_mknod() -> Vec<u8> {
    [0o100_644_u32, 0, 0, 0]
        .iter()
        .flat_map(|part| part.to_le_bytes())
        .collect()
}

#[test]
fn what_is_removed_counts_until_it_is_gone() {
    let share = limited(100, 10);
    let (node, fh) = made(&share, "f");
    share.write(node, fh, 0, &[1; 100]).unwrap();
    share.call(Opcode::Unlink, ROOT_ID, &text("f")).unwrap();
    assert_left(&share, 0);
    share.forget(node, 1);
    assert_left(&share, 0);
    share.release(node, fh).unwrap();
    assert_left(&share, 100);
}

#[test]
fn two_nodes_of_one_file_do_not_give_it_back_twice() {
    let share = limited(100, 10);
    let (kept, _) = made(&share, "kept");
    resize(&share, kept, 50).unwrap();
    let (node, fh) = made(&share, "f");
    share.write(node, fh, 0, &[1; 50]).unwrap();
    // The handle keeps the forgotten node, and the name leads to a new one.
    share.forget(node, 1);
    let again = share.lookup(ROOT_ID, "f").unwrap().nodeid;
    assert_ne!(again, node);
    share.call(Opcode::Unlink, ROOT_ID, &text("f")).unwrap();
    share.release(node, fh).unwrap();
    share.forget(again, 1);
    assert_left(&share, 50);
}

#[test]
fn emptying_and_replacing_give_back_once() {
    let share = limited(100, 10);
    let (node, fh) = made(&share, "f");
    share.write(node, fh, 0, &[1; 100]).unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| share.open(node, O_WRONLY | O_TRUNC).unwrap());
        }
    });
    assert_left(&share, 100);
    resize(&share, node, 70).unwrap();
    let (other, fh_of_other) = made(&share, "other");
    resize(&share, other, 30).unwrap();
    share.rename((ROOT_ID, "f"), (ROOT_ID, "other"), 0).unwrap();
    share.release(other, fh_of_other).unwrap();
    share.forget(other, 1);
    assert_left(&share, 30);
}

#[test]
fn what_the_host_had_gives_nothing() {
    let share = limited(100, 10);
    fs::write(share.root.join("host"), [0; 1000]).unwrap();
    share.call(Opcode::Unlink, ROOT_ID, &text("host")).unwrap();
    assert_left(&share, 100);
}

#[test]
fn growing_from_many_threads_is_counted_once() {
    let share = limited(1000, 10);
    let (node, fh) = made(&share, "f");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for end in 1..=100_u64 {
                    share.write(node, fh, end * 5 - 5, &[1; 5]).unwrap();
                }
            });
        }
    });
    assert_left(&share, 500);
}

#[test]
fn the_guest_sees_what_is_left() {
    let share = limited(1 << 20, 5);
    let free = || {
        let space: wire::StatFsOut = parse(share.call(Opcode::StatFs, ROOT_ID, &[])).unwrap();
        (space.bavail * u64::from(space.frsize), space.ffree)
    };
    assert_eq!(free(), (1 << 20, 5));
    let (node, _) = made(&share, "f");
    resize(&share, node, 1 << 19).unwrap();
    assert_eq!(free(), (1 << 19, 4));
}

#[test]
fn starting_over_gives_nothing_back() {
    let share = limited(100, 10);
    let (node, _) = made(&share, "f");
    resize(&share, node, 60).unwrap();
    share.call(Opcode::Destroy, 0, &[]).unwrap();
    share.init();
    assert_left(&share, 40);
}

#[test]
fn a_file_that_is_removed_while_it_is_looked_up_gives_back_once() {
    let share = limited(100, 10);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(entry) = share.lookup(ROOT_ID, "f") {
                    share.forget(entry.nodeid, 1);
                }
            }
        });
        let round = || {
            let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644)?;
            // What was removed counts for as long as it is looked at.
            while resize(&share, entry.nodeid, 90) == FULL {}
            share.release(entry.nodeid, fh)?;
            share.forget(entry.nodeid, 1);
            share.call(Opcode::Unlink, ROOT_ID, &text("f"))
        };
        let rounds = (0..3000).try_for_each(|_| round().map(drop));
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(rounds, Ok(()));
    });
    assert_left(&share, 100);
}
