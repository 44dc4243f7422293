//! One control group for each exec, so that `SIGKILL` reaches descendants that left the process group.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::protocol::Id;

/// The directory of an exec in the cgroup v2 hierarchy.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes the group, or does without where the hierarchy is not to be had.
    pub(crate) fn create(root: &Path, id: Id) -> Option<Self> {
        let path = root.join(format!("exec-{id}"));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Where a process writes `0` to enter.
    pub(crate) fn entrance(&self) -> Option<File> {
        File::options()
            .write(true)
            .open(self.0.join("cgroup.procs"))
            .ok()
    }

    /// Kills every process in it.
    pub(crate) fn kill(&self) {
        // It cannot fail for a group that exists; the process group gets its signal as well.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// Removes the group if no process is left in it.
    pub(crate) fn remove(&self) -> bool {
        fs::remove_dir(&self.0).is_ok()
    }
}
