//! What the host's user is told of, and what gets onto the host.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use fsshare::{ApplyError, Caution, Change, ChangesError, Content, OnConflict, What};

use fsshare::abi::{Opcode, wire};

use super::super::client::{Share, as_nobody, fingerprint, text};
use super::{Paths as _, changes, fill};

fn overlay() -> Share {
    let share = Share::overlay(|_| ());
    fill(&share.root);
    share
}

fn told(share: &Share) -> Vec<(String, What)> {
    let list = changes(share);
    let told = list.list().iter();
    told.map(|change| (change.path.to_str().unwrap().into(), change.what.clone()))
        .collect()
}

/// What could not be applied.
fn apply(share: &Share, chosen: impl Fn(&Change) -> bool, on: OnConflict) -> Vec<String> {
    let failed = changes(share).apply(chosen, on).unwrap();
    let names = failed.iter().map(|(change, error)| {
        assert!(matches!(error, ApplyError::Conflict(_)), "{error:?}");
        change.path.to_str().unwrap().to_owned()
    });
    names.collect()
}

fn read(share: &Share, path: &str) -> Option<String> {
    fs::read_to_string(share.root.join(path)).ok()
}

#[test]
fn each_kind_of_change_is_told() {
    let share = overlay();
    share.put("a", 0, b"A").unwrap();
    share.make("new").unwrap();
    share.make_dir("folder").unwrap();
    share.make("folder/inner").unwrap();
    share.chmod("d/a", 0o755).unwrap();
    share.chmod("full/of", 0o700).unwrap();
    share.remove("l").unwrap();
    share.mv("full/of/two", "renamed", 0).unwrap();
    share.remove("d/e/a").unwrap();
    share.remove_dir("d/e").unwrap();
    share.make("d/e").unwrap();
    // Opened to be written, and closed as it was.
    share.put("full/one", 0, b"1").unwrap();
    let from = |path: &str| What::Renamed { from: path.into() };
    let expected = [
        ("a", What::Modified),
        ("d/a", What::Mode),
        ("d/e", What::Modified),
        ("d/e/a", What::Deleted),
        ("folder", What::Added),
        ("folder/inner", What::Added),
        ("full/of", What::Mode),
        ("l", What::Deleted),
        ("new", What::Added),
        ("renamed", from("full/of/two")),
    ];
    assert_eq!(
        told(&share),
        expected.map(|(path, what)| (path.to_owned(), what))
    );
    assert!(
        changes(&share)
            .list()
            .iter()
            .all(|change| !change.is_conflict)
    );
}

#[test]
fn both_contents_can_be_read() {
    let share = overlay();
    share.overwrite("a", b"\0binary\xff").unwrap();
    let changes = changes(&share);
    let bytes = |content| {
        let mut bytes = Vec::new();
        match content {
            Content::File(mut file) => drop(file.read_to_end(&mut bytes).unwrap()),
            other => panic!("{other:?}"),
        }
        bytes
    };
    let change = &changes.list()[0];
    assert_eq!(bytes(changes.before(change).unwrap()), b"alpha");
    assert_eq!(bytes(changes.after(change).unwrap()), b"\0binary\xff");
}

#[test]
fn what_both_have_changed_is_left_to_the_user() {
    for on_conflict in [OnConflict::Keep, OnConflict::Overwrite] {
        let share = overlay();
        share.put("a", 0, b"guest").unwrap();
        share.remove("b").unwrap();
        share.make("new").unwrap();
        share.put("full/one", 0, b"2").unwrap();
        share.put("d/a", 0, b"fine").unwrap();
        fs::write(share.root.join("a"), "host!").unwrap();
        fs::write(share.root.join("b"), "host!").unwrap();
        fs::write(share.root.join("new"), "host!").unwrap();
        fs::remove_file(share.root.join("full/one")).unwrap();
        let conflicts = ["a", "b", "full/one", "new"];
        let list = changes(&share);
        let told = list.list().iter().filter(|change| change.is_conflict);
        let told: Vec<_> = told.map(|change| change.path.to_str().unwrap()).collect();
        assert_eq!(told, conflicts);
        let mut failed = apply(&share, |_| true, on_conflict);
        failed.sort();
        assert_eq!(read(&share, "d/a").unwrap(), "finew");
        if on_conflict == OnConflict::Keep {
            assert_eq!(failed, conflicts);
            for path in ["a", "b", "new"] {
                assert_eq!(read(&share, path).unwrap(), "host!");
            }
            assert_eq!(read(&share, "full/one"), None);
        } else {
            assert_eq!(failed, [""; 0]);
            assert_eq!(read(&share, "a").unwrap(), "guest");
            assert_eq!(read(&share, "b"), None);
            assert_eq!(read(&share, "new").unwrap(), "");
            assert_eq!(read(&share, "full/one").unwrap(), "2");
        }
    }
}

#[test]
fn a_change_that_comes_between_look_and_deed_is_seen() {
    let share = overlay();
    share.put("a", 0, b"guest").unwrap();
    share.remove("b").unwrap();
    let list = changes(&share);
    fs::write(share.root.join("a"), "host!").unwrap();
    fs::write(share.root.join("b"), "host!").unwrap();
    let failed = list.apply(|_| true, OnConflict::Keep).unwrap();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(read(&share, "a").unwrap(), "host!");
    assert_eq!(read(&share, "b").unwrap(), "host!");
}

#[test]
fn some_can_be_applied_and_the_guest_goes_on() {
    let share = overlay();
    share.make_dir("x").unwrap();
    share.make_dir("x/y").unwrap();
    share.chmod("x", 0o750).unwrap();
    share.make("x/y/file").unwrap();
    share.put("a", 0, b"1").unwrap();
    share.put("d/a", 0, b"1").unwrap();
    let is = |path: &'static str| move |change: &Change| change.path == Path::new(path);
    assert_eq!(apply(&share, is("x/y/file"), OnConflict::Keep), [""; 0]);
    let mode = fs::metadata(share.root.join("x"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
    assert_eq!(apply(&share, is("a"), OnConflict::Keep), [""; 0]);
    assert_eq!(told(&share), [("d/a".into(), What::Modified)]);
    // What it changes of that is no conflict.
    share.put("a", 0, b"22").unwrap();
    share.put("x/y/file", 0, b"more").unwrap();
    share.remove("d/a").unwrap();
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(read(&share, "a").unwrap(), "22pha");
    assert_eq!(read(&share, "x/y/file").unwrap(), "more");
    assert_eq!(read(&share, "d/a"), None);
    assert_eq!(told(&share), []);
}

#[test]
fn nothing_is_applied_through_a_link() {
    let share = overlay();
    share.put("d/a", 0, b"guest").unwrap();
    share.remove("full/one").unwrap();
    share.make("empty/new").unwrap();
    let outside = share.outside.clone();
    fs::write(outside.join("a"), "below").unwrap();
    fs::write(outside.join("one"), "1").unwrap();
    for directory in ["d", "full", "empty"] {
        fs::rename(
            share.root.join(directory),
            outside.join(format!("was {directory}")),
        )
        .unwrap();
        symlink(&outside, share.root.join(directory)).unwrap();
    }
    let before = fingerprint(&outside);
    for on_conflict in [OnConflict::Keep, OnConflict::Overwrite] {
        let failed = changes(&share).apply(|_| true, on_conflict).unwrap();
        // By the guest's directories in the links' places, or not at all.
        let is_kept = on_conflict == OnConflict::Keep;
        assert_eq!(failed.is_empty(), !is_kept, "{failed:?}");
        assert_eq!(fingerprint(&outside), before, "{on_conflict:?}");
    }
}

#[test]
fn what_needs_a_second_look_is_marked() {
    let share = overlay();
    for path in ["Makefile", "d/package.json", ".envrc"] {
        share.make(path).unwrap();
    }
    share.make_link("out", "../outside/secret").unwrap();
    share.make_link("in", "d/a").unwrap();
    // What comes before the dots may be a link, too.
    share.make_link("round", "d/../a").unwrap();
    share.make_dir(".git").unwrap();
    share.make_dir(".git/hooks").unwrap();
    share.make(".git/hooks/pre-commit").unwrap();
    let list = changes(&share);
    let marked = list.list().iter().filter_map(|change| {
        let caution = change.caution?;
        Some((change.path.to_str().unwrap(), caution))
    });
    let marked: Vec<_> = marked.collect();
    let runs = Caution::RunsOnHost;
    let expected = [
        (".envrc", runs),
        (".git/hooks", runs),
        (".git/hooks/pre-commit", runs),
        ("Makefile", runs),
        ("d/package.json", runs),
        ("out", Caution::LeadsOutside),
        ("round", Caution::LeadsOutside),
    ];
    assert_eq!(marked, expected);
}

#[test]
fn what_the_guest_changes_after_the_look_is_not_applied() {
    let share = overlay();
    share.put("a", 0, b"seen!").unwrap();
    share.make_link("link", "d/a").unwrap();
    share.remove("b").unwrap();
    share.put("d/a", 0, b"seen").unwrap();
    share.make("full/new").unwrap();
    let list = changes(&share);
    share.put("a", 0, b"other").unwrap();
    share.remove("link").unwrap();
    share.make_link("link", "/etc").unwrap();
    share.make("b").unwrap();
    share.remove("full/new").unwrap();
    let failed = list.apply(|_| true, OnConflict::Overwrite).unwrap();
    let failed: Vec<_> = failed
        .iter()
        .map(|(change, error)| {
            assert!(matches!(error, ApplyError::GuestChanged(_)), "{error:?}");
            change.path.to_str().unwrap()
        })
        .collect();
    assert_eq!(failed, ["b", "a", "full/new", "link"]);
    assert_eq!(read(&share, "a").unwrap(), "alpha");
    assert!(read(&share, "b").is_some());
    assert!(!share.root.join("full/new").exists());
    assert!(fs::symlink_metadata(share.root.join("link")).is_err());
    assert_eq!(read(&share, "d/a").unwrap(), "seenw");
    // Compared anew it is.
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(read(&share, "a").unwrap(), "other");
}

#[test]
fn one_at_a_time_applies() {
    let share = overlay();
    share.put("a", 0, b"guest").unwrap();
    let list = changes(&share);
    let failed = list.apply(
        |_| {
            let other = changes(&share).apply(|_| true, OnConflict::Keep);
            assert!(matches!(other, Err(ChangesError::Busy)), "{other:?}");
            true
        },
        OnConflict::Keep,
    );
    assert!(failed.unwrap().is_empty());
    assert_eq!(read(&share, "a").unwrap(), "guest");
}

#[test]
fn a_directory_that_the_host_removed_does_not_come_back_by_itself() {
    let share = overlay();
    share.make("d/e/new").unwrap();
    fs::remove_dir_all(share.root.join("d")).unwrap();
    let is_file = |change: &Change| change.path == Path::new("d/e/new");
    assert_eq!(apply(&share, is_file, OnConflict::Keep), ["d/e/new"]);
    assert!(!share.root.join("d").exists());
    assert_eq!(apply(&share, is_file, OnConflict::Overwrite), [""; 0]);
    assert!(share.root.join("d/e/new").exists());
}

#[test]
fn what_was_removed_on_both_sides_can_be_made_anew() {
    let share = overlay();
    share.remove("b").unwrap();
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(read(&share, "b"), None);
    share.make("b").unwrap();
    assert_eq!(told(&share), [("b".into(), What::Added)]);
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(read(&share, "b").unwrap(), "");
}

#[test]
fn a_rename_keeps_what_is_known_of_the_old_name() {
    let share = overlay();
    fs::write(share.root.join("Makefile"), "all:").unwrap();
    share.mv("Makefile", "harmless", 0).unwrap();
    share.chmod("harmless", 0o755).unwrap();
    let list = changes(&share);
    let [change] = list.list() else {
        panic!("{list:?}")
    };
    assert!(matches!(&change.what, What::Renamed { from } if from == Path::new("Makefile")));
    assert_eq!(change.caution, Some(Caution::RunsOnHost));
    let mode = |state: Option<fsshare::FileState>| state.unwrap().mode;
    assert_eq!((mode(change.before), mode(change.after)), (0o644, 0o755));
}

#[test]
fn a_file_of_the_users_that_looks_like_a_draft_stays() {
    let share = overlay();
    share.put("a", 0, b"guest").unwrap();
    let own = share.root.join(".cofferdam-0123456789abcdef");
    fs::write(&own, "precious").unwrap();
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(fs::read(own).unwrap(), b"precious");
}

#[test]
fn names_of_any_bytes_are_told_and_applied() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let share = overlay();
    let long = "n".repeat(255);
    share.make(&long).unwrap();
    share.make("line\nbreak").unwrap();
    fs::write(share.root.join(OsStr::from_bytes(b"\xff\xfe")), "bytes").unwrap();
    share.make_dir("deep").unwrap();
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert!(share.root.join(&long).exists() && share.root.join("line\nbreak").exists());
    assert_eq!(told(&share), []);
}

#[test]
fn a_thousand_renames_are_told_as_such() {
    let share = overlay();
    for number in 0..1000 {
        fs::write(
            share.root.join(format!("empty/{number}")),
            format!("file {number}"),
        )
        .unwrap();
    }
    for number in 0..1000 {
        share
            .mv(&format!("empty/{number}"), &format!("full/of/{number}"), 0)
            .unwrap();
    }
    let list = changes(&share);
    let renamed = |change: &&Change| {
        let number = change.path.file_name().unwrap();
        change.what
            == (What::Renamed {
                from: Path::new("empty").join(number),
            })
    };
    assert_eq!(list.list().iter().filter(renamed).count(), 1000);
    assert_eq!(list.list().len(), 1000);
}

#[test]
fn attributes_of_users_are_changes_too() {
    let share = overlay();
    let node = share.node("a").unwrap();
    let body = wire::SetXattrIn { size: 2, flags: 0 };
    let name_and_value = [text("user.note"), b"hi".to_vec()].concat();
    let set = share.ask(Opcode::SetXattr, node, &body, &name_and_value);
    if set == Err(libc::EOPNOTSUPP) {
        // Past the capture of the test harness, so that it is counted.
        let skip = b"SKIP attributes_of_users_are_changes_too: temporary files keep none\n";
        drop(std::io::stderr().write_all(skip));
        return;
    }
    set.unwrap();
    assert_eq!(told(&share), [("a".into(), What::Modified)]);
    assert_eq!(apply(&share, |_| true, OnConflict::Keep), [""; 0]);
    assert_eq!(told(&share), []);
    let mut value = [0; 8];
    let length = rustix::fs::getxattr(share.root.join("a"), "user.note", &mut value);
    assert_eq!(&value[..length.unwrap()], b"hi");
    assert_eq!(read(&share, "a").unwrap(), "alpha");
}

#[test]
fn directories_that_cannot_be_written_are_filled_without_privileges_too() {
    let share = overlay();
    share.make_dir("empty/new").unwrap();
    share.make_dir("empty/new/inner").unwrap();
    share.make("empty/new/inner/file").unwrap();
    share.chmod("empty/new/inner", 0o555).unwrap();
    share.chmod("empty/new", 0o500).unwrap();
    share.put("d/a", 0, b"guest").unwrap();
    share.chmod("d", 0o555).unwrap();
    share.give_to_nobody();
    // Opened here: the way to temporary files may be root's own.
    let list = changes(&share);
    let failed = as_nobody("directories_that_cannot_be_written_are_filled", || {
        list.apply(|_| true, OnConflict::Keep).unwrap()
    });
    let Some(failed) = failed else { return };
    assert!(failed.is_empty(), "{failed:?}");
    let mode = |path: &str| {
        let found = fs::metadata(share.root.join(path)).unwrap();
        found.permissions().mode() & 0o7777
    };
    assert_eq!(mode("empty/new"), 0o500);
    assert_eq!(mode("empty/new/inner"), 0o555);
    assert_eq!(mode("d"), 0o555);
    assert_eq!(read(&share, "d/a").unwrap(), "guest");
    assert!(share.root.join("empty/new/inner/file").exists());
    assert_eq!(told(&share), []);
}
