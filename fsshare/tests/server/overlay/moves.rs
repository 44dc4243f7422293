//! What is moved is at its old place or at its new one, and what the host has is nowhere seen again.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::EACCES;

use super::super::client::{Share, allow};
use super::{Paths as _, fill};

fn overlay() -> Share {
    let share = Share::overlay(|_| ());
    fill(&share.root);
    share
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn no_moment_shows_what_is_below_the_old_name() {
    let share = overlay();
    share.put("a", 0, b"guest").unwrap();
    let (above, is_over) = (share.changes.join("upper/a"), AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let is_there = || match fs::symlink_metadata(&above) {
                Err(error) => error.kind() != ErrorKind::NotFound,
                Ok(_) => true,
            };
            while !is_over.load(Ordering::Relaxed) {
                if !is_there() {
                    return false;
                }
            }
            true
        });
        for _ in 0..1000 {
            share.mv("a", "b", 0).unwrap();
            share.make("a").unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    });
    assert!(seen, "for a moment nothing hid what the host has");
    assert_eq!(fs::read(share.root.join("a")).unwrap(), b"alpha");
}

#[test]
fn a_directory_that_cannot_be_moved_leaves_nothing_where_it_should_have_gone() {
    let share = overlay();
    share.make_dir("mine").unwrap();
    share.make("mine/file").unwrap();
    share.remove("full/one").unwrap();
    share.make_dir("full/one").unwrap();
    share.chmod("full/one", 0o555).unwrap();
    // What moves to another directory changes its own way up, which takes the right to write to it.
    let outcome = share.mv("full/one", "mine/new", 0);
    assert_eq!(outcome, if is_root() { Ok(()) } else { Err(EACCES) });
    let upper = share.changes.join("upper/mine/new");
    assert_eq!(upper.exists(), is_root());
    assert!(is_root() || fs::symlink_metadata(&upper).is_err());
}

#[test]
fn a_directory_takes_the_place_of_one_that_nobody_may_write() {
    for share in [overlay(), Share::new()] {
        if !share.root.join("empty").exists() {
            fill(&share.root);
        }
        share.make_dir("mine").unwrap();
        share.make("mine/file").unwrap();
        share.make_dir("full/closed").unwrap();
        share.chmod("full/closed", 0o555).unwrap();
        share.mv("mine", "full/closed", 0).unwrap();
        assert_eq!(share.names("full/closed").unwrap(), ["file"]);
        assert_eq!(share.node("mine"), Err(libc::ENOENT));
    }
}

#[test]
fn a_directory_of_any_mode_is_copied_up() {
    let share = overlay();
    for mode in [0o000, 0o111, 0o311, 0o444, 0o555] {
        let path = format!("empty/{mode:o}");
        let below = share.root.join(&path);
        fs::create_dir(&below).unwrap();
        allow(&below, mode);
        share.chmod(&path, 0o750).unwrap();
        let node = share.node(&path).unwrap();
        assert_eq!(share.getattr(node).unwrap().mode, 0o040_750);
        // What the host's user may not look into stays closed to the guest.
        let is_closed = |bits| !is_root() && mode & bits != bits;
        let expect = |bits| if is_closed(bits) { Err(EACCES) } else { Ok(()) };
        assert_eq!(
            share.make(&format!("{path}/new")),
            expect(0o100),
            "{mode:o}"
        );
        assert_eq!(share.names(&path).map(drop), expect(0o400), "{mode:o}");
        let after = fs::metadata(&below).unwrap().permissions();
        assert_eq!(after.mode() & 0o7777, mode);
        allow(&below, 0o755);
    }
}

#[test]
fn a_file_that_cannot_be_read_cannot_be_changed() {
    let share = overlay();
    let below = share.root.join("full/one");
    allow(&below, 0o200);
    let outcome = if is_root() { Ok(()) } else { Err(EACCES) };
    assert_eq!(share.put("full/one", 0, b"x"), outcome);
    assert_eq!(share.chmod("full/one", 0o600), outcome);
    // Its name is another matter.
    share.remove("full/one").unwrap();
    allow(&below, 0o600);
    assert_eq!(fs::read(&below).unwrap(), b"1");
}

#[test]
fn a_directory_that_does_not_come_leaves_the_one_that_was_there() {
    let share = overlay();
    for path in ["full/closed", "empty/closed"] {
        share.make_dir(path).unwrap();
        share.chmod(path, 0o555).unwrap();
    }
    let outcome = share.mv("full/closed", "empty/closed", 0);
    assert_eq!(outcome, if is_root() { Ok(()) } else { Err(EACCES) });
    assert_eq!(share.node("full/closed").is_ok(), !is_root());
    let node = share.node("empty/closed").unwrap();
    assert_eq!(share.getattr(node).unwrap().mode, 0o040_555);
}
