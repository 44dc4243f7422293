//! From the lower tree to the upper one: what the guest is about to change is copied there before.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

use super::draft::{Draft, OWN};
use super::listing::is_whiteout;
use super::{Host, Node, Overlay, Unmet, os};
use crate::abi::{Name, Target, XattrMode, XattrName};
use crate::errno::Errno;
use crate::host::{
    AccessMode, Attributes, Identity, Kind, LONGEST_XATTR, NewTime, Next, Requirement,
    SETTABLE_MODE,
};

/// Attributes of users are copied, and no others.
const USER: &[u8] = b"user.";
/// What a file's owner needs to fill it.
const OWN_FILE: u32 = 0o600;
/// Room for a listing of one entry, bytes.
const LISTING: usize = 1 << 10;

impl Host {
    /// Copies what is `name` in `parent` to the upper tree, where `parent` is already; a directory without what is in it. Gives the
    /// node as it is then.
    ///
    /// `ESTALE` if it is not the `expected` node, `EPERM` for a FIFO, socket or device.
    pub(crate) fn copy_up(
        &self,
        parent: &Node,
        name: Name<'_>,
        expected: Identity,
    ) -> Result<Node, Errno> {
        let above = parent.own()?;
        let (Node::Lower(lower), Some(overlay)) = (self.lookup(parent, name)?, &self.overlay)
        else {
            return Err(Errno::ESTALE);
        };
        let attributes = lower.attributes()?;
        if attributes.identity != expected {
            return Err(Errno::ESTALE);
        }
        let draft = overlay.drafts.begin(&self.upper)?;
        let copy = Copy {
            host: &self.upper,
            overlay,
            attributes,
            lower,
        };
        let upper = match copy.attributes.kind() {
            Kind::Regular => copy.file(&draft)?,
            Kind::Directory => copy.directory(&draft)?,
            Kind::Symlink => copy.symlink(&draft)?,
            Kind::Special => return Err(Errno::EPERM),
        };
        copy_xattrs((&overlay.lower, &copy.lower), (&self.upper, &upper))?;
        if copy.attributes.kind() == Kind::Directory {
            // One that its owner cannot write does not move.
            draft.place_copy(above, name)?;
            copy.finish(&upper)?;
        } else {
            copy.finish(&upper)?;
            draft.place_copy(above, name)?;
        }
        Ok(match copy.attributes.kind() {
            Kind::Directory => Node::Merged {
                upper,
                lower: copy.lower,
            },
            _ => Node::Upper(upper),
        })
    }

    /// Whether the upper tree's file system keeps what the tree is made of.
    pub(super) fn check_upper(&self) -> Result<(), Unmet> {
        let Some(overlay) = &self.overlay else {
            return Ok(());
        };
        let unmet = |errno: Errno| (Requirement::Changes, errno.into());
        match self.keeps_marks(overlay) {
            Ok(true) => Ok(()),
            Ok(false) => Err(unmet(Errno::EOPNOTSUPP)),
            Err(errno) => Err(unmet(errno)),
        }
    }

    fn keeps_marks(&self, overlay: &Overlay) -> Result<bool, Errno> {
        let draft = overlay.drafts.begin(&self.upper)?;
        let directory = self
            .upper
            .make_directory(draft.work(), draft.name()?, 0o700)?;
        self.upper.set_opaque_mode(&directory, 0o700)?;
        let name = Name::new(c"whiteout").map_err(|_| Errno::EIO)?;
        self.upper.make_fifo(&directory, name)?;
        let mut is_seen = false;
        let mut scratch = Vec::with_capacity(LISTING);
        let listing = self.upper.open_directory(&directory)?;
        listing.list(0, scratch.spare_capacity_mut(), |entry| {
            is_seen |= is_whiteout(entry);
            Ok(Next::More)
        })?;
        if !is_seen {
            self.upper.unlink(&directory, name)?;
        }
        Ok(is_seen && directory.attributes()?.is_opaque())
    }
}

/// Something on its way up.
struct Copy<'a> {
    /// That of the upper tree.
    host: &'a os::Host,
    overlay: &'a Overlay,
    attributes: Attributes,
    lower: os::Node,
}

impl Copy<'_> {
    fn mode(&self) -> u32 {
        self.attributes.mode & SETTABLE_MODE
    }

    /// With the owner's permissions until it is finished: attributes of users want them.
    fn file(&self, draft: &Draft<'_>) -> Result<os::Node, Errno> {
        let (source, _) = self.overlay.lower.open(&self.lower, AccessMode::READ)?;
        let (file, upper) =
            self.host
                .create(draft.work(), draft.name()?, OWN_FILE, AccessMode::WRITE)?;
        file.copy_from(&source, self.attributes.size)?;
        Ok(upper)
    }

    fn directory(&self, draft: &Draft<'_>) -> Result<os::Node, Errno> {
        self.host.make_directory(draft.work(), draft.name()?, OWN)
    }

    /// Permissions and times, which nothing may change after.
    fn finish(&self, upper: &os::Node) -> Result<(), Errno> {
        if self.attributes.kind() != Kind::Symlink {
            self.host.set_mode(upper, self.mode())?;
        }
        let (accessed, modified) = (self.attributes.accessed, self.attributes.modified);
        upper.set_times(NewTime::At(accessed), NewTime::At(modified))
    }

    fn symlink(&self, draft: &Draft<'_>) -> Result<os::Node, Errno> {
        let mut text = Vec::new();
        self.overlay.lower.read_link(&self.lower, &mut text)?;
        let text = CString::new(text).map_err(|_| Errno::EIO)?;
        let target = Target::new(&text).map_err(|_| Errno::EIO)?;
        self.host.make_symlink(draft.work(), draft.name()?, target)
    }
}

/// Copies the attributes of users from one node to another. What this user may not read, and what the file system does not keep, or not for
/// such a file, is left behind.
pub(crate) fn copy_xattrs(
    from: (&os::Host, &os::Node),
    to: (&os::Host, &os::Node),
) -> Result<(), Errno> {
    let present = match user_xattrs(from) {
        Err(Errno::EACCES) => None,
        present => present?,
    };
    for (name, value) in present.unwrap_or_default() {
        match to
            .0
            .set_xattr(to.1, checked(&name)?, &value, XattrMode::empty())
        {
            Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES) => return Ok(()),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The attributes of users that a node has; nothing where the file system keeps none.
pub(crate) fn user_xattrs(
    (host, node): (&os::Host, &os::Node),
) -> Result<Option<BTreeMap<CString, Vec<u8>>>, Errno> {
    let mut list = vec![0; LONGEST_XATTR];
    let len = match host.list_xattrs(node, &mut list) {
        Err(Errno::EOPNOTSUPP) => return Ok(None),
        len => len?,
    };
    let names = list.get(..len).unwrap_or_default();
    let names = names.split_inclusive(|byte| *byte == 0);
    let mut all = BTreeMap::new();
    let mut value = vec![0; LONGEST_XATTR];
    for name in names.filter(|name| name.starts_with(USER)) {
        let name = CStr::from_bytes_with_nul(name).map_err(|_| Errno::EIO)?;
        let len = host.get_xattr(node, checked(name)?, &mut value)?;
        all.insert(name.into(), value.get(..len).unwrap_or_default().into());
    }
    Ok(Some(all))
}

fn checked(name: &CStr) -> Result<XattrName<'_>, Errno> {
    XattrName::new(name).map_err(|_| Errno::EIO)
}
