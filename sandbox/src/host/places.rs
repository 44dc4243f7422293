//! Where the files and directories of a sandbox may lie.
//!
//! What the guest can write, it can replace by another file or by a link. A kernel, a worker, a log
//! or a second share that is reached through a place like that would let the guest choose what the
//! host opens the next time. Both are refused by the way to them, before anything is opened.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use fsshare::Rules;

use crate::config::{Mount, SandboxBuilder, ShareMode};
use crate::error::{Error, Result};

/// The most links that are followed on one way, as in Linux: an open fails beyond it.
const MAX_LINKS: usize = 40;

/// Refuses files of ours, and shares, that are reached through a writable share; and shares that begin where the rules for names
/// in shares would have something to say.
pub(super) fn check(config: &SandboxBuilder, rules: &Rules) -> Result<()> {
    let shares: Vec<Share<'_>> = config.mounts.iter().filter_map(Share::of).collect();
    if let Some(share) = shares.iter().find(|share| rules.concern(&share.directory)) {
        let problem = "it lies in, or is, what is hidden from guests or protected; share the directory above it, or do without \
                       the rule";
        return Err(refusal("workspace", &share.mount.host, problem));
    }
    let program = config.worker_program.clone();
    let program = program.or_else(|| std::env::current_exe().ok());
    let network = config.network.as_ref();
    let audit = network.and_then(|network| network.audit.as_ref());
    let files = [
        ("kernel", Some(&config.kernel)),
        ("initial RAM file system", Some(&config.initrd)),
        ("root image", config.root.as_ref()),
        ("worker program", program.as_ref()),
        ("console log", config.console_log.as_ref()),
        ("audit log", audit.map(|log| &log.file)),
    ];
    for (what, path) in files {
        let Some(path) = path else { continue };
        let way = way(path);
        if shares.iter().any(|share| share.can_change(&way)) {
            let problem = "it lies in, or is reached through, a workspace that the guest can write; \
                           keep it elsewhere, or share the workspace read-only (--read-only)";
            return Err(refusal(what, path, problem));
        }
        if shares.iter().any(|share| share.keeps(&way)) {
            let problem = "it lies in, or is reached through, the directory for a guest's changes; keep it elsewhere";
            return Err(refusal(what, path, problem));
        }
    }
    check_shares(&shares)?;
    check_changes(&shares)
}

/// Refuses directories for changes that a guest could see, let alone change.
fn check_changes(shares: &[Share<'_>]) -> Result<()> {
    for share in shares {
        let ShareMode::Overlay { changes } = &share.mount.mode else {
            continue;
        };
        let way = way(changes);
        let is_seen = |other: &Share<'_>| {
            let is_within = |entry: &PathBuf| entry.starts_with(&other.directory);
            way.iter().any(is_within)
        };
        let holds = |other: &Share<'_>| {
            way.last()
                .is_some_and(|last| other.directory.starts_with(last))
        };
        // What a guest keeps there it could exchange for a link.
        let others = || shares.iter().filter(|other| !std::ptr::eq(*other, share));
        let is_kept = shares
            .iter()
            .any(|other| other.keeps(&self::way(&share.mount.host)))
            || others().any(|other| other.keeps(&way));
        if is_kept || shares.iter().any(|other| is_seen(other) || holds(other)) {
            let problem = "it lies in, is reached through, or holds a workspace or another's changes; keep the changes elsewhere";
            return Err(refusal("directory for changes", changes, problem));
        }
    }
    Ok(())
}

/// Refuses nested shares unless the guest can write none of the two: what is read-only in one would
/// be writable in the other, and a guest could replace the inner directory by a link.
fn check_shares(shares: &[Share<'_>]) -> Result<()> {
    for (index, share) in shares.iter().enumerate() {
        let way = way(&share.mount.host);
        let mut others = shares.iter().enumerate().filter(|(at, _)| *at != index);
        let shared = |other: &Share<'_>| other.can_change(&way) || other.can_write_in(share);
        if others.any(|(_, other)| shared(other)) {
            let problem = "it lies in, or is reached through, another workspace that the guest can \
                           write, or holds one; share one of the two, or both read-only";
            return Err(refusal("workspace", &share.mount.host, problem));
        }
    }
    Ok(())
}

fn refusal(what: &'static str, path: &Path, problem: &str) -> Error {
    Error::Path {
        what,
        path: path.to_owned(),
        problem: problem.into(),
    }
}

struct Share<'a> {
    mount: &'a Mount,
    /// Its directory, without links.
    directory: PathBuf,
}

impl<'a> Share<'a> {
    /// A share that is not there, or is all of the file system, is refused when it is opened.
    fn of(mount: &'a Mount) -> Option<Self> {
        let directory = fs::canonicalize(&mount.host).ok()?;
        (directory != Path::new("/")).then_some(Self { mount, directory })
    }

    /// Whether the guest can replace one of these entries through this share.
    fn can_change(&self, way: &[PathBuf]) -> bool {
        self.mount.is_changed_by_guest()
            && way.iter().any(|entry| entry.starts_with(&self.directory))
    }

    /// Whether one of these entries is in the directory that takes what the guest changes in this share.
    fn keeps(&self, way: &[PathBuf]) -> bool {
        let ShareMode::Overlay { changes } = &self.mount.mode else {
            return false;
        };
        let directory = self::way(changes).pop();
        directory.is_some_and(|directory| way.iter().any(|entry| entry.starts_with(&directory)))
    }

    /// Whether the guest can write a part of `outer` through this share.
    fn can_write_in(&self, outer: &Self) -> bool {
        self.mount.is_changed_by_guest() && self.directory.starts_with(&outer.directory)
    }
}

/// Every directory entry that an open of `path` passes, each where it really lies; the last is the
/// file's own.
fn way(path: &Path) -> Vec<PathBuf> {
    let mut passed = Vec::new();
    let mut place = PathBuf::from("/");
    // A path that has no absolute form is empty, and cannot be opened.
    let mut ahead = parts_reversed(&std::path::absolute(path).unwrap_or_default());
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == OsStr::new("..") {
            place.pop();
            continue;
        }
        let entry = place.join(part);
        match fs::read_link(&entry) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    place = PathBuf::from("/");
                }
                ahead.extend(parts_reversed(&target));
            }
            _ => place.clone_from(&entry),
        }
        passed.push(entry);
    }
    passed
}

fn parts_reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests;
