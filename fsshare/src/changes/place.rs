//! A name in one of the host's directories, and how something gets there or away while the host's programs may use the same name: what is taken
//! away is looked at once it is out of everybody's reach, and goes back if it is not what was expected.

use std::ffi::{CStr, CString};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, StatxFlags};

use super::tree::{Found, Tree, checked};
use crate::abi::{Name, RenameMode};
use crate::errno::Errno;
use crate::host::{Attributes, Kind, os};

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Stop {
    /// The host has something else there than what the guest changed.
    Conflict,
    /// The guest has something else than what was seen.
    GuestChanged,
    Host(Errno),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

/// A name in a directory of the host's.
pub(super) struct Place<'a> {
    tree: &'a Tree,
    /// None for the root.
    parent: Option<Found>,
    name: CString,
    /// The name beside it by which something is on its way.
    draft: &'a CStr,
}

/// The name for what is on its way: always the same for one overlay, so that what was left by someone who was ended is found, and none that a guest
/// can know or that a user has.
pub(super) fn draft_name(directory: &OwnedFd) -> io::Result<CString> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let work = rustix::fs::statx(directory, super::WORK, AtFlags::SYMLINK_NOFOLLOW, flags)?;
    let mut hasher = DefaultHasher::new();
    (work.stx_dev_major, work.stx_dev_minor, work.stx_ino).hash(&mut hasher);
    (work.stx_btime.tv_sec, work.stx_btime.tv_nsec).hash(&mut hasher);
    let name = format!(".cofferdam-{:016x}", hasher.finish());
    CString::new(name).map_err(io::Error::other)
}

impl<'a> Place<'a> {
    /// `EINVAL` for the name of what is on its way.
    pub(super) fn new(
        tree: &'a Tree,
        parent: Option<Found>,
        name: CString,
        draft: &'a CStr,
    ) -> Result<Self, Errno> {
        if name.as_c_str() == draft {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            tree,
            parent,
            name,
            draft,
        })
    }

    pub(super) fn host(&self) -> &os::Host {
        &self.tree.host
    }

    fn directory(&self) -> &os::Node {
        let parent = self.parent.as_ref();
        parent.map_or(&self.tree.root, |found| &found.node)
    }

    pub(super) fn name(&self) -> Result<(&os::Node, Name<'_>), Errno> {
        Ok((self.directory(), checked(&self.name)?))
    }

    pub(super) fn draft(&self) -> Result<(&os::Node, Name<'_>), Errno> {
        let draft = Name::new(self.draft).map_err(|_| Errno::EINVAL)?;
        Ok((self.directory(), draft))
    }

    /// What is there, if something is.
    pub(super) fn present(&self) -> Result<Option<Found>, Errno> {
        match self.tree.at(self.directory(), &self.name) {
            Err(Errno::ENOENT) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Makes what was done there last.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        self.host().open_directory(self.directory())?.sync(false)
    }

    /// Takes away what is there, if it is as `expected`.
    pub(super) fn clear(&self, expected: impl Fn(&Found) -> Result<(), Stop>) -> Result<(), Stop> {
        let Some(present) = self.present()? else {
            return Ok(());
        };
        expected(&present)?;
        if present.attributes.kind() == Kind::Directory {
            // Only an empty one goes, so that nothing can be lost.
            let (directory, name) = self.name()?;
            self.host().remove_directory(directory, name)?;
        } else {
            self.remove_draft()?;
            let mode = RenameMode::NOREPLACE;
            self.host().rename(self.name()?, self.draft()?, mode)?;
            if let Err(stop) = self.remove_taken(expected) {
                // If the name is someone else's by now, the old one stays beside it.
                let _ = self.host().rename(self.draft()?, self.name()?, mode);
                return Err(stop);
            }
        }
        Ok(self.sync()?)
    }

    /// Lets the draft that `make` makes come there, where nothing is. Gives what `make` gave.
    pub(super) fn fill(
        &self,
        make: impl FnOnce() -> Result<Attributes, Stop>,
    ) -> Result<Attributes, Stop> {
        let made = self.begin(make)?;
        let (draft, name) = (self.draft()?, self.name()?);
        match self.host().rename(draft, name, RenameMode::NOREPLACE) {
            Err(errno) => {
                self.give_up_draft();
                Err(match errno {
                    Errno::EEXIST => Stop::Conflict,
                    errno => errno.into(),
                })
            }
            Ok(()) => Ok(made),
        }
    }

    /// Lets the draft that `make` makes take the place of what is there, if that is as `expected`. Gives what `make` gave.
    pub(super) fn replace(
        &self,
        make: impl FnOnce() -> Result<Attributes, Stop>,
        expected: impl Fn(&Found) -> Result<(), Stop>,
    ) -> Result<Attributes, Stop> {
        let made = self.begin(make)?;
        let exchange = || {
            let (draft, name) = (self.draft()?, self.name()?);
            self.host().rename(draft, name, RenameMode::EXCHANGE)
        };
        if let Err(errno) = exchange() {
            self.give_up_draft();
            return Err(errno.into());
        }
        if let Err(stop) = self.remove_taken(expected) {
            // Only a draft that is the new one again may go.
            if exchange().is_ok() {
                self.give_up_draft();
            }
            return Err(stop);
        }
        Ok(made)
    }

    fn begin(&self, make: impl FnOnce() -> Result<Attributes, Stop>) -> Result<Attributes, Stop> {
        self.remove_draft()?;
        make().inspect_err(|_| self.give_up_draft())
    }

    /// Removes what was taken from its name and has the draft's now, if it is as `expected`.
    fn remove_taken(&self, expected: impl Fn(&Found) -> Result<(), Stop>) -> Result<(), Stop> {
        let (directory, draft) = self.draft()?;
        let node = self.host().lookup(directory, draft)?;
        let attributes = node.attributes()?;
        expected(&Found { node, attributes })?;
        match attributes.kind() {
            Kind::Directory => self.host().remove_directory(directory, draft)?,
            _ => self.host().unlink(directory, draft)?,
        }
        Ok(())
    }

    /// Removes a draft that was left.
    fn remove_draft(&self) -> Result<(), Errno> {
        let (directory, draft) = self.draft()?;
        let outcome = match self.host().unlink(directory, draft) {
            Err(Errno::EISDIR) => self.host().remove_directory(directory, draft),
            outcome => outcome,
        };
        match outcome {
            Err(Errno::ENOENT) => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes the draft of what was refused; it may be there or not, and if it stays, the next one removes it.
    fn give_up_draft(&self) {
        let _ = self.remove_draft();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;

    const DRAFT: &CStr = c".cofferdam-test";

    struct Folder {
        path: tempfile::TempDir,
        tree: Tree,
    }

    impl Folder {
        fn new() -> Self {
            let path = tempfile::tempdir().unwrap();
            let root = fs::File::open(path.path()).unwrap();
            let tree = Tree::new(root.into()).unwrap();
            Self { path, tree }
        }

        fn place(&self) -> Place<'_> {
            Place::new(&self.tree, None, c"name".into(), DRAFT).unwrap()
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path.path().join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path.path().join(name)).ok()
        }

        /// Makes a draft that says `new`.
        fn make(&self) -> Result<Attributes, Stop> {
            self.write(DRAFT.to_str().unwrap(), "new");
            let (parent, draft) = (&self.tree.root, Name::new(DRAFT).unwrap());
            Ok(self.tree.host.attributes_at(parent, draft)?)
        }

        fn draft(&self) -> Option<String> {
            self.read(DRAFT.to_str().unwrap())
        }
    }

    #[test]
    fn what_is_not_as_expected_comes_back() {
        let folder = Folder::new();
        folder.write("name", "old");
        let replaced = folder
            .place()
            .replace(|| folder.make(), |_| Err(Stop::Conflict));
        assert!(matches!(replaced, Err(Stop::Conflict)));
        assert_eq!(folder.read("name").unwrap(), "old");
        assert_eq!(folder.draft(), None);
        // Changed after the first look.
        let looks = Cell::new(0);
        let cleared = folder.place().clear(|_| {
            looks.set(looks.get() + 1);
            match looks.get() {
                1 => Ok(()),
                _ => Err(Stop::Conflict),
            }
        });
        assert!(matches!(cleared, Err(Stop::Conflict)));
        assert_eq!(
            (looks.get(), folder.read("name").unwrap()),
            (2, "old".into())
        );
        assert_eq!(folder.draft(), None);
    }

    #[test]
    fn what_is_as_expected_goes() {
        let folder = Folder::new();
        folder.write("name", "old");
        folder
            .place()
            .replace(|| folder.make(), |_| Ok(()))
            .unwrap();
        assert_eq!(folder.read("name").unwrap(), "new");
        folder.place().clear(|_| Ok(())).unwrap();
        assert_eq!((folder.read("name"), folder.draft()), (None, None));
        folder.place().fill(|| folder.make()).unwrap();
        assert_eq!(folder.read("name").unwrap(), "new");
        assert_eq!(folder.draft(), None);
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_stays() {
        let folder = Folder::new();
        let filled = folder.place().fill(|| {
            folder.write("name", "host's");
            folder.make()
        });
        assert!(matches!(filled, Err(Stop::Conflict)));
        assert_eq!(folder.read("name").unwrap(), "host's");
        assert_eq!(folder.draft(), None);
    }

    #[test]
    fn a_directory_that_holds_something_stays() {
        let folder = Folder::new();
        fs::create_dir(folder.path.path().join("name")).unwrap();
        folder.write("name/file", "host's");
        let replaced = folder.place().replace(|| folder.make(), |_| Ok(()));
        assert!(matches!(replaced, Err(Stop::Host(Errno::ENOTEMPTY))));
        let cleared = folder.place().clear(|_| Ok(()));
        assert!(matches!(cleared, Err(Stop::Host(Errno::ENOTEMPTY))));
        assert_eq!(folder.read("name/file").unwrap(), "host's");
        assert_eq!(folder.draft(), None);
    }

    #[test]
    fn who_was_ended_half_way_goes_on() {
        let folder = Folder::new();
        for is_directory in [false, true] {
            let left = folder.path.path().join(DRAFT.to_str().unwrap());
            if is_directory {
                fs::create_dir(left).unwrap();
            } else {
                folder.write(DRAFT.to_str().unwrap(), "half");
            }
            folder.write("name", "old");
            folder
                .place()
                .replace(|| folder.make(), |_| Ok(()))
                .unwrap();
            assert_eq!(folder.read("name").unwrap(), "new");
            assert_eq!(folder.draft(), None);
        }
    }

    #[test]
    fn no_change_is_called_as_a_draft_is() {
        let folder = Folder::new();
        let place = Place::new(&folder.tree, None, DRAFT.into(), DRAFT);
        assert!(matches!(place.map(drop), Err(Errno::EINVAL)));
    }
}
