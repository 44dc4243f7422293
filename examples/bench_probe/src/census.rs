//! What a sandbox could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Where programs leave files.
const FOLDERS: &[&str] = &["/tmp", "/run", "/dev/shm", "/var/tmp"];

/// What is there at a moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Census {
    /// Process ids with their names.
    pub(crate) processes: BTreeSet<String>,
    /// This program's descriptors.
    pub(crate) descriptors: BTreeSet<String>,
    /// Files in the folders for temporary ones, and sockets with a name.
    pub(crate) files: BTreeSet<String>,
}

impl Census {
    /// Looks around.
    pub(crate) fn take() -> Result<Self> {
        let mut census = Self {
            processes: processes()?,
            descriptors: names(Path::new("/proc/self/fd"))?,
            files: sockets()?,
        };
        for folder in FOLDERS.iter().map(Path::new) {
            if let Ok(data) = folder.metadata() {
                walk(folder, data.dev(), &mut census.files);
            }
        }
        Ok(census)
    }
}

/// The resident memory of this program in KiB.
pub(crate) fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = value.context("this system does not tell resident memory")?;
    Ok(value.trim().trim_end_matches(" kB").parse()?)
}

/// Processes that run a program; the kernel's own threads come and go as it likes.
fn processes() -> Result<BTreeSet<String>> {
    let numbers = names(Path::new("/proc"))?;
    let command = |id: &String| {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (!line.is_empty()).then(|| format!("{id} {line}"))
    };
    let is_number = |name: &&String| name.bytes().all(|byte| byte.is_ascii_digit());
    Ok(numbers
        .iter()
        .filter(is_number)
        .filter_map(command)
        .collect())
}

/// The names of Unix sockets, abstract ones too.
fn sockets() -> Result<BTreeSet<String>> {
    let table = fs::read_to_string("/proc/net/unix")?;
    let name = |line: &str| line.split_whitespace().nth(7).map(str::to_owned);
    Ok(table.lines().skip(1).filter_map(name).collect())
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Adds all paths below `folder` that are on its file system, `device`; what cannot be read has nothing of ours in it.
fn walk(folder: &Path, device: u64, files: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_ours = |data: fs::Metadata| data.is_dir() && data.dev() == device;
        if entry.metadata().is_ok_and(is_ours) {
            walk(&path, device, files);
        }
        files.insert(path.display().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_a_process_are_found() {
        let before = Census::take().unwrap();
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        // Until it has executed its program, the child goes by this test's name.
        let sleeps = format!("{} sleep 600 ", child.id());
        let mut after = Census::take().unwrap();
        for _ in 0..500 {
            if after.processes.contains(&sleeps) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
            after = Census::take().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let wanted = folder.path().display().to_string();
        assert!(after.files.contains(&wanted) && !before.files.contains(&wanted));
        assert!(after.processes.contains(&sleeps), "{:?}", after.processes);
    }

    #[test]
    fn this_program_has_resident_memory() {
        assert!(resident_kib().unwrap() > 100);
    }
}
