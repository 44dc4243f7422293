//! Anything that a guest does in an overlay looks to it as if it did it to the host's tree; and once it is applied, the host's tree is what it
//! would have been.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use fsshare::{Change, HardLinkPolicy, OnConflict, What, changes_in_place};
use proptest::prelude::*;

use super::super::client::{Reply, Share, fingerprint};
use super::{Paths, Tree, changes, fill, tree_of};

const PATHS: [&str; 16] = [
    "a",
    "b",
    "c",
    "l",
    "d",
    "d/a",
    "d/b",
    "d/e",
    "d/e/a",
    "d/e/f",
    "empty",
    "empty/a",
    "full",
    "full/of",
    "full/of/two",
    "c/a",
];

#[derive(Clone, Copy, Debug)]
enum Act {
    Make,
    MakeDir,
    MakeLink,
    Put,
    Overwrite,
    Remove,
    RemoveDir,
    Move(u32),
    Link,
    Chmod(u32),
    Truncate(u64),
    Names,
    Get,
    Again,
}

fn act() -> impl Strategy<Value = (Act, usize, usize, u8)> {
    let act = prop_oneof![
        1 => Just(Act::Make),
        1 => Just(Act::MakeDir),
        1 => Just(Act::MakeLink),
        1 => Just(Act::Put),
        1 => Just(Act::Overwrite),
        3 => Just(Act::Remove),
        3 => Just(Act::RemoveDir),
        4 => (0..3_u32).prop_map(Act::Move),
        1 => Just(Act::Link),
        1 => prop_oneof![Just(0o600), Just(0o755), Just(0o555), Just(0o4755)].prop_map(Act::Chmod),
        1 => (0..20_u64).prop_map(Act::Truncate),
        1 => Just(Act::Names),
        1 => Just(Act::Get),
        1 => Just(Act::Again),
    ];
    (act, 0..PATHS.len(), 0..PATHS.len(), any::<u8>())
}

fn perform(share: &Share, (act, one, other, number): (Act, usize, usize, u8)) -> Reply {
    let (path, to) = (PATHS[one], PATHS[other]);
    let data = [number; 7];
    let nothing = |()| Vec::new();
    let is_below = |path: &str, other| path.starts_with(&format!("{other}/"));
    if matches!(act, Act::Move(_)) && (is_below(path, to) || is_below(to, path)) {
        // The guest's own kernel answers that.
        return Ok(Vec::new());
    }
    match act {
        Act::Make => share.make(path).map(nothing),
        Act::MakeDir => share.make_dir(path).map(nothing),
        Act::MakeLink => share.make_link(path, to).map(nothing),
        Act::Put => share.put(path, u64::from(number % 9), &data).map(nothing),
        Act::Overwrite => share.overwrite(path, &data).map(nothing),
        Act::Remove => share.remove(path).map(nothing),
        Act::RemoveDir => share.remove_dir(path).map(nothing),
        Act::Move(flags) => share.mv(path, to, flags).map(nothing),
        Act::Link => share.ln(path, to).map(nothing),
        // Without root a directory that cannot be looked into hides from the test what it should compare.
        Act::Chmod(mode) if share.names(path).is_ok() => {
            share.chmod(path, mode | 0o500).map(nothing)
        }
        Act::Chmod(mode) => share.chmod(path, mode | 0o400).map(nothing),
        Act::Truncate(size) => share.truncate(path, size).map(nothing),
        Act::Names => share.names(path).map(|names| names.join(" ").into_bytes()),
        Act::Get => share.get(path),
        Act::Again => Ok(Vec::new()),
    }
}

/// Each path of two trees, and whether it differs.
fn differences(before: &Tree, after: &Tree) -> Vec<(String, bool)> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |path: &String| before.get(path) != after.get(path);
    paths
        .into_iter()
        .map(|path| (path.clone(), differs(path)))
        .collect()
}

/// Whether the change is one of the path, or of a directory above it that has another name now.
fn is_of(change: &Change, path: &str) -> bool {
    let path = Path::new(path);
    match &change.what {
        What::Renamed { from } => path.starts_with(from) || path.starts_with(&change.path),
        _ => path == change.path,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_overlay_is_as_good_as_the_tree(acts in prop::collection::vec(act(), 1..60), few in any::<bool>()) {
        let journal = tempfile::tempfile().unwrap();
        let direct = Share::with(|config| {
            config.hard_links = HardLinkPolicy::Writable;
            config.journal = Some(journal.try_clone().unwrap().into());
        });
        let limit = |config: &mut fsshare::Config| {
            config.limits.max_held = if few { 8 } else { 1000 };
        };
        let mut overlay = Share::overlay(limit);
        fill(&direct.root);
        fill(&overlay.root);
        let (untouched, before) = (fingerprint(&overlay.root), tree_of(&direct.root));
        for act in acts {
            if matches!(act.0, Act::Again) {
                overlay = overlay.again(limit);
                continue;
            }
            let outcome = perform(&overlay, act);
            // A directory of the host is not moved; a guest copies it then.
            if outcome == Err(libc::EXDEV) {
                let is_directory = |path: &str| direct.root.join(path).is_dir();
                prop_assert!(matches!(act.0, Act::Move(_)));
                prop_assert!(is_directory(PATHS[act.1]) || is_directory(PATHS[act.2]), "{:?}", act);
            } else {
                let expected = perform(&direct, act);
                // Of two reasons to refuse, each may come first.
                let is_closed = [&outcome, &expected].contains(&&Err(libc::EACCES));
                if !(is_closed && outcome.is_err() && expected.is_err()) {
                    prop_assert_eq!(outcome, expected, "{:?} {} {}", act, PATHS[act.1], PATHS[act.2]);
                }
            }
        }
        if !rustix::process::geteuid().is_root() {
            // Who writes to a file where it is may do so in a directory in which nobody may replace it.
            for path in PATHS.iter().filter(|path| overlay.names(path).is_ok()) {
                overlay.chmod(path, 0o755).unwrap();
                direct.chmod(path, 0o755).unwrap();
            }
        }
        let told = changes_in_place(File::open(&direct.root).unwrap().into(), &journal.into()).unwrap();
        for (path, differs) in differences(&before, &tree_of(&direct.root)) {
            let is_told = told.list.iter().any(|change| is_of(change, &path));
            prop_assert!(!differs || is_told, "{} is not told: {:?}", path, told);
        }
        prop_assert_eq!(overlay.tree(), direct.tree());
        prop_assert_eq!(fingerprint(&overlay.root), untouched, "the host's tree changed");
        let failed = changes(&overlay).apply(|_| true, OnConflict::Keep).unwrap();
        prop_assert!(failed.is_empty(), "{:?}", failed);
        prop_assert_eq!(tree_of(&overlay.root), tree_of(&direct.root));
        let left = changes(&overlay);
        prop_assert!(left.list().is_empty(), "{:?}", left.list());
        prop_assert_eq!(overlay.tree(), direct.tree());
    }
}
