//! From the caller's settings to a validated plan with every file opened.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use hv_core::{Fault, HvError};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::audit;
use super::network::EgressStart;
use super::places;
use crate::boot::layout::COMMAND_LINE_MAX;
use crate::changes::{Changed, overlay};
use crate::config::{MAX_VCPUS, MIN_MEMORY_MIB, Mount, SandboxBuilder, ShareMode};
use crate::error::{Error, Result};
use crate::network::NetworkPolicy;
use crate::plan::{PLAN_VERSION, Plan, Role, ShareDevice, SharePlan};
use crate::platform;
use crate::protocol;

/// A plan that can be carried out, with what it needs.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// What the worker is told.
    pub(crate) plan: Plan,
    /// The worker's descriptors, in the order of the plan's roles.
    pub(crate) files: Vec<OwnedFd>,
    /// Our end of the stream to the guest's agent.
    pub(crate) agent: UnixStream,
    /// Our end of the guest's console.
    pub(crate) console: PipeReader,
    /// The file that the console is appended to.
    pub(crate) console_log: Option<File>,
    /// Where the guest mounts each share.
    pub(crate) mounts: Vec<GuestMount>,
    /// Where to learn what the guest changes.
    pub(crate) changed: Vec<Changed>,
    /// What the egress worker needs; without it there is no network.
    pub(crate) egress: Option<EgressStart>,
    /// The log of the network's decisions.
    pub(crate) audit: Option<audit::Opened>,
}

/// A share's place in the guest.
#[derive(Debug)]
pub(crate) struct GuestMount {
    /// The number of the share.
    pub(crate) share: usize,
    /// Where the guest sees it.
    pub(crate) path: PathBuf,
    /// Whether it is mounted read-only; the share's server sees to that, too.
    pub(crate) read_only: bool,
}

impl Prepared {
    /// What the guest is to mount, in this order.
    pub(crate) fn guest_mounts(&self) -> Vec<protocol::Mount> {
        let devices = &self.plan.share_devices;
        let on_device = |mount: &GuestMount| {
            let mut found = devices.iter();
            found.find_map(|device| Some((&device.tag, device.entry(mount.share)?)))
        };
        let told = self.mounts.iter().filter_map(|mount| {
            let (tag, entry) = on_device(mount)?;
            Some(protocol::Mount {
                tag: tag.clone(),
                entry,
                path: mount.path.as_os_str().as_encoded_bytes().into(),
                read_only: mount.read_only,
            })
        });
        told.collect()
    }
}

/// Checks everything that can be checked before a process is started.
pub(crate) fn prepare(config: &SandboxBuilder) -> Result<Prepared> {
    check_size(config)?;
    let rules = config.rules.rules();
    let rules = rules.map_err(|error| Error::Config(error.to_string()))?;
    places::check(config, &rules)?;
    let (agent, agent_end) = stream_pair()?;
    let (console, console_end) = pipe()?;
    let mut parts = Parts::default();
    parts.add(Role::Hypervisor, open_hypervisor(config.slow_hypervisor)?);
    parts.add(Role::Kernel, open_file("kernel", &config.kernel)?);
    parts.add(
        Role::Initrd,
        open_file("initial RAM file system", &config.initrd)?,
    );
    if let Some(root) = &config.root {
        parts.add(Role::Root, open_root(root)?);
    }
    parts.add(Role::Agent, agent_end);
    parts.add(Role::Console, console_end);
    for mount in &config.mounts {
        parts.add_share(mount, config)?;
    }
    let network = config.network.as_ref();
    let egress = network.map(|policy| parts.add_network(policy, config));
    let egress = egress.transpose()?;
    if egress.is_none() && !config.published.is_empty() {
        let message = "a published port takes a network: SandboxBuilder::network(NetworkPolicy::new()) gives one on which the guest can connect to nothing";
        return Err(Error::Config(message.into()));
    }
    let log = config.network.as_ref().and_then(|it| it.audit.as_ref());
    let log = log.map(|log| audit::prepare(log, &config.hostname));
    let audit = log.transpose()?;
    parts.order_mounts()?;
    let plan = Plan {
        version: PLAN_VERSION,
        vcpus: config.vcpus,
        memory: config.memory_mib << 20,
        command_line: command_line(config)?,
        serial: config.serial,
        roles: parts.roles,
        share_devices: ShareDevice::all_for(parts.shares.len()),
        shares: parts.shares,
        rules: config.rules.clone(),
    };
    let console_log = config.console_log.as_deref().map(open_log).transpose()?;
    Ok(Prepared {
        plan,
        files: parts.files,
        agent,
        console,
        console_log,
        mounts: parts.mounts,
        changed: parts.changed,
        egress,
        audit,
    })
}

#[derive(Default)]
struct Parts {
    roles: Vec<Role>,
    files: Vec<OwnedFd>,
    shares: Vec<SharePlan>,
    mounts: Vec<GuestMount>,
    changed: Vec<Changed>,
}

impl Parts {
    fn add(&mut self, role: Role, file: impl Into<OwnedFd>) {
        self.roles.push(role);
        self.files.push(file.into());
    }

    fn add_share(&mut self, mount: &Mount, config: &SandboxBuilder) -> Result<()> {
        let number = self.shares.len();
        let directory = open_workspace(mount)?;
        let guest = guest_path(mount)?;
        self.add(Role::Share(number), directory);
        match &mount.mode {
            ShareMode::Overlay { changes } => {
                self.add(Role::Changes(number), overlay::open_to_change(changes)?);
                self.changed.push(Changed::overlay(&mount.host, changes));
            }
            ShareMode::Direct | ShareMode::Together => {
                let (journal, ours) = journal()?;
                self.add(Role::Journal(number), journal);
                self.changed.push(Changed::in_place(&mount.host, ours));
            }
            ShareMode::ReadOnly => {}
        }
        let read_only = mount.mode == ShareMode::ReadOnly;
        let place = std::fs::canonicalize(&mount.host)
            .map_err(|error| path_error("workspace", &mount.host, error.to_string()))?;
        self.mounts.push(GuestMount {
            share: number,
            path: guest,
            read_only,
        });
        self.shares.push(SharePlan {
            place: place.into_os_string().into_vec(),
            read_only,
            cache: config.share_cache,
            owner: config.owner,
        });
        Ok(())
    }

    /// Gives the machine a network device.
    fn add_network(
        &mut self,
        policy: &NetworkPolicy,
        config: &SandboxBuilder,
    ) -> Result<EgressStart> {
        policy.check()?;
        let (start, machine) = EgressStart::new(policy, config)?;
        self.add(Role::Network, machine);
        Ok(start)
    }

    /// Puts what lies in another's place behind that one.
    fn order_mounts(&mut self) -> Result<()> {
        self.mounts
            .sort_by_key(|mount| mount.path.components().count());
        let mut seen = HashSet::new();
        let mut paths = self.mounts.iter().map(|mount| &mount.path);
        match paths.find(|path| !seen.insert(*path)) {
            None => Ok(()),
            Some(path) => {
                let problem = "two directories cannot have the same place in the guest";
                Err(path_error("workspace", path, problem))
            }
        }
    }
}

fn check_size(config: &SandboxBuilder) -> Result<()> {
    if !(1..=MAX_VCPUS).contains(&config.vcpus) {
        let message = format!("{} processors: choose 1 to {MAX_VCPUS}", config.vcpus);
        return Err(Error::Config(message));
    }
    let host_mib = platform::total_memory() >> 20;
    if config.memory_mib < MIN_MEMORY_MIB {
        let message = format!(
            "{} MiB of memory: a guest needs at least {MIN_MEMORY_MIB}",
            config.memory_mib
        );
        return Err(Error::Config(message));
    }
    if config.memory_mib > host_mib {
        let message = format!(
            "{} MiB of memory: this host has {host_mib} in all",
            config.memory_mib
        );
        return Err(Error::Config(message));
    }
    Ok(())
}

/// What every guest kernel is told. Beyond the obvious it saves work that means nothing in a guest: the search for
/// PCI, checks of the timer and the clock, self-tests of cryptography (a second of a distribution's kernel). Rewriting
/// locks for one CPU and clearing the initrd's pages would give this guest copies of pages that all guests share.
const KERNEL_WORDS: &str = "quiet panic=-1 pci=off dummy.numdummies=0 tsc=reliable no_timer_check \
                            cryptomgr.notests noreplace-smp retain_initrd";

fn command_line(config: &SandboxBuilder) -> Result<String> {
    let console = if config.serial {
        "console=ttyS0 console=hvc0"
    } else {
        "console=hvc0"
    };
    let root = if config.root.is_some() {
        ""
    } else {
        " cofferdam.root=none"
    };
    let mut line = format!("{console} {KERNEL_WORDS}{root}");
    for word in &config.kernel_args {
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > COMMAND_LINE_MAX || line.contains(['\0', '\n']) {
        let message = format!(
            "the kernel's command line is over {COMMAND_LINE_MAX} bytes or has a line break"
        );
        return Err(Error::Config(message));
    }
    Ok(line)
}

fn stream_pair() -> Result<(UnixStream, UnixStream)> {
    UnixStream::pair().map_err(|source| Error::Host {
        what: "cannot make a socket pair".into(),
        source,
    })
}

/// A file without a name, twice: for the worker and for us.
fn journal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let made = rustix::fs::memfd_create("cofferdam-journal", flags);
    let made = made.map_err(io::Error::from);
    let both = made.and_then(|file| Ok((file.try_clone()?, file)));
    both.map_err(|source| Error::Host {
        what: "cannot make a file in memory".into(),
        source,
    })
}

/// A pipe for the console: it holds far more small writes than a socket does.
fn pipe() -> Result<(PipeReader, PipeWriter)> {
    io::pipe().map_err(|source| Error::Host {
        what: "cannot make a pipe".into(),
        source,
    })
}

fn open_hypervisor(slow_accepted: bool) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let hypervisor = rustix::fs::open("/dev/kvm", flags, Mode::empty()).map_err(|errno| {
        let error = HvError::from_errno("open /dev/kvm", errno.raw_os_error());
        Error::NotStarted {
            fault: error.fault(),
            message: error.to_string(),
        }
    })?;
    if !slow_accepted && !platform::runs_unmodified_kernels() {
        let message = "this host's KVM cannot run an unmodified kernel: its processor shows neither SVM \
                       nor VMX; use a host with hardware virtualization";
        return Err(Error::NotStarted {
            fault: Fault::Host,
            message: message.into(),
        });
    }
    Ok(hypervisor)
}

fn path_error(what: &'static str, path: &Path, problem: impl Into<String>) -> Error {
    Error::Path {
        what,
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn open_file(what: &'static str, path: &Path) -> Result<File> {
    // Non-blocking, so that a FIFO in the place of the file cannot hold us up.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| path_error(what, path, io::Error::from(errno).to_string()))?;
    match file.metadata() {
        Ok(data) if data.is_file() && data.len() > 0 => Ok(file),
        Ok(data) if data.is_file() => Err(path_error(what, path, "the file is empty")),
        _ => Err(path_error(what, path, "not a file")),
    }
}

/// Opens the root image and checks that it is all there. The format is EROFS because the setting
/// says so; the superblock is read for its length only (erofs on-disk format, `erofs_super_block`).
fn open_root(path: &Path) -> Result<File> {
    const MAGIC: u32 = 0xE0F5_E1E2;
    const SUPERBLOCK: usize = 1024;
    let what = "root image";
    let file = open_file(what, path)?;
    let mut head = Vec::new();
    let limit = 2 * SUPERBLOCK as u64;
    (&file)
        .take(limit)
        .read_to_end(&mut head)
        .map_err(|e| path_error(what, path, e.to_string()))?;
    let word = |at: usize| {
        let bytes = head
            .get(SUPERBLOCK + at..)
            .and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u32::from_le_bytes(*bytes))
    };
    let (Some(MAGIC), Some(shift), Some(blocks)) = (word(0), word(12), word(36)) else {
        return Err(path_error(what, path, "not an EROFS image"));
    };
    let needed = u64::from(blocks)
        .checked_shl(shift & 0xff)
        .unwrap_or(u64::MAX);
    let size = file.metadata().map_or(0, |data| data.len());
    if size < needed {
        let problem = format!("truncated: it has {size} bytes of {needed}; make it anew");
        return Err(path_error(what, path, problem));
    }
    Ok(file)
}

fn open_log(path: &Path) -> Result<File> {
    let what = "console log";
    // Neither a link nor a FIFO in its place may decide what is written or hold us up.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map(File::from)
        .map_err(|errno| path_error(what, path, io::Error::from(errno).to_string()))?;
    match file.metadata() {
        Ok(data) if data.is_file() || path == Path::new("/dev/null") => Ok(file),
        _ => Err(path_error(what, path, "not a regular file")),
    }
}

/// Where nothing can be shared: the kernel's own file systems are there.
const THE_GUESTS: [&str; 3] = ["/proc", "/sys", "/dev"];

fn guest_path(mount: &Mount) -> Result<PathBuf> {
    let guest = match &mount.guest {
        Some(path) => path.clone(),
        None => std::fs::canonicalize(&mount.host)
            .map_err(|error| path_error("workspace", &mount.host, error.to_string()))?,
    };
    let plain = guest.components().all(|part| {
        matches!(
            part,
            std::path::Component::RootDir | std::path::Component::Normal(_)
        )
    });
    if !guest.is_absolute() || !plain || guest == Path::new("/") {
        let problem = "its place in the guest must be an absolute path without `..`, and not `/`";
        return Err(path_error("workspace", &guest, problem));
    }
    if let Some(taken) = THE_GUESTS.iter().find(|taken| guest.starts_with(taken)) {
        let problem = format!("{taken} is the guest system's own: choose another place for it");
        return Err(path_error("workspace", &guest, problem));
    }
    Ok(guest)
}

/// Opens the directory and takes its lock, so that two sandboxes cannot write one workspace. The
/// lock lives as long as the worker holds the descriptor. It is the directory's own: a sandbox that
/// shares a directory inside or above this one is not noticed, so whoever starts both must not nest them.
fn open_workspace(mount: &Mount) -> Result<OwnedFd> {
    let path = &mount.host;
    let error = |problem: String| path_error("workspace", path, problem);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| error(io::Error::from(errno).to_string()))?;
    let here = std::fs::canonicalize(path).map_err(|e| error(e.to_string()))?;
    if here == Path::new("/") {
        return Err(error(
            "the whole file system cannot be shared: choose a directory in it".into(),
        ));
    }
    let lock = if mount.mode == ShareMode::Direct {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    rustix::fs::flock(&directory, lock).map_err(|errno| match errno {
        rustix::io::Errno::WOULDBLOCK => Error::Busy { path: path.clone() },
        errno => error(io::Error::from(errno).to_string()),
    })?;
    Ok(directory)
}

#[cfg(test)]
mod tests;
