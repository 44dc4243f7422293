//! What the embedder decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::quota::Quota;
use super::refusals::Observer;
use crate::handle::OwnedHandle;
use crate::rules::Rules;

/// Everything that a [`Server`](super::Server) needs to know.
#[derive(Debug)]
pub struct Config {
    /// The directory that the guest sees as its root, open in any mode (`O_PATH` will do on Linux).
    pub root: OwnedHandle,
    /// Where that directory is on the host, or empty: `rules` that have begun on the way to it go on below it (of `.git/hooks`, `hooks` in a
    /// tree at `…/.git`), and what is in a `.git` folder is git's. It is not opened;
    /// on macOS and Windows it is watched for changes of the host's.
    pub place: PathBuf,
    /// A directory of the host that takes what the guest changes, so that the tree stays as it is: empty, or left by an earlier share of the same
    /// tree, which then goes on. One share at a time may have it. What was changed is told by `Changes`.
    ///
    /// Locks are the guest's then, and a directory of the tree cannot be renamed (`EXDEV`; programs copy it). A file that is open while the host
    /// changes it may be seen in either form; the guest keeps its own form of what it has changed. A file of the host's that the guest removed
    /// while it had it open can be read on, and no more be changed (`ESTALE`).
    /// A file that this user may not read can neither be changed nor be given other permissions (`EACCES`).
    ///
    /// On Linux only; elsewhere no server is made with one.
    pub overlay: Option<OwnedHandle>,
    /// A file, open for reading and writing, in which the server writes down what the guest is about to change, for
    /// `changes_in_place`. Not for an overlay, which knows. On Linux only, too.
    pub journal: Option<OwnedHandle>,
    /// Whether every request that would change the tree fails with `EROFS`.
    pub read_only: bool,
    /// Which names the guest does not see, and which it cannot change.
    pub rules: Rules,
    /// What the guest may do with files that have several names when it first sees them.
    pub hard_links: HardLinkPolicy,
    /// Who is told what the guest was kept from.
    pub observer: Option<Arc<dyn Observer>>,
    /// How much the guest may add.
    pub quota: Quota,
    /// Who the host user's files belong to in the guest.
    pub owner: Owner,
    /// How long the guest may trust what it was told.
    pub cache: CachePolicy,
    /// Where locks are kept.
    pub locks: LockPolicy,
    /// How much the guest may make the server hold.
    pub limits: Limits,
}

impl Config {
    /// A writable share of `root` with the defaults of everything else.
    pub fn new(root: OwnedHandle) -> Self {
        Self {
            root,
            place: PathBuf::new(),
            overlay: None,
            journal: None,
            read_only: false,
            rules: Rules::none(),
            hard_links: HardLinkPolicy::default(),
            observer: None,
            quota: Quota::default(),
            owner: Owner::default(),
            cache: CachePolicy::default(),
            locks: LockPolicy::default(),
            limits: Limits::default(),
        }
    }
}

/// What the guest may do with a file that has several names when the guest first sees it: the others may be outside the tree, where
/// a package manager keeps one copy for all projects, say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HardLinkPolicy {
    /// It may be read, and its name be removed or replaced; what is in it and what is said of it cannot be changed (`EPERM`). A file to which the
    /// guest itself gives a second name stays as it is for as long as the guest remembers it.
    #[default]
    ReadOnly,
    /// What it may do with any other. In an overlay each name becomes a file of its own when the guest changes it by that name; the others stay
    /// what the host has.
    Writable,
}

/// A user and a group of the guest.
///
/// Files of the user and group that the server runs as appear as theirs; all others as 65534 (`nobody`). Giving a file to
/// them succeeds and changes nothing; giving it to anyone else fails with `EPERM`. The default is root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User id in the guest.
    pub uid: u32,
    /// Group id in the guest.
    pub gid: u32,
}

/// How stale the guest's view may be. The host may change the tree at any time and the guest is not told, so
/// these times bound how long it takes to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// How long a name's node may be remembered.
    pub names: Duration,
    /// The same for names in a `.git` folder, but for those of its objects, which never change: git replaces its files by others of the same
    /// name, and one that goes by what a name was a moment ago undoes what another did.
    pub git_names: Duration,
    /// How long it may be remembered that there is nothing of a name. A file that the host makes may stay unseen so long by who asked for it
    /// before.
    pub absence: Duration,
    /// How long attributes may be remembered.
    pub attributes: Duration,
    /// Whether a file's cached pages, and a directory's listing, outlive its close. They are dropped in any case when size or time of change
    /// differ.
    pub keep_pages: bool,
    /// Whether nothing may be remembered while the host's programs change something in the directories that the guest uses. (On macOS and Windows,
    /// where the system does not tell who did it: while they do and the guest does not.)
    pub watches_host: bool,
    /// Whether the guest may hold written data back. Only for trees that nobody on the host touches meanwhile.
    pub writeback: bool,
}

impl CachePolicy {
    /// For a tree that the host's programs may change: what they change is seen within a tenth of a second, new files at once. It is long enough
    /// for what one program asks again and again, and costs the rest little. While they change something, and for two seconds after, nothing is remembered at all, where the host tells of it (Linux 5.13).
    #[must_use]
    pub const fn auto() -> Self {
        let moment = Duration::from_millis(100);
        Self {
            names: moment,
            git_names: Duration::ZERO,
            absence: Duration::ZERO,
            attributes: moment,
            keep_pages: false,
            watches_host: true,
            writeback: false,
        }
    }

    /// For a tree that nobody on the host changes while it is shared: everything is remembered for a day.
    #[must_use]
    pub const fn always() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            names: day,
            git_names: day,
            absence: day,
            attributes: day,
            keep_pages: true,
            watches_host: false,
            writeback: false,
        }
    }

    /// For a tree that both sides change in turn, faster than a tenth of a second: every look shows the present state, and goes to the host, at
    /// a price.
    #[must_use]
    pub const fn never() -> Self {
        Self {
            names: Duration::ZERO,
            git_names: Duration::ZERO,
            absence: Duration::ZERO,
            attributes: Duration::ZERO,
            keep_pages: false,
            watches_host: false,
            writeback: false,
        }
    }
}

impl Default for CachePolicy {
    /// [`Self::auto`].
    fn default() -> Self {
        Self::auto()
    }
}

/// Where the locks of the guest's programs are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockPolicy {
    /// In the guest's kernel: full semantics among the guest's programs, waiting included, and interruptible. The host's
    /// programs neither see these locks nor can be stopped by them.
    #[default]
    Guest,
    /// On the host, shared with its programs, as `flock` and open-file record locks. Not on Windows, whose locks would keep programs from
    /// reading and writing: there the guest is told `EOPNOTSUPP`.
    ///
    /// A wait cannot be offered: virtio-fs has no way to interrupt one, so the guest's program could not be killed, and a
    /// waiting server thread might be the one that the unlock needs. A lock that is not free is refused with `EAGAIN`, also when
    /// the guest asked to wait.
    Host,
}

/// Caps on what the guest can make the server hold. Reaching one gives the guest an error and does nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open files and directories, and owners of record locks. Two descriptors each: the guest may forget the node of what it has open.
    pub max_handles: usize,
    /// Nodes that the guest holds. Some 50 bytes and its name each.
    pub max_inodes: usize,
    /// Nodes of which the server holds a handle: those that are open, and those used last. One descriptor each, and 1 to 2 KiB of the
    /// host kernel's memory. On a file system that does not record when a file was made, it caps all nodes.
    pub max_held: usize,
    /// How many servers this process runs: each gets an equal part of its descriptors. 0 counts as 1.
    pub shares: usize,
    /// Most bytes in one READ or WRITE: a multiple of 4096 in `4096..=1 MiB`.
    pub max_write: u32,
}

impl Default for Limits {
    /// 16 Ki handles, 2 Mi nodes, 64 Ki of them held, one share, 1 MiB. The limit on the process's descriptors caps handles and held
    /// nodes further.
    ///
    /// So many nodes hold the largest source trees, and let a hostile guest fill this process with about 128 MiB (650 MiB if all names have
    /// 255 bytes), and pin about
    /// 128 MiB of the host kernel's memory, which no limit on the process counts.
    fn default() -> Self {
        Self {
            max_handles: 16 << 10,
            max_inodes: 2 << 20,
            max_held: 64 << 10,
            shares: 1,
            max_write: 1 << 20,
        }
    }
}

impl Limits {
    /// Descriptors that the rest of the process keeps, whatever the guest does and however many shares there are.
    pub const RESERVED_DESCRIPTORS: usize = 256;

    /// Fewer than this for the share make it useless.
    pub(super) const FEWEST_DESCRIPTORS: usize = 64;

    /// The limits that hold when the process may have `descriptors` of them. What is left to the shares is divided equally;
    /// of its part, a share's handles get at most half, two each, and its held nodes the rest. `None` if that is too little to work with.
    pub(super) fn within(self, descriptors: Option<u64>) -> Option<Self> {
        let Some(descriptors) = descriptors else {
            return Some(self);
        };
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        let share = descriptors.saturating_sub(Self::RESERVED_DESCRIPTORS) / self.shares.max(1);
        if share < Self::FEWEST_DESCRIPTORS {
            return None;
        }
        let max_handles = self.max_handles.min(share / 4);
        Some(Self {
            max_handles,
            max_held: self.max_held.min(share - 2 * max_handles),
            ..self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_limit_is_shared_out_and_never_exceeded() {
        for descriptors in [768, 1024, 20_000, 1 << 20, u64::MAX] {
            for shares in [0, 1, 2, 8] {
                let wish = Limits {
                    shares,
                    ..Limits::default()
                };
                let limits = wish.within(Some(descriptors)).unwrap();
                let each = 2 * limits.max_handles + limits.max_held;
                let held = (each * shares.max(1) + Limits::RESERVED_DESCRIPTORS) as u64;
                assert!(held <= descriptors, "{descriptors}: {limits:?}");
                assert!(
                    limits.max_handles > 0 && limits.max_held > 0,
                    "{descriptors}: {limits:?}"
                );
            }
        }
    }

    #[test]
    fn more_shares_than_the_descriptors_suffice_for_are_refused() {
        for (shares, suffice) in [(1, true), (12, true), (13, false), (usize::MAX, false)] {
            let wish = Limits {
                shares,
                ..Limits::default()
            };
            assert_eq!(wish.within(Some(1024)).is_some(), suffice, "{shares}");
        }
    }

    #[test]
    fn smaller_wishes_are_kept() {
        let wish = Limits {
            max_handles: 3,
            max_inodes: 5,
            max_held: 4,
            shares: 1,
            max_write: 4096,
        };
        assert_eq!(wish.within(Some(1 << 20)), Some(wish));
        assert_eq!(wish.within(None), Some(wish));
    }

    #[test]
    fn a_process_without_descriptors_to_spare_gets_no_share() {
        for descriptors in [0, 1, 256, 319] {
            assert_eq!(
                Limits::default().within(Some(descriptors)),
                None,
                "{descriptors}"
            );
        }
    }
}
