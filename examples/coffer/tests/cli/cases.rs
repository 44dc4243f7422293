//! The tests.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::GuestFiles;

use crate::policies;
use crate::program::{Ended, coffer, until, worker_of};
use crate::runner::{self, Test, Verdict};

type Run = fn() -> Result<()>;

/// What needs nothing but the program.
const ANYWHERE: &[(&str, Run)] = &[
    ("cli::usage_errors_are_told", usage_errors_are_told),
    ("cli::impossible_settings", impossible_settings),
    ("cli::doctor_and_completions", doctor_and_completions),
    (
        "cli::closed_or_full_output_is_no_panic",
        closed_or_full_output_is_no_panic,
    ),
    ("cli::help_has_examples", help_has_examples),
    (
        "cli::a_url_is_checked_by_all_layers",
        policies::a_url_is_checked_by_all_layers,
    ),
    (
        "cli::a_log_becomes_a_policy",
        policies::a_log_becomes_a_policy,
    ),
    (
        "cli::settings_of_tools_become_rules",
        policies::settings_of_tools_become_rules,
    ),
];

/// What needs a host and files with which a guest starts, even where it does not come to that.
const WITH_GUEST: &[(&str, Run)] = &[
    ("cli::unusable_guest_files", unusable_guest_files),
    ("cli::unusable_workspaces", unusable_workspaces),
    (
        "cli::exit_status_is_the_commands",
        exit_status_is_the_commands,
    ),
    ("cli::command_that_cannot_start", command_that_cannot_start),
    ("cli::streams_pass_through", streams_pass_through),
    ("cli::quota_holds_exactly", quota_holds_exactly),
    (
        "cli::hard_links_are_written_only_when_asked",
        hard_links_are_written_only_when_asked,
    ),
    ("cli::an_overlay_is_applied", an_overlay_is_applied),
    (
        "cli::directories_beside_the_workspace_are_shared",
        directories_beside_the_workspace_are_shared,
    ),
    (
        "cli::a_policy_that_changes_decides_from_then_on",
        a_policy_that_changes_decides_from_then_on,
    ),
    #[cfg(feature = "otel")]
    (
        "cli::an_audit_log_is_exported",
        crate::exported::an_audit_log_is_exported,
    ),
    ("cli::timeout_ends_the_command", timeout_ends_the_command),
    (
        "cli::output_nobody_reads_ends_the_command",
        output_nobody_reads_ends_the_command,
    ),
    (
        "cli::output_that_cannot_be_written_is_told",
        output_that_cannot_be_written_is_told,
    ),
    ("cli::interrupt_leaves_nothing", interrupt_leaves_nothing),
    ("cli::death_leaves_nothing", death_leaves_nothing),
];

pub(crate) fn run() -> ExitCode {
    let lack = sandbox::doctor(&GuestFiles::locate())
        .into_iter()
        .find(|check| check.verdict == sandbox::Verdict::Failed)
        .map(|check| format!("{}: {}", check.name, check.found));
    let anywhere = ANYWHERE.iter().map(|&(name, run)| test(name, run, None));
    let with_guest = WITH_GUEST
        .iter()
        .map(|&(name, run)| test(name, run, lack.clone()));
    runner::run(anywhere.chain(with_guest))
}

fn test(name: &'static str, run: Run, lack: Option<String>) -> Test<'static> {
    let run = move || lack.map_or_else(|| run().into(), Verdict::Skipped);
    Test {
        name,
        run: Box::new(run),
    }
}

fn usage_errors_are_told() -> Result<()> {
    for arguments in [
        &["run"][..],
        &["run", "--cpus", "x", "--", "true"],
        &["run", "--memory", "x", "--", "true"],
        &["run", "--memory", "100K", "--", "true"],
        &["walk"],
        &["run", "--read-only", "true"],
    ] {
        let ended = Ended::of(&mut coffer(arguments))?;
        ensure!(
            ended.status == 125 && ended.stderr.starts_with("error: "),
            "{arguments:?}: {ended:?}"
        );
    }
    Ok(())
}

fn impossible_settings() -> Result<()> {
    for (option, value, part) in [
        ("--memory", "0", "0 MiB of memory"),
        ("--memory", "1M", "1 MiB of memory"),
        ("--memory", "900T", "this host has"),
        ("--cpus", "0", "0 processors"),
        ("--cpus", "1000", "1000 processors"),
    ] {
        Ended::of(&mut coffer(["run", option, value, "--", "true"]))?.failed_with(125, part)?;
    }
    for pattern in ["", "a//b", "*.{key", "**"] {
        let arguments = ["run", "-w", "/usr", "--hide", pattern, "--", "true"];
        Ended::of(&mut coffer(arguments))?.failed_with(125, "no pattern of names")?;
    }
    Ok(())
}

fn doctor_and_completions() -> Result<()> {
    let doctor = Ended::of(&mut coffer([
        "doctor",
        "--json",
        "--kernel",
        "/nonexistent",
    ]))?;
    ensure!(
        doctor.status != 0 && doctor.stdout.contains("/nonexistent"),
        "{doctor:?}"
    );
    let completions = Ended::of(&mut coffer(["completions", "bash"]))?;
    ensure!(
        completions.status == 0 && completions.stdout.contains("--workspace"),
        "no completions"
    );
    Ok(())
}

/// `coffer doctor | head -1`, and a full disk.
fn closed_or_full_output_is_no_panic() -> Result<()> {
    for (arguments, statuses) in [
        (&["doctor"][..], &[0, 1][..]),
        (&["doctor", "--json"], &[0, 1]),
        (&["completions", "bash"], &[0]),
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let closed = Ended::of(coffer(arguments).stdout(writer))?;
        ensure!(
            statuses.contains(&closed.status) && closed.stderr.is_empty(),
            "{arguments:?}: {closed:?}"
        );
        let full = fs::File::options().write(true).open("/dev/full")?;
        let full = Ended::of(coffer(arguments).stdout(full))?;
        ensure!(
            full.status == 125 && full.stderr.contains("cannot write standard output"),
            "{arguments:?}: {full:?}"
        );
    }
    // A line of ours that cannot be written either.
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let failed = coffer(["run", "--memory", "0", "--", "true"])
        .stderr(writer)
        .status()?;
    ensure!(failed.code() == Some(125), "{failed}");
    Ok(())
}

fn help_has_examples() -> Result<()> {
    let policy = ["policy check", "policy learn", "policy suggest"];
    for command in ["run", "doctor", "completions"].iter().chain(&policy) {
        let arguments = command.split(' ').chain(["--help"]);
        let help = Ended::of(&mut coffer(arguments))?;
        ensure!(
            help.status == 0 && help.stdout.contains(&format!("\n  coffer {command} ")),
            "{help:?}"
        );
    }
    Ok(())
}

fn unusable_guest_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let garbage = folder.path().join("garbage");
    fs::write(&garbage, "garbage")?;
    let garbage = garbage.to_str().context("a path that is not UTF-8")?;
    for (option, file, part) in [
        (
            "--kernel",
            "/nonexistent",
            "kernel /nonexistent: No such file",
        ),
        ("--kernel", "/usr", "kernel /usr: not a file"),
        ("--kernel", "/dev/null", "kernel /dev/null: not a file"),
        (
            "--kernel",
            garbage,
            "neither an x86-64 ELF kernel nor a bzImage",
        ),
        (
            "--initrd",
            "/nonexistent",
            "initial RAM file system /nonexistent",
        ),
        ("--root", garbage, "not an EROFS image"),
    ] {
        Ended::of(&mut coffer(["run", option, file, "--", "true"]))?.failed_with(125, part)?;
    }
    Ok(())
}

fn unusable_workspaces() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "anything")?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    for (workspace, part) in [
        ("/nonexistent", "No such file or directory"),
        (file, "Not a directory"),
        ("/", "the whole file system cannot be shared"),
    ] {
        Ended::of(&mut coffer(["run", "-w", workspace, "--", "true"]))?.failed_with(125, part)?;
    }
    Ok(())
}

fn exit_status_is_the_commands() -> Result<()> {
    for (script, status) in [("exit 7", 7), ("kill -9 $$", 137)] {
        let ended = Ended::of(&mut coffer(["run", "--", "sh", "-c", script]))?;
        ensure!(
            ended.status == status && ended.stderr.is_empty(),
            "{script}: {ended:?}"
        );
    }
    Ok(())
}

fn command_that_cannot_start() -> Result<()> {
    for (command, status, part) in [
        ("no-such-program", 127, "no such program"),
        ("/etc/passwd", 126, "cannot be executed"),
    ] {
        Ended::of(&mut coffer(["run", "--", command]))?.failed_with(status, part)?;
    }
    Ok(())
}

fn streams_pass_through() -> Result<()> {
    let workspace = tempfile::tempdir()?;
    let script = "tr a-z A-Z; pwd; echo $WORD >&2; echo made > made";
    let mut coffer = coffer([
        "run",
        "-e",
        "WORD=oops",
        "-w",
        ".",
        "--",
        "sh",
        "-c",
        script,
    ])
    .current_dir(workspace.path())
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()?;
    coffer
        .stdin
        .take()
        .context("no input")?
        .write_all(b"typed\n")?;
    let output = coffer.wait_with_output()?;
    let here = workspace.path().canonicalize()?;
    let expected = format!("TYPED\n{}\n", here.display());
    ensure!(
        output.stdout == expected.as_bytes() && output.stderr == b"oops\n",
        "{output:?}"
    );
    ensure!(
        fs::read(here.join("made"))? == b"made\n",
        "the file is not there"
    );
    Ok(())
}

/// Adds to the workspace until it gets no further; prints how each attempt ended.
const FILL: &str = r#"
import errno, os
def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
file = os.open("file", os.O_CREAT | os.O_WRONLY)
page, pages, ended = bytes(4096), 0, "done"
while ended == "done" and pages < 1024:
    ended = attempt(lambda: os.write(file, page))
    pages += ended == "done"
print(pages, ended)
print(attempt(lambda: os.write(file, b"x")), attempt(lambda: os.truncate("file", (1 << 20) + 1)))
print(attempt(lambda: os.pwrite(file, b"again", 0)), attempt(lambda: os.mkdir("directory")))
print(attempt(lambda: os.symlink("file", "link")), attempt(lambda: os.mkdir("another")))
os.rmdir("directory")
print(attempt(lambda: os.symlink("file", "link")))
"#;

fn quota_holds_exactly() -> Result<()> {
    let workspace = tempfile::tempdir()?;
    let quota = ["--quota", "1M", "--quota-files", "2"];
    let ended = Ended::of(
        coffer(["run", "-w", "."])
            .args(quota)
            .args(["--", "python3", "-c", FILL])
            .current_dir(workspace.path()),
    )?;
    let expected = "256 EDQUOT\nEDQUOT EDQUOT\ndone done\nEDQUOT EDQUOT\ndone\n";
    ensure!(
        ended.status == 0 && ended.stdout == expected && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let file = fs::read(workspace.path().join("file"))?;
    ensure!(
        file.len() == 1 << 20 && file.starts_with(b"again"),
        "{} bytes are on the host",
        file.len()
    );
    let mut names: Vec<_> = fs::read_dir(workspace.path())?
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<Result<_, _>>()?;
    names.sort();
    ensure!(names == ["file", "link"], "{names:?}");
    Ok(())
}

/// What a guest does in an overlay with the kernel's whole way of using a file system.
const WORK: &str = "set -e; git config user.name t; git config user.email t@example.org; \
    echo more >> kept; sed -i s/old/new/ src/main.c; gcc -o prog src/main.c; mv notes docs/notes; rm -r gone; \
    mkdir gone; echo other > gone/other; chmod 600 docs/plan; printf 'all:\n' > Makefile; ln -s /etc/passwd way-out; \
    mv docs docs2; mv docs2 docs; \
    git add src; git commit -q -m work; git fsck --strict; git status --porcelain src";

fn an_overlay_is_applied() -> Result<()> {
    let place = tempfile::tempdir()?;
    let workspace = place.path().join("work");
    for directory in ["src", "docs", "gone/deep"] {
        fs::create_dir_all(workspace.join(directory))?;
    }
    for (file, content) in [
        ("kept", "kept\n"),
        ("src/main.c", "int main(void) { return 0; } // old\n"),
        ("notes", "some notes\n"),
        ("docs/plan", "a plan\n"),
        ("gone/deep/file", "gone\n"),
    ] {
        fs::write(workspace.join(file), content)?;
    }
    let in_workspace = |arguments: &[&str]| {
        let mut coffer = coffer(arguments);
        coffer.current_dir(&workspace);
        Ended::of(coffer.env("XDG_STATE_HOME", place.path().join("state")))
    };
    let git = std::process::Command::new("git")
        .args(["init", "-q"])
        .current_dir(&workspace)
        .status()?;
    ensure!(git.success(), "git init fails on the host");
    let before = tree(&workspace)?;
    let ended = in_workspace(&["run", "-w", ".", "--overlay", "--", "sh", "-c", WORK])?;
    let told = ended.stderr.contains("paths changed, ") && ended.stderr.contains("coffer diff");
    ensure!(
        ended.status == 0 && ended.stdout.is_empty() && told,
        "{ended:?}"
    );
    ensure!(tree(&workspace)? == before, "the host's tree changed");
    // The next run goes on.
    let again = in_workspace(&[
        "run",
        "-w",
        ".",
        "--overlay",
        "--",
        "sh",
        "-c",
        "./prog && cat docs/notes gone/other",
    ])?;
    ensure!(again.stdout == "some notes\nother\n", "{again:?}");
    let stat = in_workspace(&[
        "diff", "--stat", "kept", "src", "docs", "gone", "Makefile", "way-out",
    ])?;
    let expected = "A ! Makefile\nR   notes -> docs/notes\nm   docs/plan\nD   gone/deep/\nD   gone/deep/file\nA   gone/other\n\
                    M   kept\nM   src/main.c\nA ! way-out\n";
    ensure!(stat.stdout == expected, "{}", stat.stdout);
    let diff = in_workspace(&["diff", "src"])?;
    ensure!(
        diff.stdout
            .contains("-int main(void) { return 0; } // old\n+int main"),
        "{diff:?}"
    );
    fs::write(workspace.join("kept"), "changed on the host\n")?;
    let applied = in_workspace(&["apply"])?;
    let conflict = applied
        .stderr
        .contains("`kept` was changed on the host, too");
    let left_out =
        applied.stderr.contains("A ! Makefile") && applied.stderr.contains("A ! way-out");
    ensure!(applied.status == 1 && conflict && left_out, "{applied:?}");
    ensure!(!workspace.join("Makefile").exists() && !workspace.join("gone/deep").exists());
    ensure!(fs::read_to_string(workspace.join("docs/notes"))? == "some notes\n");
    let log = std::process::Command::new("git")
        .args(["-c", "safe.directory=*", "log", "--format=%s"])
        .current_dir(&workspace)
        .output()?;
    ensure!(log.stdout == b"work\n", "{log:?}");
    let rest = in_workspace(&["apply", "--marked", "--overwrite"])?;
    ensure!(rest.status == 0, "{rest:?}");
    ensure!(fs::read_to_string(workspace.join("kept"))? == "kept\nmore\n");
    let nothing = in_workspace(&["diff"])?;
    ensure!(
        nothing.status == 0 && nothing.stdout.is_empty(),
        "{nothing:?}"
    );
    ensure!(in_workspace(&["discard"])?.status == 0);
    in_workspace(&["discard"])?.failed_with(125, "no sandbox has kept changes")
}

/// Every path with its content.
fn tree(root: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let (mut all, mut left) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.symlink_metadata()?.is_dir() {
                left.push(path);
            } else {
                let content = fs::read(&path)?;
                all.push((path, content));
            }
        }
    }
    all.sort();
    Ok(all)
}

fn hard_links_are_written_only_when_asked() -> Result<()> {
    let place = tempfile::tempdir()?;
    let (workspace, store) = (place.path().join("workspace"), place.path().join("store"));
    fs::create_dir(&workspace)?;
    fs::write(&store, "store")?;
    fs::hard_link(&store, workspace.join("linked"))?;
    let run = |options: &[&str]| {
        let script = "echo changed > linked";
        let mut coffer = coffer(["run", "-w", "."]);
        coffer.args(options).args(["--", "sh", "-c", script]);
        Ended::of(coffer.current_dir(&workspace))
    };
    let kept = run(&[])?;
    ensure!(
        kept.status != 0
            && kept.stderr.contains("Operation not permitted")
            && kept
                .stderr
                .contains("kept from the guest: linked (a file of several names)"),
        "{kept:?}"
    );
    ensure!(fs::read(&store)? == b"store", "it was changed all the same");
    let written = run(&["--writable-hard-links"])?;
    ensure!(
        written.status == 0 && written.stderr.is_empty(),
        "{written:?}"
    );
    ensure!(fs::read(&store)? == b"changed\n", "it was not changed");
    Ok(())
}

fn directories_beside_the_workspace_are_shared() -> Result<()> {
    let place = tempfile::tempdir()?;
    let path = |name: &str| place.path().join(name);
    for directory in ["workspace", "library", "output"] {
        fs::create_dir(path(directory))?;
    }
    fs::write(path("library/text"), "from the library")?;
    fs::write(path("library/.env"), "secret")?;
    let script = "cat /opt/library/text && ! echo x > /opt/library/text && ! cat /opt/library/.env && \
                  echo done > ../output/result";
    let ended = Ended::of(
        coffer(["run", "-w", ".", "--mount", "../library:/opt/library:ro"])
            .args(["--mount", "../output:rw", "--", "sh", "-c", script])
            .current_dir(path("workspace")),
    )?;
    ensure!(ended.status == 0, "{ended:?}");
    ensure!(ended.stdout == "from the library", "{ended:?}");
    ensure!(ended.stderr.contains("Read-only file system"), "{ended:?}");
    ensure!(fs::read(path("library/text"))? == b"from the library");
    ensure!(fs::read(path("output/result"))? == b"done\n", "{ended:?}");
    let without = Ended::of(
        coffer(["run", "--mount"])
            .arg(path("output"))
            .args(["--", "cat"])
            .arg(path("output/result")),
    )?;
    ensure!(without.stdout == "done\n", "{without:?}");
    Ok(())
}

fn a_policy_that_changes_decides_from_then_on() -> Result<()> {
    let place = tempfile::tempdir()?;
    let policy = place.path().join("policy.toml");
    // Nobody answers there; a name is all that is asked for.
    let allowing = "[[service]]\nname = \"web.host\"\naddress = \"127.0.0.1:9\"\n";
    fs::write(&policy, allowing)?;
    let script = "getent hosts web.host >/dev/null && echo there; \
        for turn in $(seq 600); do getent hosts web.host >/dev/null || { echo gone; exit; }; sleep 0.1; done";
    let mut child = coffer(["run", "--policy"])
        .arg(&policy)
        .args(["--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line == "there\n", "{line:?}");
    // One that is none changes nothing.
    fs::write(&policy, "[[allow]]\nhost = \"*\"\n")?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let next = place.path().join("next");
    fs::write(&next, "")?;
    fs::rename(&next, &policy)?;
    line.clear();
    output.read_line(&mut line)?;
    let ended = child.wait_with_output()?;
    let told = String::from_utf8(ended.stderr)?;
    ensure!(
        line == "gone\n" && ended.status.success(),
        "{line:?} {told}"
    );
    ensure!(
        told.contains("coffer: the policy stays as it was: "),
        "{told}"
    );
    ensure!(
        told.contains("coffer: another policy decides now"),
        "{told}"
    );
    Ok(())
}

fn timeout_ends_the_command() -> Result<()> {
    let ended = Ended::of(&mut coffer([
        "run",
        "--timeout",
        "500ms",
        "--",
        "sleep",
        "1000",
    ]))?;
    ended.failed_with(124, "the command did not end within 500 ms")
}

/// `coffer run -- yes | head -1`.
fn output_nobody_reads_ends_the_command() -> Result<()> {
    let mut coffer = coffer(["run", "--", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut line = [0; 2];
    let mut stdout = coffer.stdout.take().context("no output")?;
    stdout.read_exact(&mut line)?;
    drop(stdout);
    let output = coffer.wait_with_output()?;
    ensure!(
        &line == b"y\n" && output.status.code() == Some(141) && output.stderr.is_empty(),
        "{line:?} {output:?}"
    );
    Ok(())
}

fn output_that_cannot_be_written_is_told() -> Result<()> {
    let full = fs::File::options().write(true).open("/dev/full")?;
    let script = "echo lost; sleep 1000";
    Ended::of(coffer(["run", "--", "sh", "-c", script]).stdout(full))?
        .failed_with(125, "cannot write standard output: No space left")
}

/// A `coffer` whose command runs, with the folder of `/proc` of its worker.
fn running() -> Result<(std::process::Child, PathBuf)> {
    let mut coffer = coffer(["run", "--", "sh", "-c", "echo ready; sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()?;
    let worker = until("the worker", || worker_of(&coffer))?;
    let mut line = [0; 6];
    coffer
        .stdout
        .as_mut()
        .context("no output")?
        .read_exact(&mut line)?;
    ensure!(&line == b"ready\n", "{line:?}");
    Ok((coffer, worker))
}

fn interrupt_leaves_nothing() -> Result<()> {
    let (mut coffer, worker) = running()?;
    kill_process(Pid::from_child(&coffer), Signal::INT)?;
    let status = coffer.wait()?;
    ensure!(status.code() == Some(130), "{status}");
    until("the worker's end", || (!worker.exists()).then_some(()))
}

fn death_leaves_nothing() -> Result<()> {
    let (mut coffer, worker) = running()?;
    coffer.kill()?;
    coffer.wait()?;
    until("the worker's end", || (!worker.exists()).then_some(()))
}
