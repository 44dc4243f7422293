//! Build products that are reused as long as the inputs they were made from are the same.
//!
//! A product is a folder with a `.key` in it: the digest of everything that decides its content. It is built in a
//! folder beside it and renamed into place, so a product is either whole or not there, also after a power cut.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The digest of the inputs of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The digest as lower-case hexadecimal digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Collects inputs into a [`Key`].
#[derive(Debug)]
pub(crate) struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// Starts a key. `recipe` names the steps that make the product; change it when they change.
    pub(crate) fn new(recipe: &str) -> Self {
        Self(Sha256::new()).input(recipe.as_bytes())
    }

    /// Adds one input. Its length goes in as well: `ab`, `c` and `a`, `bc` are different inputs.
    pub(crate) fn input(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes.len().to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the content of a file.
    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(self.input(&content))
    }

    /// The key of all inputs so far.
    pub(crate) fn finish(self) -> Key {
        Key(hex(&self.0.finalize()))
    }
}

/// The SHA-256 of a file as hexadecimal digits.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&digest.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder whose content is decided by a [`Key`].
#[derive(Debug)]
pub(crate) struct Product {
    dir: PathBuf,
}

impl Product {
    /// The product that lives in `dir`.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the product is.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the product is there and was made from these inputs.
    pub(crate) fn is_fresh(&self, key: &Key) -> bool {
        fs::read_to_string(self.dir.join(".key")).is_ok_and(|found| found == key.0)
    }

    /// Makes the product unless it is fresh. `build` gets the empty folder to fill.
    pub(crate) fn ensure(
        &self,
        key: &Key,
        build: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        if self.is_fresh(key) {
            return Ok(self.dir.clone());
        }
        // Two callers at once: the second waits and finds the work done.
        let _lock = self.lock()?;
        if !self.is_fresh(key) {
            self.rebuild(key, build)?;
        }
        Ok(self.dir.clone())
    }

    fn rebuild(&self, key: &Key, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let staging = self.beside("new");
        remove_dir(&staging)?;
        fs::create_dir_all(&staging)?;
        if let Err(error) = build(&staging) {
            remove_dir(&staging)?;
            return Err(error);
        }
        fs::write(staging.join(".key"), &key.0)?;
        remove_dir(&self.dir)?;
        fs::rename(&staging, &self.dir)
            .with_context(|| format!("cannot put {} in place", self.dir.display()))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut path = self.dir.clone().into_os_string();
        path.push(".");
        path.push(suffix);
        path.into()
    }

    fn lock(&self) -> Result<File> {
        if let Some(parent) = self.dir.parent() {
            fs::create_dir_all(parent)?;
        }
        let path = self.beside("lock");
        let file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        file.lock()?;
        Ok(file)
    }
}

/// Removes a folder and what is in it, if it is there.
///
/// Refuses while something is mounted below it: an interrupted mmdebstrap may have left this machine's `/dev` there.
pub(crate) fn remove_dir(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    if let Some(mount) = mount_below(&mounts, dir) {
        bail!("something is mounted on {mount}; run: umount {mount}");
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// The first of the mounts (the format of `/proc/self/mounts`) that is on `dir` or below it.
fn mount_below<'a>(mounts: &'a str, dir: &Path) -> Option<&'a str> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .into_iter()
        .find(|point| Path::new(point).starts_with(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_depends_on_recipe_inputs_and_their_borders() {
        let key = |recipe: &str, inputs: &[&str]| {
            inputs
                .iter()
                .fold(KeyBuilder::new(recipe), |key, input| {
                    key.input(input.as_bytes())
                })
                .finish()
        };
        let base = key("r", &["ab", "c"]);
        assert_eq!(base, key("r", &["ab", "c"]));
        for other in [
            key("s", &["ab", "c"]),
            key("r", &["a", "bc"]),
            key("r", &["abc"]),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base.as_str().len(), 64);
    }

    #[test]
    fn product_is_built_once_for_a_key_and_again_for_another() {
        let temp = tempfile::tempdir().unwrap();
        let product = Product::new(temp.path().join("deep/product"));
        let mut built = 0;
        for recipe in ["one", "one", "two", "two"] {
            let key = KeyBuilder::new(recipe).finish();
            product
                .ensure(&key, |dir| {
                    built += 1;
                    Ok(fs::write(dir.join("out"), recipe)?)
                })
                .unwrap();
            assert_eq!(
                fs::read_to_string(product.dir().join("out")).unwrap(),
                recipe
            );
        }
        assert_eq!(built, 2);
    }

    #[test]
    fn failed_build_leaves_the_old_product() {
        let temp = tempfile::tempdir().unwrap();
        let product = Product::new(temp.path().join("product"));
        let (old, new) = (
            KeyBuilder::new("old").finish(),
            KeyBuilder::new("new").finish(),
        );
        product.ensure(&old, |_| Ok(())).unwrap();
        assert!(product.ensure(&new, |_| anyhow::bail!("no")).is_err());
        assert!(product.is_fresh(&old) && !product.is_fresh(&new));
        assert!(!product.beside("new").exists());
    }

    #[test]
    fn sha256_is_the_standard_one() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("abc");
        fs::write(&file, "abc").unwrap();
        assert_eq!(
            sha256_file(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn mounts_below_a_folder_are_seen() {
        let mounts = "proc /proc proc rw 0 0\nudev /a/tree/dev devtmpfs rw 0 0\n";
        for (dir, found) in [
            ("/a", true),
            ("/a/tree/dev", true),
            ("/a/tre", false),
            ("/b", false),
        ] {
            assert_eq!(
                mount_below(mounts, Path::new(dir)).is_some(),
                found,
                "{dir}"
            );
        }
    }
}
