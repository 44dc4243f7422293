//! The server on this host's /dev/fuse, used by this host's own programs.
//!
//! Mounting takes root and a /dev/fuse; where they are not to be had the tests say `SKIP` with the reason.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::Command;

use fsshare::mount::{Access, Mount};
use fsshare::{Config, Rules, Server};
use tempfile::TempDir;

struct Mounted {
    mount: Option<Mount>,
    host: PathBuf,
    seen: PathBuf,
    _place: TempDir,
}

/// A share that is mounted, or nothing where that is not possible.
fn mounted(test: &str, configure: impl FnOnce(&mut Config)) -> Option<Mounted> {
    let place = TempDir::new().unwrap();
    let (host, seen) = (place.path().join("host"), place.path().join("seen"));
    fs::create_dir(&host).unwrap();
    fs::create_dir(&seen).unwrap();
    let mut config = Config::new(File::open(&host).unwrap().into());
    configure(&mut config);
    match Mount::new(Server::new(config).unwrap(), &seen, 2, Access::All) {
        Ok(mount) => Some(Mounted {
            mount: Some(mount),
            host,
            seen,
            _place: place,
        }),
        Err(error) => {
            // Past the capture of the test harness, so that it is counted.
            let line = format!("SKIP {test}: a share cannot be mounted here: {error}\n");
            drop(io::stderr().write_all(line.as_bytes()));
            None
        }
    }
}

#[test]
fn files_are_the_hosts_own() {
    let Some(share) = mounted("files_are_the_hosts_own", |_| ()) else {
        return;
    };
    let (host, seen) = (&share.host, &share.seen);
    let content: Vec<u8> = (0..3 << 20).map(|at: u32| at.to_le_bytes()[0]).collect();
    fs::write(seen.join("file"), &content).unwrap();
    assert_eq!(fs::read(host.join("file")).unwrap(), content);
    fs::create_dir(seen.join("folder")).unwrap();
    fs::rename(seen.join("file"), seen.join("folder/moved")).unwrap();
    fs::hard_link(seen.join("folder/moved"), seen.join("second")).unwrap();
    symlink("folder/moved", seen.join("link")).unwrap();
    assert_eq!(fs::read(seen.join("link")).unwrap(), content);
    assert_eq!(fs::metadata(host.join("second")).unwrap().nlink(), 2);
    fs::set_permissions(seen.join("second"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        fs::metadata(host.join("second")).unwrap().mode() & 0o777,
        0o640
    );
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(seen.join("second"))
        .unwrap();
    file.set_len(5).unwrap();
    file.seek(SeekFrom::Start(3)).unwrap();
    file.write_all(b"xyz").unwrap();
    file.sync_all().unwrap();
    assert_eq!(
        fs::read(host.join("folder/moved")).unwrap(),
        b"\0\x01\x02xyz"
    );
    let mut names: Vec<_> = fs::read_dir(seen)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["folder", "link", "second"]);
    fs::remove_dir_all(seen.join("folder")).unwrap();
    assert!(!host.join("folder").exists());
}

#[test]
fn the_end_of_the_mount_ends_the_view() {
    let Some(mut share) = mounted("the_end_of_the_mount_ends_the_view", |_| ()) else {
        return;
    };
    fs::write(share.seen.join("file"), "x").unwrap();
    drop(share.mount.take());
    assert_eq!(fs::read_dir(&share.seen).unwrap().count(), 0);
    assert!(share.host.join("file").exists());
}

/// Set where this program was started again, with few descriptors.
const FEW: &str = "COFFERDAM_FEW_DESCRIPTORS";

#[test]
fn what_cannot_be_served_does_not_stay_mounted() {
    let name = "what_cannot_be_served_does_not_stay_mounted";
    if std::env::var_os(FEW).is_some() {
        return mount_with_few_descriptors();
    }
    if mounted(name, |_| ()).is_none() {
        return;
    }
    // The limit is the whole process's, and the other tests run beside this one.
    let again = Command::new("sh")
        .args(["-c", "ulimit -n 400 && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(FEW, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    assert!(
        again.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// Mounts with no descriptor left, with one left, with two, until it works.
fn mount_with_few_descriptors() {
    let place = TempDir::new().unwrap();
    let (host, seen) = (place.path().join("host"), place.path().join("seen"));
    fs::create_dir(&host).unwrap();
    fs::create_dir(&seen).unwrap();
    // The device twice, and two queues of two threads.
    for spare in 0..=6 {
        let server = Server::new(Config::new(File::open(&host).unwrap().into())).unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        taken.truncate(taken.len() - spare);
        let mount = Mount::new(server, &seen, 2, Access::All);
        drop(taken);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_there = mounts.contains(&format!(" {} ", seen.display()));
        assert_eq!(
            (mount.is_ok(), is_there),
            (spare == 6, spare == 6),
            "{spare}"
        );
    }
}

#[test]
fn a_read_only_share_gives_erofs() {
    let Some(share) = mounted("a_read_only_share_gives_erofs", |config| {
        config.read_only = true;
    }) else {
        return;
    };
    fs::write(share.host.join("file"), "text").unwrap();
    let mut text = String::new();
    let mut file = File::open(share.seen.join("file")).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    let refused = fs::write(share.seen.join("new"), "x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn rules_hold_for_the_hosts_programs_too() {
    let Some(share) = mounted("rules_hold_for_the_hosts_programs_too", |config| {
        config.rules = Rules::usual();
    }) else {
        return;
    };
    fs::write(share.host.join(".env"), "secret").unwrap();
    fs::create_dir_all(share.host.join("a/.git/hooks")).unwrap();
    assert_eq!(
        fs::read(share.seen.join(".env")).unwrap_err().kind(),
        io::ErrorKind::NotFound
    );
    let refused = fs::write(share.seen.join("a/.git/hooks/pre-commit"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    fs::write(share.seen.join("a/.git/index"), "x").unwrap();
}
