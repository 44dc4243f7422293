//! The share in a guest, by virtio-fs, beside Debian's `virtiofsd` under QEMU's `microvm`.
//!
//! Both run in the emulated host, in turn, with the same kernel, root image, processor and memory for the guest, on trees in a memory file
//! system. Both remember as they do unless told otherwise (`cache=auto`, a sandbox's default). That is a tenth of a second for
//! ours and a second for the peer, and the emulated host does in a second what a real one does in a tenth; so where it matters, the peer is
//! measured with a tenth of a second too. The emulated host has one
//! processor, so that what is compared is work: instructions of the guest's driver, of the hypervisor and of the server.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::{
    probe::{self, Probe, build_release},
    report::{Beside, Row, Target},
    samples::Samples,
    share::fetch_project,
};
use crate::{
    cpio::Archive,
    guest::{self, Which},
    host::{self, Need},
    nested::Clock,
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("git", "git"),
    Need::new("tar", "tar"),
    Need::new("/bin/busybox", "busybox-static"),
    Need::new("/usr/lib/qemu/virtiofsd", "qemu-system-common"),
];

/// The first program of the peer's guest.
const PEER_INIT: &str = include_str!("../../assets/share-peer-init");
const PEERS: &str = "Debian's virtiofsd, cache=auto, under QEMU's microvm";
const BRIEF_PEERS: &str = "the same with timeout=0.1, once";
/// The share is to be 1.1 times as fast as its peer.
const PEER: Target = Target::TimesPeer(1.0 / 1.1);

const SIDES: [&str; 2] = ["ours", "peer"];
/// Rounds by instructions; by the wall's clock there is one.
const ROUNDS: u32 = 3;
/// For all of a job.
const LIMIT: Duration = Duration::from_secs(1800);
/// Memory of both guests.
const GUEST_MIB: u32 = 512;
/// Memory of the emulated host, which holds the trees, the root image and the guest.
const HOST_MIB: u32 = 6144;

/// Size of the file that is written and read. Small, all of them: the more a guest does by instructions, the likelier it gets stuck (`nested`).
const FILE_MIB: u32 = 32;
/// Files that the tree has, and that are made and removed.
const FILES: u32 = 500;
/// Unpacks the project and compiles it, and leaves nothing. Unoptimised: what the compiler itself does is no matter of the share.
const BUILD: &str = "mkdir built && cd built && tar xf \"$1\" && cd */src/zlib && \
    gcc -w -O0 -c *.c && ar rcs libz.a *.o && cd ../../.. && rm -r ../built";

/// One thing that both guests do.
#[derive(Debug, Serialize)]
struct Load {
    name: String,
    /// Whether the share is mounted afresh for it.
    fresh: bool,
    /// Whether it is only there for what comes after it.
    unmeasured: bool,
    /// Whether how long the guest remembers decides it.
    #[serde(skip)]
    remembers: bool,
    /// Whether it is too long for time by instructions, in which QEMU gets guests stuck now and then (`nested`).
    #[serde(skip)]
    long: bool,
    /// What `share_load` is told.
    words: Vec<String>,
}

/// What the guests do, in this order. `project` is a file's name.
fn loads(project: &str) -> Vec<Load> {
    let (mib, files) = (FILE_MIB.to_string(), FILES.to_string());
    let load = |name: &str, words: &[&str]| Load {
        name: name.to_owned(),
        fresh: true,
        unmeasured: false,
        remembers: false,
        long: false,
        words: words.iter().map(|word| (*word).to_owned()).collect(),
    };
    let sized = |what| [what, "/share/tree", "--mib", &mib];
    let counted = |what| [what, "/share/tree", "--files", &files];
    let status = [
        "run",
        "/share/tree",
        "--",
        "git",
        "-c",
        "safe.directory=*",
        "status",
        "--porcelain",
    ];
    let project = format!("/root/tools/{project}");
    let build = [
        "run",
        "/share/tree",
        "--",
        "sh",
        "-c",
        BUILD,
        "sh",
        &project,
    ];
    vec![
        load(&format!("write {mib} MiB"), &sized("write")),
        load(&format!("read {mib} MiB"), &sized("read")),
        load(
            &format!("{} random reads of 4 KiB", FILE_MIB * 16),
            &sized("random"),
        ),
        load(
            &format!("64 threads stat, open, close {files} files"),
            &counted("stat"),
        ),
        load(
            &format!("create and remove {files} files"),
            &counted("create"),
        ),
        // Git compares what it wrote down of each file; that was of other inodes, so it looks into all files once.
        Load {
            unmeasured: true,
            remembers: true,
            ..load("first git status", &status)
        },
        Load {
            remembers: true,
            ..load(
                &format!("git status on {files} files, fresh mount"),
                &status,
            )
        },
        Load {
            fresh: false,
            remembers: true,
            ..load("git status, again", &status)
        },
        Load {
            long: true,
            ..load("unpack and compile zlib", &build)
        },
    ]
}

/// Measures all.
pub(super) fn rows() -> Result<Vec<Row>> {
    host::ensure(NEEDS)?;
    let guest = probe::guest(&guest::assets(Which::Own)?, true);
    let share_load = build_release("share_load")?.join("share_load");
    let probe = Probe::build()?.memory_mib(HOST_MIB);
    let project = fetch_project()?;
    let name = project.file_name().unwrap_or_default().to_string_lossy();
    let loads = loads(&name);
    let folder = TempDir::new_in(host::target())?;
    let job = json!({
        "guest": guest,
        "memory_mib": GUEST_MIB,
        "peer_initrd": peer_initrd(folder.path())?,
        "tree": stage("make files", || tree(folder.path(), &share_load))?,
        "tools": [&share_load, &project],
    });
    let take = |clock, sides: &[&str], loads: &[&Load]| {
        let mut job = job.clone();
        job["sides"] = json!(sides);
        job["loads"] = json!(loads);
        probe.run_nested(&json!({ "share": job }), clock, LIMIT)
    };
    let all: Vec<_> = loads.iter().collect();
    let short: Vec<_> = loads.iter().filter(|load| !load.long).collect();
    // Each by itself, so that one that gets stuck is all that is begun again.
    let turns = (0..ROUNDS).flat_map(|_| SIDES);
    let icount = turns.map(|side| take(Clock::Instructions, &[side], &short));
    let icount: Samples = icount.collect::<Result<_>>()?;
    let brief: Vec<_> = loads.iter().filter(|load| load.remembers).collect();
    let brief = take(Clock::Instructions, &["brief_peer"], &brief)?;
    let wall = take(Clock::Wall, &SIDES, &all)?;
    let measured = loads.iter().filter(|load| !load.unmeasured);
    let rows = measured.flat_map(|load| {
        let brief = load.remembers.then(|| brief_row(load, &icount, &brief));
        [Some(row(load, &icount, &wall)), brief]
    });
    rows.flatten().collect()
}

/// Beside a peer whose guest remembers as briefly as ours.
fn brief_row(load: &Load, icount: &Samples, brief: &Samples) -> Result<Row> {
    let [ours, peer] = [(icount, "ours"), (brief, "brief peer")]
        .map(|(samples, who)| samples.median(&format!("{} {who}", load.name)));
    let what = format!("{}; peer with timeout=0.1", load.name);
    Ok(Row::new(what, ours?, "s", PEER).against(peer?, BRIEF_PEERS))
}

fn row(load: &Load, icount: &Samples, wall: &Samples) -> Result<Row> {
    let median = |samples: &Samples| -> Result<[f64; 2]> {
        let [ours, peer] = SIDES.map(|who| samples.median(&format!("{} {who}", load.name)));
        Ok([ours?, peer?])
    };
    let row =
        |[ours, peer]: [f64; 2]| Row::new(load.name.as_str(), ours, "s", PEER).against(peer, PEERS);
    let beside = median(wall)?;
    if load.long {
        return Ok(row(beside).mode("wall"));
    }
    let [ours, peer] = beside;
    Ok(row(median(icount)?).wall(Some(Beside {
        ours,
        peer: Some(peer),
    })))
}

/// Makes a tar file of the tree that is shared: files that git knows.
fn tree(folder: &Path, share_load: &Path) -> Result<PathBuf> {
    let shell = Shell::new()?;
    let tree = folder.join("tree");
    let files = FILES.to_string();
    shell.create_dir(&tree)?;
    shell.change_dir(&tree);
    cmd!(shell, "{share_load} fill {tree} --files {files}")
        .quiet()
        .ignore_stdout()
        .run()?;
    cmd!(shell, "git init -q .").quiet().run()?;
    cmd!(shell, "git add -A").quiet().run()?;
    cmd!(
        shell,
        "git -c user.name=bench -c user.email=bench@localhost commit -qm bench"
    )
    .quiet()
    .run()?;
    let archive = folder.join("tree.tar");
    cmd!(shell, "tar cf {archive} -C {folder} tree")
        .quiet()
        .run()?;
    Ok(archive)
}

/// Makes the initial RAM disk of the peer's guest.
fn peer_initrd(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("peer.cpio");
    let mut archive = Archive::new(BufWriter::new(File::create(&file)?));
    for dir in ["bin", "dev", "lower", "new", "proc", "upper"] {
        archive.dir(dir)?;
    }
    archive.char_device("dev/console", 5, 1)?;
    archive.copy("bin/busybox", Path::new("/bin/busybox"))?;
    archive.program("init", PEER_INIT.as_bytes())?;
    archive.finish()?;
    Ok(file)
}
