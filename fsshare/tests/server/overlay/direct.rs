//! What is told of a guest's changes to the host's own tree.

use std::fs::{self, File};

use fsshare::{Caution, Change, What, changes_in_place};

use super::super::client::Share;
use super::{Paths as _, fill};

fn told(share: &Share, journal: &File) -> Vec<Change> {
    let root = File::open(&share.root).unwrap();
    changes_in_place(root.into(), &journal.try_clone().unwrap().into())
        .unwrap()
        .list
}

#[test]
fn each_kind_of_change_is_told() {
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| config.journal = Some(journal.try_clone().unwrap().into()));
    fill(&share.root);
    share.put("a", 0, b"A").unwrap();
    share.make("new").unwrap();
    share.make("for a moment").unwrap();
    share.remove("for a moment").unwrap();
    share.make_dir("folder").unwrap();
    share.make_link("folder/out", "../../x").unwrap();
    share.chmod("d/a", 0o755).unwrap();
    share.remove("l").unwrap();
    share.mv("full", "moved", 0).unwrap();
    share.mv("d/e/a", "d/e/b", 0).unwrap();
    share.make(".envrc").unwrap();
    // Looked at, by the guest and by the host.
    share.get("b").unwrap();
    fs::write(share.root.join("host's"), "").unwrap();
    let list = told(&share, &journal);
    let from = |path: &str| What::Renamed { from: path.into() };
    let expected = [
        (".envrc", What::Added),
        ("a", What::Modified),
        ("d/a", What::Mode),
        ("d/e/b", from("d/e/a")),
        ("folder", What::Added),
        ("folder/out", What::Added),
        ("l", What::Deleted),
        ("moved", from("full")),
        ("new", What::Added),
    ];
    let shown = list
        .iter()
        .map(|one| (one.path.to_str().unwrap(), one.what.clone()));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(list[0].caution, Some(Caution::RunsOnHost));
    assert_eq!(list[5].caution, Some(Caution::LeadsOutside));
}

#[test]
fn what_was_there_first_counts() {
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| config.journal = Some(journal.try_clone().unwrap().into()));
    fill(&share.root);
    share.remove("a").unwrap();
    share.make("a").unwrap();
    share.remove("b").unwrap();
    share.make("b").unwrap();
    share.remove("b").unwrap();
    let list = told(&share, &journal);
    let shown: Vec<_> = list
        .iter()
        .map(|one| (one.path.to_str().unwrap(), &one.what))
        .collect();
    assert_eq!(shown, [("a", &What::Modified), ("b", &What::Deleted)]);
}

#[test]
fn a_journal_is_not_written_twice_for_a_path() {
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| config.journal = Some(journal.try_clone().unwrap().into()));
    fill(&share.root);
    for round in 0..100 {
        share.put("a", round, b"more").unwrap();
    }
    assert!(journal.metadata().unwrap().len() < 100);
}
