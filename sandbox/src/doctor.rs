//! What a sandbox needs of this host, checked one by one, each with its remedy.

use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::config::{DEFAULT_MEMORY_MIB, GuestFiles};
use crate::{host, platform, worker};

/// The answer of one check.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// A sandbox starts, with a limit.
    Warning,
    /// A sandbox does not start.
    Failed,
}

/// One thing that a sandbox needs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// The answer.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, when something is to be done.
    pub remedy: Option<&'static str>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            verdict: Verdict::Warning,
            ..Self::failed(name, found, remedy)
        }
    }

    fn failed(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            name,
            verdict: Verdict::Failed,
            found: found.into(),
            remedy: Some(remedy),
        }
    }
}

/// Checks this host and the guest's `files`.
#[must_use]
pub fn doctor(files: &GuestFiles) -> Vec<Check> {
    vec![
        hypervisor(),
        unmodified_kernels(),
        memory(host::available_memory()),
        worker_confinement(worker::probe()),
        share_confinement(),
        file("kernel file", Some(&files.kernel)),
        kernel_share(&files.kernel),
        file("initial RAM file system", Some(&files.initrd)),
        file("root image", files.root.as_deref()),
    ]
}

fn hypervisor() -> Check {
    let name = "hypervisor";
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open("/dev/kvm", flags, Mode::empty()) {
        Ok(_) => Check::ok(name, "/dev/kvm can be opened"),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Check::failed(
            name,
            "/dev/kvm is there, but this user may not open it",
            "add the user to the group that owns /dev/kvm (usually `kvm`) and log in anew",
        ),
        Err(errno) => Check::failed(
            name,
            format!("/dev/kvm cannot be opened: {}", io::Error::from(errno)),
            "enable virtualization in the firmware (nested virtualization if this is a VM) and load kvm_intel or kvm_amd",
        ),
    }
}

fn unmodified_kernels() -> Check {
    let name = "unmodified kernels";
    if platform::runs_unmodified_kernels() {
        Check::ok(name, "the processor has SVM or VMX")
    } else {
        Check::failed(
            name,
            "the processor shows neither SVM nor VMX; a KVM without them only interprets a kernel, far too slowly",
            "use a host with hardware virtualization; developers: `cargo xtask nested` emulates one",
        )
    }
}

fn memory(available: Option<u64>) -> Check {
    let name = "memory";
    let Some(bytes) = available else {
        let remedy = "mount /proc: sandboxes are not held to what there is without it";
        return Check::warning(name, "this host does not tell what is available", remedy);
    };
    let found = format!("{} MiB available", bytes >> 20);
    if bytes >> 20 >= 2 * DEFAULT_MEMORY_MIB {
        Check::ok(name, found)
    } else {
        Check::warning(name, found, "give guests less with --memory")
    }
}

/// The worker gives up the network and all privilege, for which a plain user needs a user namespace.
fn worker_confinement(probed: io::Result<()>) -> Check {
    let name = "worker confinement";
    match probed {
        Ok(()) => Check::ok(name, "a worker can give up the network and all privilege"),
        Err(error) => Check::failed(
            name,
            format!("a worker cannot give up the network and all privilege: {error}"),
            "permit user namespaces: the sysctl user.max_user_namespaces above 0, and where they exist \
             kernel.unprivileged_userns_clone=1 and kernel.apparmor_restrict_unprivileged_userns=0; in a \
             container, a seccomp profile with unshare and close_range",
        ),
    }
}

/// The share is confined by `openat2`, which a kernel before 5.6 or a seccomp filter may lack.
fn share_confinement() -> Check {
    let name = "share confinement";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = rustix::fs::ResolveFlags::BENEATH;
    let here = rustix::fs::open("/", flags, Mode::empty());
    match here.and_then(|root| rustix::fs::openat2(&root, ".", flags, Mode::empty(), resolve)) {
        Ok(_) => Check::ok(name, "openat2 confines lookups"),
        Err(errno) => Check::failed(
            name,
            format!("openat2 is refused: {}", io::Error::from(errno)),
            "use a Linux kernel of 5.6 or later, outside a container that filters openat2",
        ),
    }
}

fn file(name: &'static str, path: Option<&Path>) -> Check {
    const REMEDY: &str = "`cargo xtask guest` makes it; or name one with an option";
    let Some(path) = path else {
        return Check::failed(name, "none is set", REMEDY);
    };
    match std::fs::metadata(path) {
        Ok(data) if data.is_file() => Check::ok(
            name,
            format!("{} ({} KiB)", path.display(), data.len() >> 10),
        ),
        Ok(_) => Check::failed(name, format!("{} is not a file", path.display()), REMEDY),
        Err(error) => Check::failed(name, format!("{}: {error}", path.display()), REMEDY),
    }
}

/// A kernel with the virtio file system built in holds the driver's name. A kernel with modules
/// does not, and may load it from its initial RAM file system.
fn kernel_share(path: &Path) -> Check {
    let name = "kernel can mount a share";
    let driver = b"virtiofs";
    match std::fs::read(path) {
        Ok(bytes) if bytes.windows(driver.len()).any(|window| window == driver) => {
            Check::ok(name, "virtiofs is built in")
        }
        Ok(_) => Check::warning(
            name,
            "virtiofs is not built in (a compressed kernel cannot be looked into)",
            "use a kernel with it, or put its module into the initial RAM file system",
        ),
        Err(error) => Check::failed(
            name,
            format!("{} cannot be read: {error}", path.display()),
            "name a kernel file that this user may read",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_a_remedy() {
        let absent = Path::new("/nonexistent");
        let files = GuestFiles {
            kernel: absent.into(),
            initrd: absent.into(),
            root: None,
        };
        let checks = doctor(&files);
        let of = |name| checks.iter().find(|check| check.name == name).unwrap();
        for name in ["kernel file", "initial RAM file system", "root image"] {
            assert_eq!(of(name).verdict, Verdict::Failed);
        }
        assert_eq!(
            of("worker confinement").verdict == Verdict::Ok,
            worker::probe().is_ok()
        );
        for check in &checks {
            assert_eq!(
                check.remedy.is_none(),
                check.verdict == Verdict::Ok,
                "{check:?}"
            );
        }
    }

    #[test]
    fn a_kernel_is_searched_for_the_driver() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        std::fs::write(&path, b"...virtiofs...").unwrap();
        assert_eq!(kernel_share(&path).verdict, Verdict::Ok);
        std::fs::write(&path, b"virtio fs").unwrap();
        assert_eq!(kernel_share(&path).verdict, Verdict::Warning);
        for unreadable in [folder.path(), &folder.path().join("absent")] {
            let check = kernel_share(unreadable);
            let told = check.found.contains("cannot be read") && !check.found.contains("built in");
            assert!(told && check.verdict == Verdict::Failed, "{check:?}");
        }
    }

    #[test]
    fn memory_is_what_is_available() {
        let need = (2 * DEFAULT_MEMORY_MIB) << 20;
        for (available, expected) in [
            (Some(need), Verdict::Ok),
            (Some(need - 1), Verdict::Warning),
            (None, Verdict::Warning),
        ] {
            assert_eq!(memory(available).verdict, expected, "{available:?}");
        }
    }

    #[test]
    fn a_worker_that_cannot_be_confined_is_told() {
        let refused = worker_confinement(Err(io::ErrorKind::PermissionDenied.into()));
        assert_eq!(refused.verdict, Verdict::Failed);
        assert!(refused.found.contains("permission denied"), "{refused:?}");
        assert_eq!(worker_confinement(Ok(())).verdict, Verdict::Ok);
    }
}
