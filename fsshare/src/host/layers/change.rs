//! Changes, all of which go to the upper tree.

use super::draft::OWN;
use super::{Host, Node, Overlay, existing, os};
use crate::abi::{Name, RenameMode, Target, XattrMode, XattrName};
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, File, Kind, Layer, NewTime, Next, SETTABLE_MODE};

/// Room for the first entries of a directory, bytes.
const FIRST_ENTRIES: usize = 4 << 10;

impl Host {
    /// Makes a regular file and opens it; fails with `EEXIST` if the name is taken, by whatever.
    pub(crate) fn create(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
        access: AccessMode,
    ) -> Result<(File, Node), Errno> {
        let (file, node) = self.make(parent, name, |parent, name| {
            self.upper.create(parent, name, mode, access)
        })?;
        Ok((file, self.made(node)))
    }

    /// Makes a regular file without a name. It can get one by [`Host::link`] unless `exclusive`.
    pub(crate) fn create_unnamed(
        &self,
        parent: &Node,
        mode: u32,
        access: AccessMode,
        exclusive: bool,
    ) -> Result<(File, Node), Errno> {
        let parent = parent.own()?;
        let (file, node) = self.upper.create_unnamed(parent, mode, access, exclusive)?;
        Ok((file, self.made(node)))
    }

    /// Makes a directory.
    pub(crate) fn make_directory(
        &self,
        parent: &Node,
        name: Name<'_>,
        mode: u32,
    ) -> Result<Node, Errno> {
        if !self.is_overlay() {
            let made = self.upper.make_directory(parent.own()?, name, mode)?;
            return Ok(Node::Only(made));
        }
        let made = self.make(parent, name, |parent, name| {
            let made = self.upper.make_directory(parent, name, OWN)?;
            // Nothing of a directory that the host has, or will have, by that name.
            self.upper.set_opaque_mode(&made, OWN)?;
            Ok(made)
        })?;
        // One that its owner cannot write does not move.
        self.upper.set_opaque_mode(&made, mode)?;
        Ok(Node::Upper(made))
    }

    /// Makes a symbolic link. Nothing here ever follows it.
    pub(crate) fn make_symlink(
        &self,
        parent: &Node,
        name: Name<'_>,
        target: Target<'_>,
    ) -> Result<Node, Errno> {
        let make = |parent: &_, name: Name<'_>| self.upper.make_symlink(parent, name, target);
        Ok(self.made(self.make(parent, name, make)?))
    }

    /// Gives `node` another name.
    pub(crate) fn link(&self, node: &Node, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let node = node.own()?;
        let make = |parent: &_, name: Name<'_>| self.upper.link(node, parent, name);
        self.make(parent, name, make)
    }

    /// Makes something by `make`: in its place, or, in an overlay, as a draft that is moved there. `EEXIST` if there is something.
    fn make<T>(
        &self,
        parent: &Node,
        name: Name<'_>,
        make: impl FnOnce(&os::Node, Name<'_>) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let above = parent.own()?;
        let Some(overlay) = &self.overlay else {
            return make(above, name);
        };
        if self.present(parent, name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let draft = overlay.drafts.begin(&self.upper)?;
        let made = make(draft.work(), draft.name()?)?;
        draft.place(above, name)?;
        Ok(made)
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let Some(overlay) = &self.overlay else {
            return self.upper.unlink(parent.own()?, name);
        };
        if self.attributes_at(parent, name)?.kind() == Kind::Directory {
            return Err(Errno::EISDIR);
        }
        self.take_away(overlay, parent, name)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let Some(overlay) = &self.overlay else {
            return self.upper.remove_directory(parent.own()?, name);
        };
        let directory = self.lookup(parent, name)?;
        self.expect_empty(&directory)?;
        self.take_away(overlay, parent, name)
    }

    /// Takes away what is there in the upper tree, and hides what is below it.
    fn take_away(&self, overlay: &Overlay, parent: &Node, name: Name<'_>) -> Result<(), Errno> {
        let above = parent.own()?;
        let draft = overlay.drafts.begin(&self.upper)?;
        if !self.is_below(overlay, parent, name) {
            return draft.take(above, name);
        }
        self.upper.make_fifo(draft.work(), draft.name()?)?;
        match self.above((above, name))? {
            None => draft.place(above, name),
            Some(_) => draft.swap(above, name),
        }
    }

    /// Whether the lower tree has something there, or may have.
    fn is_below(&self, overlay: &Overlay, parent: &Node, name: Name<'_>) -> bool {
        parent.lower().is_some_and(|lower| {
            let below = overlay.lower.attributes_at(lower, name);
            !matches!(below, Err(Errno::ENOENT))
        })
    }

    /// Moves or exchanges names. In an overlay, what is moved has been copied up; a directory that is in the lower tree, too, cannot be
    /// moved (`EXDEV`): whoever moves it copies it then.
    pub(crate) fn rename(
        &self,
        from: (&Node, Name<'_>),
        to: (&Node, Name<'_>),
        mode: RenameMode,
    ) -> Result<(), Errno> {
        let Some(overlay) = &self.overlay else {
            return self
                .upper
                .rename((from.0.own()?, from.1), (to.0.own()?, to.1), mode);
        };
        let upper = ((from.0.own()?, from.1), (to.0.own()?, to.1));
        if mode.contains(RenameMode::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let source = self.movable(from)?;
        if mode.contains(RenameMode::EXCHANGE) {
            self.movable(to)?;
            return self.upper.rename(upper.0, upper.1, mode);
        }
        let target = self.present(to.0, to.1)?;
        if let Some(target) = &target {
            if mode.contains(RenameMode::NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            if target.identity == source.identity {
                return Ok(());
            }
            self.may_replace(&source, target, to)?;
        }
        let hides = self.is_below(overlay, from.0, from.1);
        let above = self.above(upper.1)?;
        let exchanges = hides || (source.kind() == Kind::Directory && above.is_some());
        if !exchanges {
            return self.upper.rename(upper.0, upper.1, RenameMode::empty());
        }
        // Nobody is to see what is below the old name, not even if this is ended half-way, so nothing leaves it that nothing comes to. And a
        // directory replaces none but an empty one, which one with whiteouts is not.
        let exchange = || self.upper.rename(upper.0, upper.1, RenameMode::EXCHANGE);
        match above {
            Some(above) if above.kind() != Kind::Directory => exchange()?,
            above => self.with_whiteout(overlay, upper.1, above.as_ref(), exchange)?,
        }
        self.take_away(overlay, from.0, from.1)
    }

    /// What the upper tree has there, be it a whiteout.
    fn above(&self, (parent, name): (&os::Node, Name<'_>)) -> Result<Option<Attributes>, Errno> {
        existing(self.upper.attributes_at(parent, name))
    }

    /// Puts a whiteout at `to`, where `above` is, before it does `act`. What was there comes back if that fails.
    fn with_whiteout(
        &self,
        overlay: &Overlay,
        to: (&os::Node, Name<'_>),
        above: Option<&Attributes>,
        act: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let draft = overlay.drafts.begin(&self.upper)?;
        self.upper.make_fifo(draft.work(), draft.name()?)?;
        match above {
            None => draft.place(to.0, to.1)?,
            Some(_) => draft.swap(to.0, to.1)?,
        }
        act().inspect_err(|_| {
            // What cannot come back was empty.
            let _ = match above {
                None => draft.take(to.0, to.1),
                Some(above) => draft.swap_back(to, above),
            };
        })
    }

    /// The attributes of what can be moved.
    fn movable(&self, (parent, name): (&Node, Name<'_>)) -> Result<Attributes, Errno> {
        let attributes = self.attributes_at(parent, name)?;
        if attributes.layer == Layer::Lower {
            return Err(Errno::EXDEV);
        }
        if attributes.kind() == Kind::Directory
            && !self.upper.attributes_at(parent.own()?, name)?.is_opaque()
        {
            return Err(Errno::EXDEV);
        }
        Ok(attributes)
    }

    /// Whether `source` may take the place of `target`, as far as their kinds are concerned.
    fn may_replace(
        &self,
        source: &Attributes,
        target: &Attributes,
        (parent, name): (&Node, Name<'_>),
    ) -> Result<(), Errno> {
        match (source.kind(), target.kind()) {
            (Kind::Directory, Kind::Directory) => self.expect_empty(&self.lookup(parent, name)?),
            (Kind::Directory, _) => Err(Errno::ENOTDIR),
            (_, Kind::Directory) => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    /// `ENOTEMPTY` if it holds something. Whoever removes a directory need not be allowed to read it.
    fn expect_empty(&self, directory: &Node) -> Result<(), Errno> {
        match self.find_entry(directory) {
            Err(Errno::EACCES) => {}
            outcome => return outcome,
        }
        let mode = directory.own()?.attributes()?.mode & SETTABLE_MODE;
        self.set_mode(directory, mode | OWN)?;
        let outcome = self.find_entry(directory);
        self.set_mode(directory, mode)?;
        outcome
    }

    /// `ENOTEMPTY` if there is one.
    fn find_entry(&self, directory: &Node) -> Result<(), Errno> {
        let mut outcome = Ok(());
        let mut scratch = Vec::with_capacity(FIRST_ENTRIES);
        self.open_directory(directory)?
            .list(0, scratch.spare_capacity_mut(), |entry| {
                if matches!(entry.name, b"." | b"..") {
                    return Ok(Next::More);
                }
                outcome = Err(Errno::ENOTEMPTY);
                Ok(Next::Enough)
            })?;
        outcome
    }

    /// The attributes of what is there, if there is something.
    fn present(&self, parent: &Node, name: Name<'_>) -> Result<Option<Attributes>, Errno> {
        existing(self.attributes_at(parent, name))
    }

    /// Sets permission bits; set-user-id and set-group-id are always taken away.
    pub(crate) fn set_mode(&self, node: &Node, mode: u32) -> Result<(), Errno> {
        let node = node.own()?;
        if self.is_overlay() && node.attributes()?.is_opaque() {
            self.upper.set_opaque_mode(node, mode)
        } else {
            self.upper.set_mode(node, mode)
        }
    }

    /// Takes set-user-id and set-group-id away from a regular file that has them.
    pub(crate) fn drop_privilege_bits(&self, node: &Node) -> Result<(), Errno> {
        self.upper.drop_privilege_bits(node.own()?)
    }

    /// Sets an attribute.
    pub(crate) fn set_xattr(
        &self,
        node: &Node,
        name: XattrName<'_>,
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), Errno> {
        self.upper.set_xattr(node.own()?, name, value, mode)
    }

    /// Removes an attribute.
    pub(crate) fn remove_xattr(&self, node: &Node, name: XattrName<'_>) -> Result<(), Errno> {
        self.upper.remove_xattr(node.own()?, name)
    }

    fn made(&self, node: os::Node) -> Node {
        if self.is_overlay() {
            Node::Upper(node)
        } else {
            Node::Only(node)
        }
    }
}

impl Node {
    /// Sets the time stamps.
    pub(crate) fn set_times(&self, accessed: NewTime, modified: NewTime) -> Result<(), Errno> {
        self.own()?.set_times(accessed, modified)
    }
}
