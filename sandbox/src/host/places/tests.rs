use std::os::unix::fs::symlink;

use super::*;
use crate::config::GuestFiles;
use crate::network::NetworkPolicy;

/// A writable workspace `work` with a file, files beside it, and links between them.
fn setting() -> (tempfile::TempDir, SandboxBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("work/sub")).unwrap();
    fs::create_dir(path("safe")).unwrap();
    for file in ["work/file", "safe/file"] {
        fs::write(path(file), "x").unwrap();
    }
    symlink(path("work/file"), path("safe/link-in")).unwrap();
    symlink("../safe", path("work/out")).unwrap();
    symlink(path("work/out"), path("safe/both-ways")).unwrap();
    symlink("endless", path("safe/endless")).unwrap();
    let files = GuestFiles {
        kernel: path("safe/file"),
        initrd: path("safe/file"),
        root: None,
    };
    let config = SandboxBuilder::new(files).workspace(path("work"));
    (folder, config)
}

fn refused(config: &SandboxBuilder) -> Option<String> {
    check(config, &config.rules.rules().unwrap())
        .err()
        .map(|error| error.to_string())
}

#[test]
fn files_in_a_writable_workspace_are_refused() {
    let (folder, config) = setting();
    let inside = folder.path().join("work/file");
    let absent = folder.path().join("work/not-there-yet");
    for (what, config) in [
        ("kernel", config.clone().kernel(&inside)),
        ("initial RAM", config.clone().initrd(&inside)),
        ("root image", config.clone().root(&inside)),
        ("worker program", config.clone().worker_program(&inside)),
        ("console log", config.clone().console_log(&absent)),
        (
            "audit log",
            config
                .clone()
                .network(NetworkPolicy::new().audit_log(&absent)),
        ),
    ] {
        let message = refused(&config).unwrap();
        let told = message.starts_with(what) && message.contains("--read-only");
        assert!(told, "{message}");
    }
    assert_eq!(
        refused(&config.console_log(folder.path().join("log"))),
        None
    );
}

#[test]
fn a_share_that_begins_in_a_guarded_place_is_refused() {
    let (folder, config) = setting();
    let inside = folder.path().join(".vscode/sub");
    fs::create_dir_all(&inside).unwrap();
    let config = SandboxBuilder {
        mounts: Vec::new(),
        ..config
    };
    let config = config.workspace(inside);
    assert!(refused(&config).unwrap().contains("protected"));
    assert_eq!(refused(&config.without_usual_rules()), None);
}

#[test]
fn the_way_to_a_file_counts_with_its_links() {
    let (folder, config) = setting();
    for (path, passes) in [
        ("safe/link-in", true),
        ("work/out/file", true),
        ("safe/both-ways/file", true),
        ("work/sub/../../safe/file", true),
        ("safe/../safe/file", false),
        ("safe/endless", false),
    ] {
        let config = config.clone().kernel(folder.path().join(path));
        assert_eq!(refused(&config).is_some(), passes, "{path}");
    }
}

#[test]
fn a_read_only_workspace_may_hold_anything() {
    let (folder, mut config) = setting();
    config.mounts[0].mode = ShareMode::ReadOnly;
    assert_eq!(
        refused(&config.kernel(folder.path().join("work/file"))),
        None
    );
}

#[test]
fn the_present_program_is_the_worker_unless_one_is_set() {
    let files = GuestFiles {
        kernel: "/nonexistent/kernel".into(),
        initrd: "/nonexistent/initrd".into(),
        root: None,
    };
    let program = std::env::current_exe().unwrap();
    let config = SandboxBuilder::new(files).workspace(program.parent().unwrap());
    assert!(refused(&config).unwrap().starts_with("worker program"));
}

#[test]
fn shares_are_nested_only_where_none_is_writable() {
    let (folder, config) = setting();
    let cases = [
        // Outer, read-only; inner, read-only; refused.
        (("work", false), ("work/sub", true), true),
        (("work", false), ("work", true), true),
        (("work", false), ("work/out", true), true),
        (("work", true), ("work/sub", false), true),
        (("work", false), ("work/sub", false), true),
        (("work", true), ("work/sub", true), false),
        (("work", true), ("work", true), false),
        (("work", false), ("safe", true), false),
        (("work", false), ("safe", false), false),
    ];
    let mount = |(name, read_only)| Mount {
        host: folder.path().join(name),
        guest: None,
        mode: if read_only {
            ShareMode::ReadOnly
        } else {
            ShareMode::Direct
        },
    };
    for (one, other, expected) in cases {
        for mounts in [[one, other], [other, one]] {
            let mut config = config.clone();
            config.kernel = std::env::current_exe().unwrap();
            config.initrd.clone_from(&config.kernel);
            config.mounts = mounts.map(mount).into();
            assert_eq!(refused(&config).is_some(), expected, "{mounts:?}");
        }
    }
}

#[test]
fn what_an_overlay_keeps_is_the_guests() {
    let (folder, config) = setting();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir_all(path("changes/upper")).unwrap();
    fs::write(path("changes/upper/file"), "x").unwrap();
    fs::create_dir_all(path("other")).unwrap();
    let overlay = |changes: &str| Mount {
        host: path("other"),
        guest: None,
        mode: ShareMode::Overlay {
            changes: path(changes),
        },
    };
    let config = config.mount(overlay("changes"));
    assert_eq!(refused(&config), None);
    let inside = path("changes/upper/file");
    for (what, config) in [
        ("kernel", config.clone().kernel(&inside)),
        ("console log", config.clone().console_log(&inside)),
    ] {
        let message = refused(&config).unwrap();
        let told = message.starts_with(what) && message.contains("a guest's changes");
        assert!(told, "{message}");
    }
    let within = Mount {
        host: path("safe"),
        ..overlay("changes/upper/more")
    };
    let message = refused(&config.clone().mount(within)).unwrap();
    assert!(message.contains("another's changes"), "{message}");
    let shared = Mount {
        host: path("changes/upper"),
        guest: None,
        mode: ShareMode::ReadOnly,
    };
    assert!(refused(&config.mount(shared)).is_some());
}
