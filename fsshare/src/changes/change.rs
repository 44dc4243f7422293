//! One change.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::origins::Origin;
use super::tree::{Found, Tree};
use crate::errno::Errno;
use crate::host::Kind;
use crate::rules::{Rules, State};

/// Permission bits that are compared.
const PERMISSIONS: u32 = 0o1777;

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device of the host's.
    Special,
}

/// What is or was at a path, but for what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// What it is.
    pub kind: FileKind,
    /// Its permission bits.
    pub mode: u32,
}

/// What became of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The host has nothing there.
    Added,
    /// It holds something else than the host's.
    Modified,
    /// Only its permissions differ.
    Mode,
    /// It is gone; the host has it still.
    Deleted,
    /// A file that the host has by another name, which is gone.
    Renamed {
        /// The host's path.
        from: PathBuf,
    },
}

/// Why someone should look at a change before it gets onto the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Caution {
    /// Programs of the host run or obey such a file: git, editors, shells, agents, build tools.
    RunsOnHost,
    /// A symbolic link that leads out of the workspace.
    LeadsOutside,
}

/// One path that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path below the workspace. The guest chose its bytes: make them safe before they are printed.
    pub path: PathBuf,
    /// What became of it.
    pub what: What,
    /// What the host has there, if it has something.
    pub before: Option<FileState>,
    /// What the guest has there, unless it is gone.
    pub after: Option<FileState>,
    /// Whether the host's has changed since the guest changed it, or both have made one.
    pub is_conflict: bool,
    /// Why to look twice.
    pub caution: Option<Caution>,
}

impl Change {
    /// Whether something else takes the place of a directory.
    pub(super) fn replaces_directory(&self) -> bool {
        let is_directory = |state: FileState| state.kind == FileKind::Directory;
        self.before.is_some_and(is_directory) && !self.after.is_some_and(is_directory)
    }
}

impl FileState {
    pub(super) fn of(found: &Found) -> Self {
        Self::of_mode(found.attributes.mode)
    }

    pub(super) fn of_origin(origin: &Origin) -> Self {
        Self::of_mode(origin.mode)
    }

    fn of_mode(mode: u32) -> Self {
        let kind = match Kind::of_mode(mode) {
            Kind::Regular => FileKind::File,
            Kind::Directory => FileKind::Directory,
            Kind::Symlink => FileKind::Link,
            Kind::Special => FileKind::Special,
        };
        let mode = mode & PERMISSIONS;
        Self { kind, mode }
    }
}

impl Caution {
    pub(super) fn of(tree: &Tree, path: &Path, found: &Found) -> Result<Option<Self>, Errno> {
        let kind = found.attributes.kind();
        if let Some(caution) = Self::of_name(path, kind == Kind::Directory) {
            return Ok(Some(caution));
        }
        let leads_outside =
            kind == Kind::Symlink && leaves(path, Path::new(OsStr::from_bytes(&tree.link(found)?)));
        Ok(leads_outside.then_some(Self::LeadsOutside))
    }

    pub(super) fn of_name(path: &Path, is_directory: bool) -> Option<Self> {
        runs_on_host(path, is_directory).then_some(Self::RunsOnHost)
    }
}

/// Whether a program of the host runs or obeys what is at the path.
fn runs_on_host(path: &Path, is_directory: bool) -> bool {
    let rules = Rules::run_on_host();
    let mut state = State::TOP;
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        let judged = rules.judge(state, part.as_os_str().as_encoded_bytes());
        let is_directory = parts.peek().is_some() || is_directory;
        if judged.guard(is_directory).is_some() {
            return true;
        }
        state = judged.state(true);
    }
    false
}

/// Whether a link at `path` may lead above the root, taken by its text: what comes before a `..` may be a link itself.
fn leaves(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    let mut goes_down = false;
    for part in target.components() {
        match part {
            Component::Normal(_) => goes_down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_in_thought_only() {
        for (path, target, out) in [
            ("link", "file", false),
            ("link", "../file", true),
            ("a/link", "../file", false),
            ("a/link", "../../file", true),
            ("a/b/link", "../c/../../file", true),
            ("a/b/link", "x/../../../../y", true),
            ("link", "/etc/passwd", true),
            ("link", "./.", false),
        ] {
            assert_eq!(
                leaves(path.as_ref(), target.as_ref()),
                out,
                "{path} {target}"
            );
        }
    }

    #[test]
    fn what_the_host_runs_is_marked_at_every_depth() {
        for (path, is_directory, runs) in [
            ("Makefile", false, true),
            ("sub/package.json", false, true),
            ("a/build.rs", false, true),
            (".git/hooks/pre-commit", false, true),
            (".git/config", false, true),
            (".vscode/tasks.json", false, true),
            (".github/workflows/ci.yml", false, true),
            ("src/main.rs", false, false),
            ("README.md", false, false),
            (".git/index", false, false),
        ] {
            assert_eq!(runs_on_host(path.as_ref(), is_directory), runs, "{path}");
        }
    }
}
