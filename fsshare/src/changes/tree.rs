//! One of the two trees, walked by path on behalf of the host's user. Each step is confined as the guest's are: the guest chose the names,
//! and the host's tree may change meanwhile.

use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use super::ChangesError;
use crate::abi::Name;
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, Kind, Next, os, user_xattrs};

/// Room for a part of a listing, bytes.
const LISTING: usize = 32 << 10;
/// Longest path that is followed (`PATH_MAX`): no program of the host would get further, and a guest can make it as long as it likes.
const LONGEST_PATH: usize = 4095;
/// Deepest path that is followed, likewise.
const DEEPEST: usize = 256;
/// Bytes that are compared at once.
const CHUNK: usize = 64 << 10;

/// A tree with its root.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) host: os::Host,
    pub(super) root: os::Node,
}

/// Something in it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) node: os::Node,
    pub(super) attributes: Attributes,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Result<Self, ChangesError> {
        let opened = os::Host::new(root, true);
        let (host, root) = opened.map_err(|(_, source)| ChangesError::Open(source.into()))?;
        Ok(Self { host, root })
    }

    /// What is at `path`, if there is something.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Found>, Errno> {
        if path.as_os_str().len() > LONGEST_PATH || path.components().count() > DEEPEST {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut found = None;
        for name in names(path)? {
            let parent = found
                .as_ref()
                .map_or(&self.root, |found: &Found| &found.node);
            match self.at(parent, &name) {
                Ok(next) => found = Some(next),
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
                Err(errno) => return Err(errno),
            }
        }
        Ok(found)
    }

    pub(super) fn at(&self, parent: &os::Node, name: &CString) -> Result<Found, Errno> {
        let node = self.host.lookup(parent, checked(name)?)?;
        let attributes = node.attributes()?;
        Ok(Found { node, attributes })
    }

    /// The names in a directory, in their order.
    pub(super) fn names_in(&self, directory: &os::Node) -> Result<Vec<CString>, Errno> {
        let listing = self.host.open_directory(directory)?;
        let mut scratch = Vec::with_capacity(LISTING);
        let mut names = Vec::new();
        listing.list(0, scratch.spare_capacity_mut(), |entry| {
            if !matches!(entry.name, b"." | b"..")
                && let Ok(name) = CString::new(entry.name)
            {
                names.push(name);
            }
            Ok(Next::More)
        })?;
        names.sort_unstable();
        Ok(names)
    }

    /// The text of a symbolic link.
    pub(super) fn link(&self, found: &Found) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        self.host.read_link(&found.node, &mut text)?;
        Ok(text)
    }

    /// Whether this file or link holds the same as one of the other tree, and the same attributes of users if that one's file system keeps any.
    pub(super) fn is_same(
        &self,
        own: &Found,
        (tree, other): (&Self, &Found),
    ) -> Result<bool, Errno> {
        let kinds = (own.attributes.kind(), other.attributes.kind());
        match kinds {
            (Kind::Regular, Kind::Regular) if own.attributes.size == other.attributes.size => {}
            (Kind::Symlink, Kind::Symlink) => return Ok(self.link(own)? == tree.link(other)?),
            _ => return Ok(false),
        }
        if let Some(xattrs) = user_xattrs((&tree.host, &other.node))?
            && xattrs != user_xattrs((&self.host, &own.node))?.unwrap_or_default()
        {
            return Ok(false);
        }
        let (own, _) = self.host.open(&own.node, AccessMode::READ)?;
        let (other, _) = tree.host.open(&other.node, AccessMode::READ)?;
        let (mut left, mut right) = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut at = 0_u64;
        loop {
            let read = own.read_at(&mut left, at)?;
            if other.read_at(&mut right, at)? != read || left.get(..read) != right.get(..read) {
                return Ok(false);
            }
            if read < CHUNK {
                return Ok(true);
            }
            at += CHUNK as u64;
        }
    }
}

/// The names of which a path below the root consists. `EINVAL` if it is none.
pub(super) fn names(path: &Path) -> Result<Vec<CString>, Errno> {
    let names = path.components().map(|part| match part {
        Component::Normal(name) => CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL),
        _ => Err(Errno::EINVAL),
    });
    names.collect()
}

pub(super) fn checked(name: &CString) -> Result<Name<'_>, Errno> {
    Name::new(name).map_err(|_| Errno::EINVAL)
}

/// The path of a name in a directory.
pub(super) fn join(directory: &Path, name: &CString) -> std::path::PathBuf {
    directory.join(OsStr::from_bytes(name.to_bytes()))
}
