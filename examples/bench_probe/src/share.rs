//! Loads on a directory that a guest has by virtio-fs: from our sandbox, and from the peers `virtiofsd` and QEMU, in turn.
//!
//! Both guests have the same kernel, root image, processors and memory, and run the same script ([`SCRIPT`]); each has its
//! own copy of the same tree, which lies on a memory file system. The times are the guest's.

use std::env::temp_dir;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sandbox::{ExecSpec, Mount, ShareMode};
use serde::Deserialize;

use crate::job::{Guest, Samples};
use crate::share_peer;

/// Where both guests have the share.
const SHARE: &str = "/share";
/// Runs the script, from a place that is not in the way when the share is mounted again.
const START: &str = "cp -r /share/tools /root/ && exec sh /root/tools/run.sh";
/// What the guest runs, before its loads.
const SCRIPT: &str = include_str!("share.sh");
/// Begins each line with a figure.
const FIGURE: &str = "figure ";

/// Whose share it is.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Side {
    Ours,
    Peer,
    /// The peer, whose guest remembers for as long as ours does.
    BriefPeer,
}

/// Loads on a share.
#[derive(Debug, Deserialize)]
pub(crate) struct Shares {
    pub(crate) guest: Guest,
    pub(crate) memory_mib: u64,
    /// Who does the loads, in turn.
    sides: Vec<Side>,
    /// The initial RAM disk that mounts the root and the share of the peer's guest.
    pub(crate) peer_initrd: PathBuf,
    /// A tar file of the tree that is shared.
    tree: PathBuf,
    /// Files that the guest has in `/root/tools`.
    tools: Vec<PathBuf>,
    loads: Vec<Load>,
}

/// One thing to measure.
#[derive(Debug, Deserialize)]
struct Load {
    /// The first part of the samples' names.
    name: String,
    /// Whether the share is mounted afresh for it.
    fresh: bool,
    /// What `share_load` is told.
    words: Vec<String>,
    /// Whether it is done, but not measured.
    #[serde(default)]
    unmeasured: bool,
}

/// Measures all loads, on both sides in turn.
pub(crate) async fn measure(mut shares: Shares, samples: &mut Samples) -> Result<()> {
    let folder = temp_dir().join(format!("bench-shares-{}", std::process::id()));
    fs::create_dir(&folder)?;
    shares.guest = shares.guest.copied_to(&folder)?;
    if let Some(root) = &mut shares.guest.root {
        let copy = folder.join("root");
        fs::copy(&*root, &copy)?;
        *root = copy;
    }
    let directory = folder.join("shared");
    for side in shares.sides.clone() {
        shares.prepare(&directory)?;
        let (who, said) = match side {
            Side::Ours => ("ours", run_ours(&shares, &directory).await?),
            Side::Peer => (
                "peer",
                share_peer::run(&shares, &directory, &folder, "cache=auto")?,
            ),
            Side::BriefPeer => {
                let said = share_peer::run(&shares, &directory, &folder, "cache=auto,timeout=0.1")?;
                ("brief peer", said)
            }
        };
        shares.note(samples, who, &said)?;
        fs::remove_dir_all(&directory)?;
    }
    Ok(fs::remove_dir_all(&folder)?)
}

/// What our sandbox's guest says.
async fn run_ours(shares: &Shares, directory: &Path) -> Result<String> {
    let mount = Mount {
        host: directory.to_owned(),
        guest: Some(SHARE.into()),
        mode: ShareMode::Direct,
    };
    let builder = shares.guest.builder(shares.memory_mib).mount(mount);
    let sandbox = builder.start().await?;
    let script = ExecSpec::new("sh").args(["-c", START]);
    let output = sandbox.output(script).await?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.success(), "{:?}: {error}", output.status);
    drop(sandbox.stop().await?);
    Ok(String::from_utf8(output.stdout)?)
}

impl Shares {
    /// Makes the directory that is shared.
    fn prepare(&self, directory: &Path) -> Result<()> {
        let tools = directory.join("tools");
        fs::create_dir_all(&tools)?;
        let mut tar = Command::new("tar");
        tar.arg("xf").arg(&self.tree).arg("-C").arg(directory);
        let status = tar.status()?;
        ensure!(status.success(), "tar: {status}");
        for tool in &self.tools {
            let name = tool.file_name().context("a tool without a name")?;
            fs::copy(tool, tools.join(name))?;
        }
        Ok(fs::write(tools.join("run.sh"), self.script())?)
    }

    fn script(&self) -> String {
        let loads = self.loads.iter().map(Load::line);
        loads.fold(SCRIPT.to_owned(), |script, line| script + &line)
    }

    /// Notes the figures in what a guest said.
    fn note(&self, samples: &mut Samples, who: &str, said: &str) -> Result<()> {
        let figures: Vec<(&str, f64)> = said.lines().filter_map(figure).collect();
        for load in self.loads.iter().filter(|load| !load.unmeasured) {
            let Some((name, seconds)) = figures.iter().find(|(name, _)| *name == load.name) else {
                bail!("{who} has no figure of `{}`: {said}", load.name);
            };
            samples.note(format!("{name} {who}"), *seconds);
        }
        Ok(())
    }
}

impl Load {
    /// Its line of the script.
    fn line(&self) -> String {
        let fresh = if self.fresh { "fresh; " } else { "" };
        let words: Vec<String> = self.words.iter().map(|word| quoted(word)).collect();
        format!("{fresh}load {} {}\n", quoted(&self.name), words.join(" "))
    }
}

/// A word as a shell takes it for one.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The load and its seconds that a line tells.
fn figure(line: &str) -> Option<(&str, f64)> {
    let (name, seconds) = line.trim().strip_prefix(FIGURE)?.split_once('=')?;
    Some((name, seconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_load_as_they_were() {
        let load = Load {
            name: "it's".into(),
            fresh: true,
            words: vec!["run".into(), "a \"$1\" b".into()],
            unmeasured: false,
        };
        assert_eq!(load.line(), "fresh; load 'it'\\''s' 'run' 'a \"$1\" b'\n");
    }

    #[test]
    fn figures_are_told_from_what_else_a_console_has() {
        assert_eq!(figure("figure git status=1.5\r"), Some(("git status", 1.5)));
        for line in ["", "[ 0.1] figure x=1", "figure x", "figure x=y"] {
            assert_eq!(figure(line), None, "{line}");
        }
    }
}
