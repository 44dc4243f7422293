//! The settings of a sandbox, as the caller gives them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use netproxy::dial::UpstreamProxy;
use serde::{Deserialize, Serialize};

use crate::network::NetworkPolicy;
use crate::plan::RulePlan;
use crate::{Result, Sandbox};

/// Memory of a guest when none is set, in MiB.
pub const DEFAULT_MEMORY_MIB: u64 = 512;

/// The least memory in which a guest starts, in MiB.
pub const MIN_MEMORY_MIB: u64 = 64;

/// The most processors that a guest can be given.
pub const MAX_VCPUS: u32 = 64;

/// A directory of the host that the guest sees.
///
/// The directories of one sandbox may not lie in each other: what is read-only could be reached through the other, and an
/// inner one replaced by a link.
///
/// The first, which is the workspace, is on a device of the guest that has nothing else. All others are on another one: if there are several, the guest needs
/// Linux 5.10, and programs that write small pieces to them are slower there than in the workspace, since the kernel asks for a file's capabilities
/// before each write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The directory on the host.
    pub host: PathBuf,
    /// Where the guest sees it, absolute. The same path, unless it is set.
    pub guest: Option<PathBuf>,
    /// What becomes of the guest's changes.
    pub mode: ShareMode,
}

/// What becomes of a guest's changes to a shared directory.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ShareMode {
    /// They are made on the host, at once. One sandbox at a time has the directory so.
    Direct,
    /// The same, and other sandboxes may have the directory so, too: for what all its programs lock before they change it, as git does with its
    /// repositories.
    Together,
    /// There are none: each is refused.
    ReadOnly,
    /// The guest has them, and the host's directory stays as it is, until someone applies them: see [`changes`](crate::changes).
    Overlay {
        /// The directory that takes them. It is made if it is not there. What an earlier sandbox left in it is there again; one
        /// sandbox at a time may have it. It may not lie where the guest can see it.
        changes: PathBuf,
    },
}

/// For how long the guest may trust what it knows of the shares, while the host changes them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ShareCache {
    /// For a tenth of a second; not at all while the host changes something in the directories that the guest uses (where the host tells of
    /// that: Linux 5.13), and never names in a `.git` folder. What the host makes is seen at once.
    #[default]
    Auto,
    /// For a day: nobody on the host changes anything meanwhile. The fastest.
    Always,
    /// Not at all: each look goes to the host. For a host and a guest that change the same files in turn.
    Never,
}

impl Mount {
    /// Whether the guest can change the directory itself.
    pub(crate) fn is_changed_by_guest(&self) -> bool {
        matches!(self.mode, ShareMode::Direct | ShareMode::Together)
    }
}

/// The settings of a sandbox. Everything but the guest's files has a default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct SandboxBuilder {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) root: Option<PathBuf>,
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) share_cache: ShareCache,
    pub(crate) owner: (u32, u32),
    pub(crate) rules: RulePlan,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hostname: String,
    pub(crate) serial: bool,
    pub(crate) kernel_args: Vec<String>,
    pub(crate) console_log: Option<PathBuf>,
    pub(crate) start_timeout: Duration,
    pub(crate) worker_program: Option<PathBuf>,
    pub(crate) slow_hypervisor: bool,
    pub(crate) network: Option<NetworkPolicy>,
    pub(crate) published: Vec<(SocketAddr, u16)>,
    pub(crate) upstream_proxy: Option<UpstreamProxy>,
}

impl SandboxBuilder {
    pub(crate) fn new(guest: GuestFiles) -> Self {
        Self {
            kernel: guest.kernel,
            initrd: guest.initrd,
            root: guest.root,
            vcpus: 1,
            memory_mib: DEFAULT_MEMORY_MIB,
            mounts: Vec::new(),
            share_cache: ShareCache::Auto,
            owner: (0, 0),
            rules: RulePlan::default(),
            env: Vec::new(),
            hostname: "cofferdam".into(),
            serial: false,
            kernel_args: Vec::new(),
            console_log: None,
            start_timeout: Duration::from_secs(60),
            worker_program: None,
            slow_hypervisor: false,
            network: None,
            published: Vec::new(),
            upstream_proxy: None,
        }
    }

    /// Gives the guest a network, on which it may connect to what `policy` allows. Without this it has none.
    pub fn network(mut self, policy: NetworkPolicy) -> Self {
        self.network = Some(policy);
        self
    }

    /// Publishes `port` of the guest's at `address`, a loopback address of the host: connections to it go to what listens on that port at the guest's own
    /// address (not at the guest's `127.0.0.1`) or at all its addresses. With port 0 in `address` any free one is taken: see [`Sandbox::published`](crate::Sandbox::published). It takes a network;
    /// `NetworkPolicy::new()` is one on which the guest itself can connect to nothing.
    pub fn publish(mut self, address: SocketAddr, port: u16) -> Self {
        self.published.push((address, port));
        self
    }

    /// Has everything that the policy allows outside reached by a proxy of the host's network, which resolves the names; services of the host are reached without it. Its credentials go to
    /// the egress worker and nowhere else.
    pub fn upstream_proxy(mut self, proxy: UpstreamProxy) -> Self {
        self.upstream_proxy = Some(proxy);
        self
    }

    /// The kernel: a 64-bit ELF with a PVH entry, or a bzImage.
    pub fn kernel(mut self, file: impl Into<PathBuf>) -> Self {
        self.kernel = file.into();
        self
    }

    /// The initial RAM file system, which holds the guest program (and modules for the kernel).
    pub fn initrd(mut self, file: impl Into<PathBuf>) -> Self {
        self.initrd = file.into();
        self
    }

    /// The root image (EROFS), shared read-only; the guest's changes stay in its memory.
    pub fn root(mut self, file: impl Into<PathBuf>) -> Self {
        self.root = Some(file.into());
        self
    }

    /// How many processors; 1 unless set, at most [`MAX_VCPUS`].
    pub const fn vcpus(mut self, count: u32) -> Self {
        self.vcpus = count;
        self
    }

    /// Guest memory in MiB; [`DEFAULT_MEMORY_MIB`] unless set.
    pub const fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Shares `directory` with the guest, at the same path, for reading and writing.
    pub fn workspace(self, directory: impl Into<PathBuf>) -> Self {
        self.mount(Mount {
            host: directory.into(),
            guest: None,
            mode: ShareMode::Direct,
        })
    }

    /// Shares `directory` with the guest, at the same path; what it changes goes to the directory `changes` and not to the host's files.
    pub fn overlay(self, directory: impl Into<PathBuf>, changes: impl Into<PathBuf>) -> Self {
        self.mount(Mount {
            host: directory.into(),
            guest: None,
            mode: ShareMode::Overlay {
                changes: changes.into(),
            },
        })
    }

    /// Shares a directory with the guest.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// How long the guest may trust what it knows of the shares; [`ShareCache::Auto`] unless set.
    pub const fn share_cache(mut self, cache: ShareCache) -> Self {
        self.share_cache = cache;
        self
    }

    /// The user and group of the guest to whom the host user's files in the shares belong; root
    /// unless set. Choose those that the commands run as.
    pub const fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Hides names in all shares, at every depth: the guest does not find them and cannot make them. A pattern is a name or several
    /// with `/` between them, with `*`, `?`, `[...]`, `{a,b}` and `**`; a leading `/` means the top only, a leading `!` takes
    /// earlier patterns back, also the usual ones.
    pub fn hide(mut self, pattern: impl Into<String>) -> Self {
        self.rules.hidden.push(pattern.into());
        self
    }

    /// Protects names in all shares, at every depth: the guest reads them, and cannot make, change, replace or remove them, nor
    /// anything below them. Patterns as in [`Self::hide`].
    pub fn protect(mut self, pattern: impl Into<String>) -> Self {
        self.rules.protected.push(pattern.into());
        self
    }

    /// Does without the usual rules, which hide the places of secrets (`.env`, keys, credentials) and protect what the host's git,
    /// editors, shells and build services run (`.git/hooks`, `.git/config`, `.vscode` and the like).
    pub const fn without_usual_rules(mut self) -> Self {
        self.rules.usual = false;
        self
    }

    /// Lets the guest change files in the shares that have several names when it first sees them. Unless set it only reads them: their
    /// other names may be outside, as those of a package manager's store are.
    pub const fn writable_hard_links(mut self) -> Self {
        self.rules.hard_links_writable = true;
        self
    }

    /// How many bytes the guest may add to each share, as the files' sizes tell them: holes count. Beyond it the guest gets `EDQUOT`. No
    /// limit unless set.
    pub const fn quota_bytes(mut self, bytes: u64) -> Self {
        self.rules.quota_bytes = Some(bytes);
        self
    }

    /// How many files, directories and symbolic links the guest may add to each share. Beyond it the guest gets `EDQUOT`. No limit unless
    /// set.
    pub const fn quota_files(mut self, count: u64) -> Self {
        self.rules.quota_files = Some(count);
        self
    }

    /// Sets a variable in the environment of every command.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The guest's host name; `cofferdam` unless set.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.hostname = name.into();
        self
    }

    /// Gives the guest a serial port, as a stock kernel needs for its console.
    pub const fn serial(mut self, on: bool) -> Self {
        self.serial = on;
        self
    }

    /// Adds a word to the kernel's command line.
    pub fn kernel_arg(mut self, word: impl Into<String>) -> Self {
        self.kernel_args.push(word.into());
        self
    }

    /// Appends the guest's console to a file as well, up to 64 MiB. It may not lie where the guest can write.
    pub fn console_log(mut self, file: impl Into<PathBuf>) -> Self {
        self.console_log = Some(file.into());
        self
    }

    /// How long the guest may take to get ready; 60 s unless set.
    pub const fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// A program that calls [`crate::worker::init`] first thing, to be the worker. The present
    /// program is, unless this is set. Like the guest's files it may not lie where the guest can
    /// write: the next start would run what the guest put there.
    pub fn worker_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.worker_program = Some(program.into());
        self
    }

    /// Starts even where the hypervisor only interprets an unmodified kernel, which then takes
    /// hours to boot. For bare-metal test guests.
    pub const fn slow_hypervisor(mut self, accepted: bool) -> Self {
        self.slow_hypervisor = accepted;
        self
    }

    /// Starts the sandbox and waits until commands can run in it. Dropping the future stops what
    /// was started.
    ///
    /// # Errors
    /// See [`crate::Error`]; nothing is left behind.
    pub async fn start(self) -> Result<Sandbox> {
        Sandbox::start(self).await
    }
}

/// The files of a guest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GuestFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initrd: PathBuf,
    /// The root image.
    pub root: Option<PathBuf>,
}

impl GuestFiles {
    /// The files of a folder as `cargo xtask guest` lays them out.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            kernel: folder.join("kernel/vmlinux"),
            initrd: folder.join("initrd/initrd.cpio"),
            root: Some(folder.join("root/root.erofs")),
        }
    }

    /// Looks for the files where an installation or a build has them: the folder that
    /// `COFFERDAM_GUEST` names; `guest` beside or above the running program; `cofferdam/guest` in
    /// the user's data folder. The last is returned when none is there.
    #[must_use]
    pub fn locate() -> Self {
        let named = std::env::var_os("COFFERDAM_GUEST").filter(|folder| !folder.is_empty());
        if let Some(folder) = named {
            return Self::in_folder(Path::new(&folder));
        }
        let data = data_folder().join("cofferdam/guest");
        let found = beside_program()
            .into_iter()
            .find(|folder| folder.join("root/root.erofs").is_file());
        Self::in_folder(&found.unwrap_or(data))
    }
}

fn beside_program() -> Vec<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    program
        .ancestors()
        .skip(1)
        .take(3)
        .map(|folder| folder.join("guest"))
        .collect()
}

fn data_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_default()
}
