//! Mount points, in the initrd and in the root file system.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use super::{BootError, Context};

/// One kernel file system and where it belongs.
struct KernelMount {
    kind: &'static str,
    path: &'static str,
    flags: MountFlags,
    data: Option<&'static std::ffi::CStr>,
}

const SAFE: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);
pub(super) const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// `/proc` and `/dev`: all that finding the root file system needs.
const EARLY: [KernelMount; 2] = [
    KernelMount {
        kind: "proc",
        path: "/proc",
        flags: SAFE,
        data: None,
    },
    KernelMount {
        kind: "devtmpfs",
        path: "/dev",
        flags: MountFlags::NOSUID,
        data: Some(c"mode=755"),
    },
];

const LATE: [KernelMount; 6] = [
    KernelMount {
        kind: "sysfs",
        path: "/sys",
        flags: SAFE,
        data: None,
    },
    KernelMount {
        kind: "devpts",
        path: "/dev/pts",
        flags: MountFlags::NOSUID,
        data: Some(c"gid=5,mode=620,ptmxmode=666"),
    },
    KernelMount {
        kind: "tmpfs",
        path: "/dev/shm",
        flags: NO_DEVICES,
        data: Some(c"mode=1777"),
    },
    KernelMount {
        kind: "tmpfs",
        path: "/run",
        flags: NO_DEVICES,
        data: Some(c"mode=755"),
    },
    KernelMount {
        kind: "tmpfs",
        path: "/tmp",
        flags: NO_DEVICES,
        data: Some(c"mode=1777"),
    },
    // Moving a process into a group waits for all CPUs unless `favordynmods` (Linux 6.0) says that it is done often.
    KernelMount {
        kind: "cgroup2",
        path: CGROUPS,
        flags: SAFE,
        data: Some(c"favordynmods"),
    },
];

/// The cgroup v2 hierarchy.
pub(super) const CGROUPS: &str = "/sys/fs/cgroup";

/// Names that programs expect beside the device nodes of the kernel.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("fd/0", "/dev/stdin"),
    ("fd/1", "/dev/stdout"),
    ("fd/2", "/dev/stderr"),
];

pub(super) fn early_proc() -> Result<(), BootError> {
    EARLY.iter().take(1).try_for_each(KernelMount::make)
}

pub(super) fn early_devices() -> Result<(), BootError> {
    EARLY.iter().skip(1).try_for_each(KernelMount::make)
}

/// Everything else, in the root that is in place by now.
pub(super) fn late() -> Result<(), BootError> {
    LATE.iter().try_for_each(KernelMount::make)?;
    for (target, link) in DEVICE_LINKS {
        // The kernel's device file system is fresh: nothing is there yet that could be in the way.
        symlink(target, link).context(|| format!("cannot link {link}"))?;
    }
    Ok(())
}

impl KernelMount {
    fn make(&self) -> Result<(), BootError> {
        make_directory(self.path)?;
        let attempt = mount(self.kind, self.path, self.kind, self.flags, self.data);
        // An older kernel does not know the option; without it the same works, slower.
        let result = match attempt {
            Err(Errno::INVAL) if self.kind == "cgroup2" => {
                mount(self.kind, self.path, self.kind, self.flags, None)
            }
            result => result,
        };
        result.context(|| format!("cannot mount {} on {}", self.kind, self.path))
    }
}

/// Makes a directory unless it is there; its parent must be.
pub(super) fn make_directory(path: impl AsRef<Path>) -> Result<(), BootError> {
    match rustix::fs::mkdir(path.as_ref(), 0o755.into()) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context(|| format!("cannot make {}", path.as_ref().display())),
    }
}
