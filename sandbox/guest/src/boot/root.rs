//! From the initrd to the root file system: the read-only image with a writable layer over it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};

use super::mounts::make_directory;
use super::{BootError, Context};

const IMAGE: &str = "/image";
const WRITABLE: &str = "/writable";
const ROOT: &str = "/root-fs";

/// How long a driver that was loaded as a module may take to find the disk. Built-in drivers have found it before we run.
const PROBE_LIMIT: Duration = Duration::from_secs(5);
const PROBE_STEP: Duration = Duration::from_millis(2);

/// Mounts the image on `device` with a writable layer in memory over it and makes that the root directory.
pub(super) fn switch_to(device: &str, modules: bool) -> Result<(), BootError> {
    wait_for(device, if modules { PROBE_LIMIT } else { Duration::ZERO })?;
    [IMAGE, WRITABLE, ROOT]
        .iter()
        .try_for_each(make_directory)?;
    mount(
        device,
        IMAGE,
        "erofs",
        MountFlags::RDONLY | MountFlags::NODEV,
        None,
    )
    .context(|| format!("cannot mount the root image of {device}"))?;
    mount(
        "tmpfs",
        WRITABLE,
        "tmpfs",
        MountFlags::empty(),
        Some(c"mode=755"),
    )
    .context(|| "cannot mount the writable layer".into())?;
    ["upper", "work"]
        .iter()
        .try_for_each(|part| make_directory(Path::new(WRITABLE).join(part)))?;
    let layers = c"lowerdir=/image,upperdir=/writable/upper,workdir=/writable/work";
    mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::empty(),
        Some(layers),
    )
    .context(|| "cannot lay the layers over each other".into())?;
    enter()
}

/// Makes [`ROOT`] the root directory, and the initrd empty.
fn enter() -> Result<(), BootError> {
    for point in ["proc", "dev"] {
        let target = Path::new(ROOT).join(point);
        make_directory(&target)?;
        mount_move(Path::new("/").join(point), &target)
            .context(|| format!("cannot move /{point}"))?;
    }
    // The overlay holds on to its layers; nobody needs a path to them.
    for layer in [IMAGE, WRITABLE] {
        unmount(layer, UnmountFlags::DETACH).context(|| format!("cannot detach {layer}"))?;
    }
    empty_initrd();
    rustix::process::chdir(ROOT).context(|| "cannot enter the root file system".into())?;
    mount_move(".", "/").context(|| "cannot move the root file system".into())?;
    rustix::process::chroot(".").context(|| "cannot change the root".into())?;
    rustix::process::chdir("/").context(|| "cannot enter the root".into())
}

fn wait_for(device: &str, limit: Duration) -> Result<(), BootError> {
    let deadline = Instant::now() + limit;
    loop {
        match fs::metadata(device) {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context(|| format!("there is no root disk {device}: attach one, or boot with cofferdam.root=none"));
            }
            Err(_) => sleep(PROBE_STEP),
        }
    }
}

/// Gives the initrd's memory back. Nothing depends on it: what cannot be removed stays.
fn empty_initrd() {
    if let Ok(root) = fs::metadata("/") {
        remove_inside(Path::new("/"), root.dev());
    }
}

/// Removes what is in `directory`, never leaving the file system `device`.
fn remove_inside(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        match path.symlink_metadata() {
            Ok(found) if found.dev() != device => {}
            Ok(found) if found.is_dir() => {
                remove_inside(&path, device);
                let _ = fs::remove_dir(&path);
            }
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
}
