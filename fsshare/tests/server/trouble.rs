//! What may happen to a workspace while a sandbox uses it: the guest gets the right error, and nothing is lost.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use libc::{O_RDONLY, O_RDWR};

use super::client::{Share, allow, as_nobody, text};

/// A share of which the root is a file system of its own, or nothing where none can be mounted.
struct Mounted {
    share: Share,
    at: PathBuf,
    _place: tempfile::TempDir,
}

impl Mounted {
    fn new(test: &str, options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let at = place.path().join("disk");
        fs::create_dir(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&at)
            .output();
        if !mount.is_ok_and(|done| done.status.success()) {
            // Past the capture of the test harness, so that it is counted.
            let line = format!("SKIP {test}: mounting takes root\n");
            drop(std::io::stderr().write_all(line.as_bytes()));
            return None;
        }
        let share = Share::with(|config| config.root = File::open(&at).unwrap().into());
        Some(Self {
            share,
            at,
            _place: place,
        })
    }

    fn run(&self, program: &str, arguments: &[&str]) -> bool {
        let mut command = Command::new(program);
        let done = command.args(arguments).arg(&self.at).output().unwrap();
        done.status.success()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.run("umount", &["-l"]);
    }
}

/// An open file of the guest's with this in it.
fn opened(share: &Share, name: &str, content: &[u8]) -> (u64, u64) {
    let (file, fh) = share.create(ROOT_ID, name, O_RDWR, 0o644).unwrap();
    share.write(file.nodeid, fh, 0, content).unwrap();
    (file.nodeid, fh)
}

#[test]
fn a_workspace_that_is_deleted_is_empty_and_what_is_open_goes_on() {
    let share = Share::new();
    let (node, fh) = opened(&share, "file", b"kept");
    fs::remove_dir_all(&share.root).unwrap();
    assert_eq!(share.lookup(ROOT_ID, "file").err(), Some(libc::ENOENT));
    assert_eq!(
        share.create(ROOT_ID, "new", O_RDWR, 0o644).err(),
        Some(libc::ENOENT)
    );
    share.write(node, fh, 4, b" on").unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"kept on");
}

#[test]
fn a_workspace_that_is_renamed_stays_the_workspace() {
    let share = Share::new();
    let (node, fh) = opened(&share, "file", b"before");
    let moved = share.root.with_file_name("moved");
    fs::rename(&share.root, &moved).unwrap();
    fs::create_dir(&share.root).unwrap();
    share.write(node, fh, 0, b"after ").unwrap();
    opened(&share, "new", b"new");
    assert_eq!(fs::read(moved.join("file")).unwrap(), b"after ");
    assert_eq!(fs::read(moved.join("new")).unwrap(), b"new");
    assert_eq!(fs::read_dir(&share.root).unwrap().count(), 0);
}

#[test]
fn a_workspace_that_becomes_read_only_says_so() {
    let Some(disk) = Mounted::new("a_workspace_that_becomes_read_only_says_so", "size=1m") else {
        return;
    };
    let share = &disk.share;
    let (node, fh) = opened(share, "file", b"kept");
    share.release(node, fh).unwrap();
    assert!(disk.run("mount", &["-o", "remount,ro"]));
    assert_eq!(share.open(node, O_RDWR), Err(libc::EROFS));
    assert_eq!(
        share.create(ROOT_ID, "new", O_RDWR, 0o644).err(),
        Some(libc::EROFS)
    );
    assert_eq!(share.mkdir(ROOT_ID, "new").err(), Some(libc::EROFS));
    let unlinked = share.call(Opcode::Unlink, ROOT_ID, &text("file"));
    assert_eq!(unlinked, Err(libc::EROFS));
    let fh = share.open(node, O_RDONLY).unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"kept");
    assert!(disk.run("mount", &["-o", "remount,rw"]));
    share.open(node, O_RDWR).unwrap();
}

#[test]
fn a_full_workspace_takes_what_fits_and_loses_nothing() {
    let Some(disk) = Mounted::new("a_full_workspace_takes_what_fits", "size=256k") else {
        return;
    };
    let share = &disk.share;
    let (kept, _) = opened(share, "kept", b"kept");
    let (node, fh) = opened(share, "big", b"");
    let block = vec![7; 64 << 10];
    let mut length = 0;
    let full = loop {
        match share.write(node, fh, length, &block) {
            Ok(written) => length += u64::from(written),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, libc::ENOSPC);
    assert!(length >= 64 << 10);
    let fh_of_kept = share.open(kept, O_RDONLY).unwrap();
    assert_eq!(share.read(kept, fh_of_kept, 0, 64).unwrap(), b"kept");
    share.call(Opcode::Unlink, ROOT_ID, &text("big")).unwrap();
    share.release(node, fh).unwrap();
    share.forget(node, 1);
    opened(share, "after", &block);
}

#[test]
fn a_workspace_in_use_is_not_unmounted_and_one_that_is_detached_goes_on() {
    let test = "a_workspace_in_use_is_not_unmounted";
    let Some(disk) = Mounted::new(test, "size=1m") else {
        return;
    };
    let share = &disk.share;
    let (node, fh) = opened(share, "file", b"kept");
    assert!(!disk.run("umount", &[]), "it is in use");
    assert!(disk.run("umount", &["-l"]));
    share.write(node, fh, 4, b" on").unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"kept on");
    assert!(share.lookup(ROOT_ID, "file").is_ok());
    assert_eq!(fs::read_dir(&disk.at).unwrap().count(), 0);
}

#[test]
fn a_file_that_a_directory_replaces_is_still_the_file_where_it_is_open() {
    let share = Share::new();
    let (node, fh) = opened(&share, "name", b"file");
    fs::remove_file(share.root.join("name")).unwrap();
    fs::create_dir(share.root.join("name")).unwrap();
    share.write(node, fh, 4, b" still").unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"file still");
    let found = share.lookup(ROOT_ID, "name").unwrap();
    assert_ne!(found.nodeid, node);
    assert_eq!(found.attr.mode & 0o170_000, 0o040_000);
    assert_eq!(share.list(found.nodeid, 4096, false).len(), 2);
}

const TEBIBYTE: u64 = 1 << 40;

fn sparse(share: &Share) -> bool {
    let path = share.root.join("sparse");
    let file = File::create(&path).unwrap();
    // Less than this is a file system's limit.
    file.set_len(TEBIBYTE).is_ok() && {
        file.write_all_at(b"end", TEBIBYTE - 3).unwrap();
        true
    }
}

#[test]
fn a_sparse_file_of_a_tebibyte_is_like_any_other() {
    for share in [Share::new(), Share::overlay(|_| ())] {
        if !sparse(&share) {
            // Past the capture of the test harness, so that it is counted.
            let skip = b"SKIP a_sparse_file_of_a_tebibyte_is_like_any_other: no such files here\n";
            drop(std::io::stderr().write_all(skip));
            return;
        }
        let found = share.lookup(ROOT_ID, "sparse").unwrap();
        assert_eq!(found.attr.size, TEBIBYTE);
        let node = found.nodeid;
        // In an overlay this copies it up, with its hole.
        let fh = share.open(node, O_RDWR).unwrap();
        share.write(node, fh, TEBIBYTE / 2, b"middle").unwrap();
        assert_eq!(share.read(node, fh, TEBIBYTE - 3, 64).unwrap(), b"end");
        assert_eq!(share.read(node, fh, TEBIBYTE / 2, 6).unwrap(), b"middle");
        assert_eq!(share.read(node, fh, 0, 4096).unwrap(), vec![0; 4096]);
        let attributes = share.getattr(node).unwrap();
        assert_eq!(attributes.size, TEBIBYTE);
        assert!(attributes.blocks < 1000, "{}", attributes.blocks);
    }
}

#[test]
fn times_to_come_are_told_as_they_are() {
    // As a host sees its files after its clock went back.
    let share = Share::new();
    let path = share.root.join("file");
    fs::write(&path, "x").unwrap();
    let year = Duration::from_secs(365 * 24 * 3600);
    let to_come = SystemTime::now() + 10 * year;
    let file = File::options().write(true).open(&path).unwrap();
    file.set_modified(to_come).unwrap();
    let found = share.lookup(ROOT_ID, "file").unwrap();
    let seconds = fs::metadata(&path).unwrap().mtime();
    assert_eq!(found.attr.mtime, seconds as u64);
    let fh = share.open(found.nodeid, O_RDWR).unwrap();
    share.write(found.nodeid, fh, 0, b"y").unwrap();
    assert!(share.getattr(found.nodeid).unwrap().mtime < seconds as u64);
    let before = wire::SetAttrIn {
        valid: SetAttrFlags::MTIME.bits(),
        mtime: 1,
        ..Default::default()
    };
    assert_eq!(share.setattr(found.nodeid, before).unwrap().mtime, 1);
}

#[test]
fn a_folder_that_the_host_may_not_read_is_told_as_such_and_spoils_nothing() {
    let share = Share::new();
    for folder in ["closed", "blind", "fine"] {
        fs::create_dir(share.root.join(folder)).unwrap();
        fs::write(share.root.join(folder).join("inner"), "x").unwrap();
    }
    allow(&share.root, 0o777);
    allow(share.root.parent().unwrap(), 0o755);
    allow(&share.root.join("closed"), 0o000);
    allow(&share.root.join("blind"), 0o711);
    as_nobody("a_folder_that_the_host_may_not_read", || {
        let closed = share.lookup(ROOT_ID, "closed").unwrap().nodeid;
        assert_eq!(share.opendir(closed), Err(libc::EACCES));
        assert_eq!(share.lookup(closed, "inner").err(), Some(libc::EACCES));
        let made = share.create(closed, "new", O_RDWR, 0o644);
        assert_eq!(made.err(), Some(libc::EACCES));
        let blind = share.lookup(ROOT_ID, "blind").unwrap().nodeid;
        assert_eq!(share.opendir(blind), Err(libc::EACCES));
        assert!(share.lookup(blind, "inner").is_ok());
        let names = share.list(ROOT_ID, 4096, true);
        assert_eq!(names.len(), 5, "{names:?}");
        let fine = share.lookup(ROOT_ID, "fine").unwrap().nodeid;
        assert_eq!(share.list(fine, 4096, true).len(), 3);
    });
    allow(&share.root.join("closed"), 0o700);
}
