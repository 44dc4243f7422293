//! The repository of a git worktree or submodule, which lies outside of its folder.
//!
//! There `.git` is a file that names a folder elsewhere. Who wrote it is not trusted, so that folder is shared only if it names the workspace
//! in turn, as git makes it: a file alone must not decide what a guest gets of the host.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::config::{Mount, ShareMode};
use crate::text::printable_path;

/// More than any path, and than any submodule's settings.
const LONGEST: u64 = 256 << 10;

/// Why a workspace's repository is not shared with it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GitError {
    /// `.git`, or what it leads to, cannot be read.
    #[error("{} cannot be read: {source}", shown(path))]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `.git` is a file, and not one of git's.
    #[error("{} is no file of git's", shown(.0))]
    Malformed(PathBuf),
    /// The folder that `.git` names does not belong to the workspace.
    #[error("{} does not name the workspace in turn", shown(.0))]
    OfAnother(PathBuf),
}

/// The folder that git needs beside `workspace`, where that is a worktree or a submodule: to be shared too, at the path that its `.git`
/// names. `None`: all of git is in the workspace, or there is none.
///
/// It is [`ShareMode::Together`] if the workspace is [`ShareMode::Direct`] and the rules for names know it as a `.git` folder, so that its
/// hooks and settings are protected; otherwise read-only, and git can look and not commit.
///
/// # Errors
///
/// [`GitError`]: git will not work in the guest; the rest will.
pub fn repository(workspace: &Path, mode: &ShareMode) -> Result<Option<Mount>, GitError> {
    let file = workspace.join(".git");
    match fs::symlink_metadata(&file) {
        Ok(metadata) if metadata.is_file() => {}
        _ => return Ok(None),
    }
    let workspace = canonical(workspace)?;
    let text = read(&file)?;
    let malformed = || GitError::Malformed(file.clone());
    let named = text.strip_prefix(b"gitdir: ").ok_or_else(malformed)?;
    let named = workspace.join(path_of(named));
    let folder = canonical(&named)?;
    let (host, guest) = match fs::symlink_metadata(folder.join("commondir")) {
        Ok(_) => worktrees(&workspace, &folder, &named)?,
        Err(_) => (submodules(&workspace, folder)?, named),
    };
    if host.starts_with(&workspace) {
        return Ok(None);
    }
    let mode = if *mode == ShareMode::Direct && is_guarded(&host) {
        ShareMode::Together
    } else {
        ShareMode::ReadOnly
    };
    // With `..` it is read from where the workspace really lies.
    let is_plain = !guest
        .components()
        .any(|part| matches!(part, Component::ParentDir));
    let guest = is_plain.then_some(guest);
    Ok(Some(Mount { host, guest, mode }))
}

/// The repository that `folder` is a worktree's part of, and how the worktree names it (gitrepository-layout: `commondir`, `gitdir`).
fn worktrees(
    workspace: &Path,
    folder: &Path,
    named: &Path,
) -> Result<(PathBuf, PathBuf), GitError> {
    let common = canonical(&folder.join(path_of(&read(&folder.join("commondir"))?)))?;
    let back = folder.join(path_of(&read(&folder.join("gitdir"))?));
    let is_ours = folder.parent() == Some(&common.join("worktrees"))
        && back.file_name() == Some(".git".as_ref())
        && back
            .parent()
            .and_then(|parent| canonical(parent).ok())
            .as_deref()
            == Some(workspace);
    if !is_ours {
        return Err(GitError::OfAnother(folder.to_owned()));
    }
    let named = named.parent().and_then(Path::parent).unwrap_or(&common);
    Ok((common.clone(), named.to_owned()))
}

/// A submodule's repository: its settings name the workspace (git-config: `core.worktree`).
fn submodules(workspace: &Path, folder: PathBuf) -> Result<PathBuf, GitError> {
    let settings = read(&folder.join("config"))?;
    let mut is_core = false;
    let mut lines = settings
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii);
    let back = lines.find_map(|line| {
        if line.starts_with(b"[") {
            is_core = line == b"[core]";
        }
        line.strip_prefix(b"worktree = ").filter(|_| is_core)
    });
    let back = back.and_then(|back| canonical(&folder.join(path_of(back))).ok());
    if back.as_deref() == Some(workspace) {
        Ok(folder)
    } else {
        Err(GitError::OfAnother(folder))
    }
}

/// Whether the usual rules protect its hooks and settings: they go by names.
fn is_guarded(folder: &Path) -> bool {
    let mut names = folder.iter().skip_while(|name| *name != ".git").skip(1);
    match names.next() {
        None => folder.ends_with(".git"),
        Some(next) => next == "modules",
    }
}

fn canonical(path: &Path) -> Result<PathBuf, GitError> {
    fs::canonicalize(path).map_err(|source| unreadable(path, source))
}

/// A path that whoever wrote `.git` may have chosen, for a terminal.
fn shown(path: &Path) -> String {
    printable_path(&path.to_string_lossy())
}

/// All of a file. Links are not followed, and only a file is read.
fn read(path: &Path) -> Result<Vec<u8>, GitError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let content = || {
        let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    };
    content().map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> GitError {
    let path = path.to_owned();
    GitError::Unreadable { path, source }
}

/// A path as git writes it, with the end of its line.
fn path_of(text: &[u8]) -> PathBuf {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    PathBuf::from(std::ffi::OsString::from_vec(text.to_vec()))
}

#[cfg(test)]
mod tests;
