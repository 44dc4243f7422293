//! One tree of two: what the guest changed, laid over what the host has.
//!
//! A share that is written through to the host has one tree only, and nothing here does more than to pass calls on. A share with an overlay
//! has the host's tree as the *lower* one, which nothing here can change, and an *upper* one in a directory of its own. What the
//! guest is about to change is copied up first ([`Host::copy_up`]), with the directories that lead to it. In the upper tree
//!
//! * a FIFO (a *whiteout*) says that there is nothing of that name, whatever the lower directory has;
//! * a directory with set-user-id is *opaque*: the guest made it, and nothing of a lower directory by that name is in it.
//!
//! A guest can make neither of the two, so it cannot lie about what is below. Whatever appears in the upper tree was made in `work`, beside
//! it, and moved there when it was complete.

mod change;
mod copy_up;
mod draft;
mod listing;

use std::io;

#[cfg(target_os = "linux")]
pub(crate) use self::copy_up::{copy_xattrs, user_xattrs};
use self::draft::Drafts;
pub(crate) use self::listing::Directory;
use self::listing::Room;
use super::Watch;
use super::os;
use super::{AccessMode, Attributes, File, Kind, Layer, Requirement, Space};
use crate::abi::{Name, XattrName};
use crate::errno::Errno;
use crate::handle::OwnedHandle;

/// A node of the tree.
#[derive(Debug)]
pub(crate) enum Node {
    /// Of the host's tree, which has none over it.
    Only(os::Node),
    /// Of the upper tree.
    Upper(os::Node),
    /// A directory that is in both.
    Merged { upper: os::Node, lower: os::Node },
    /// Of the lower tree.
    Lower(os::Node),
}

/// The calls that need more than a node.
#[derive(Debug)]
pub(crate) struct Host {
    /// The tree that takes changes.
    upper: os::Host,
    overlay: Option<Overlay>,
}

/// What is needed beside the tree that takes changes.
#[derive(Debug)]
struct Overlay {
    lower: os::Host,
    drafts: Drafts,
    /// For listings of directories that are in both trees.
    room: Room,
}

/// What was found by a name.
enum Layered<T> {
    Upper(T),
    /// A directory that is in both.
    Merged {
        upper: T,
        lower: T,
    },
    Lower(T),
}

/// What it takes to lay one tree over another.
#[derive(Debug)]
pub(crate) struct Over {
    /// The root of the upper tree.
    pub(crate) upper: OwnedHandle,
    /// A directory on the same file system, for what is not complete yet.
    pub(crate) work: OwnedHandle,
}

/// The inode number by which the guest knows what has this one in the upper tree, unless it is a directory: two trees may be of two file systems, each
/// with its own numbers.
pub(crate) const fn upper_number(inode: u64) -> u64 {
    inode ^ (1 << 63)
}

type Unmet = (Requirement, io::Error);

impl Host {
    /// Takes hold of the tree below `root`, and of what is needed to work in it. Also returns the root as a node.
    ///
    /// Nothing in the tree changes, times of access included as far as the host allows, if it is `read_only` or has another `over` it.
    pub(crate) fn new(
        root: OwnedHandle,
        read_only: bool,
        over: Option<Over>,
    ) -> Result<(Self, Node), Unmet> {
        let (host, root) = open(root, read_only || over.is_some())?;
        let Some(over) = over else {
            let upper = host;
            let overlay = None;
            return Ok((Self { upper, overlay }, Node::Only(root)));
        };
        let (upper, upper_root) = open(over.upper, false)?;
        let (_, work) = open(over.work, false)?;
        let overlay = Overlay {
            lower: host,
            drafts: Drafts::new(work),
            room: Room::default(),
        };
        let host = Self {
            upper,
            overlay: Some(overlay),
        };
        // Who only looks at the changes leaves the drafts of whoever makes them alone.
        if !read_only {
            host.check_upper()?;
        }
        let root = Node::Merged {
            upper: upper_root,
            lower: root,
        };
        Ok((host, root))
    }

    /// Whether the host's tree has another over it.
    pub(crate) fn is_overlay(&self) -> bool {
        self.overlay.is_some()
    }

    /// The user and group whose files are the guest owner's.
    pub(crate) fn owner() -> (u32, u32) {
        os::Host::owner()
    }

    /// How many descriptors this process may have, or `None` for no limit.
    pub(crate) fn descriptor_limit() -> Option<u64> {
        os::Host::descriptor_limit()
    }

    /// Finds `name` in the directory `parent`. A symbolic link is found, not followed.
    pub(crate) fn lookup(&self, parent: &Node, name: Name<'_>) -> Result<Node, Errno> {
        let Some(overlay) = &self.overlay else {
            return Ok(Node::Only(self.upper.lookup(parent.own()?, name)?));
        };
        let find = |host: &os::Host, parent: &os::Node| host.lookup(parent, name);
        Ok(
            match self.layered(overlay, parent, find, os::Node::attributes)? {
                Layered::Upper(upper) => Node::Upper(upper),
                Layered::Merged { upper, lower } => Node::Merged { upper, lower },
                Layered::Lower(lower) => Node::Lower(lower),
            },
        )
    }

    /// The attributes of what [`Self::lookup`] would find, without a handle on it.
    pub(crate) fn attributes_at(&self, parent: &Node, name: Name<'_>) -> Result<Attributes, Errno> {
        let Some(overlay) = &self.overlay else {
            let only = self.upper.attributes_at(parent.own()?, name)?;
            return Ok(only.in_layer(Layer::Only));
        };
        let find = |host: &os::Host, parent: &os::Node| host.attributes_at(parent, name);
        Ok(
            match self.layered(overlay, parent, find, |found| Ok(*found))? {
                Layered::Upper(upper) => upper.in_layer(Layer::Upper),
                Layered::Merged { upper, lower } => upper.merged(&lower),
                Layered::Lower(lower) => lower.in_layer(Layer::Lower),
            },
        )
    }

    /// What `find` finds in one tree or in both.
    fn layered<T>(
        &self,
        overlay: &Overlay,
        parent: &Node,
        find: impl Fn(&os::Host, &os::Node) -> Result<T, Errno>,
        attributes: impl Fn(&T) -> Result<Attributes, Errno>,
    ) -> Result<Layered<T>, Errno> {
        let below = || match parent.lower() {
            Some(lower) => find(&overlay.lower, lower),
            None => Err(Errno::ENOENT),
        };
        let Some(upper) = parent.find_upper(|above| find(&self.upper, above))? else {
            return below().map(Layered::Lower);
        };
        let present = attributes(&upper)?;
        if present.is_whiteout() {
            return Err(Errno::ENOENT);
        }
        if present.kind() != Kind::Directory || present.is_opaque() {
            return Ok(Layered::Upper(upper));
        }
        Ok(match below() {
            Ok(lower) if attributes(&lower)?.kind() == Kind::Directory => {
                Layered::Merged { upper, lower }
            }
            // The host's user took it away.
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => Layered::Upper(upper),
            Err(errno) => return Err(errno),
        })
    }

    /// Opens a regular file for I/O; also returns the attributes from before. One of the lower tree is opened for reading only.
    pub(crate) fn open(&self, node: &Node, mode: AccessMode) -> Result<(File, Attributes), Errno> {
        let (host, node) = self.reachable(node);
        if mode.changes() && !self.is_changeable(host) {
            return Err(Errno::EROFS);
        }
        host.open(node, mode)
    }

    /// Opens a directory for listing.
    pub(crate) fn open_directory(&self, node: &Node) -> Result<Directory, Errno> {
        match (node, &self.overlay) {
            (Node::Merged { upper, lower }, Some(overlay)) => Ok(Directory::merged(
                self.upper.open_directory(upper)?,
                overlay.lower.open_directory(lower)?,
                &overlay.room,
            )),
            (Node::Upper(upper), _) => Ok(Directory::Upper(self.upper.open_directory(upper)?)),
            _ => {
                let (host, node) = self.reachable(node);
                host.open_directory(node).map(Directory::Plain)
            }
        }
    }

    /// The text of a symbolic link.
    pub(crate) fn read_link(&self, node: &Node, text: &mut Vec<u8>) -> Result<(), Errno> {
        let (host, node) = self.reachable(node);
        host.read_link(node, text)
    }

    /// Whether this process may access the node so; `mask` as in `access`.
    pub(crate) fn may_access(&self, node: &Node, mask: u32) -> Result<(), Errno> {
        let (host, node) = self.reachable(node);
        host.may_access(node, mask)
    }

    /// Reads an attribute into `buffer`; returns its length.
    pub(crate) fn get_xattr(
        &self,
        node: &Node,
        name: XattrName<'_>,
        buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        let (host, node) = self.reachable(node);
        host.get_xattr(node, name, buffer)
    }

    /// Reads the names of all attributes, each with a NUL behind it, into `buffer`; returns their length.
    pub(crate) fn list_xattrs(&self, node: &Node, buffer: &mut [u8]) -> Result<usize, Errno> {
        let (host, node) = self.reachable(node);
        host.list_xattrs(node, buffer)
    }

    /// Watches a directory of the host's for changes of the host's.
    pub(crate) fn watch(&self, directory: &Node, watch: &Watch) {
        match directory {
            Node::Only(directory) | Node::Lower(directory) => watch.add(directory),
            Node::Merged { lower, .. } => watch.add(lower),
            // The guest's own.
            Node::Upper(_) => {}
        }
    }

    /// Makes the file system that takes the changes durable.
    pub(crate) fn sync(&self) -> Result<(), Errno> {
        self.upper.sync()
    }

    /// The node as the guest sees it, with the host that has it.
    fn reachable<'a>(&'a self, node: &'a Node) -> (&'a os::Host, &'a os::Node) {
        match (node, &self.overlay) {
            (Node::Lower(lower), Some(overlay)) => (&overlay.lower, lower),
            (Node::Only(node) | Node::Lower(node), _) => (&self.upper, node),
            (Node::Upper(upper) | Node::Merged { upper, .. }, _) => (&self.upper, upper),
        }
    }

    fn is_changeable(&self, host: &os::Host) -> bool {
        std::ptr::eq(host, &raw const self.upper)
    }
}

fn open(root: OwnedHandle, read_only: bool) -> Result<(os::Host, os::Node), Unmet> {
    os::Host::new(root, read_only).map_err(|(requirement, error)| (requirement, error.into()))
}

impl Node {
    /// The node's attributes now.
    pub(crate) fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(match self {
            Self::Only(node) => node.attributes()?.in_layer(Layer::Only),
            Self::Upper(upper) => upper.attributes()?.in_layer(Layer::Upper),
            Self::Merged { upper, lower } => upper.attributes()?.merged(&lower.attributes()?),
            Self::Lower(lower) => lower.attributes()?.in_layer(Layer::Lower),
        })
    }

    /// Sizes of the file system that takes what the guest adds, as far as the node knows it.
    pub(crate) fn space(&self) -> Result<Space, Errno> {
        match self {
            Self::Only(node) | Self::Lower(node) => node.space(),
            Self::Upper(upper) | Self::Merged { upper, .. } => upper.space(),
        }
    }

    /// Whether it can be changed as it is, and need not be copied up before.
    pub(crate) fn is_own(&self) -> bool {
        self.own().is_ok()
    }

    /// The node in the tree that takes changes. `EROFS` if it is not there (yet): what is below never changes.
    fn own(&self) -> Result<&os::Node, Errno> {
        match self {
            Self::Only(node) => Ok(node),
            Self::Upper(upper) | Self::Merged { upper, .. } => Ok(upper),
            Self::Lower(_) => Err(Errno::EROFS),
        }
    }

    fn lower(&self) -> Option<&os::Node> {
        match self {
            Self::Lower(lower) | Self::Merged { lower, .. } => Some(lower),
            Self::Only(_) | Self::Upper(_) => None,
        }
    }

    /// What `find` finds in the upper directory, if this is one and it has such a name.
    fn find_upper<T>(
        &self,
        find: impl FnOnce(&os::Node) -> Result<T, Errno>,
    ) -> Result<Option<T>, Errno> {
        match self.own() {
            Ok(above) => existing(find(above)),
            Err(_) => Ok(None),
        }
    }
}

/// What was found, if there is something. Another error says nothing of that.
fn existing<T>(found: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match found {
        Err(Errno::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

impl Attributes {
    /// Those of a directory that is in both trees: it stays the node that it was before it was copied up.
    fn merged(self, lower: &Self) -> Self {
        Self {
            identity: lower.identity,
            born: lower.born,
            ..self.in_layer(Layer::Upper)
        }
    }
}
