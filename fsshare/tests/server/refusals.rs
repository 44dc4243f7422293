//! What the host's user is told of, and files that have several names when the guest first sees them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{Config, HardLinkPolicy, Observer, Reason, Refusal};
use libc::{O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use super::client::{Share, text};

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<Refusal>>);

impl Observer for Seen {
    fn refused(&self, refusal: &Refusal) {
        self.0.lock().unwrap().push(refusal.clone());
    }
}

/// A share, and what it told of.
fn observed(configure: impl FnOnce(&mut Config)) -> (Share, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let observer = Arc::clone(&seen);
    let share = Share::with(|config| {
        config.observer = Some(observer);
        configure(config);
    });
    (share, seen)
}

fn told(seen: &Seen) -> Vec<(Reason, String)> {
    let told = seen.0.lock().unwrap();
    told.iter()
        .map(|one| (one.reason, one.path.clone()))
        .collect()
}

/// A file of two names, one of them outside.
fn shared_with_outside(share: &Share) -> std::path::PathBuf {
    let outside = share.root.parent().unwrap().join("outside/store");
    fs::write(&outside, "store").unwrap();
    fs::hard_link(&outside, share.root.join("linked")).unwrap();
    outside
}

#[test]
fn a_file_of_several_names_is_read_and_not_changed() {
    let (share, seen) = observed(|_| ());
    let outside = shared_with_outside(&share);
    let before = fs::metadata(&outside).unwrap();
    let node = share.lookup(ROOT_ID, "linked").unwrap().nodeid;
    let fh = share.open(node, O_RDONLY).unwrap();
    assert_eq!(share.read(node, fh, 0, 64).unwrap(), b"store");
    assert_eq!(share.write(node, fh, 0, b"x"), Err(libc::EPERM));
    for flags in [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC] {
        assert_eq!(share.open(node, flags), Err(libc::EPERM), "{flags:o}");
        assert_eq!(
            share.create(ROOT_ID, "linked", flags, 0o644).err(),
            Some(libc::EPERM)
        );
    }
    for valid in [SetAttrFlags::MODE, SetAttrFlags::SIZE, SetAttrFlags::MTIME] {
        let changes = wire::SetAttrIn {
            valid: valid.bits(),
            mode: 0o777,
            ..Default::default()
        };
        assert_eq!(
            share.setattr(node, changes).err(),
            Some(libc::EPERM),
            "{valid:?}"
        );
    }
    let after = fs::metadata(&outside).unwrap();
    assert_eq!(
        (before.mode(), before.mtime_nsec(), before.len()),
        (after.mode(), after.mtime_nsec(), after.len())
    );
    assert_eq!(told(&seen), [(Reason::HardLink, "linked".to_owned())]);
    share.link(node, ROOT_ID, "third").unwrap();
    let third = share.lookup(ROOT_ID, "third").unwrap().nodeid;
    assert_eq!(share.open(third, O_RDWR), Err(libc::EPERM));
    // The name is the guest's own: it may be replaced by another file.
    share
        .call(Opcode::Unlink, ROOT_ID, &text("linked"))
        .unwrap();
    share.create(ROOT_ID, "linked", O_RDWR, 0o644).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"store");
}

#[test]
fn a_listed_file_of_several_names_is_not_changed_either() {
    let share = Share::new();
    shared_with_outside(&share);
    let listed = share.list(ROOT_ID, 1 << 16, true);
    let node = listed.iter().find(|(name, _)| name == "linked").unwrap().1;
    assert_eq!(share.open(node, O_RDWR), Err(libc::EPERM));
}

#[test]
fn what_the_guest_links_itself_stays_writable() {
    let share = Share::new();
    let (made, fh) = share.create(ROOT_ID, "one", O_RDWR, 0o644).unwrap();
    share.link(made.nodeid, ROOT_ID, "two").unwrap();
    let again = share.lookup(ROOT_ID, "two").unwrap();
    assert_eq!((again.nodeid, again.attr.nlink), (made.nodeid, 2));
    assert_eq!(share.write(made.nodeid, fh, 0, b"both"), Ok(4));
    share.open(made.nodeid, O_RDWR).unwrap();
}

#[test]
fn the_last_name_of_a_file_makes_it_like_any_other() {
    let share = Share::new();
    let outside = shared_with_outside(&share);
    let node = share.lookup(ROOT_ID, "linked").unwrap().nodeid;
    assert_eq!(share.open(node, O_RDWR), Err(libc::EPERM));
    fs::remove_file(outside).unwrap();
    share.lookup(ROOT_ID, "linked").unwrap();
    share.open(node, O_RDWR).unwrap();
}

#[test]
fn an_embedder_may_allow_it() {
    let (share, seen) = observed(|config| config.hard_links = HardLinkPolicy::Writable);
    let outside = shared_with_outside(&share);
    let node = share.lookup(ROOT_ID, "linked").unwrap().nodeid;
    let fh = share.open(node, O_RDWR).unwrap();
    assert_eq!(share.write(node, fh, 0, b"there"), Ok(5));
    assert_eq!(fs::read(outside).unwrap(), b"there");
    assert_eq!(told(&seen), []);
}

#[test]
fn each_refusal_is_told_once_with_its_path() {
    let (share, seen) = observed(|config| {
        config.rules.protect(".git/hooks").unwrap();
        config.rules.hide(".env").unwrap();
    });
    fs::create_dir_all(share.root.join("sub/.git/hooks")).unwrap();
    fs::write(share.root.join("sub/.env"), "SECRET=1").unwrap();
    fs::write(share.root.join("sub/.git/hooks/old"), "").unwrap();
    let (sub, hooks) = (share.walk("sub"), share.walk("sub/.git/hooks"));
    let old = share.lookup(hooks, "old").unwrap().nodeid;
    for _ in 0..2 {
        assert_eq!(share.lookup(sub, ".env").err(), Some(libc::ENOENT));
        // Nothing is kept from the guest here.
        assert_eq!(share.lookup(ROOT_ID, ".env").err(), Some(libc::ENOENT));
        assert_eq!(
            share.create(hooks, "pre-commit", O_RDWR, 0o755).err(),
            Some(libc::EPERM)
        );
        assert_eq!(share.open(old, O_RDWR), Err(libc::EPERM));
        assert_eq!(
            share.rename((ROOT_ID, "sub"), (hooks, "x"), 0),
            Err(libc::EPERM)
        );
    }
    let expected = [
        (Reason::Hidden, "sub/.env"),
        (Reason::Protected, "sub/.git/hooks/pre-commit"),
        (Reason::Protected, "sub/.git/hooks/old"),
        (Reason::Protected, "sub/.git/hooks/x"),
    ];
    assert_eq!(
        told(&seen),
        expected.map(|(reason, path)| (reason, path.to_owned()))
    );
}

#[test]
fn a_guest_cannot_make_the_telling_endless() {
    let (share, seen) = observed(|config| config.rules.protect("p*").unwrap());
    for number in 0..400 {
        let name = format!("p{number}");
        assert_eq!(share.mkdir(ROOT_ID, &name).err(), Some(libc::EPERM));
    }
    assert_eq!(told(&seen).len(), 256);
}
