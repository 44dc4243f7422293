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
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

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

/// Mounts the share `tag` on `path`, making what is missing of it, but not in another share: that is the host's own directory.
pub(super) fn share(tag: &str, path: &Path, read_only: bool) -> Result<(), Errno> {
    if !path.is_absolute() {
        return Err(Errno::INVAL);
    }
    make_mount_point(path, is_in_share)?;
    let flags = if read_only {
        NO_DEVICES | MountFlags::RDONLY
    } else {
        NO_DEVICES
    };
    mount(tag, path, "virtiofs", flags, None)
}

/// What `statfs` says of every file system of the FUSE family, and so of a share.
const FUSE_SUPER_MAGIC: u32 = 0x6573_5546;

fn is_in_share(directory: &Path) -> Result<bool, Errno> {
    let kind = rustix::fs::statfs(directory)?.f_type;
    Ok(u32::try_from(kind) == Ok(FUSE_SUPER_MAGIC))
}

/// Makes `path` and its missing parents; `ENOENT` if the first that is missing belongs into a share.
///
/// Asks the file system and not the path, which may lead into a share by a symbolic link.
fn make_mount_point(
    path: &Path,
    is_in_share: impl Fn(&Path) -> Result<bool, Errno> + Copy,
) -> Result<(), Errno> {
    match rustix::fs::stat(path) {
        Err(Errno::NOENT) => {}
        found => return found.map(drop),
    }
    let parent = path.parent().ok_or(Errno::NOENT)?;
    make_mount_point(parent, is_in_share)?;
    if is_in_share(parent)? {
        return Err(Errno::NOENT);
    }
    match rustix::fs::mkdir(path, 0o755.into()) {
        // A path that ends in `..` is there as soon as its parent is.
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn mount_points_are_made_outside_of_shares_only() {
        let place = std::env::temp_dir().join(format!("cofferdam-mounts-{}", std::process::id()));
        let share = place.join("share");
        fs::create_dir_all(share.join("there")).unwrap();
        symlink(&share, place.join("link")).unwrap();
        let is_in_share = |path: &Path| Ok(fs::canonicalize(path).unwrap().starts_with(&share));
        for (path, expected) in [
            ("new/deep/point", Ok(())),
            ("share", Ok(())),
            ("share/there", Ok(())),
            ("share/missing", Err(Errno::NOENT)),
            ("share/missing/deep", Err(Errno::NOENT)),
            ("link/missing", Err(Errno::NOENT)),
            ("other/../share/missing", Err(Errno::NOENT)),
        ] {
            let made = make_mount_point(&place.join(path), is_in_share);
            assert_eq!(made, expected, "{path}");
        }
        assert!(place.join("new/deep/point").is_dir());
        assert_eq!(
            fs::read_dir(&share).unwrap().count(),
            1,
            "nothing is made in the share"
        );
        fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn what_is_no_share_is_not_taken_for_one() {
        for path in ["/proc", "/dev", "/sys"] {
            assert_eq!(is_in_share(Path::new(path)), Ok(false), "{path}");
        }
    }
}
