//! The guest's initial RAM disks: the guest program as `/init`, and the modules where the kernel needs some.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Result;

use super::{program, stock};
use crate::{
    cache::{KeyBuilder, Product},
    cpio::Archive,
    host,
};

/// The initrd for our own kernel, which has no modules.
pub(super) fn for_own_kernel() -> Result<PathBuf> {
    ensure("initrd", &program::ensure()?, None)
}

/// The initrd for the distribution's kernel; process 1 loads `/modules` in the order of the names.
pub(super) fn for_stock_kernel() -> Result<PathBuf> {
    let modules = stock::ensure()?.join("modules");
    ensure("stock-initrd", &program::ensure()?, Some(&modules))
}

fn ensure(name: &str, program: &Path, modules: Option<&Path>) -> Result<PathBuf> {
    let modules = modules.map_or_else(|| Ok(Vec::new()), sorted_files)?;
    let mut key = KeyBuilder::new("initrd 2").file(program)?;
    for module in &modules {
        key = key.file(module)?;
    }
    let product = Product::new(host::target().join("guest").join(name));
    let dir = product.ensure(&key.finish(), |dir| {
        write(&dir.join("initrd.cpio"), program, &modules)
    })?;
    Ok(dir.join("initrd.cpio"))
}

fn sorted_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.push(entry?.path());
    }
    files.sort_unstable();
    Ok(files)
}

fn write(to: &Path, program: &Path, modules: &[PathBuf]) -> Result<()> {
    let mut archive = Archive::new(BufWriter::new(File::create(to)?));
    for dir in ["dev", "proc", "sys", "run", "root"] {
        archive.dir(dir)?;
    }
    // The kernel opens it as the first program's standard output before anything is mounted.
    archive.char_device("dev/console", 5, 1)?;
    // Where the console's driver is a module there is none yet; the program's runtime then opens
    // this one instead, and aborts without it.
    archive.char_device("dev/null", 1, 3)?;
    if !modules.is_empty() {
        archive.dir("modules")?;
    }
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.copy(&format!("modules/{name}"), module)?;
    }
    archive.copy("init", program)?;
    archive.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_keep_their_order_and_init_is_last() {
        let temp = tempfile::tempdir().unwrap();
        let modules = temp.path().join("modules");
        fs::create_dir(&modules).unwrap();
        for name in ["10-b.ko", "02-a.ko", "01-c.ko"] {
            fs::write(modules.join(name), name).unwrap();
        }
        let program = temp.path().join("program");
        fs::write(&program, "the program").unwrap();
        let archive = temp.path().join("initrd.cpio");
        write(&archive, &program, &sorted_files(&modules).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&fs::read(&archive).unwrap()).into_owned();
        let order = [
            "dev/console",
            "modules/01-c.ko",
            "modules/02-a.ko",
            "modules/10-b.ko",
            "init\0",
            "the program",
        ];
        let places: Vec<_> = order.iter().map(|part| text.find(part)).collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{places:?}"
        );
    }

    #[test]
    fn own_kernel_gets_no_modules_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (program, archive) = (temp.path().join("program"), temp.path().join("initrd.cpio"));
        fs::write(&program, "x").unwrap();
        write(&archive, &program, &[]).unwrap();
        assert!(!String::from_utf8_lossy(&fs::read(&archive).unwrap()).contains("modules"));
    }
}
