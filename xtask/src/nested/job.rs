//! The folder that a job shares with the emulated host: the script that runs, the place for its results.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio, id},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};

use super::NestedJob;
use crate::host;

/// Where the emulated host mounts the job's folder.
const INSIDE: &str = "/run/nested";

/// The file into which the emulated host writes how many seconds have passed there.
const SECONDS: &str = "seconds";

/// What the command sees of our own environment.
const PASSED_ON: &[&str] = &[
    "HOME",
    "PATH",
    "LANG",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "RUST_BACKTRACE",
    "RUST_LOG",
    "PROPTEST_CASES",
];

/// A job's folder. It goes when this value goes, or when this process dies.
#[derive(Debug)]
pub(super) struct JobFolder {
    path: PathBuf,
    sweeper: Child,
}

impl JobFolder {
    /// Makes the folder and writes the job's script into it.
    pub(super) fn create(job: &NestedJob) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = host::target().join("nested/jobs").join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let folder = Self {
            sweeper: sweep_after_us(&path)?,
            path,
        };
        fs::create_dir_all(folder.results(job))?;
        fs::create_dir_all(folder.path.join("out"))?;
        fs::write(folder.path.join("command"), script(job)?)?;
        fs::write(folder.path.join(SECONDS), "")?;
        Ok(folder)
    }

    /// How many seconds have passed in the emulated host.
    pub(super) fn seconds(&self) -> u64 {
        let text = fs::read_to_string(self.path.join(SECONDS)).unwrap_or_default();
        // Nothing is there before the first, and while it is being written.
        text.trim().parse().unwrap_or(0)
    }

    /// The folder on our side.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder on our side that the command knows as `NESTED_OUT`.
    pub(super) fn results(&self, job: &NestedJob) -> PathBuf {
        job.out.clone().unwrap_or_else(|| self.path.join("out"))
    }

    /// The exit status that the emulated host wrote down, if the command ended there.
    pub(super) fn status(&self) -> Result<Option<u8>> {
        match fs::read_to_string(self.path.join("status")) {
            Ok(text) => Ok(Some(
                text.trim()
                    .parse()
                    .context("the emulated host wrote no exit status")?,
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for JobFolder {
    fn drop(&mut self) {
        // Closing its input lets the sweeper do the work, the same as at our death.
        drop(self.sweeper.stdin.take());
        if let Err(error) = self.sweeper.wait() {
            eprintln!(
                "xtask: {} may have stayed behind: {error}",
                self.path.display()
            );
        }
    }
}

/// Starts a process that removes the folder as soon as this one closes its end of a pipe or dies, by whatever cause.
fn sweep_after_us(path: &Path) -> Result<Child> {
    Command::new("sh")
        .args(["-c", "read -r _; rm -rf -- \"$1\"", "sweeper"])
        .arg(path)
        .stdin(Stdio::piped())
        // A Ctrl-C of the terminal must not end the sweeper before its work.
        .process_group(0)
        .spawn()
        .context("cannot start a shell")
}

/// The shell script that runs the job's command.
fn script(job: &NestedJob) -> Result<Vec<u8>> {
    if job.command.is_empty() {
        bail!("no command was given for the emulated host");
    }
    let mut text = Vec::new();
    for (name, value) in environment(job) {
        write!(text, "export {}=", name.display())?;
        push_quoted(&mut text, &value);
        text.push(b'\n');
    }
    text.extend_from_slice(b"cd ");
    push_quoted(&mut text, job.cwd.as_os_str());
    text.extend_from_slice(b" && exec");
    for word in &job.command {
        text.push(b' ');
        push_quoted(&mut text, word);
    }
    writeln!(text)?;
    Ok(text)
}

/// The command's environment; what comes later counts.
fn environment(job: &NestedJob) -> Vec<(OsString, OsString)> {
    let inherited = PASSED_ON
        .iter()
        .filter_map(|name| Some(((*name).into(), env::var_os(name)?)));
    let out = format!("{INSIDE}/out");
    let fixed = [("TERM", "dumb"), ("NESTED", "1"), ("NESTED_OUT", &out)];
    let fixed = fixed.map(|(name, value)| (name.into(), value.into()));
    inherited
        .chain(fixed)
        .chain(job.env.iter().cloned())
        .collect()
}

/// Appends `word` so that a shell takes it as one word.
fn push_quoted(text: &mut Vec<u8>, word: &OsStr) {
    text.push(b'\'');
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            other => text.push(*other),
        }
    }
    text.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_reads_each_word_as_it_was() {
        let words = [
            "",
            "plain",
            "two words",
            "it's",
            "$HOME `id` \"x\" \\",
            "a\nb",
            "*",
        ];
        let job = NestedJob::new(["printf", "%s\\0"].iter().chain(&words)).cwd("/");
        let output = Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&script(&job).unwrap()))
            .output()
            .unwrap();
        let expected: String = words.iter().map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }

    #[test]
    fn environment_and_folder_reach_the_command() {
        let job = NestedJob::new(["sh", "-c", "echo $NESTED $MINE $NESTED_OUT; pwd"])
            .cwd("/usr")
            .env("MINE", "a b");
        let output = Command::new("sh")
            .arg("-c")
            .arg(OsStr::from_bytes(&script(&job).unwrap()))
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("1 a b {INSIDE}/out\n/usr\n")
        );
    }

    #[test]
    fn empty_command_is_refused() {
        assert!(script(&NestedJob::new::<&str>([])).is_err());
    }

    #[test]
    fn seconds_are_those_that_were_written_last() {
        let folder = JobFolder::create(&NestedJob::new(["true"])).unwrap();
        assert_eq!(folder.seconds(), 0);
        fs::write(folder.path().join(SECONDS), "12\n").unwrap();
        assert_eq!(folder.seconds(), 12);
    }

    #[test]
    fn folder_goes_with_its_value() {
        let job = NestedJob::new(["true"]);
        let folder = JobFolder::create(&job).unwrap();
        let path = folder.path().to_owned();
        assert!(path.join("command").exists() && folder.status().unwrap().is_none());
        drop(folder);
        assert!(!path.exists());
    }
}
