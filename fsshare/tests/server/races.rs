//! Many threads at once, with the host changing the tree under them (attack F12, a short version).

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use libc::{O_RDWR, O_TRUNC};

use super::client::{Share, text};

/// How often the host exchanges the directory and a link while the guest works; `COFFERDAM_EXCHANGES` says otherwise.
const EXCHANGES: usize = 3_000;

fn exchanges() -> usize {
    let asked = std::env::var("COFFERDAM_EXCHANGES");
    asked.map_or(EXCHANGES, |asked| asked.parse().unwrap())
}

/// What the guest tries again and again on `dir/secret`, and on `dir` itself.
fn attack(share: &Share) {
    let Ok(dir) = share.lookup(ROOT_ID, "dir") else {
        return;
    };
    if let Ok((file, fh)) = share.create(dir.nodeid, "secret", O_RDWR | O_TRUNC, 0o666) {
        share.write(file.nodeid, fh, 0, b"guest").unwrap();
        share.release(file.nodeid, fh).unwrap();
        share.forget(file.nodeid, 1);
    }
    if let Ok(file) = share.lookup(dir.nodeid, "secret") {
        let changes = wire::SetAttrIn {
            valid: SetAttrFlags::MODE.bits(),
            mode: 0o777,
            ..Default::default()
        };
        // Without a handle, a file that is out of sight is stale.
        let outcome = share.setattr(file.nodeid, changes);
        assert!(
            matches!(outcome, Ok(_) | Err(libc::ESTALE)),
            "{:?}",
            outcome.err()
        );
        assert_ne!(
            file.attr.size,
            b"sentinel".len() as u64,
            "the sentinel was found"
        );
        share.forget(file.nodeid, 1);
    }
    let _ = share
        .mkdir(dir.nodeid, "new")
        .map(|made| share.forget(made.nodeid, 1));
    let _ = share.call(Opcode::RmDir, dir.nodeid, &text("new"));
    let _ = share.rename((ROOT_ID, "dir"), (ROOT_ID, "other"), libc::RENAME_EXCHANGE);
    share.forget(dir.nodeid, 1);
}

#[test]
fn a_directory_that_keeps_becoming_a_link_never_leads_out() {
    race(&Share::new());
}

#[test]
fn nor_does_one_of_which_no_handle_is_held() {
    race(&Share::with(|config| config.limits.max_held = 6));
}

fn race(share: &Share) {
    fs::create_dir(share.root.join("dir")).unwrap();
    symlink("../outside", share.root.join("link")).unwrap();
    symlink("../outside", share.root.join("other")).unwrap();
    let stop = AtomicBool::new(false);
    let host = fs::File::open(&share.root).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    attack(share);
                }
            });
        }
        for _ in 0..exchanges() {
            rustix::fs::renameat_with(
                &host,
                "dir",
                &host,
                "link",
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    share.assert_outside_untouched();
}

#[test]
fn lookups_and_forgets_of_one_node_balance_across_threads() {
    let share = Share::new();
    fs::write(share.root.join("f"), "x").unwrap();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    let node = share.walk("f");
                    assert!(
                        share.getattr(node).is_ok(),
                        "held by this thread's own lookup"
                    );
                    share.forget(node, 1);
                }
            });
        }
    });
    let node = share.walk("f");
    share.forget(node, 1);
    assert_eq!(
        share.getattr(node),
        Err(libc::ESTALE),
        "every lookup was given back"
    );
}

#[test]
fn threads_write_one_file_without_mixing_their_buffers() {
    let share = Share::new();
    let (entry, fh) = share.create(ROOT_ID, "f", O_RDWR, 0o644).unwrap();
    const BLOCK: usize = 4096;
    thread::scope(|scope| {
        for n in 0..4_u8 {
            let (share, node) = (&share, entry.nodeid);
            scope.spawn(move || {
                for round in 0..50_u64 {
                    let offset = (round * 4 + u64::from(n)) * BLOCK as u64;
                    assert_eq!(share.write(node, fh, offset, &[n; BLOCK]), Ok(BLOCK as u32));
                    assert_eq!(
                        share.read(node, fh, offset, BLOCK as u32),
                        Ok(vec![n; BLOCK])
                    );
                }
            });
        }
    });
    let content = fs::read(share.root.join("f")).unwrap();
    assert!(
        content
            .chunks(BLOCK)
            .enumerate()
            .all(|(at, block)| block.iter().all(|byte| usize::from(*byte) == at % 4))
    );
}
