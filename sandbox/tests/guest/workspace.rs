//! The shared directories, from both sides.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sandbox::changes::{Change, OnConflict, What, WorkspaceChanges};
use sandbox::{ExecSpec, ShareMode};

use crate::fixture::{Fixture, READ_ONLY, Shared, cases};

cases!(Guest:
    changes_show_on_both_sides,
    tools_work_on_it,
    names_are_hidden_and_protected,
    files_with_names_outside_are_not_changed,
    read_only_cannot_be_changed_even_by_root,
    an_overlay_takes_the_changes,
    second_sandbox_on_it_is_refused,
    git_works_in_a_worktree,
);

async fn changes_show_on_both_sides(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    fs::write(guest.workspace.join("from-host"), "host's words")?;
    assert_eq!(guest.answer("cat from-host").await?, "host's words");
    guest
        .answer("mkdir -p a/b && echo guest > a/b/c && chmod 640 a/b/c && ln -s b/c a/link && mv from-host moved")
        .await?;
    let made = guest.workspace.join("a/b/c");
    assert_eq!(fs::read_to_string(&made)?, "guest\n");
    assert_eq!(fs::metadata(&made)?.permissions().mode() & 0o777, 0o640);
    assert_eq!(
        fs::read_link(guest.workspace.join("a/link"))?,
        Path::new("b/c")
    );
    assert!(!guest.workspace.join("from-host").exists());
    fs::write(&made, "host again")?;
    // The guest may go by the size it knows for a moment (`fsshare::CachePolicy::auto`).
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        guest.answer("cat a/link; rm -r a moved").await?,
        "host again"
    );
    // While the host is at it, it is seen at once.
    for round in 0..10 {
        let text = format!("{round}").repeat(round + 1);
        fs::write(guest.workspace.join("turns"), &text)?;
        assert_eq!(
            guest.answer("cat turns; stat -c %s turns").await?,
            format!("{text}{}", round + 1)
        );
    }
    guest.answer("rm turns").await?;
    assert!(!guest.workspace.join("a").exists());
    Ok(())
}

async fn an_overlay_takes_the_changes(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let overlay = &guest.overlay;
    fs::create_dir_all(overlay.join("d/deep"))?;
    for number in 0..200 {
        fs::write(overlay.join(format!("d/{number}")), format!("{number}"))?;
    }
    // Both trees in one, by way of the guest's kernel: a descriptor that is open, a mapping, a directory that is removed while it is listed.
    let script = format!(
        "set -e; cd {}; exec 3< d/7; echo seven > d/7; cat <&3; \
         python3 -c 'import mmap; f = open(\"d/8\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0:1] = b\"X\"; m.flush()'; \
         cat d/8; echo; rm d/1*; ls d | wc -l; mkdir -p new/dir; mv d/9 new/dir/9; \
         python3 -c 'import os; os.rename(\"d\", \"e\")' 2>&1 | grep -o 'Errno 18'; \
         tar cf - d | tar tf - | wc -l; rm -r d; ls; mkdir d; ls d",
        overlay.display()
    );
    let answer = guest.answer(&script).await?;
    if answer != "seven\nX\n90\nErrno 18\n90\nnew" {
        bail!("{answer}");
    }
    if fs::read_dir(overlay.join("d"))?.count() != 201 || fs::read(overlay.join("d/7"))? != b"7" {
        bail!("the host's tree changed");
    }
    let changes = guest.sandbox.changes()?;
    let [
        (_, WorkspaceChanges::InPlace(_)),
        (workspace, WorkspaceChanges::Overlay(changes)),
    ] = changes.as_slice()
    else {
        bail!("{changes:?}");
    };
    let is_deleted = |change: &&Change| change.what == What::Deleted;
    let renamed = What::Renamed { from: "d/9".into() };
    let list = changes.list();
    if workspace != overlay
        || list.iter().filter(is_deleted).count() != 200
        || !list.iter().any(|one| one.what == renamed)
    {
        bail!("{list:?}");
    }
    let failed = changes.apply(|_| true, OnConflict::Keep)?;
    if !failed.is_empty() || fs::read(overlay.join("new/dir/9"))? != b"9" {
        bail!("{failed:?}");
    }
    Ok(())
}

async fn tools_work_on_it(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let script = "set -e; mkdir project; cd project; git init -q; \
        printf 'int main(void) { return 42; }\\n' > main.c; gcc -o main main.c; git add main.c; \
        git -c user.name=t -c user.email=t@example.org commit -q -m first; ./main && exit 1; \
        python3 -c 'import mmap; f = open(\"main.c\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); m[0:3] = b\"INT\"; m.flush()'; \
        git status --porcelain";
    assert_eq!(guest.answer(script).await?, " M main.c\n?? main");
    let source = fs::read_to_string(guest.workspace.join("project/main.c"))?;
    assert!(source.starts_with("INT"), "{source}");
    Ok(())
}

async fn names_are_hidden_and_protected(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let host = guest.workspace.join("ruled");
    fs::create_dir_all(host.join(".vscode"))?;
    fs::write(host.join(".env"), "secret")?;
    fs::write(host.join(".vscode/tasks.json"), "kept")?;
    let script = "cd ruled; ls -A; cat .vscode/tasks.json; git init -q; git config user.name t; \
        for evil in 'echo x > .env' 'cat .env' 'mkdir .git/hooks' 'echo x >> .vscode/tasks.json' 'mv .vscode old' \
        'ln -s . .envrc' 'git config core.fsmonitor x' 'mv .git old'; do \
        sh -c \"$evil\" 2>/dev/null && echo \"$evil\"; done; git config user.name";
    assert_eq!(guest.answer(script).await?, ".vscode\nkeptt");
    assert_eq!(fs::read_to_string(host.join(".env"))?, "secret");
    assert_eq!(fs::read_to_string(host.join(".vscode/tasks.json"))?, "kept");
    let config = fs::read_to_string(host.join(".git/config"))?;
    assert!(
        config.contains("filemode = true") && !config.contains("fsmonitor"),
        "{config}"
    );
    assert!(!host.join(".git/hooks").exists());
    for expected in [
        "ruled/.env (hidden)",
        "ruled/.git/hooks (protected)",
        "ruled/.vscode/tasks.json (protected)",
    ] {
        is_told(&guest, expected).await?;
    }
    Ok(())
}

/// Waits until the host has been told that the guest was kept from a file.
async fn is_told(guest: &Shared, expected: &str) -> Result<()> {
    let mut told = Vec::new();
    for _ in 0..100 {
        told = guest.sandbox.refusals();
        if told.iter().any(|refusal| refusal.to_string() == expected) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("`{expected}` is not among {told:?}")
}

async fn files_with_names_outside_are_not_changed(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let (outside, inside) = (
        guest.workspace.with_extension("store"),
        guest.workspace.join("linked"),
    );
    fs::write(&outside, "store")?;
    fs::hard_link(&outside, &inside)?;
    let script = "cat linked; echo x 2>/dev/null > linked || chmod 777 linked 2>/dev/null || truncate -s 0 linked 2>/dev/null || \
        echo -n ' kept'; ln linked third && rm linked third && echo -n mine > linked";
    assert_eq!(guest.answer(script).await?, "store kept");
    is_told(&guest, "linked (a file of several names)").await?;
    assert_eq!(fs::read_to_string(&outside)?, "store");
    assert_eq!(fs::read_to_string(&inside)?, "mine");
    fs::remove_file(outside)?;
    Ok(())
}

/// Every way to change a file or a directory; each must give `EROFS`.
const ATTEMPTS: &str = r#"
import errno, os
os.chdir("/read-only")
attempts = {
    "create": lambda: os.open("new", os.O_CREAT | os.O_WRONLY),
    "write": lambda: os.open("file", os.O_WRONLY),
    "append": lambda: os.open("file", os.O_WRONLY | os.O_APPEND),
    "truncate": lambda: os.truncate("file", 0),
    "mkdir": lambda: os.mkdir("d"),
    "rmdir": lambda: os.rmdir("directory"),
    "unlink": lambda: os.unlink("file"),
    "rename": lambda: os.rename("file", "other"),
    "link": lambda: os.link("file", "other"),
    "symlink": lambda: os.symlink("file", "other"),
    "mknod": lambda: os.mknod("node"),
    "fifo": lambda: os.mkfifo("fifo"),
    "chmod": lambda: os.chmod("file", 0o777),
    "chown": lambda: os.chown("file", 1000, 1000),
    "utime": lambda: os.utime("file", (1, 1)),
    "setxattr": lambda: os.setxattr("file", "user.x", b"1"),
    "removexattr": lambda: os.removexattr("file", "user.y"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print(name, "succeeded")
    except OSError as error:
        if error.errno != errno.EROFS:
            print(name, errno.errorcode.get(error.errno, error.errno))
print(open("file").read(), end="")
"#;

async fn read_only_cannot_be_changed_even_by_root(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    fs::create_dir(guest.read_only.join("directory"))?;
    let file = guest.read_only.join("file");
    fs::write(&file, "untouched")?;
    let before = fs::metadata(&file)?;
    let script = format!("python3 - <<'EOF'\n{ATTEMPTS}\nEOF");
    assert_eq!(
        guest.answer(&script).await?,
        "untouched",
        "mounted read-only"
    );
    // Root in the guest can lift its own mount's flag; then the host's server must say no.
    guest
        .answer(&format!("mount -o remount,rw {READ_ONLY}"))
        .await?;
    assert_eq!(
        guest.answer(&script).await?,
        "untouched",
        "remounted for writing"
    );
    let after = fs::metadata(&file)?;
    assert_eq!(
        (after.mtime(), after.mode(), after.uid()),
        (before.mtime(), before.mode(), before.uid())
    );
    let mut names: Vec<_> = fs::read_dir(&guest.read_only)?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    assert_eq!(names, ["directory", "file"]);
    Ok(())
}

async fn second_sandbox_on_it_is_refused(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let refused = fixture.small().workspace(&guest.workspace).start().await;
    let message = refused
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(message.contains("another sandbox is using it"), "{message}");
    Ok(())
}

async fn git_works_in_a_worktree(fixture: &Fixture) -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = place.path().canonicalize()?;
    let host = |script: &str| -> Result<String> {
        let output = Command::new("sh")
            .args(["-ec", script])
            .current_dir(&path)
            .output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.success(), "{script}: {text}");
        Ok(text.trim_end().to_owned())
    };
    host(
        "git init -q main; cd main; git config user.name h; git config user.email h@example.org; \
         echo x > file; git add .; git commit -qm first; git worktree add -q ../tree",
    )?;
    let workspace = path.join("tree");
    let repository = sandbox::git::repository(&workspace, &ShareMode::Direct)?;
    let repository = repository.context("it is a worktree")?;
    let sandbox = fixture
        .small()
        .workspace(&workspace)
        .mount(repository)
        .start()
        .await?;
    let script = "echo y >> file; git commit -qam second; git status --porcelain; git log --format=%s; \
        cd ../main/.git; for evil in 'echo x > hooks/post-commit' 'mv hooks old' 'echo x > worktrees/tree/commondir' \
        'git config core.fsmonitor x' 'echo x > config'; do sh -c \"$evil\" 2>/dev/null && echo \"$evil\"; done; true";
    let spec = ExecSpec::new("sh")
        .args(["-ec", script])
        .directory(&workspace);
    let output = sandbox.output(spec).await?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(text == "second\nfirst\n", "{text}");
    sandbox.stop().await?;
    assert_eq!(
        host(
            "git -C main log --format=%s tree; git -C main fsck --strict; git -C tree status --porcelain"
        )?,
        "second\nfirst"
    );
    Ok(())
}
