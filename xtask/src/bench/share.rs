//! The share on this host's own `/dev/fuse`, beside libfuse's `passthrough_ll` and no share at all.
//!
//! Both servers remember as much as they can (`cache=always`) and lie on a memory file system, so that no disk is measured.
//! The time is this machine's; each figure is the median of interleaved rounds.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::{Builder, TempDir};
use xshell::{Shell, cmd};

use super::{
    probe::build_release,
    report::{Row, Target},
    samples::median,
};
use crate::{
    host::{self, Need},
    mounted::{Mounted, Server, fit, most_descriptors},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("gcc", "gcc"),
    Need::new("git", "git"),
    Need::new("xargs", "findutils"),
    Need::new("/usr/include/stdio.h", "libc6-dev"),
];

/// Rounds of everything.
const ROUNDS: usize = 3;
/// The share is to be 1.2 times as fast as its peer.
const PEER: Target = Target::TimesPeer(1.0 / 1.2);
/// And is to reach 70 % of no share at all.
const NATIVE: Target = Target::TimesPeer(1.0 / 0.7);
const PEERS: &str = "libfuse's passthrough_ll, cache=always";
const HOSTS: &str = "the host's own file system";

/// A crate that is mostly C, whose sources are unpacked and compiled.
const PROJECT: &str = "libz-sys";
/// Entries that are looked up for the figure on memory.
const LOOKUPS: u32 = 1_000_000;
/// Files that are made and removed, and files that git looks at: as many of them as the peer can hold with the descriptors that it may have.
const MADE: u64 = 100_000;
const TRACKED: u64 = 50_000;
/// Unpacks the project and compiles it, and leaves nothing.
const BUILD: &str = "mkdir built && cd built && tar xf \"$1\" && cd */src/zlib && \
    ls *.c | xargs -P2 -n1 gcc -w -O2 -c && ar rcs libz.a *.o && cd ../../.. && rm -r ../built";
/// What `fsshare::Limits` say of descriptors: of nodes that are held, of open files, and for the rest of the process.
const HELD: u64 = 64 << 10;
const OPEN: u64 = 16 << 10;
const REST: u64 = 256;

/// Where a load is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Ours,
    Peer,
    Native,
}

/// One thing to measure.
struct Load {
    what: String,
    work: Work,
    /// Whether the share is mounted afresh for it.
    fresh: bool,
    native: bool,
}

#[derive(Debug, Clone, Copy)]
enum Work {
    /// A load of `share_load`.
    Plain(&'static str),
    /// One that takes a number of files.
    Files(&'static str, u64),
    GitStatus,
    /// Unpacks the project and compiles it.
    Build,
}

fn loads() -> Vec<Load> {
    let load = |what: &str, work| Load {
        what: what.into(),
        work,
        fresh: true,
        native: false,
    };
    let (made, tracked) = (fit(MADE), fit(TRACKED));
    let status = format!("git status on {tracked} files");
    let again = Load {
        fresh: false,
        ..load(&format!("{status}, again"), Work::GitStatus)
    };
    let build = Load {
        native: true,
        ..load("unpack and compile zlib", Work::Build)
    };
    let threads = "64 threads stat, open, close 10^4 files";
    let create = format!("create and remove {made} files");
    vec![
        load("write 512 MiB", Work::Plain("write")),
        load("read 512 MiB", Work::Plain("read")),
        load("8192 random reads of 4 KiB", Work::Plain("random")),
        load(threads, Work::Files("stat", 10_000)),
        load(&create, Work::Files("create", made)),
        load(&format!("{status}, fresh mount"), Work::GitStatus),
        again,
        build,
    ]
}

/// Measures all.
pub(super) fn rows() -> Result<Vec<Row>> {
    ensure!(
        host::is_root() && Path::new("/dev/fuse").exists(),
        "mounting a share takes root and /dev/fuse"
    );
    host::ensure(NEEDS)?;
    let bench = Bench::prepare()?;
    let mut rows = Vec::new();
    for load in loads() {
        rows.extend(bench.measure(&load)?);
    }
    rows.extend(bench.memory()?);
    Ok(rows)
}

struct Bench {
    programs: PathBuf,
    ours: Server,
    peer: Server,
    project: PathBuf,
    /// What stays mounted for the next load. Unmounted before its place goes.
    kept: RefCell<Vec<(Side, Mounted)>>,
    /// Of a memory file system: `tree`, and where it is mounted.
    place: TempDir,
}

impl Bench {
    fn prepare() -> Result<Self> {
        let programs = build_release("share_load")?;
        build_release("share_mount")?;
        let place = Builder::new()
            .prefix("bench-share-")
            .tempdir_in("/dev/shm")
            .context("no memory file system at /dev/shm")?;
        let bench = Self {
            ours: Server::ours(&programs, &["--cache", "always"]),
            peer: Server::peer()?,
            project: fetch_project()?,
            programs,
            place,
            kept: RefCell::default(),
        };
        stage("make files", || bench.fill())?;
        Ok(bench)
    }

    fn tree(&self) -> PathBuf {
        self.place.path().join("tree")
    }

    fn fill(&self) -> Result<()> {
        let tree = self.tree();
        fs::create_dir(&tree)?;
        self.put(&tree, Work::Files("fill", fit(TRACKED)))?;
        let shell = Shell::new()?;
        shell.change_dir(&tree);
        cmd!(shell, "git init -q .").run()?;
        cmd!(shell, "git add -A").run()?;
        cmd!(
            shell,
            "git -c user.name=bench -c user.email=bench@localhost commit -qm bench"
        )
        .run()?;
        Ok(())
    }

    /// Seconds that the load takes there.
    fn put(&self, directory: &Path, work: Work) -> Result<f64> {
        let mut command = Command::new(self.programs.join("share_load"));
        match work {
            Work::Plain(load) => command.arg(load).arg(directory),
            Work::Files(load, files) => {
                let files = files.to_string();
                command.arg(load).arg(directory).args(["--files", &files])
            }
            Work::GitStatus => {
                command.arg("run").arg(directory).args(["--", "git"]);
                command.args(["-c", "safe.directory=*", "status", "--porcelain"])
            }
            Work::Build => {
                command.arg("run").arg(directory);
                command
                    .args(["--", "sh", "-c", BUILD, "sh"])
                    .arg(&self.project)
            }
        };
        let output = command.output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        let error = error.lines().next().unwrap_or_default();
        ensure!(
            output.status.success(),
            "{work:?} in {}: {error}",
            directory.display()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    fn measure(&self, load: &Load) -> Result<Vec<Row>> {
        let sides: &[Side] = if load.native {
            &[Side::Ours, Side::Peer, Side::Native]
        } else {
            &[Side::Ours, Side::Peer]
        };
        let mut taken = vec![Vec::new(); sides.len()];
        stage(&load.what, || {
            for _ in 0..ROUNDS {
                for (side, seconds) in sides.iter().zip(&mut taken) {
                    seconds.push(self.once(*side, load)?);
                }
            }
            Ok(())
        })?;
        let medians: Vec<f64> = taken
            .iter_mut()
            .filter_map(|seconds| median(seconds))
            .collect();
        let [ours, peer, ref native @ ..] = medians[..] else {
            bail!("{} was not measured", load.what);
        };
        let row = |target, other, whose| {
            Row::new(load.what.as_str(), ours, "s", target).against(other, whose)
        };
        let mut rows = vec![row(PEER, peer, PEERS)];
        rows.extend(native.iter().map(|native| row(NATIVE, *native, HOSTS)));
        Ok(rows)
    }

    fn once(&self, side: Side, load: &Load) -> Result<f64> {
        let server = match side {
            Side::Native => return self.put(&self.tree(), load.work),
            Side::Ours => &self.ours,
            Side::Peer => &self.peer,
        };
        let mut kept = self.kept.borrow_mut();
        if load.fresh {
            kept.retain(|(other, _)| *other != side);
        }
        let at = match kept.iter().position(|(other, _)| *other == side) {
            Some(at) => at,
            None => {
                let mounted = server.mount(&self.tree(), self.place.path())?;
                kept.push((side, mounted));
                kept.len() - 1
            }
        };
        let (_, mounted) = kept.get(at).context("nothing is mounted")?;
        self.put(mounted.at(), load.work)
    }

    /// What a million remembered files cost.
    fn memory(&self) -> Result<Vec<Row>> {
        self.kept.borrow_mut().clear();
        let many = self.place.path().join("many");
        fs::create_dir(&many)?;
        let grown = stage("look a million files up", || {
            self.put(&many, Work::Files("flat", LOOKUPS.into()))?;
            let mounted = self.ours.mount(&many, self.place.path())?;
            let before = mounted.resident_kib()?;
            self.put(mounted.at(), Work::Files("look", LOOKUPS.into()))?;
            Ok((mounted.resident_kib()? - before, mounted.descriptors()?))
        })?;
        let limit = f64::from(LOOKUPS) * 64.0 / 1024.0 + 4096.0;
        let descriptors = f64::from(u32::try_from(most_open(most_descriptors()))?);
        Ok(vec![
            Row::new(
                "memory for 10^6 files looked up in one directory",
                grown.0,
                "KiB",
                Target::AtMost(limit),
            ),
            Row::new(
                "descriptors for them",
                grown.1,
                "open",
                Target::AtMost(descriptors),
            ),
        ])
    }
}

/// Descriptors that the share may have while none of its files is open, if its process may have `limit`: a quarter is kept for open files.
fn most_open(limit: u64) -> u64 {
    let share = limit.saturating_sub(REST);
    HELD.min(share - OPEN.min(share / 4)) + REST
}

/// The project's sources, as the registry packs them.
pub(crate) fn fetch_project() -> Result<PathBuf> {
    stage(&format!("fetch {PROJECT}"), || {
        let folder = host::target().join("peers/project");
        fs::create_dir_all(folder.join("src"))?;
        fs::write(folder.join("src/lib.rs"), "")?;
        let manifest = format!(
            "[package]\nname = \"project\"\nedition = \"2024\"\n[dependencies]\n{PROJECT} = \"=1.1.31\"\n[workspace]\n"
        );
        fs::write(folder.join("Cargo.toml"), manifest)?;
        let shell = Shell::new()?;
        shell.change_dir(&folder);
        cmd!(shell, "cargo fetch --quiet").quiet().run()?;
        let metadata = cmd!(shell, "cargo metadata --format-version 1 --offline")
            .quiet()
            .read()?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
        packed(&metadata).context("the registry's copy is not where cargo keeps it")
    })
}

/// The packed file beside the folder that cargo unpacked it to: `registry/cache/R/P.crate` for `registry/src/R/P`.
fn packed(metadata: &serde_json::Value) -> Option<PathBuf> {
    let packages = metadata["packages"].as_array()?;
    let package = packages.iter().find(|package| package["name"] == PROJECT)?;
    let folder = Path::new(package["manifest_path"].as_str()?).parent()?;
    let (name, registry) = (folder.file_name()?.to_str()?, folder.parent()?);
    let cache = registry.parent()?.parent()?.join("cache");
    let file = cache
        .join(registry.file_name()?)
        .join(format!("{name}.crate"));
    file.exists().then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_on_descriptors_is_below_what_the_process_may_have() {
        assert_eq!(most_open(20_000), 14_808 + REST);
        assert_eq!(most_open(1 << 20), HELD + REST);
        assert_eq!(most_open(u64::MAX), HELD + REST);
    }
}
