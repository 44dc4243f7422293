//! What this machine is: where the workspace lies, which tools are there, whether its KVM can boot Linux.
//!
//! Only Debian 12 is known. As root a missing tool is installed; otherwise the command to run is printed.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use xshell::{Shell, cmd};

use crate::progress::stage;

/// The folder of the workspace's root Cargo.toml.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The folder below which everything that xtask makes is put.
pub(crate) fn target() -> PathBuf {
    workspace().join("target")
}

/// Something that a stage needs on this machine, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// The name of a program, or the absolute path of a file.
    what: &'static str,
    package: &'static str,
}

impl Need {
    /// A program or a file, and its package.
    pub(crate) const fn new(what: &'static str, package: &'static str) -> Self {
        Self { what, package }
    }

    fn is_met(&self) -> bool {
        // Joining an absolute path gives that path, so files need no case of their own.
        search_path().iter().any(|dir| dir.join(self.what).exists())
    }
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // A user's PATH often lacks the administrator's folders, where mke2fs and its like are.
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .collect()
}

/// Makes sure that all `needs` are met, by installing packages if this process may.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<_> = needs
        .iter()
        .filter(|need| !need.is_met())
        .map(|need| need.package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        bail!(
            "needed packages are missing; run: apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    stage(&format!("apt-get install {}", missing.join(" ")), || {
        install(&missing)
    })
}

fn install(packages: &[&str]) -> Result<()> {
    let shell = Shell::new()?;
    shell.set_var("DEBIAN_FRONTEND", "noninteractive");
    update_package_lists(&shell, packages)?;
    cmd!(
        shell,
        "apt-get install -y -qq --no-install-recommends {packages...}"
    )
    .quiet()
    .ignore_stdout()
    .run()?;
    Ok(())
}

/// Fetches apt's lists if one of `packages` is not in them: a fresh machine has none.
pub(crate) fn update_package_lists(shell: &Shell, packages: &[&str]) -> Result<()> {
    let known = |package: &&str| {
        cmd!(shell, "apt-cache show --no-all-versions {package}")
            .quiet()
            .ignore_stdout()
            .ignore_stderr()
            .run()
            .is_ok()
    };
    if !packages.iter().all(known) {
        cmd!(shell, "apt-get update -qq").quiet().run()?;
    }
    Ok(())
}

/// Whether this process may install packages and make device nodes.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What the KVM of this machine is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kvm {
    /// It runs an unmodified Linux kernel at the processor's speed.
    Native,
    /// It does not; the text says why.
    Unfit(String),
}

impl Kvm {
    /// Looks at this machine.
    pub(crate) fn probe() -> Self {
        let device = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        match device {
            Err(error) => Self::Unfit(format!("/dev/kvm cannot be opened ({error})")),
            Ok(_) => Self::judge(&cpuinfo, |module| {
                Path::new("/sys/module").join(module).exists()
            }),
        }
    }

    fn judge(cpuinfo: &str, module_is_loaded: impl Fn(&str) -> bool) -> Self {
        let flags = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags"))
            .unwrap_or_default();
        let has = |flag: &str| flags.split_whitespace().any(|found| found == flag);
        let vendor = [("svm", "kvm_amd"), ("vmx", "kvm_intel")];
        if vendor
            .iter()
            .any(|(flag, module)| has(flag) && module_is_loaded(module))
        {
            Self::Native
        } else {
            Self::Unfit(
                "/dev/kvm is there, but the processor offers neither SVM nor VMX to it".into(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_native_only_with_the_flag_and_its_module() {
        let table = [
            ("flags\t\t: fpu svm sse", "kvm_amd", true),
            ("flags\t\t: fpu vmx sse", "kvm_intel", true),
            ("flags\t\t: fpu svm sse", "kvm_intel", false),
            ("flags\t\t: fpu svm_lock sse", "kvm_amd", false),
            ("flags\t\t: fpu sse", "kvm_amd", false),
            ("", "kvm_amd", false),
        ];
        for (cpuinfo, module, native) in table {
            let found = Kvm::judge(cpuinfo, |asked| asked == module);
            assert_eq!(found == Kvm::Native, native, "{cpuinfo} {module}");
        }
    }

    #[test]
    fn need_is_met_by_programs_and_files() {
        assert!(Need::new("sh", "dash").is_met());
        assert!(Need::new("/proc/self/exe", "none").is_met());
        assert!(!Need::new("no-such-program-anywhere", "none").is_met());
    }

    #[test]
    fn workspace_holds_the_root_manifest() {
        let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }
}
