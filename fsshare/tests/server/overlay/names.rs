//! Files of several names, and of none.

use std::fs;

use fsshare::HardLinkPolicy;
use fsshare::abi::{ROOT_ID, SetAttrFlags, wire};
use libc::{ESTALE, O_RDONLY};

use super::super::client::{Share, fingerprint};
use super::{Paths as _, fill};

/// A share in which `d/a` is `other`, too.
fn linked() -> Share {
    let share = Share::overlay(|config| {
        config.hard_links = HardLinkPolicy::Writable;
    });
    fill(&share.root);
    fs::hard_link(share.root.join("d/a"), share.root.join("other")).unwrap();
    share
}

#[test]
fn of_two_names_that_is_changed_by_which_the_guest_came_last() {
    let share = linked();
    let untouched = fingerprint(&share.root);
    share.node("d/a").unwrap();
    share.put("other", 0, b"OTHER").unwrap();
    assert_eq!(share.get("other").unwrap(), b"OTHER");
    assert_eq!(share.get("d/a").unwrap(), b"below");
    share.put("d/a", 0, b"first").unwrap();
    assert_eq!(share.get("other").unwrap(), b"OTHER");
    assert_eq!(share.get("d/a").unwrap(), b"first");
    // From then on they are two files.
    let number = |path| share.getattr(share.node(path).unwrap()).unwrap().ino;
    assert_ne!(number("d/a"), number("other"));
    assert_eq!(fingerprint(&share.root), untouched);
}

#[test]
fn of_two_names_one_is_moved_or_removed_alone() {
    let share = linked();
    let untouched = fingerprint(&share.root);
    share.node("other").unwrap();
    share.mv("d/a", "moved", 0).unwrap();
    share.put("moved", 0, b"MOVED").unwrap();
    assert_eq!(share.get("other").unwrap(), b"below");
    share.chmod("other", 0o600).unwrap();
    share.remove("other").unwrap();
    assert_eq!(share.get("moved").unwrap(), b"MOVED");
    assert_eq!(fingerprint(&share.root), untouched);
}

#[test]
fn what_the_host_has_and_the_guest_removed_is_read_on_but_not_changed() {
    let share = Share::overlay(|_| ());
    fill(&share.root);
    let untouched = fingerprint(&share.root);
    let node = share.node("d/a").unwrap();
    let fh = share.open(node, O_RDONLY).unwrap();
    share.remove("d/a").unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"below");
    let changes = wire::SetAttrIn {
        valid: (SetAttrFlags::MODE | SetAttrFlags::FH).bits(),
        mode: 0o600,
        fh,
        ..Default::default()
    };
    assert_eq!(share.setattr(node, changes).err(), Some(ESTALE));
    assert_eq!(fingerprint(&share.root), untouched);
}

#[test]
fn a_name_of_several_is_asked_for_each_time() {
    let share = linked();
    assert_eq!(share.lookup(ROOT_ID, "other").unwrap().entry_valid_nsec, 0);
    assert!(share.lookup(ROOT_ID, "a").unwrap().entry_valid_nsec > 0);
    share.put("other", 0, b"OTHER").unwrap();
    assert!(share.lookup(ROOT_ID, "other").unwrap().entry_valid_nsec > 0);
}
