//! The share on this host's `/dev/fuse`, under the suites that others wrote and under attack.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::{
    Checks, Lengths,
    pjdfstest::{CONFIGURATION, Suite},
};
use crate::{
    bench::{build_release, fetch_project},
    host::{self, Need},
    mounted::{Mounted, Server},
    progress::stage,
    test::Tally,
};

const NEEDS: &[Need] = &[
    Need::new("git", "git"),
    Need::new("gcc", "gcc"),
    Need::new("fio", "fio"),
];

/// Git's part of the agent's side and of the host's, in turn.
const GIT_ROUND: &str = "echo \"$1\" >> file$(($1 % 7)) && git add -A && git status --porcelain >/dev/null && git commit -qm \"$1\"";
/// Compiles zlib, and a program that uses it.
const C_PROJECT: &str = "tar xf \"$1\" && cd */src/zlib && ls *.c | xargs -P2 -n1 gcc -w -O2 -c && ar rcs libz.a *.o && \
    printf '#include \"zlib.h\"\nint main(void) { return crc32(0, (void *)\"123456789\", 9) != 0xcbf43926; }' > use.c && \
    gcc -I. use.c libz.a -o use && ./use";
/// What fio does in each way: files of both processes, written and compared twice.
const FIO_COMMON: &[&str] = &[
    "--name=verify",
    "--size=32m",
    "--rw=randrw",
    "--verify=crc32c",
    "--verify_fatal=1",
    "--iodepth=8",
    "--fsync=64",
    "--numjobs=2",
    "--loops=2",
    "--minimal",
];
/// Who moves the bytes, whether past the kernel's cache, and in which sizes.
const FIO: [(&str, &str, &str); 5] = [
    ("--ioengine=psync", "--direct=0", "--bsrange=512-128k"),
    ("--ioengine=psync", "--direct=1", "--bsrange=512-128k"),
    ("--ioengine=libaio", "--direct=0", "--bsrange=512-128k"),
    ("--ioengine=libaio", "--direct=1", "--bsrange=512-1m"),
    ("--ioengine=mmap", "--direct=0", "--bsrange=4k-128k"),
];
/// What people do with a repository.
const OVERLAID: &str = "git checkout -q -b work && echo more >> README.md && git rm -q LICENSE-MIT && git commit -qam work && \
    git checkout -q -b other HEAD~20 && git merge -q -X ours --no-edit work && echo stash >> README.md && git stash -q && git stash pop -q && \
    git checkout -q . && git status --porcelain";
/// What there is in a repository's tree, and which commit it is at.
const OVERLAID_STATE: &str = "find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum; git rev-parse HEAD; git status --porcelain";
/// Git's look at everything, every hundredth round.
const GIT_CHECK: &str = "git fsck --full --strict >/dev/null && git gc -q && git fsck --full --strict >/dev/null && git diff --quiet HEAD";

/// Runs all.
pub(super) fn run(checks: &mut Checks, lengths: &Lengths) -> Result<()> {
    ensure!(
        host::is_root() && Path::new("/dev/fuse").exists(),
        "mounting a share takes root and /dev/fuse"
    );
    host::ensure(NEEDS)?;
    let tools = tools()?;
    let place = tempfile::Builder::new()
        .prefix("campaign-share-")
        .tempdir_in("/dev/shm")?;
    let programs = build_release("share_mount")?;
    let server = |options| Server::ours(&programs, options);
    let site = Site {
        tools,
        place,
        server: server(&["--allow-other"]),
        overlay: Server::overlay(&programs),
        free: server(&["--no-usual-rules", "--allow-other"]),
    };
    checks.run("pjdfstest", || site.pjdfstest(&site.server, "pjdfstest"));
    checks.run("pjdfstest in an overlay", || {
        site.pjdfstest(&site.overlay, "pjdfstest-overlay")
    });
    checks.run("fsx, two processes", || {
        site.fsx(&site.server, "fsx", lengths.operations)
    });
    checks.run("fsx in an overlay", || {
        site.fsx(&site.overlay, "fsx-overlay", lengths.operations)
    });
    checks.run("git from both sides", || site.git(lengths.rounds));
    checks.run("this repository on the share", || site.checkout());
    checks.run("this repository in an overlay", || site.overlaid());
    checks.run("fio with verification", || site.fio());
    checks.run("builds on the share", || site.builds(&site.free, "builds"));
    checks.run("builds in an overlay", || {
        site.builds(&Server::overlay(&programs), "builds-overlay")
    });
    checks.run("attempts to get out", attempts);
    checks.run("exchanges of a directory and a link", || {
        races(lengths.exchanges)
    });
    Ok(())
}

/// Where everything happens.
struct Site {
    /// The folder with the suites' programs.
    tools: PathBuf,
    place: TempDir,
    server: Server,
    overlay: Server,
    /// One without rules: they keep a checkout from making what this repository has, `.cargo/config.toml`.
    free: Server,
}

/// The suites, built from the registry.
pub(super) fn tools() -> Result<PathBuf> {
    let root = host::target().join("peers/tools");
    let shell = Shell::new()?;
    for (name, version) in [("pjdfstest", "0.2.2"), ("fsx", "0.3.2")] {
        if !root.join("bin").join(name).exists() {
            stage(&format!("build {name} {version}"), || {
                cmd!(
                    shell,
                    "cargo install --quiet --locked --root {root} --version {version} {name}"
                )
                .quiet()
                .run()?;
                Ok(())
            })?;
        }
    }
    Ok(root.join("bin"))
}

/// What one process of fsx does: it never gives back what it maps to read, so the kernel stops it at some point (65 530 maps).
const FSX_PIECE: u64 = 100_000;

impl Site {
    /// Mounts a new directory; gives its own path too.
    fn mount(&self, server: &Server, name: &str) -> Result<(Mounted, PathBuf)> {
        let tree = self.place.path().join(name);
        fs::create_dir(&tree)?;
        let mounted = server.mount(&tree, self.place.path())?;
        Ok((mounted, tree))
    }

    fn pjdfstest(&self, server: &Server, name: &str) -> Result<String> {
        let configuration = self.place.path().join("pjdfstest.toml");
        fs::write(&configuration, CONFIGURATION)?;
        let run = |at: &Path| -> Result<Suite> {
            let mut command = Command::new(self.tools.join("pjdfstest"));
            command.arg("-c").arg(&configuration).arg("-p").arg(at);
            let output = command.env("RUST_BACKTRACE", "0").output()?;
            Suite::of(&String::from_utf8_lossy(&output.stdout))
        };
        let (mounted, _) = self.mount(server, name)?;
        let below = self.place.path().join("below");
        fs::create_dir_all(&below)?;
        let (ours, host) = (run(mounted.at())?, run(&below)?);
        let left_out = ours.left_out(&host)?;
        Ok(format!(
            "{ours}, {left_out} of the failed left out (special files, other owners), the rest as below; on the file system below: {host}"
        ))
    }

    fn fsx(&self, server: &Server, name: &str, operations: u64) -> Result<String> {
        let (mounted, _) = self.mount(server, name)?;
        let works = |process: u64| {
            let pieces = operations.div_ceil(FSX_PIECE);
            (0..pieces).try_for_each(|piece| {
                let length = FSX_PIECE.min(operations - piece * FSX_PIECE);
                // Each with a seed of its own, which says what is done.
                self.fsx_piece(&mounted, 7 + process + 2 * piece, length)
            })
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| works(1));
            let own = works(0);
            let other = other.join().map_err(|_| anyhow!("a thread panicked"))?;
            own.and(other)
        })?;
        Ok(format!("2 x {operations} operations without a difference"))
    }

    fn fsx_piece(&self, mounted: &Mounted, seed: u64, operations: u64) -> Result<()> {
        let file = mounted.at().join(format!("file{seed}"));
        let status = Command::new(self.tools.join("fsx"))
            .args([
                "-q",
                "-S",
                &seed.to_string(),
                "-N",
                &operations.to_string(),
                "-P",
            ])
            .args([self.place.path(), &file])
            .status()?;
        ensure!(
            status.success(),
            "a difference was found: {status}, seed {seed}"
        );
        Ok(fs::remove_file(file)?)
    }

    fn git(&self, rounds: u64) -> Result<String> {
        let (mounted, tree) = self.mount(&self.server, "git")?;
        git(&tree, "git init -q .", 0)?;
        for round in 0..rounds {
            let side = if round % 2 == 0 { mounted.at() } else { &tree };
            git(side, GIT_ROUND, round).with_context(|| format!("round {round}"))?;
            if round % 100 == 99 {
                for side in [mounted.at(), &tree] {
                    git(side, GIT_CHECK, round).with_context(|| format!("after round {round}"))?;
                }
            }
        }
        let count = git(&tree, "git rev-list --count HEAD", 0)?;
        let count = String::from_utf8_lossy(&count.stdout);
        ensure!(
            count.trim() == rounds.to_string(),
            "{count} commits of {rounds}"
        );
        Ok(format!("{rounds} rounds without an error"))
    }

    /// Random writes of random sizes, by ways that differ in who caches what; then everything is read back and compared.
    fn fio(&self) -> Result<String> {
        let (mounted, _) = self.mount(&self.server, "fio")?;
        for (engine, direct, sizes) in FIO {
            let mut command = Command::new("fio");
            command.args([FIO_COMMON, &[engine, direct, sizes]].concat());
            command.arg("--directory").arg(mounted.at());
            let output = command.current_dir(self.place.path()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "{engine} {direct}: {}",
                said.trim()
            );
            for entry in fs::read_dir(mounted.at())? {
                fs::remove_file(entry?.path())?;
            }
        }
        let (ways, each) = (FIO.len(), "2 x 32 MiB twice");
        Ok(format!("{ways} ways, {each}, every block compared"))
    }

    /// A crate and a C project, with all that is written below the share.
    fn builds(&self, server: &Server, name: &str) -> Result<String> {
        let (mounted, _) = self.mount(server, name)?;
        let shell = Shell::new()?;
        let at = mounted.at();
        cmd!(shell, "cargo install --quiet --locked --root {at}/root --target-dir {at}/target --version 0.3.2 fsx")
            .quiet()
            .run()?;
        let project = fetch_project()?;
        let built = Command::new("sh")
            .args(["-c", C_PROJECT, "sh"])
            .arg(project)
            .current_dir(at)
            .output()?;
        let said = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success(), "zlib: {}", said.trim());
        let program = at.join("root/bin/fsx");
        let version = Command::new(program).arg("--version").output()?;
        ensure!(
            version.status.success(),
            "the crate that was built does not run"
        );
        Ok("fsx by cargo; zlib by gcc, both run".into())
    }

    /// This repository itself, fetched onto the share.
    fn checkout(&self) -> Result<String> {
        let (mounted, tree) = self.mount(&self.free, "checkout")?;
        let source = host::workspace();
        let script = format!(
            "git clone -q file://{} copy && cd copy && {GIT_CHECK}",
            source.display()
        );
        git(mounted.at(), &script, 0)?;
        git(&tree.join("copy"), GIT_CHECK, 0)?;
        Ok("clone, fsck, gc, fsck on the share and below it".into())
    }

    /// A repository that is the host's, worked on in an overlay.
    fn overlaid(&self) -> Result<String> {
        let (mounted, tree) = self.mount(&self.overlay, "overlaid")?;
        let source = host::workspace();
        git(
            &tree,
            &format!("git clone -q file://{} .", source.display()),
            0,
        )?;
        let before = git(&tree, OVERLAID_STATE, 0)?.stdout;
        git(mounted.at(), OVERLAID, 0)?;
        git(mounted.at(), GIT_CHECK, 0)?;
        ensure!(
            git(&tree, OVERLAID_STATE, 0)?.stdout == before,
            "the repository below changed"
        );
        git(&tree, GIT_CHECK, 0)?;
        Ok("branch, commits, merge, checkout of an old state, stash, fsck, gc in the overlay; the host's tree as it was".into())
    }
}

/// Runs a script with git's settings for strangers' repositories.
fn git(directory: &Path, script: &str, argument: u64) -> Result<Output> {
    let output = Command::new("sh")
        .args(["-c", script, "sh", &argument.to_string()])
        .current_dir(directory)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_TEMPLATE_DIR", "")
        .env("GIT_AUTHOR_NAME", "campaign")
        .env("GIT_AUTHOR_EMAIL", "campaign@localhost")
        .env("GIT_COMMITTER_NAME", "campaign")
        .env("GIT_COMMITTER_EMAIL", "campaign@localhost")
        .output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{script}`: {}", error.trim());
    Ok(output)
}

/// The attempts to get out that `fsshare`'s own tests make, counted.
fn attempts() -> Result<String> {
    let (tally, text) = own_tests(&["confinement::", "rules::"], &[])?;
    let counts = text.lines().filter_map(|line| {
        let (_, count) = line.strip_prefix("ATTEMPTS ")?.rsplit_once(": ")?;
        count.parse::<u64>().ok()
    });
    let count: u64 = counts.sum();
    ensure!(count >= 300, "only {count} attempts were made");
    Ok(format!("{tally}; {count} attempts, none got out"))
}

/// The race of `fsshare`'s own tests, for longer.
fn races(exchanges: u64) -> Result<String> {
    let (tally, _) = own_tests(
        &["races::"],
        &[("COFFERDAM_EXCHANGES", exchanges.to_string())],
    )?;
    Ok(format!(
        "{tally}; {exchanges} exchanges, nothing outside was touched"
    ))
}

/// Runs some of `fsshare`'s own tests of its server. Gives what they printed, too.
fn own_tests(filters: &[&str], environment: &[(&str, String)]) -> Result<(Tally, String)> {
    let done = Command::new("cargo")
        .args(["test", "--release", "-p", "fsshare", "--test", "server"])
        .arg("--target-dir")
        .arg(host::target())
        .arg("--")
        .args(filters)
        .current_dir(host::workspace())
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .output()?;
    let text = [done.stdout, done.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let tally = Tally::of(&text, "fsshare's own tests", !done.status.success());
    if tally.failed() > 0 {
        eprintln!("{text}");
        bail!("failed: {}", tally.failures().join(", "));
    }
    ensure!(tally.passed() > 0, "no test ran: {tally}");
    Ok((tally, text))
}
