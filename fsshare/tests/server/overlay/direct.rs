//! What is told of a guest's changes to the host's own tree.

use std::fs::{self, File};
use std::sync::atomic::{AtomicUsize, Ordering};

use fsshare::abi::{Opcode, ROOT_ID};
use fsshare::{Caution, Change, HardLinkPolicy, What, changes_in_place};

use super::super::client::{Share, text};
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

fn with_journal() -> (Share, File) {
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| config.journal = Some(journal.try_clone().unwrap().into()));
    fill(&share.root);
    (share, journal)
}

fn shown(list: &[Change]) -> Vec<(&str, What, bool)> {
    let shown = |one: &Change| (one.what.clone(), one.caution.is_some());
    list.iter()
        .map(|one| (one.path.to_str().unwrap(), shown(one)))
        .map(|(path, (what, marked))| (path, what, marked))
        .collect()
}

fn from(path: &str) -> What {
    What::Renamed { from: path.into() }
}

#[test]
fn what_is_in_a_directory_that_moves_is_told_where_it_is() {
    let (share, journal) = with_journal();
    // New, in a new directory that gets its name later.
    share.make_dir("x").unwrap();
    share.make("x/Makefile").unwrap();
    share.mv("x", "y", 0).unwrap();
    share.mv("y", "z", 0).unwrap();
    // Changed, in a directory that is moved twice; and changed again.
    share.put("d/a", 0, b"A").unwrap();
    share.mv("d", "e", 0).unwrap();
    share.put("e/a", 0, b"B").unwrap();
    share.make("e/new").unwrap();
    share.mv("e", "full/d", 0).unwrap();
    // By the old name something new.
    share.make_dir("d").unwrap();
    share.make("d/a").unwrap();
    let list = told(&share, &journal);
    let expected = [
        ("d", What::Modified, false),
        ("d/a", What::Added, false),
        ("full/d", What::Added, false),
        ("full/d/a", What::Modified, false),
        ("full/d/new", What::Added, false),
        ("z", What::Added, false),
        ("z/Makefile", What::Added, true),
    ];
    assert_eq!(shown(&list), expected);
}

#[test]
fn what_becomes_marked_by_its_directory_is_told() {
    let (share, journal) = with_journal();
    fs::create_dir(share.root.join("templates")).unwrap();
    fs::write(share.root.join("templates/tasks.json"), "{}").unwrap();
    share.mv("templates", ".vscode", 0).unwrap();
    let list = told(&share, &journal);
    let expected = [
        (".vscode", from("templates"), false),
        (".vscode/tasks.json", from("templates/tasks.json"), true),
    ];
    let told: Vec<_> = shown(&list)
        .into_iter()
        .map(|(path, what, marked)| (path, what, marked && path.contains('/')))
        .collect();
    assert_eq!(told, expected);
}

#[test]
fn a_directory_that_takes_anothers_place_is_a_change() {
    let (share, journal) = with_journal();
    fs::create_dir(share.root.join(".github")).unwrap();
    fs::create_dir_all(share.root.join("mine/workflows")).unwrap();
    fs::write(share.root.join("mine/workflows/x.yml"), "").unwrap();
    // RENAME_EXCHANGE.
    share.mv("mine", ".github", 2).unwrap();
    let list = told(&share, &journal);
    let paths: Vec<_> = list.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(
        paths,
        [
            ".github",
            ".github/workflows",
            ".github/workflows/x.yml",
            "mine"
        ]
    );
    assert!(list[2].caution == Some(Caution::RunsOnHost));
}

#[test]
fn a_rename_tells_what_was_there_and_keeps_its_mark() {
    let (share, journal) = with_journal();
    fs::write(share.root.join("Makefile"), "all:").unwrap();
    share.chmod("Makefile", 0o755).unwrap();
    share.mv("Makefile", "harmless", 0).unwrap();
    let list = told(&share, &journal);
    assert_eq!(shown(&list), [("harmless", from("Makefile"), true)]);
    assert_eq!(list[0].before.map(|state| state.mode), Some(0o644));
    assert_eq!(list[0].after.map(|state| state.mode), Some(0o755));
}

#[test]
fn nobody_is_kept_busy_by_moves() {
    let (share, journal) = with_journal();
    share.make_dir("x").unwrap();
    for number in 0..3000 {
        share.make(&format!("x/{number:0>100}")).unwrap();
    }
    for _ in 0..1000 {
        share.mv("x", "y", 0).unwrap();
        share.mv("y", "x", 0).unwrap();
    }
    let root = File::open(&share.root).unwrap();
    let told = changes_in_place(root.into(), &journal.try_clone().unwrap().into()).unwrap();
    assert!(!told.is_complete);
}

#[test]
fn what_was_in_a_directory_that_is_gone_is_told_there() {
    let (share, journal) = with_journal();
    share.remove("d/e/a").unwrap();
    share.remove_dir("d/e").unwrap();
    share.make_dir("d/e").unwrap();
    share.make("d/e/new").unwrap();
    share.remove_dir("empty").unwrap();
    share.mv("d/e", "empty", 0).unwrap();
    // One that holds something is not removed, and what is in it goes with it.
    share.make("d/more").unwrap();
    assert_eq!(share.remove_dir("d"), Err(libc::ENOTEMPTY));
    share.mv("d", "full/d", 0).unwrap();
    let list = told(&share, &journal);
    let expected = [
        ("d", "full/d"),
        ("d/e", ""),
        ("d/e/a", ""),
        ("empty", ""),
        ("empty/new", ""),
        ("full/d/more", ""),
    ];
    for (path, by_another_name) in expected {
        let is_it = |change: &&Change| {
            change.path == std::path::Path::new(path)
                || change.path == std::path::Path::new(by_another_name)
        };
        assert!(list.iter().any(|change| is_it(&change)), "{path}: {list:?}");
    }
    let gone = list.iter().find(|one| one.path.ends_with("e/a")).unwrap();
    assert_eq!(
        (gone.path.to_str(), &gone.what),
        (Some("d/e/a"), &What::Deleted)
    );
}

#[test]
fn what_is_made_while_something_else_asks_about_its_name_is_told() {
    const NAMES: usize = 2000;
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| config.journal = Some(journal.try_clone().unwrap().into()));
    let now = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Another queue's requests, each of which fails and changes nothing.
        scope.spawn(|| {
            while let name @ 0..NAMES = now.load(Ordering::Relaxed) {
                let removed = share.call(Opcode::RmDir, ROOT_ID, &text(&format!("{name:04}")));
                assert!(removed.is_err());
            }
        });
        for name in 0..NAMES {
            now.store(name, Ordering::Relaxed);
            share.symlink(ROOT_ID, &format!("{name:04}"), "x").unwrap();
        }
        now.store(NAMES, Ordering::Relaxed);
    });
    let list = told(&share, &journal);
    assert_eq!(list.len(), NAMES, "some links are not told of");
}

#[test]
fn a_file_that_lost_one_of_its_names_is_told_of_by_the_other() {
    let journal = tempfile::tempfile().unwrap();
    let share = Share::with(|config| {
        config.journal = Some(journal.try_clone().unwrap().into());
        config.hard_links = HardLinkPolicy::Writable;
    });
    fs::write(share.root.join("a"), "host's").unwrap();
    fs::hard_link(share.root.join("a"), share.root.join("c")).unwrap();
    let node = share.lookup(ROOT_ID, "a").unwrap().nodeid;
    assert_eq!(share.lookup(ROOT_ID, "c").unwrap().nodeid, node);
    share.remove("c").unwrap();
    let fh = share.open(node, libc::O_WRONLY).unwrap();
    share.write(node, fh, 0, b"guest").unwrap();
    let list = told(&share, &journal);
    let shown: Vec<_> = list.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(shown, ["a", "c"]);
}
