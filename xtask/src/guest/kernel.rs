//! Our own kernels, built from the distribution's source package with the configurations in `assets`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use xshell::{Shell, cmd};

use crate::{
    cache::{Key, KeyBuilder, Product, remove_dir, sha256_file},
    distro,
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("gcc", "gcc"),
    Need::new("make", "make"),
    Need::new("flex", "flex"),
    Need::new("bison", "bison"),
    Need::new("bc", "bc"),
    Need::new("lz4", "lz4"),
    Need::new("strip", "binutils"),
    Need::new("xz", "xz-utils"),
    Need::new("/usr/include/libelf.h", "libelf-dev"),
    Need::new("/usr/include/openssl/ssl.h", "libssl-dev"),
];

const SOURCE_PACKAGE: &str = "linux-source-6.12";
const COMMON: &str = include_str!("../../assets/common-kernel.config");

/// Who, where and when the kernel says it was built: the same for everybody.
const BUILD_IDENTITY: &[(&str, &str)] = &[
    ("KBUILD_BUILD_USER", "cofferdam"),
    ("KBUILD_BUILD_HOST", "cofferdam"),
    ("KBUILD_BUILD_TIMESTAMP", "2026-01-01T00:00:00Z"),
];

/// Which of our kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// The sandbox guest's.
    Guest,
    /// The emulated host's.
    Host,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Self::Guest => "kernel",
            Self::Host => "host-kernel",
        }
    }

    fn fragment(self) -> String {
        let own = match self {
            Self::Guest => include_str!("../../assets/guest-kernel.config"),
            Self::Host => include_str!("../../assets/host-kernel.config"),
        };
        format!("{COMMON}\n{own}")
    }

    fn product(self) -> Product {
        Product::new(host::target().join("guest").join(self.name()))
    }

    fn key(self, version: &str) -> Key {
        KeyBuilder::new("kernel 1")
            .input(version.as_bytes())
            .input(self.fragment().as_bytes())
            .finish()
    }
}

/// `kernel.json`: what a kernel was made from.
#[derive(Debug, Serialize)]
pub(super) struct Description<'a> {
    version: &'a str,
    config_sha256: String,
    vmlinux_sha256: String,
    bzimage_sha256: String,
}

impl<'a> Description<'a> {
    /// Describes the `vmlinux` and `bzImage` in `dir`, made from a package of this version with this configuration.
    pub(super) fn of(dir: &Path, version: &'a str, config: &Path) -> Result<Self> {
        Ok(Self {
            version,
            config_sha256: sha256_file(config)?,
            vmlinux_sha256: sha256_file(&dir.join("vmlinux"))?,
            bzimage_sha256: sha256_file(&dir.join("bzImage"))?,
        })
    }

    /// Writes the description beside the kernel.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        Ok(fs::write(
            dir.join("kernel.json"),
            serde_json::to_vec_pretty(self)?,
        )?)
    }
}

/// The emulated host's kernel, if it was built before and is still what would be built.
pub(crate) fn host_kernel_if_built() -> Result<Option<PathBuf>> {
    Ok(dir_if_built(Flavour::Host).map(|dir| dir.join("vmlinux")))
}

/// The folder of a kernel that was built before and is still what would be built.
pub(crate) fn dir_if_built(flavour: Flavour) -> Option<PathBuf> {
    let version = fs::read_to_string(version_file(&source_dir())).ok()?;
    let product = flavour.product();
    product
        .is_fresh(&flavour.key(&version))
        .then(|| product.dir().to_owned())
}

/// Builds a kernel unless it is there. Returns the folder with `vmlinux`, `bzImage` and `kernel.json`.
pub(crate) fn ensure(flavour: Flavour) -> Result<PathBuf> {
    if let Some(dir) = dir_if_built(flavour) {
        return Ok(dir);
    }
    host::ensure(NEEDS)?;
    let source = unpacked_source()?;
    let version = fs::read_to_string(version_file(&source))?;
    flavour.product().ensure(&flavour.key(&version), |dir| {
        build(flavour, &source, &version, dir)
    })
}

fn source_dir() -> PathBuf {
    host::target().join("guest/build").join(SOURCE_PACKAGE)
}

fn version_file(source: &Path) -> PathBuf {
    source.join(".package-version")
}

fn unpacked_source() -> Result<PathBuf> {
    let key = KeyBuilder::new("kernel source 1")
        .input(SOURCE_PACKAGE.as_bytes())
        .finish();
    Product::new(source_dir()).ensure(&key, |dir| {
        let package = dir.join(".package");
        let version = distro::fetch(SOURCE_PACKAGE, &package)?;
        stage(&format!("unpack {SOURCE_PACKAGE} {version}"), || {
            let shell = Shell::new()?;
            let archive = package.join(format!("usr/src/{SOURCE_PACKAGE}.tar.xz"));
            cmd!(shell, "tar -xJf {archive} -C {dir} --strip-components=1")
                .quiet()
                .run()?;
            remove_dir(&package)
        })?;
        Ok(fs::write(version_file(dir), version)?)
    })
}

fn build(flavour: Flavour, source: &Path, version: &str, to: &Path) -> Result<()> {
    let name = flavour.name();
    let objects = host::target().join("guest/build").join(name);
    let shell = Shell::new()?;
    shell.create_dir(&objects)?;
    for (variable, value) in BUILD_IDENTITY {
        shell.set_var(variable, value);
    }
    stage(&format!("configure {name} {version}"), || {
        configure(&shell, flavour, source, &objects)
    })?;
    stage(
        &format!("build {name} {version} (10 to 20 minutes)"),
        || make(&shell, source, &objects),
    )?;
    let vmlinux = to.join("vmlinux");
    let built = objects.join("vmlinux");
    // The note with the PVH entry point is part of what is loaded, so stripping keeps it.
    cmd!(shell, "strip --strip-all -o {vmlinux} {built}")
        .quiet()
        .run()?;
    shell.copy_file(objects.join("arch/x86/boot/bzImage"), to.join("bzImage"))?;
    Description::of(to, version, &objects.join(".config"))?.write(to)
}

fn configure(shell: &Shell, flavour: Flavour, source: &Path, objects: &Path) -> Result<()> {
    let fragment = objects.join("fragment.config");
    fs::write(&fragment, flavour.fragment())?;
    // `allnoconfig` with KCONFIG_ALLCONFIG is what merge_config.sh -n does: the fragment, all else off.
    cmd!(
        shell,
        "make -s -C {source} O={objects} KCONFIG_ALLCONFIG={fragment} allnoconfig"
    )
    .quiet()
    .run()?;
    let lost = lost_options(
        &flavour.fragment(),
        &fs::read_to_string(objects.join(".config"))?,
    );
    if !lost.is_empty() {
        bail!(
            "options of the configuration did not take effect (a dependency is missing?): {}",
            lost.join(", ")
        );
    }
    Ok(())
}

fn make(shell: &Shell, source: &Path, objects: &Path) -> Result<()> {
    let log = objects.join("make.log");
    let jobs = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let script = r#"exec nice -n 10 make -C "$1" O="$2" -j"$3" vmlinux bzImage >"$4" 2>&1"#;
    cmd!(shell, "sh -c {script} make {source} {objects} {jobs} {log}")
        .quiet()
        .run()
        .with_context(|| format!("the kernel does not build; see {}", log.display()))
}

/// The lines of `fragment` that do not hold in `config`.
fn lost_options(fragment: &str, config: &str) -> Vec<String> {
    let set: std::collections::HashSet<_> = config.lines().collect();
    let holds = |line: &str| match line
        .strip_prefix("# ")
        .and_then(|rest| rest.strip_suffix(" is not set"))
    {
        Some(option) => !config
            .lines()
            .any(|found| found.starts_with(&format!("{option}="))),
        None => set.contains(line),
    };
    fragment
        .lines()
        .filter(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set"))
        .filter(|line| !holds(line))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_options_are_those_that_differ() {
        let fragment = "# a comment\nCONFIG_A=y\nCONFIG_B=\"x\"\n# CONFIG_C is not set\n# CONFIG_D is not set\nCONFIG_E=y\n";
        let config = "CONFIG_A=y\nCONFIG_B=\"y\"\nCONFIG_D=y\n# CONFIG_E is not set\nCONFIG_CC=y\n";
        let lost = ["CONFIG_B=\"x\"", "# CONFIG_D is not set", "CONFIG_E=y"];
        assert_eq!(lost_options(fragment, config), lost);
    }

    #[test]
    fn fragments_name_no_option_twice() {
        for flavour in [Flavour::Guest, Flavour::Host] {
            let fragment = flavour.fragment();
            let mut options: Vec<_> = fragment
                .lines()
                .filter(|line| line.starts_with("CONFIG_") || line.ends_with(" is not set"))
                .map(|line| {
                    line.trim_start_matches("# ")
                        .split(['=', ' '])
                        .next()
                        .unwrap()
                })
                .collect();
            let all = options.len();
            options.sort_unstable();
            options.dedup();
            assert_eq!(options.len(), all, "{flavour:?}");
        }
    }

    #[test]
    fn key_follows_version_and_flavour() {
        assert_ne!(Flavour::Guest.key("1"), Flavour::Guest.key("2"));
        assert_ne!(Flavour::Guest.key("1"), Flavour::Host.key("1"));
    }
}
