use super::*;
use crate::config::GuestFiles;
use std::fs;

fn erofs(blocks: u32, size: usize) -> Vec<u8> {
    let mut image = vec![0; size.max(2048)];
    image[1024..1028].copy_from_slice(&0xE0F5_E1E2_u32.to_le_bytes());
    image[1024 + 12] = 12;
    image[1024 + 36..1024 + 40].copy_from_slice(&blocks.to_le_bytes());
    image.truncate(size);
    image
}

/// Settings whose files exist, in a folder of their own.
fn good() -> (tempfile::TempDir, SandboxBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("kernel"), "kernel").unwrap();
    fs::write(path("initrd"), "initrd").unwrap();
    fs::write(path("root"), erofs(2, 8192)).unwrap();
    fs::create_dir(path("work")).unwrap();
    let files = GuestFiles {
        kernel: path("kernel"),
        initrd: path("initrd"),
        root: Some(path("root")),
    };
    let config = SandboxBuilder::new(files)
        .slow_hypervisor(true)
        .workspace(path("work"));
    (folder, config)
}

fn message(config: &SandboxBuilder) -> String {
    match prepare(config) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn sizes_outside_the_range_are_refused_with_the_range() {
    let (_folder, config) = good();
    let cases = [
        (config.clone().vcpus(0), "0 processors: choose 1 to 64"),
        (
            config.clone().vcpus(1000),
            "1000 processors: choose 1 to 64",
        ),
        (
            config.clone().memory_mib(0),
            "0 MiB of memory: a guest needs at least 64",
        ),
        (
            config.clone().memory_mib(1),
            "1 MiB of memory: a guest needs at least 64",
        ),
        (
            config.clone().memory_mib(1 << 40),
            "MiB of memory: this host has",
        ),
    ];
    for (config, expected) in cases {
        let message = message(&config);
        assert!(message.contains(expected), "{message}");
    }
}

type Open = fn(&Path) -> Result<File>;

#[test]
fn unusable_files_are_named_with_the_problem() {
    let (folder, _) = good();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty"), "").unwrap();
    fs::write(path("short"), erofs(3, 8192)).unwrap();
    fs::write(path("tiny"), erofs(1, 1050)).unwrap();
    let kernel: Open = |path| open_file("kernel", path);
    let root: Open = open_root;
    let cases = [
        (kernel, "absent", "No such file"),
        (kernel, "empty", "the file is empty"),
        (kernel, "work", "not a file"),
        (root, "absent", "No such file"),
        (root, "kernel", "not an EROFS image"),
        (root, "tiny", "not an EROFS image"),
        (root, "short", "truncated: it has 8192 bytes of 12288"),
    ];
    for (open, name, problem) in cases {
        let message = open(&path(name)).unwrap_err().to_string();
        let named = message.contains(path(name).to_str().unwrap());
        assert!(named && message.contains(problem), "{message}");
    }
    kernel(&path("kernel")).unwrap();
    open_root(&path("root")).unwrap();
}

#[test]
fn a_file_in_a_writable_workspace_is_refused() {
    let (folder, config) = good();
    let inside = folder.path().join("work/kernel");
    let message = message(&config.kernel(inside));
    assert!(message.contains("the guest can write"), "{message}");
}

#[test]
fn unusable_workspaces_are_refused() {
    let (folder, _) = good();
    let mount = |host: PathBuf| Mount {
        host,
        guest: None,
        mode: ShareMode::Direct,
    };
    for (host, problem) in [
        (folder.path().join("absent"), "No such file"),
        (folder.path().join("kernel"), "Not a directory"),
        (PathBuf::from("/"), "cannot be shared"),
    ] {
        let message = open_workspace(&mount(host)).unwrap_err().to_string();
        assert!(message.contains(problem), "{message}");
    }
    for guest in ["/", "relative", "/a/../b"] {
        let mount = Mount {
            guest: Some(guest.into()),
            ..mount(folder.path().join("work"))
        };
        assert!(guest_path(&mount).is_err(), "{guest}");
    }
}

#[test]
fn a_workspace_has_one_writer_or_several_that_know_of_each_other() {
    use ShareMode::{Direct, ReadOnly, Together};
    let (folder, _) = good();
    let open = |mode: &ShareMode| {
        open_workspace(&Mount {
            host: folder.path().join("work"),
            guest: None,
            mode: mode.clone(),
        })
    };
    for (first, second, goes) in [
        (Direct, Direct, false),
        (Direct, ReadOnly, false),
        (Direct, Together, false),
        (ReadOnly, ReadOnly, true),
        (Together, Together, true),
        (Together, ReadOnly, true),
        (Together, Direct, false),
        (ReadOnly, Direct, false),
    ] {
        let held = open(&first).unwrap();
        match open(&second) {
            Ok(_) => assert!(goes, "{second:?} beside {first:?}"),
            Err(error) => assert!(!goes && matches!(error, Error::Busy { .. }), "{error}"),
        }
        drop(held);
    }
}

#[test]
fn the_command_line_is_one_line() {
    let (_folder, config) = good();
    assert!(
        command_line(&config)
            .unwrap()
            .starts_with("console=hvc0 quiet")
    );
    assert!(command_line(&config.clone().kernel_arg("a\nb")).is_err());
    let room = COMMAND_LINE_MAX - command_line(&config).unwrap().len() - 1;
    let with = |length| command_line(&config.clone().kernel_arg("x".repeat(length)));
    assert_eq!(with(room).unwrap().len(), COMMAND_LINE_MAX);
    assert!(with(room + 1).is_err());
}

#[test]
fn a_console_log_is_a_regular_file_and_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("target"), "old").unwrap();
    std::os::unix::fs::symlink(path("target"), path("link")).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        Mode::RWXU,
        0,
    );
    fifo.unwrap();
    for bad in ["link", "fifo"] {
        assert!(open_log(&path(bad)).is_err(), "{bad}");
    }
    open_log(&path("new")).unwrap();
    open_log(&path("target")).unwrap();
    assert_eq!(fs::read_to_string(path("target")).unwrap(), "old");
}

#[test]
fn each_share_has_a_place_of_its_own_in_the_guest() {
    let (folder, config) = good();
    let share = |name: &str, guest: &str| {
        let host = folder.path().join(name);
        fs::create_dir_all(&host).unwrap();
        Mount {
            host,
            guest: Some(guest.into()),
            mode: ShareMode::ReadOnly,
        }
    };
    for (guest, problem) in [
        ("/proc", "/proc is the guest system's own"),
        ("/dev/shm", "/dev is the guest system's own"),
        ("/", "must be an absolute path"),
        ("relative", "must be an absolute path"),
        ("/a/../b", "must be an absolute path"),
    ] {
        let told = message(&config.clone().mount(share("data", guest)));
        assert!(told.contains(problem), "{guest}: {told}");
    }
    let twice = config.clone().mount(share("data", "/data"));
    let told = message(&twice.mount(share("more", "/data")));
    assert!(told.contains("cannot have the same place"), "{told}");
    let nested = config.mount(share("inner", "/data/in/ner"));
    let prepared = prepare(&nested.mount(share("data", "/data"))).unwrap();
    let place_of = |path: &str| {
        let mut mounts = prepared.mounts.iter();
        mounts.position(|mount| mount.path == Path::new(path))
    };
    let (outer, inner) = (place_of("/data"), place_of("/data/in/ner"));
    assert!(outer.is_some() && outer < inner, "{:?}", prepared.mounts);
    // In whatever order they are mounted: the workspace is on its own device, the others are entries of another.
    let told = prepared.guest_mounts();
    let told = |path: &str| {
        let place = protocol::Octets::from(path);
        let mount = told.iter().find(|mount| mount.path == place).unwrap();
        (mount.tag.as_str(), mount.entry, mount.read_only)
    };
    let work = folder.path().canonicalize().unwrap().join("work");
    assert_eq!(told(work.to_str().unwrap()), ("workspace", None, false));
    assert_eq!(told("/data/in/ner"), ("shares", Some(1), true));
    assert_eq!(told("/data"), ("shares", Some(2), true));
}
