use std::process::Command;

use tempfile::TempDir;

use super::*;

/// Runs git; needs no settings of the user's.
fn git(at: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args([
            "-c",
            "protocol.file.allow=always",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(arguments)
        .current_dir(at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", at)
        .output()
        .unwrap();
    assert!(status.status.success(), "{arguments:?}: {status:?}");
}

/// A repository with a commit in `main`, beneath a folder without links.
fn place() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().canonicalize().unwrap();
    let main = path.join("main");
    fs::create_dir(&main).unwrap();
    git(&main, &["init", "-q"]);
    fs::write(main.join("file"), "x").unwrap();
    git(&main, &["add", "."]);
    git(&main, &["commit", "-qm", "x"]);
    (place, path)
}

#[test]
fn a_repository_of_its_own_needs_nothing_beside_it() {
    let (_place, path) = place();
    for workspace in [path.join("main"), path.clone(), path.join("nothing")] {
        assert_eq!(repository(&workspace, &ShareMode::Direct).unwrap(), None);
    }
}

#[test]
fn a_worktree_needs_its_repository() {
    let (_place, path) = place();
    git(&path.join("main"), &["worktree", "add", "-q", "../tree"]);
    let workspace = path.join("tree");
    let overlay = ShareMode::Overlay {
        changes: path.join("changes"),
    };
    for (mode, expected) in [
        (ShareMode::Direct, ShareMode::Together),
        (ShareMode::ReadOnly, ShareMode::ReadOnly),
        (overlay, ShareMode::ReadOnly),
    ] {
        let mount = repository(&workspace, &mode).unwrap().unwrap();
        assert_eq!(mount.host, path.join("main/.git"));
        assert_eq!(mount.guest, Some(path.join("main/.git")));
        assert_eq!(mount.mode, expected);
    }
}

#[test]
fn a_worktree_names_its_repository_through_links() {
    let (_place, path) = place();
    std::os::unix::fs::symlink(&path, path.join("alias")).unwrap();
    let alias = path.join("alias");
    git(&alias.join("main"), &["worktree", "add", "-q", "../tree"]);
    let file = path.join("tree/.git");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(path.to_str().unwrap(), alias.to_str().unwrap());
    fs::write(&file, text).unwrap();
    let mount = repository(&path.join("tree"), &ShareMode::Direct)
        .unwrap()
        .unwrap();
    assert_eq!(mount.host, path.join("main/.git"));
    assert_eq!(mount.guest, Some(alias.join("main/.git")));
}

#[test]
fn a_bare_repository_is_read_only_for_its_worktrees() {
    let (_place, path) = place();
    git(&path, &["clone", "-q", "--bare", "main", "bare"]);
    git(
        &path.join("bare"),
        &["worktree", "add", "-q", "../tree", "main"],
    );
    let mount = repository(&path.join("tree"), &ShareMode::Direct)
        .unwrap()
        .unwrap();
    assert_eq!(
        (mount.host, mount.mode),
        (path.join("bare"), ShareMode::ReadOnly)
    );
}

#[test]
fn a_submodule_needs_its_part_of_the_repository() {
    let (_place, path) = place();
    let whole = path.join("whole");
    fs::create_dir(&whole).unwrap();
    git(&whole, &["init", "-q"]);
    git(&whole, &["submodule", "--quiet", "add", "../main", "sub"]);
    assert_eq!(repository(&whole, &ShareMode::Direct).unwrap(), None);
    let mount = repository(&whole.join("sub"), &ShareMode::Direct)
        .unwrap()
        .unwrap();
    assert_eq!(mount.host, whole.join(".git/modules/sub"));
    assert_eq!((mount.guest, mount.mode), (None, ShareMode::Together));
}

#[test]
fn a_file_that_names_what_belongs_to_another_is_not_followed() {
    let (_place, path) = place();
    let main = path.join("main");
    git(&main, &["worktree", "add", "-q", "../tree"]);
    let hostile = path.join("hostile");
    fs::create_dir(&hostile).unwrap();
    for named in [
        "main/.git",
        "main/.git/worktrees/tree",
        "main/.git/hooks",
        "main",
    ] {
        let text = format!("gitdir: {}\n", path.join(named).display());
        fs::write(hostile.join(".git"), text).unwrap();
        let refused = repository(&hostile, &ShareMode::Direct);
        assert!(
            matches!(
                refused,
                Err(GitError::OfAnother(_) | GitError::Unreadable { .. })
            ),
            "{named}: {refused:?}"
        );
    }
    for text in [
        "",
        "gitdir:",
        "gitdir: ",
        "../main/.git",
        "gitdir: \0\n",
        "gitdir: nothing\n",
    ] {
        fs::write(hostile.join(".git"), text).unwrap();
        assert!(
            repository(&hostile, &ShareMode::Direct).is_err(),
            "{text:?}"
        );
    }
    // A link is no file of git's, and is followed neither.
    fs::remove_file(hostile.join(".git")).unwrap();
    std::os::unix::fs::symlink("../tree/.git", hostile.join(".git")).unwrap();
    assert_eq!(repository(&hostile, &ShareMode::Direct).unwrap(), None);
}
