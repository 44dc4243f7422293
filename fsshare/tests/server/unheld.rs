//! Nodes of which the server holds no handle: found again by their name, or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use libc::{O_RDONLY, O_RDWR};

use super::client::{Share, text};

/// So few handles that each use of a node drives another out.
fn crowded() -> Share {
    Share::with(|config| config.limits.max_held = 6)
}

/// Makes others be used until no handle of an earlier node is left.
fn drive_out(share: &Share) {
    for number in 0..24 {
        let name = format!("other{number}");
        fs::write(share.root.join(&name), "").unwrap();
        share.lookup(ROOT_ID, &name).unwrap();
    }
}

fn content(share: &Share, node: u64) -> Result<Vec<u8>, i32> {
    let fh = share.open(node, O_RDONLY)?;
    let content = share.read(node, fh, 0, 4096);
    share.release(node, fh).unwrap();
    content
}

#[test]
fn many_more_nodes_than_handles_all_work() {
    let share = crowded();
    let mut nodes = Vec::new();
    for folder in 0..10 {
        let dir = share.mkdir(ROOT_ID, &format!("d{folder}")).unwrap().nodeid;
        for number in 0..20 {
            let path = format!("d{folder}/f{number}");
            fs::write(share.root.join(&path), &path).unwrap();
            nodes.push((share.lookup(dir, &format!("f{number}")).unwrap(), path));
        }
    }
    for (entry, path) in &nodes {
        assert_eq!(content(&share, entry.nodeid).unwrap(), path.as_bytes());
        let attr = share.getattr(entry.nodeid).unwrap();
        assert_eq!((attr.ino, attr.size), (entry.attr.ino, path.len() as u64));
    }
}

#[test]
fn listed_nodes_work_and_keep_their_number() {
    let share = crowded();
    for number in 0..50 {
        fs::write(share.root.join(format!("f{number}")), "listed").unwrap();
    }
    let listed = share.list(ROOT_ID, 1 << 16, true);
    for (name, node) in listed.iter().filter(|(name, _)| name.starts_with('f')) {
        assert_eq!(content(&share, *node).unwrap(), b"listed", "{name}");
        assert_eq!(share.lookup(ROOT_ID, name).unwrap().nodeid, *node, "{name}");
    }
}

#[test]
fn a_deep_way_is_found_again() {
    let share = crowded();
    let mut at = ROOT_ID;
    for depth in 0..300 {
        at = share.mkdir(at, &format!("d{depth}")).unwrap().nodeid;
    }
    let made = share.create(at, "deep", O_RDWR, 0o600).unwrap();
    share.write(made.0.nodeid, made.1, 0, b"down here").unwrap();
    share.release(made.0.nodeid, made.1).unwrap();
    drive_out(&share);
    assert_eq!(content(&share, made.0.nodeid).unwrap(), b"down here");
}

#[test]
fn renames_by_the_guest_are_followed() {
    let share = crowded();
    let dir = share.mkdir(ROOT_ID, "a").unwrap().nodeid;
    fs::write(share.root.join("a/f"), "moved").unwrap();
    fs::write(share.root.join("g"), "exchanged").unwrap();
    let (file, other) = (
        share.lookup(dir, "f").unwrap(),
        share.lookup(ROOT_ID, "g").unwrap(),
    );
    drive_out(&share);
    share.rename((ROOT_ID, "a"), (ROOT_ID, "b"), 0).unwrap();
    drive_out(&share);
    assert_eq!(content(&share, file.nodeid).unwrap(), b"moved");
    share
        .rename((dir, "f"), (ROOT_ID, "g"), libc::RENAME_EXCHANGE)
        .unwrap();
    drive_out(&share);
    assert_eq!(content(&share, file.nodeid).unwrap(), b"moved");
    assert_eq!(content(&share, other.nodeid).unwrap(), b"exchanged");
    share.rename((ROOT_ID, "g"), (dir, "h"), 0).unwrap();
    drive_out(&share);
    assert_eq!(content(&share, file.nodeid).unwrap(), b"moved");
}

#[test]
fn what_the_host_moves_away_is_stale_and_never_something_else() {
    let share = crowded();
    let dir = share.mkdir(ROOT_ID, "dir").unwrap().nodeid;
    fs::write(share.root.join("dir/secret"), "mine").unwrap();
    fs::write(share.root.join("twin"), "twin").unwrap();
    let file = share.lookup(dir, "secret").unwrap().nodeid;
    for replace in [
        // The sentinel has the same name outside.
        &|| symlink("../outside", share.root.join("dir")).unwrap(),
        &|| {
            fs::remove_file(share.root.join("dir")).unwrap();
            fs::create_dir(share.root.join("dir")).unwrap();
            fs::write(share.root.join("dir/secret"), "other").unwrap();
        },
        &|| {
            fs::remove_file(share.root.join("dir/secret")).unwrap();
            fs::hard_link(share.root.join("twin"), share.root.join("dir/secret")).unwrap();
        },
        &|| {
            fs::remove_file(share.root.join("dir/secret")).unwrap();
            symlink("../../outside/secret", share.root.join("dir/secret")).unwrap();
        },
    ] as [&dyn Fn(); 4]
    {
        if share.root.join("aside").exists() {
            drive_out(&share);
        } else {
            drive_out(&share);
            fs::rename(share.root.join("dir"), share.root.join("aside")).unwrap();
        }
        replace();
        let changes = wire::SetAttrIn {
            valid: SetAttrFlags::MODE.bits(),
            mode: 0o777,
            ..Default::default()
        };
        assert_eq!(content(&share, file), Err(libc::ESTALE));
        assert_eq!(share.getattr(file).err(), Some(libc::ESTALE));
        assert_eq!(share.setattr(file, changes).err(), Some(libc::ESTALE));
        assert_eq!(share.open(file, O_RDWR), Err(libc::ESTALE));
        share.assert_outside_untouched();
    }
}

#[test]
fn an_open_file_stays_whatever_happens_to_its_name() {
    let share = crowded();
    let (made, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o600).unwrap();
    share.write(made.nodeid, fh, 0, b"still here").unwrap();
    share.call(Opcode::Unlink, ROOT_ID, &text("f")).unwrap();
    drive_out(&share);
    assert_eq!(share.read(made.nodeid, fh, 0, 64).unwrap(), b"still here");
    assert_eq!(share.getattr(made.nodeid).unwrap().nlink, 0);
}

#[test]
fn a_number_of_the_host_that_is_used_again_is_another_node() {
    let share = crowded();
    let mut last = None;
    for round in 0..50 {
        fs::write(share.root.join("f"), format!("{round}")).unwrap();
        let listed = share.list(ROOT_ID, 1 << 16, true);
        let node = listed.iter().find(|(name, _)| name == "f").unwrap().1;
        let inode = fs::metadata(share.root.join("f")).unwrap().ino();
        assert_eq!(
            content(&share, node).unwrap(),
            format!("{round}").as_bytes()
        );
        assert_eq!(share.getattr(node).unwrap().ino, inode);
        assert_ne!(
            Some(node),
            last,
            "round {round}: the guest would take it for the removed file"
        );
        share.call(Opcode::Unlink, ROOT_ID, &text("f")).unwrap();
        last = Some(node);
    }
}

#[test]
fn one_of_two_names_is_enough() {
    let share = crowded();
    fs::write(share.root.join("one"), "both").unwrap();
    let node = share.lookup(ROOT_ID, "one").unwrap().nodeid;
    assert_eq!(share.link(node, ROOT_ID, "two").unwrap().nodeid, node);
    share.call(Opcode::Unlink, ROOT_ID, &text("one")).unwrap();
    assert_eq!(content(&share, node).unwrap(), b"both");
    assert_eq!(share.lookup(ROOT_ID, "two").unwrap().nodeid, node);
    drive_out(&share);
    assert_eq!(content(&share, node).unwrap(), b"both");
}

#[test]
fn forgetting_the_way_makes_what_is_below_stale() {
    let share = crowded();
    let dir = share.mkdir(ROOT_ID, "dir").unwrap().nodeid;
    fs::write(share.root.join("dir/f"), "").unwrap();
    let file = share.lookup(dir, "f").unwrap().nodeid;
    drive_out(&share);
    share.forget(dir, 1);
    assert_eq!(share.getattr(file).err(), Some(libc::ESTALE));
    assert_eq!(share.getattr(dir).err(), Some(libc::ESTALE));
    // Its place is given to another directory.
    let other = share.mkdir(ROOT_ID, "new").unwrap().nodeid;
    assert_ne!(other, dir);
    assert_eq!(share.getattr(file).err(), Some(libc::ESTALE));
}

#[test]
fn a_protected_file_is_protected_without_a_handle_too() {
    let share = Share::with(|config| {
        config.limits.max_held = 6;
        config.rules.protect("Makefile").unwrap();
    });
    fs::write(share.root.join("Makefile"), "all:").unwrap();
    let listed = share.list(ROOT_ID, 1 << 16, true);
    let node = listed
        .iter()
        .find(|(name, _)| name == "Makefile")
        .unwrap()
        .1;
    for _ in 0..2 {
        assert_eq!(share.open(node, O_RDWR), Err(libc::EPERM));
        assert_eq!(content(&share, node).unwrap(), b"all:");
        drive_out(&share);
    }
}
