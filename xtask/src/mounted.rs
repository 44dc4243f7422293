//! Servers that mount a directory, and what they have mounted.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{distro, host, progress::stage};

/// How to start a server.
#[derive(Debug)]
pub(crate) enum Server {
    /// `share_mount`, and its options.
    Ours(PathBuf, &'static [&'static str]),
    /// `share_mount`, which keeps what is changed apart, in a directory of its own.
    Overlay(PathBuf),
    /// The program, and where its library is.
    Peer(PathBuf, PathBuf),
}

/// A directory that a server has mounted. Dropping it unmounts, and waits for the server's end.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
    server: Child,
}

/// How long a server may take to mount.
const LIMIT: Duration = Duration::from_secs(10);
/// Both servers get as many descriptors as they may: the peer needs one for each file.
const MANY_DESCRIPTORS: &str = "ulimit -n $(ulimit -H -n) && exec \"$@\"";

/// How many descriptors a server gets.
pub(crate) fn most_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// How many of `wanted` files the peer can hold.
pub(crate) fn fit(wanted: u64) -> u64 {
    wanted.min(most_descriptors() / 4 * 3)
}

impl Server {
    pub(crate) fn ours(programs: &Path, options: &'static [&'static str]) -> Self {
        Self::Ours(programs.join("share_mount"), options)
    }

    /// Ours with an overlay.
    pub(crate) fn overlay(programs: &Path) -> Self {
        Self::Overlay(programs.join("share_mount"))
    }

    /// The peer, compiled from the distribution's example.
    pub(crate) fn peer() -> Result<Self> {
        let root = host::target().join("peers/fuse");
        let program = root.join("passthrough_ll");
        let library = root.join("lib/x86_64-linux-gnu");
        if !program.exists() {
            fs::create_dir_all(&root)?;
            for package in ["libfuse3-3", "libfuse3-dev"] {
                distro::fetch(package, &root)?;
            }
            stage("compile passthrough_ll", || {
                let shell = Shell::new()?;
                let source = root.join("usr/share/doc/libfuse3-dev/examples/passthrough_ll.c");
                let headers = root.join("usr/include/fuse3");
                let shared = library.join("libfuse3.so.3");
                cmd!(shell, "gcc -w -O2 -pthread -D_FILE_OFFSET_BITS=64 -I{headers} -o {program} {source} {shared}")
                    .quiet()
                    .run()?;
                Ok(())
            })?;
        }
        Ok(Self::Peer(program, library))
    }

    /// Mounts `source` at a new directory in `place`.
    pub(crate) fn mount(&self, source: &Path, place: &Path) -> Result<Mounted> {
        let name = match self {
            Self::Ours(..) | Self::Overlay(_) => "ours",
            Self::Peer(..) => "peer",
        };
        let at = place.join(name);
        fs::create_dir_all(&at)?;
        let mut command = Command::new("sh");
        command.args(["-c", MANY_DESCRIPTORS, "sh"]);
        match self {
            Self::Ours(program, options) => {
                command.arg(program).args(*options);
                command.arg(source).arg(&at);
            }
            Self::Overlay(program) => {
                let changes = place.join("changes");
                if changes.exists() {
                    fs::remove_dir_all(&changes)?;
                }
                fs::create_dir(&changes)?;
                command.args([
                    program,
                    Path::new("--allow-other"),
                    Path::new("--changes"),
                    &changes,
                ]);
                command.arg(source).arg(&at);
            }
            Self::Peer(program, library) => {
                command.env("LD_LIBRARY_PATH", library);
                let options = format!("source={},cache=always", source.display());
                command.arg(program).arg(&at).args(["-f", "-o", &options]);
            }
        }
        let server = command.stdout(Stdio::null()).spawn()?;
        let mut mounted = Mounted { at, server };
        mounted.wait(place)?;
        Ok(mounted)
    }
}

impl Mounted {
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    /// Waits until another file system is there.
    fn wait(&mut self, place: &Path) -> Result<()> {
        let begin = Instant::now();
        let outside = fs::metadata(place)?.dev();
        while fs::metadata(&self.at)?.dev() == outside {
            if let Some(status) = self.server.try_wait()? {
                bail!("the server at {} ended: {status}", self.at.display());
            }
            ensure!(
                begin.elapsed() < LIMIT,
                "nothing was mounted at {}",
                self.at.display()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The server's resident memory that is its own.
    pub(crate) fn resident_kib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let value = line.context("this system does not tell resident memory")?;
        Ok(value.trim().trim_end_matches(" kB").parse()?)
    }

    pub(crate) fn descriptors(&self) -> Result<f64> {
        let open = fs::read_dir(format!("/proc/{}/fd", self.server.id()))?.count();
        Ok(f64::from(u32::try_from(open)?))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            // It ends with its server.
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}
