//! Shares with an overlay: the guest changes what it likes, and the host's tree stays as it is until its user applies the changes.

mod applied;
mod direct;
mod layers;
mod moves;
mod names;
mod random;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use fsshare::abi::{Opcode, ROOT_ID, SetAttrFlags, wire};
use fsshare::{Changes, FileKind};
use libc::{O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use super::client::{Reply, Share, text};

/// What there is at a path: kind, permissions, and content or target.
type Tree = BTreeMap<String, (FileKind, u32, Vec<u8>)>;

/// A share by path, as a guest's kernel uses it: each step is looked up.
pub(super) trait Paths {
    fn node(&self, path: &str) -> Reply<u64>;
    fn parent<'a>(&self, path: &'a str) -> Reply<(u64, &'a str)>;
    fn make(&self, path: &str) -> Reply<()>;
    fn make_dir(&self, path: &str) -> Reply<()>;
    fn make_link(&self, path: &str, target: &str) -> Reply<()>;
    fn put(&self, path: &str, offset: u64, data: &[u8]) -> Reply<()>;
    /// As a shell's `>` does.
    fn overwrite(&self, path: &str, data: &[u8]) -> Reply<()>;
    fn get(&self, path: &str) -> Reply<Vec<u8>>;
    fn remove(&self, path: &str) -> Reply<()>;
    fn remove_dir(&self, path: &str) -> Reply<()>;
    fn mv(&self, from: &str, to: &str, flags: u32) -> Reply<()>;
    fn ln(&self, from: &str, to: &str) -> Reply<()>;
    fn chmod(&self, path: &str, mode: u32) -> Reply<()>;
    fn truncate(&self, path: &str, size: u64) -> Reply<()>;
    fn names(&self, path: &str) -> Reply<Vec<String>>;
    fn tree(&self) -> Tree;
}

impl Paths for Share {
    fn node(&self, path: &str) -> Reply<u64> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names
            .into_iter()
            .try_fold(ROOT_ID, |node, name| Ok(self.lookup(node, name)?.nodeid))
    }

    fn parent<'a>(&self, path: &'a str) -> Reply<(u64, &'a str)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.node(parent)?;
        // The guest's own kernel sees to that.
        if self.getattr(parent)?.mode & 0o170_000 == 0o040_000 {
            Ok((parent, name))
        } else {
            Err(libc::ENOTDIR)
        }
    }

    fn make(&self, path: &str) -> Reply<()> {
        let (parent, name) = self.parent(path)?;
        let body = wire::MkNodIn {
            mode: 0o100_644,
            ..Default::default()
        };
        self.ask(Opcode::MkNod, parent, &body, &text(name))
            .map(drop)
    }

    fn make_dir(&self, path: &str) -> Reply<()> {
        let (parent, name) = self.parent(path)?;
        self.mkdir(parent, name).map(drop)
    }

    fn make_link(&self, path: &str, target: &str) -> Reply<()> {
        let (parent, name) = self.parent(path)?;
        self.symlink(parent, name, target).map(drop)
    }

    fn put(&self, path: &str, offset: u64, data: &[u8]) -> Reply<()> {
        let node = self.node(path)?;
        let fh = self.open(node, O_RDWR)?;
        let written = self.write(node, fh, offset, data);
        self.release(node, fh)?;
        written.map(drop)
    }

    fn overwrite(&self, path: &str, data: &[u8]) -> Reply<()> {
        let node = self.node(path)?;
        let fh = self.open(node, O_WRONLY | O_TRUNC)?;
        let written = self.write(node, fh, 0, data);
        self.release(node, fh)?;
        written.map(drop)
    }

    fn get(&self, path: &str) -> Reply<Vec<u8>> {
        let node = self.node(path)?;
        let fh = self.open(node, O_RDONLY)?;
        let content = self.read(node, fh, 0, 1 << 16);
        self.release(node, fh)?;
        content
    }

    fn remove(&self, path: &str) -> Reply<()> {
        let (parent, name) = self.parent(path)?;
        self.call(Opcode::Unlink, parent, &text(name)).map(drop)
    }

    fn remove_dir(&self, path: &str) -> Reply<()> {
        let (parent, name) = self.parent(path)?;
        self.call(Opcode::RmDir, parent, &text(name)).map(drop)
    }

    fn mv(&self, from: &str, to: &str, flags: u32) -> Reply<()> {
        let (from, to) = (self.parent(from)?, self.parent(to)?);
        self.rename(from, to, flags).map(drop)
    }

    fn ln(&self, from: &str, to: &str) -> Reply<()> {
        let node = self.node(from)?;
        let (parent, name) = self.parent(to)?;
        self.link(node, parent, name).map(drop)
    }

    fn chmod(&self, path: &str, mode: u32) -> Reply<()> {
        let changes = wire::SetAttrIn {
            valid: SetAttrFlags::MODE.bits(),
            mode,
            ..Default::default()
        };
        self.setattr(self.node(path)?, changes).map(drop)
    }

    fn truncate(&self, path: &str, size: u64) -> Reply<()> {
        let changes = wire::SetAttrIn {
            valid: SetAttrFlags::SIZE.bits(),
            size,
            ..Default::default()
        };
        self.setattr(self.node(path)?, changes).map(drop)
    }

    fn names(&self, path: &str) -> Reply<Vec<String>> {
        let node = self.node(path)?;
        let fh = self.opendir(node)?;
        let release = wire::ReleaseIn {
            fh,
            ..Default::default()
        };
        self.ask(Opcode::ReleaseDir, node, &release, &[])?;
        let listed = self.list(node, 600, false).into_iter();
        let mut names: Vec<String> = listed.map(|(name, _)| name).collect();
        names.retain(|name| !matches!(name.as_str(), "." | ".."));
        names.sort();
        Ok(names)
    }

    fn tree(&self) -> Tree {
        let (mut tree, mut left) = (Tree::new(), vec![String::new()]);
        while let Some(directory) = left.pop() {
            for name in self.names(&directory).unwrap() {
                let path = format!("{directory}/{name}");
                let path = path.trim_start_matches('/').to_owned();
                let attr = self.getattr(self.node(&path).unwrap()).unwrap();
                let (kind, content) = match attr.mode & 0o170_000 {
                    0o100_000 => (FileKind::File, self.get(&path).unwrap()),
                    0o040_000 => (FileKind::Directory, Vec::new()),
                    _ => {
                        let node = self.node(&path).unwrap();
                        (
                            FileKind::Link,
                            self.call(Opcode::ReadLink, node, &[]).unwrap(),
                        )
                    }
                };
                if kind == FileKind::Directory {
                    left.push(path.clone());
                }
                tree.insert(path, (kind, attr.mode & 0o7777, content));
            }
        }
        tree
    }
}

/// What the host has below `root`.
pub(super) fn tree_of(root: &Path) -> Tree {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    let (mut tree, mut left) = (Tree::new(), vec![root.to_path_buf()]);
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let data = fs::symlink_metadata(&path).unwrap();
            let (kind, content) = if data.is_dir() {
                left.push(path.clone());
                (FileKind::Directory, Vec::new())
            } else if data.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                (FileKind::Link, target.as_os_str().as_bytes().to_vec())
            } else {
                (FileKind::File, fs::read(&path).unwrap())
            };
            let name = path.strip_prefix(root).unwrap();
            let name = name.to_str().unwrap().to_owned();
            tree.insert(name, (kind, data.mode() & 0o7777, content));
        }
    }
    tree
}

pub(super) fn changes(share: &Share) -> Changes {
    let open = |path| File::open(path).unwrap().into();
    Changes::of(open(&share.root), open(&share.changes)).unwrap()
}

/// A tree with something of each kind.
pub(super) fn fill(root: &Path) {
    for directory in ["d/e", "empty", "full/of/them"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, content) in [
        ("a", "alpha"),
        ("b", ""),
        ("d/a", "below"),
        ("d/e/a", "further below"),
        ("full/one", "1"),
        ("full/of/two", "22"),
        ("full/of/them/three", "333"),
    ] {
        fs::write(root.join(path), content).unwrap();
    }
    std::os::unix::fs::symlink("a", root.join("l")).unwrap();
}

/// The server is seldom root, who may do much that others may not.
#[test]
fn all_of_it_is_as_good_without_privileges() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let tests = std::env::current_exe().unwrap();
    // This one's temporary files may be root's own.
    let place = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(place.path(), Some(65534), Some(65534)).unwrap();
    let as_nobody = |program: &Path, arguments: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(program)
            .args(arguments)
            .env("TMPDIR", place.path())
            .output()
    };
    let can = |program: &Path, arguments: &[&str]| {
        as_nobody(program, arguments).is_ok_and(|done| done.status.success())
    };
    let is_there = ["-w", place.path().to_str().unwrap()];
    if !can(Path::new("test"), &is_there) || !can(&tests, &["--list"]) {
        // Past the capture of the test harness, so that it is counted.
        let skip = b"SKIP all_of_it_is_as_good_without_privileges: setpriv does not start the tests, or they find no temporary files\n";
        drop(std::io::stderr().write_all(skip));
        return;
    }
    let done = as_nobody(&tests, &["overlay::"]).unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
}
