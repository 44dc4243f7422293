//! The server of a share, driven by requests of any kind, on a real directory. Nothing beside the share may change.
#![no_main]

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Once;

use cofferdam_fuzz::{
    Input,
    fuse::{self, Known},
};
use fsshare::{Config, LockPolicy, Quota, Rules, Server};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// At the first input and not before: libFuzzer sets its own handlers after any initialisation of a target.
static CAP: Once = Once::new();

const SECRET: &str = "not the guest's";

const SOME_CONTENT: &[u8] = b"some content";

fuzz_target!(|bytes: &[u8]| {
    CAP.call_once(cofferdam_fuzz::sys::cap_files);
    let mut input = Input::new(bytes);
    let folder = new_place();
    let place = folder.path();
    let share = lay_out(place);
    let bits = input.u8();
    let mut config = Config::new(File::open(&share).expect("the share").into());
    config.read_only = bits & 1 != 0;
    config.locks = if bits & 2 == 0 {
        LockPolicy::Guest
    } else {
        LockPolicy::Host
    };
    config.cache.writeback = bits & 4 != 0;
    let protects = bits & 16 != 0;
    if protects {
        config.rules = rules();
    }
    if bits & 32 != 0 {
        // Nodes are let go of and found again.
        config.limits.max_held = 4;
    }
    if bits & 64 != 0 {
        config.quota = Quota {
            bytes: Some(10_000),
            inodes: Some(4),
        };
    }
    let read_only = config.read_only;
    let server = Server::new(config).expect("a server");
    let mut known = Known::default();
    if bits & 8 == 0 {
        ask(&server, &fuse::init(input.u64()), 1, &mut known);
    }
    for unique in 2..64 {
        if input.is_empty() {
            break;
        }
        let request = fuse::request(&mut input, &known, unique);
        ask(&server, &request, unique, &mut known);
    }
    drop(server);
    check(place, read_only);
    if protects {
        let content = fs::read(share.join("file")).expect("the protected file");
        assert_eq!(content, SOME_CONTENT, "it was changed");
    }
});

fn rules() -> Rules {
    let mut rules = Rules::usual();
    rules.protect("/file").expect("a pattern");
    rules.hide("dir/new*").expect("a pattern");
    rules
}

fn ask(server: &Server, mut request: &[u8], unique: u64, known: &mut Known) {
    let mut reply = Vec::with_capacity(1 << 14);
    if let Ok(len) = server.handle(&mut request, &mut reply) {
        assert_eq!(len, reply.len());
        known.learn(unique, &reply);
    }
}

fn new_place() -> TempDir {
    let dir = ["/dev/shm", "/tmp"]
        .into_iter()
        .find(|dir| Path::new(dir).is_dir());
    TempDir::new_in(dir.expect("a place for files")).expect("a new folder")
}

/// A share as every input finds it, and a secret beside it.
fn lay_out(place: &Path) -> PathBuf {
    let share = place.join("share");
    fs::write(place.join("secret"), SECRET).expect("a file");
    fs::create_dir_all(share.join("dir")).expect("a folder");
    fs::write(share.join("file"), SOME_CONTENT).expect("a file");
    symlink("../secret", share.join("link")).expect("a link");
    symlink(place, share.join("outside")).expect("a link");
    share
}

fn check(place: &Path, read_only: bool) {
    let mut names: Vec<_> = fs::read_dir(place)
        .expect("the folder")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["secret", "share"],
        "something was made, removed or renamed beside the share"
    );
    assert_eq!(
        fs::read_to_string(place.join("secret")).expect("the secret"),
        SECRET
    );
    if read_only {
        let share = place.join("share");
        assert_eq!(
            fs::read_dir(&share).expect("the share").count(),
            4,
            "a read-only share changed"
        );
        assert_eq!(
            fs::read_to_string(share.join("file")).expect("the file"),
            "some content"
        );
    }
}
