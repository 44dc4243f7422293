//! The host's directories, mounted where they belong.
//!
//! Of a device that has one share, the root is mounted. One that has several is mounted aside first: each entry of its root is a file
//! system of its own then, which the kernel mounts there when it is first walked into, and which is bound to its place from there. After that nobody finds
//! the root any more.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount};

use super::mounts::NO_DEVICES;
use crate::protocol::Mount;

/// Mounts all of them in this order. What is given back is to be kept for as long as the machine runs; of a failure, which share it was.
pub(super) fn mount_all(wanted: &[Mount]) -> Result<Vec<OwnedFd>, (String, Errno)> {
    let mut devices = Vec::new();
    for share in wanted {
        place(share, &mut devices).map_err(|errno| (name(share), errno))?;
    }
    let hide = |device: Device| {
        let tag = device.tag.clone();
        device.hide().map_err(|errno| (tag, errno))
    };
    devices.into_iter().map(hide).collect()
}

fn name(share: &Mount) -> String {
    match share.entry {
        Some(entry) => format!("{}/{entry}", share.tag),
        None => share.tag.clone(),
    }
}

fn place(share: &Mount, devices: &mut Vec<Device>) -> Result<(), Errno> {
    let path = Path::new(OsStr::from_bytes(&share.path.0));
    if !path.is_absolute() {
        return Err(Errno::INVAL);
    }
    make_mount_point(path, is_in_share)?;
    let flags = if share.read_only {
        NO_DEVICES | MountFlags::RDONLY
    } else {
        NO_DEVICES
    };
    let Some(entry) = share.entry else {
        return mount(&*share.tag, path, "virtiofs", flags, None);
    };
    if !devices.iter().any(|device| device.tag == share.tag) {
        devices.push(Device::mount(&share.tag, devices.len())?);
    }
    let device = devices.iter().find(|device| device.tag == share.tag);
    let device = device.ok_or(Errno::NODEV)?;
    mount_bind(device.aside.join(entry.to_string()), path)?;
    if share.read_only {
        mount_remount(path, flags | MountFlags::BIND, c"")?;
    }
    Ok(())
}

/// A device with several shares.
struct Device {
    tag: String,
    /// Where its root is mounted.
    aside: PathBuf,
    root: OwnedFd,
}

impl Device {
    /// In `/dev`: no share is ever mounted there, which could cover it, or be where its mount point is made.
    fn mount(tag: &str, number: usize) -> Result<Self, Errno> {
        let aside = PathBuf::from(format!("/dev/.shares{number}"));
        rustix::fs::mkdir(&aside, Mode::RWXU)?;
        mount(tag, &aside, "virtiofs", NO_DEVICES, None)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            tag: tag.to_owned(),
            root: rustix::fs::open(&aside, flags, Mode::empty())?,
            aside,
        })
    }

    /// Takes the root out of sight. It has to stay: with its super block the kernel would end the writing back of all that its entries hold
    /// (`SB_I_PERSB_BDI`; seen in Linux 6.12).
    fn hide(self) -> Result<OwnedFd, Errno> {
        unmount(&self.aside, UnmountFlags::DETACH)?;
        rustix::fs::rmdir(&self.aside)?;
        Ok(self.root)
    }
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
    use std::os::unix::fs::symlink;

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
