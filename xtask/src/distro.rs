//! Packages of the distribution as material: fetched with apt and unpacked below `target/`, never installed.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use xshell::{Shell, cmd};

use crate::{
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("dpkg-deb", "dpkg"),
    Need::new("modinfo", "kmod"),
    Need::new("xz", "xz-utils"),
    Need::new("zstd", "zstd"),
    Need::new("lz4", "lz4"),
];

/// A kernel package that was unpacked.
#[derive(Debug)]
pub(crate) struct KernelPackage {
    /// The kernel's release, as `uname -r` prints it.
    pub(crate) release: String,
    /// The package's version.
    pub(crate) version: String,
    root: PathBuf,
}

/// Fetches the kernel package that the metapackage `meta` stands for and unpacks it into `into`.
pub(crate) fn fetch_kernel(meta: &str, into: &Path) -> Result<KernelPackage> {
    host::ensure(NEEDS)?;
    let shell = Shell::new()?;
    host::update_package_lists(&shell, &[meta])?;
    let depends = cmd!(shell, "apt-cache depends {meta}").quiet().read()?;
    let package = kernel_dependency(&depends)
        .with_context(|| format!("package {meta} names no kernel package"))?;
    let version = fetch(package, into)?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    Ok(KernelPackage {
        release,
        version,
        root: into.to_owned(),
    })
}

fn kernel_dependency(depends: &str) -> Option<&str> {
    depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
}

/// Fetches `package` and unpacks it into the folder `into`. Returns its version.
pub(crate) fn fetch(package: &str, into: &Path) -> Result<String> {
    stage(&format!("fetch {package}"), || {
        let shell = Shell::new()?;
        host::update_package_lists(&shell, &[package])?;
        let download = into.join(".download");
        crate::cache::remove_dir(&download)?;
        fs::create_dir_all(&download)?;
        shell.change_dir(&download);
        cmd!(
            shell,
            "apt-get download -qq -o APT::Sandbox::User=root {package}"
        )
        .quiet()
        .run()?;
        let file = shell
            .read_dir(".")?
            .pop()
            .context("apt-get downloaded nothing")?;
        cmd!(shell, "dpkg-deb -x {file} {into}").quiet().run()?;
        let version = cmd!(shell, "dpkg-deb -f {file} Version").quiet().read()?;
        crate::cache::remove_dir(&download)?;
        Ok(version)
    })
}

impl KernelPackage {
    /// The compressed kernel image.
    pub(crate) fn bzimage(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("vmlinuz-{}", self.release))
    }

    /// The configuration it was built with.
    pub(crate) fn config(&self) -> PathBuf {
        self.root
            .join("boot")
            .join(format!("config-{}", self.release))
    }

    /// Writes the kernel's ELF image to `to`: a loader that takes it saves the decompression at each start.
    pub(crate) fn extract_vmlinux(&self, to: &Path) -> Result<()> {
        let payload = bzimage_payload(&self.bzimage())?;
        let elf = decompress(&payload)?;
        ensure!(
            elf.starts_with(b"\x7fELF"),
            "the payload of the kernel image is not an ELF file"
        );
        Ok(fs::write(to, elf)?)
    }

    /// Copies `wanted` modules and all that they depend on into `to`, named so that name order is load order.
    /// Names that are built into the kernel are passed over. Returns the file names.
    pub(crate) fn copy_modules(&self, wanted: &[&str], to: &Path) -> Result<Vec<String>> {
        let dir = self.root.join("lib/modules").join(&self.release);
        let mut order = LoadOrder::new(&dir)?;
        for name in wanted {
            order.add(name)?;
        }
        fs::create_dir_all(to)?;
        let mut names = Vec::new();
        for (number, file) in order.files.iter().enumerate() {
            let name = format!("{number:02}-{}", module_file_name(file)?);
            let content = read_module(file)?;
            fs::write(to.join(&name), content)?;
            names.push(name);
        }
        Ok(names)
    }
}

/// The modules to load, each after those that it needs.
#[derive(Debug)]
struct LoadOrder {
    available: Vec<PathBuf>,
    builtin: HashSet<String>,
    seen: HashSet<String>,
    files: Vec<PathBuf>,
}

impl LoadOrder {
    fn new(dir: &Path) -> Result<Self> {
        let builtin = fs::read_to_string(dir.join("modules.builtin"))
            .context("the kernel package has no list of built-in modules")?;
        Ok(Self {
            available: module_files(&dir.join("kernel"))?,
            builtin: builtin.lines().map(module_name).collect(),
            seen: HashSet::new(),
            files: Vec::new(),
        })
    }

    fn add(&mut self, name: &str) -> Result<()> {
        let name = module_name(name);
        if self.builtin.contains(&name) || !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let file = self
            .available
            .iter()
            .find(|file| module_name(&file.to_string_lossy()) == name)
            .with_context(|| format!("the kernel package has no module {name}"))?
            .clone();
        let shell = Shell::new()?;
        let depends = cmd!(shell, "modinfo -F depends {file}").quiet().read()?;
        for dependency in depends.split(',').filter(|name| !name.is_empty()) {
            self.add(dependency)?;
        }
        self.files.push(file);
        Ok(())
    }
}

fn module_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(module_files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// `kernel/fs/9p/9p.ko.xz` -> `9p`; a dash and an underscore mean the same in a module's name.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn module_file_name(file: &Path) -> Result<String> {
    let name = file
        .file_name()
        .context("a module without a name")?
        .to_string_lossy();
    Ok(name.trim_end_matches(".xz").to_owned())
}

fn read_module(file: &Path) -> Result<Vec<u8>> {
    let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    if file.extension().is_some_and(|extension| extension == "xz") {
        decompress(&content)
    } else {
        Ok(content)
    }
}

/// The compressed kernel inside a bzImage: `payload_offset` and `payload_length` of the setup header
/// (`Documentation/arch/x86/boot.rst`).
fn bzimage_payload(path: &Path) -> Result<Vec<u8>> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut header = [0; 0x250];
    file.read_exact(&mut header)
        .context("the kernel image is too short")?;
    let word = |at: usize| -> Result<u64> {
        let bytes = header
            .get(at..at + 4)
            .context("field outside of the header")?;
        Ok(u64::from(u32::from_le_bytes(bytes.try_into()?)))
    };
    ensure!(
        header.get(0x202..0x206) == Some(b"HdrS"),
        "not a Linux kernel image: {}",
        path.display()
    );
    // A zero count of setup sectors means four, for historical reasons.
    let sectors = header
        .get(0x1f1)
        .map_or(4, |count| if *count == 0 { 4 } else { u64::from(*count) });
    file.seek(SeekFrom::Start((sectors + 1) * 512 + word(0x248)?))?;
    // The last four bytes are the size of the decompressed kernel and no part of the stream.
    let mut payload = vec![0; usize::try_from(word(0x24c)?.saturating_sub(4))?];
    file.read_exact(&mut payload)
        .context("the kernel image is cut short")?;
    Ok(payload)
}

fn decompress(stream: &[u8]) -> Result<Vec<u8>> {
    let known: [(&[u8], &str); 4] = [
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x1f\x8b", "gzip"),
    ];
    let Some((_, program)) = known.iter().find(|(magic, _)| stream.starts_with(magic)) else {
        bail!("unknown compression (first bytes {:02x?})", stream.get(..6));
    };
    pipe_through(Command::new(program).args(["-d", "-c"]), stream)
}

fn pipe_through(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no pipe to the decompressor")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output()
    })?;
    ensure!(
        output.status.success(),
        "{} failed",
        command.get_program().display()
    );
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_names_are_normalised() {
        for (path, name) in [
            ("kernel/fs/9p/9p.ko", "9p"),
            ("kernel/arch/x86/kvm/kvm-amd.ko.xz", "kvm_amd"),
            ("virtio_mmio", "virtio_mmio"),
        ] {
            assert_eq!(module_name(path), name);
        }
    }

    #[test]
    fn kernel_is_found_among_the_dependencies() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Conflicts: x\n";
        assert_eq!(kernel_dependency(text), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(
            kernel_dependency("linux-image-amd64\n  Conflicts: linux-image-1\n"),
            None
        );
    }

    fn image(sectors: u8, offset: u32, payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x250];
        image[0x1f1] = sectors;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        let length = u32::try_from(payload.len() + 4).unwrap();
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image.resize((usize::from(sectors.max(1)) + 1) * 512 + offset as usize, 0);
        image.extend_from_slice(payload);
        image.extend_from_slice(&[0; 4]);
        image
    }

    #[test]
    fn payload_is_found_and_a_cut_image_refused() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("bzImage");
        let whole = image(2, 0x30, b"payload");
        fs::write(&path, &whole).unwrap();
        assert_eq!(bzimage_payload(&path).unwrap(), b"payload");
        for cut in [0, 0x200, 0x24f, whole.len() - 5] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(bzimage_payload(&path).is_err(), "cut at {cut}");
        }
        fs::write(&path, vec![0; 4096]).unwrap();
        assert!(
            bzimage_payload(&path)
                .unwrap_err()
                .to_string()
                .contains("not a Linux kernel")
        );
    }

    #[test]
    fn gzip_streams_are_decompressed_and_unknown_ones_refused() {
        let packed = pipe_through(Command::new("gzip").arg("-c"), b"some text").unwrap();
        assert_eq!(decompress(&packed).unwrap(), b"some text");
        assert!(
            decompress(b"plain")
                .unwrap_err()
                .to_string()
                .contains("unknown compression")
        );
    }

    #[test]
    fn built_in_and_known_modules_are_passed_over_and_absent_ones_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        fs::create_dir_all(dir.join("kernel/fs")).unwrap();
        fs::write(dir.join("modules.builtin"), "kernel/fs/ext-four.ko\n").unwrap();
        fs::write(dir.join("kernel/fs/a.ko"), "").unwrap();
        let mut order = LoadOrder::new(dir).unwrap();
        order.add("ext_four").unwrap();
        assert!(order.files.is_empty());
        let error = order.add("absent").unwrap_err().to_string();
        assert!(error.contains("no module absent"), "{error}");
        // What was seen is not loaded twice, and a dependency on it is met.
        order.seen.insert("a".into());
        order.add("a").unwrap();
        assert!(order.files.is_empty());
    }

    #[test]
    fn compressed_modules_are_named_without_the_suffix() {
        for (file, name) in [("x/a.ko.xz", "a.ko"), ("x/b-c.ko", "b-c.ko")] {
            assert_eq!(module_file_name(Path::new(file)).unwrap(), name);
        }
    }
}
