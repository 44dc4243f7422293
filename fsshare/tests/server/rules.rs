//! Hidden and protected names (attacks W01, W03, W06), and what git needs of a repository all the same.

use std::fs;
use std::path::Path;

use fsshare::abi::{Opcode, ROOT_ID, wire};
use fsshare::{Config, Rules};
use libc::{EEXIST, ENOENT, EPERM, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY, RENAME_EXCHANGE};
use zerocopy::IntoBytes as _;

use super::client::{Share, count_attempts, text};

fn usual() -> Share {
    Share::with(|config: &mut Config| config.rules = Rules::usual())
}

fn put(share: &Share, path: &str, content: &str) {
    let path = share.root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn content(share: &Share, path: &str) -> String {
    fs::read_to_string(share.root.join(path)).unwrap()
}

/// The directory in which a path's last name is, and that name.
fn place<'a>(share: &Share, path: &'a str) -> (u64, &'a str) {
    match path.rsplit_once('/') {
        Some((folders, name)) => (share.walk(folders), name),
        None => (ROOT_ID, path),
    }
}

#[test]
fn a_git_folder_that_is_shared_by_itself_is_guarded() {
    for place in ["/home/u/p/.git", "/home/u/p/.git/modules/sub"] {
        let share = Share::with(|config: &mut Config| {
            config.rules = Rules::usual();
            config.place = place.into();
        });
        put(&share, "hooks/pre-commit", "x");
        put(&share, "refs/heads/main", "x");
        put(&share, "objects/aa/bb", "x");
        let hooks = share.lookup(ROOT_ID, "hooks").unwrap().nodeid;
        let made = share.create(hooks, "post-commit", O_RDWR, 0o755);
        assert_eq!(made.err(), Some(EPERM), "{place}");
        let swapped = share.rename((ROOT_ID, "hooks"), (ROOT_ID, "old"), 0);
        assert_eq!(swapped.err(), Some(EPERM), "{place}");
        let made = share.create(ROOT_ID, "commondir", O_RDWR, 0o644);
        assert_eq!(made.err(), Some(EPERM), "{place}");
        share.create(ROOT_ID, "index.lock", O_RDWR, 0o644).unwrap();
        // As in any `.git`: names are asked for anew, but for those of objects.
        let refs = share.walk("refs/heads");
        let entry = share.lookup(refs, "main").unwrap();
        assert_eq!((entry.entry_valid, entry.entry_valid_nsec), (0, 0));
        let objects = share.walk("objects/aa");
        assert_ne!(share.lookup(objects, "bb").unwrap().entry_valid_nsec, 0);
    }
}

#[test]
fn hidden_names_are_not_there_and_cannot_be_made() {
    let share = usual();
    for (folder, exists) in [("", true), ("a/", false), ("a/b/", true)] {
        put(&share, &format!("{folder}seen"), "x");
        for name in [".env", ".env.local", "server.pem", "id_rsa", ".netrc"] {
            let path = format!("{folder}{name}");
            if exists {
                put(&share, &path, "secret");
            }
            let (parent, name) = place(&share, &path);
            let seen = share.lookup(parent, "seen").unwrap().nodeid;
            for name in [name.to_owned(), name.to_uppercase(), format!("{name}.")] {
                assert_eq!(share.lookup(parent, &name).err(), Some(ENOENT), "{name}");
            }
            assert_eq!(share.create(parent, name, O_RDWR, 0o644).err(), Some(EPERM));
            assert_eq!(share.mkdir(parent, name).err(), Some(EPERM));
            assert_eq!(share.symlink(parent, name, "seen").err(), Some(EPERM));
            assert_eq!(share.link(seen, parent, name).err(), Some(EPERM));
            assert_eq!(
                share.rename((parent, "seen"), (parent, name), 0).err(),
                Some(EPERM)
            );
            assert_eq!(
                share.rename((parent, name), (parent, "x"), 0).err(),
                Some(ENOENT)
            );
            let unlink = share.call(Opcode::Unlink, parent, &text(name));
            assert_eq!(unlink.err(), Some(ENOENT));
            assert_eq!(share.root.join(&path).exists(), exists, "{path}");
        }
        let (parent, _) = place(&share, &format!("{folder}seen"));
        for plus in [false, true] {
            let listed = share.list(parent, 4096, plus);
            let hidden = |name: &str| name.starts_with(".env") || name.ends_with("pem");
            assert!(listed.iter().all(|(name, _)| !hidden(name)), "{listed:?}");
            assert!(listed.iter().any(|(name, _)| name == "seen"), "{listed:?}");
        }
    }
    put(&share, ".env.example", "x");
    assert!(share.lookup(ROOT_ID, ".env.example").is_ok());
}

#[test]
fn a_listing_of_hidden_names_only_ends_where_the_directory_does() {
    let share = Share::with(|config| {
        let mut rules = Rules::none();
        rules.hide("h*").unwrap();
        config.rules = rules;
    });
    for number in 0..2000 {
        put(&share, &format!("h{number}"), "");
    }
    put(&share, "seen", "");
    let listed = share.list(ROOT_ID, 4096, false);
    assert_eq!(listed.iter().filter(|(name, _)| name == "seen").count(), 1);
    assert!(listed.len() <= 3, "{}", listed.len());
}

/// Every way to bring something to `path`, or to change what is there, as far as there is such a way. Returns how many were tried.
fn attack(share: &Share, path: &str, exists: bool) -> usize {
    let (parent, name) = place(share, path);
    let file = share.lookup(ROOT_ID, "mine").unwrap().nodeid;
    let mknod = wire::MkNodIn {
        mode: 0o100_644,
        ..Default::default()
    };
    let mknod = [mknod.as_bytes(), &text(name)].concat();
    let mut outcomes = vec![
        share.create(parent, name, O_RDWR, 0o755).err(),
        share.call(Opcode::MkNod, parent, &mknod).err(),
        share.mkdir(parent, name).err(),
        share.symlink(parent, name, "mine").err(),
        share.link(file, parent, name).err(),
        share.rename((ROOT_ID, "mine"), (parent, name), 0).err(),
        share.rename((ROOT_ID, "folder"), (parent, name), 0).err(),
        share
            .rename((ROOT_ID, "mine"), (parent, name), RENAME_EXCHANGE)
            .err(),
        share
            .rename((parent, name), (ROOT_ID, "mine"), RENAME_EXCHANGE)
            .err(),
        share.rename((parent, name), (ROOT_ID, "taken"), 0).err(),
        share.call(Opcode::Unlink, parent, &text(name)).err(),
        share.call(Opcode::RmDir, parent, &text(name)).err(),
    ];
    if exists {
        let node = share.lookup(parent, name).unwrap().nodeid;
        outcomes
            .extend([O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC].map(|how| share.open(node, how).err()));
        for valid in [1, 1 << 3, 1 << 5, 1 << 8] {
            let changes = wire::SetAttrIn {
                valid,
                mode: 0o755,
                ..Default::default()
            };
            outcomes.push(share.setattr(node, changes).err());
        }
        outcomes.push(share.link(node, ROOT_ID, "second").err());
        let value = wire::SetXattrIn { size: 1, flags: 0 };
        let set = share.ask(Opcode::SetXattr, node, &value, b"user.a\0v");
        let removed = share.call(Opcode::RemoveXattr, node, &text("user.a"));
        outcomes.extend([set.err(), removed.err()]);
        let is_file = !share.root.join(path).is_dir();
        assert_eq!(share.open(node, O_RDONLY).is_ok(), is_file, "{path}");
    }
    for (way, outcome) in outcomes.iter().enumerate() {
        // What is not there cannot be moved away, and some ways are for other kinds of file; all else is the rule's word.
        let expected = match outcome {
            Some(EPERM | libc::ENOTDIR | libc::EISDIR) => true,
            Some(ENOENT) => !exists,
            _ => false,
        };
        assert!(expected, "{path}: way {way} gave {outcome:?}");
    }
    let by_rule = outcomes.iter().filter(|outcome| **outcome == Some(EPERM));
    assert!(by_rule.count() * 2 > outcomes.len(), "{path}: {outcomes:?}");
    outcomes.len()
}

#[test]
fn protected_names_withstand_every_way_at_every_depth() {
    let share = usual();
    put(&share, "mine", "#!/bin/sh\nevil");
    put(&share, "folder/inside", "evil");
    let mut tried = 0;
    for folder in ["", "a/", "a/b/", "a/b/c/d/e/"] {
        for (path, exists) in [
            (".git/hooks/pre-commit", true),
            (".git/hooks/post-merge", false),
            (".git/hooks", true),
            (".git/commondir", false),
            (".git/modules/x/y/hooks", false),
            (".vscode/tasks.json", true),
            (".vscode", true),
            (".envrc", false),
            (".github/workflows/ci.yml", true),
            (".mcp.json", true),
            (".cargo/config.toml", false),
            (".npmrc", true),
        ] {
            let path = format!("{folder}{path}");
            if exists && !share.root.join(&path).is_dir() {
                put(&share, &path, "kept");
            } else if let Some(parent) = Path::new(&path).parent() {
                fs::create_dir_all(share.root.join(parent)).unwrap();
            }
            tried += attack(&share, &path, exists);
            assert_eq!(share.root.join(&path).exists(), exists, "{path}");
        }
    }
    assert!(tried >= 500, "{tried}");
    count_attempts("protected_names", tried);
    assert_eq!(content(&share, "a/b/.git/hooks/pre-commit"), "kept");
    assert_eq!(content(&share, "mine"), "#!/bin/sh\nevil");
    assert!(!share.root.join("second").exists() && !share.root.join("taken").exists());
}

#[test]
fn other_spellings_of_a_protected_name_are_protected_too() {
    let share = usual();
    fs::create_dir(share.root.join(".git")).unwrap();
    let git = share.walk(".git");
    for name in ["HOOKS", "hooks.", "hooks ", "ho\u{200C}oks", "\u{FF48}ooks"] {
        assert_eq!(share.mkdir(git, name).err(), Some(EPERM), "{name:?}");
    }
    for name in [".GIT", ".Git.", ".g\u{200D}it"] {
        let made = share.mkdir(ROOT_ID, name).unwrap().nodeid;
        assert_eq!(share.mkdir(made, "hooks").err(), Some(EPERM), "{name:?}");
    }
}

#[test]
fn a_folder_on_the_way_to_a_protected_name_keeps_its_own() {
    let share = usual();
    put(&share, "repo/.git/HEAD", "x");
    put(&share, "repo/plain/hooks/pre-commit", "evil");
    let repo = share.walk("repo");
    for (from, to, flags) in [
        ("plain", ".git2", 0),
        (".git", "old", 0),
        ("plain", ".git", 0),
        ("plain", ".git", RENAME_EXCHANGE),
        ("plain", ".vscode", 0),
    ] {
        let free = to == ".git2";
        let outcome = share.rename((repo, from), (repo, to), flags);
        assert_eq!(outcome.err(), (!free).then_some(EPERM), "{from} {to}");
        if free {
            share.rename((repo, to), (repo, from), 0).unwrap();
        }
    }
    // The folder that holds a repository goes where it likes; what it holds stays guarded.
    share
        .rename((ROOT_ID, "repo"), (ROOT_ID, "moved"), 0)
        .unwrap();
    let git = share.walk("moved/.git");
    assert_eq!(share.mkdir(git, "hooks").err(), Some(EPERM));
}

#[test]
fn a_link_never_stands_on_the_way_to_a_protected_name() {
    let share = usual();
    put(&share, "evil/config.toml", "[build]\nrustc-wrapper = 'x'");
    fs::create_dir_all(share.root.join(".git/modules/sub")).unwrap();
    share.symlink(ROOT_ID, "link", "evil").unwrap();
    let link = share.lookup(ROOT_ID, "link").unwrap().nodeid;
    for folder in ["", ".git/modules/"] {
        let (parent, _) = place(&share, &format!("{folder}x"));
        let name = if folder.is_empty() { ".cargo" } else { "other" };
        assert_eq!(share.symlink(parent, name, "evil").err(), Some(EPERM));
        assert_eq!(share.link(link, parent, name).err(), Some(EPERM));
        assert_eq!(
            share.rename((ROOT_ID, "link"), (parent, name), 0).err(),
            Some(EPERM)
        );
    }
    let modules = share.walk(".git/modules");
    share.mkdir(modules, "moved").unwrap();
    let exchanged = share.rename((ROOT_ID, "link"), (modules, "moved"), RENAME_EXCHANGE);
    assert_eq!(exchanged.err(), Some(EPERM));
}

#[test]
fn links_are_made_where_only_exceptions_go_on() {
    let share = usual();
    fs::create_dir_all(share.root.join("node_modules/.bin")).unwrap();
    let bin = share.walk("node_modules/.bin");
    share.symlink(bin, "tool", "../tool/cli.js").unwrap();
    share.symlink(ROOT_ID, "elsewhere", "x").unwrap();
    let package = share.mkdir(bin, "package").unwrap().nodeid;
    share.mkdir(package, ".vscode").unwrap();
    share
        .rename((bin, "package"), (share.walk("node_modules"), "package"), 0)
        .unwrap();
}

#[test]
fn a_config_that_forbids_something_stays() {
    let share = usual();
    put(&share, ".git/config", "[core]\n\thooksPath = /dev/null\n");
    put(&share, "b/.git/config", "[core]\n\tbare = false\n");
    for (folder, goes) in [(".git", false), ("b/.git", true)] {
        let unlinked = share.call(Opcode::Unlink, share.walk(folder), &text("config"));
        assert_eq!(unlinked.err(), (!goes).then_some(EPERM), "{folder}");
    }
}

#[test]
fn a_hidden_name_does_not_show_by_an_exchange() {
    let share = usual();
    put(&share, "x", "");
    for exists in [false, true] {
        if exists {
            put(&share, ".env", "secret");
        }
        let outcome = share.rename((ROOT_ID, "x"), (ROOT_ID, ".env"), RENAME_EXCHANGE);
        assert_eq!(outcome.err(), Some(ENOENT));
    }
}

#[test]
fn a_second_name_of_a_protected_file_is_protected_once_that_is_known() {
    let share = usual();
    put(&share, ".npmrc", "kept");
    fs::hard_link(share.root.join(".npmrc"), share.root.join("x")).unwrap();
    let first = share.lookup(ROOT_ID, ".npmrc").unwrap().nodeid;
    let second = share.lookup(ROOT_ID, "x").unwrap().nodeid;
    assert_eq!(first, second);
    assert_eq!(share.open(second, O_WRONLY).err(), Some(EPERM));
    let made = share.create(ROOT_ID, "x", O_RDWR | O_TRUNC, 0o644);
    assert_eq!(made.err(), Some(EPERM));
    assert_eq!(content(&share, ".npmrc"), "kept");
}

#[test]
fn git_can_make_and_configure_a_repository() {
    let share = usual();
    let git = share.mkdir(ROOT_ID, ".git").unwrap().nodeid;
    let write = |content: &str| {
        let (lock, fh) = share.create(git, "config.lock", O_RDWR, 0o644).unwrap();
        share.write(lock.nodeid, fh, 0, content.as_bytes()).unwrap();
        (lock.nodeid, fh)
    };
    let commit = || share.rename((git, "config.lock"), (git, "config"), 0);
    let (lock, fh) = write("[core]\n\tbare = false\n");
    commit().unwrap();
    assert_eq!(content(&share, ".git/config"), "[core]\n\tbare = false\n");
    // The handle that wrote it is of no more use.
    assert_eq!(
        share.write(lock, fh, 0, b"[core]\n\tfsmonitor = x").err(),
        Some(EPERM)
    );
    assert_eq!(share.open(lock, O_WRONLY).err(), Some(EPERM));
    let config = share.lookup(git, "config").unwrap().nodeid;
    let set = |valid, mode| {
        let changes = wire::SetAttrIn {
            valid,
            mode,
            ..Default::default()
        };
        share.setattr(config, changes).err()
    };
    // Git tries whether modes can be set; the size is content.
    assert_eq!((set(1, 0o744), set(1 << 3, 0)), (None, Some(EPERM)));
    assert_eq!(share.open(config, O_WRONLY | O_TRUNC).err(), Some(EPERM));
    assert_eq!(
        share.create(git, "config", O_RDWR, 0o644).err(),
        Some(EPERM)
    );

    let (lock, fh) = write("[core]\n\tfsmonitor = ./evil\n");
    assert_eq!(commit().err(), Some(EPERM));
    assert_eq!(content(&share, ".git/config"), "[core]\n\tbare = false\n");
    // What was refused can be mended.
    share
        .write(lock, fh, 0, b"[user]\n\tname = somebody\n;")
        .unwrap();
    share.release(lock, fh).unwrap();
    commit().unwrap();
    assert!(content(&share, ".git/config").starts_with("[user]"));
}

#[test]
fn a_handle_that_outlives_its_number_cannot_change_a_config() {
    let share = usual();
    let git = share.mkdir(ROOT_ID, ".git").unwrap().nodeid;
    let (lock, fh) = share.create(git, "config.lock", O_RDWR, 0o644).unwrap();
    share.write(lock.nodeid, fh, 0, b"[core]\n").unwrap();
    share.forget(lock.nodeid, 1);
    share
        .rename((git, "config.lock"), (git, "config"), 0)
        .unwrap();
    let evil = share.write(lock.nodeid, fh, 0, b"[core]\n\tfsmonitor = x\n");
    assert_eq!(evil.err(), Some(EPERM));
    assert_eq!(content(&share, ".git/config"), "[core]\n");
}

#[test]
fn a_config_of_two_names_or_none_is_refused() {
    let share = usual();
    let git = share.mkdir(ROOT_ID, ".git").unwrap().nodeid;
    let (file, _) = share.create(git, "config.lock", O_RDWR, 0o644).unwrap();
    share.link(file.nodeid, git, "other").unwrap();
    assert_eq!(
        share.rename((git, "config.lock"), (git, "config"), 0).err(),
        Some(EPERM)
    );
    share.symlink(git, "link", "other").unwrap();
    assert!(share.rename((git, "link"), (git, "config"), 0).is_err());
    let folder = share.mkdir(git, "folder");
    assert!(folder.is_ok() && share.rename((git, "folder"), (git, "config"), 0).is_err());
    assert!(!share.root.join(".git/config").exists());
}

#[test]
fn without_rules_everything_is_free() {
    let share = Share::new();
    let git = share.mkdir(ROOT_ID, ".git").unwrap().nodeid;
    assert!(share.mkdir(git, "hooks").is_ok());
    assert!(share.create(ROOT_ID, ".env", O_RDWR, 0o600).is_ok());
    assert_eq!(share.mkdir(git, "hooks").err(), Some(EEXIST));
}

#[test]
fn a_file_that_became_a_config_out_of_sight_is_frozen() {
    let share = usual();
    put(&share, ".git/HEAD", "ref: refs/heads/main");
    let x = share.mkdir(ROOT_ID, "x").unwrap().nodeid;
    let (made, fh) = share.create(x, "config", O_RDWR, 0o644).unwrap();
    share
        .write(made.nodeid, fh, 0, b"[user]\n\tname = a\n")
        .unwrap();
    share.release(made.nodeid, fh).unwrap();
    share.forget(made.nodeid, 1);
    // The file is known, but no handle is held, and the directory's place is given to others.
    let listed = share.list(x, 1 << 16, true);
    let file = listed.iter().find(|(name, _)| name == "config").unwrap().1;
    share.forget(x, 1);
    let y = share.mkdir(ROOT_ID, "y").unwrap().nodeid;
    let x = share.lookup(ROOT_ID, "x").unwrap().nodeid;
    let git = share.lookup(ROOT_ID, ".git").unwrap().nodeid;
    share.rename((x, "config"), (git, "config"), 0).unwrap();
    share.forget(git, 1);
    share.forget(y, 1);
    let git = share.lookup(ROOT_ID, ".git").unwrap().nodeid;
    let opened = share.open(file, O_RDWR);
    assert!(matches!(opened, Err(EPERM | libc::ESTALE)), "{opened:?}");
    let config = share.lookup(git, "config").unwrap().nodeid;
    assert_eq!(share.open(config, O_RDWR), Err(EPERM));
}
