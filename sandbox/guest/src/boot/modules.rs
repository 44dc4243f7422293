//! Kernel modules of a stock kernel, from the initrd.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{BootError, Context};

const DIRECTORY: &str = "/modules";

/// Loads every `.ko` file of `/modules` in the order of their names, which must be an order of dependence. Says whether there were any.
pub(super) fn load_all() -> Result<bool, BootError> {
    let files = match list(Path::new(DIRECTORY)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        files => files.context(|| format!("cannot list {DIRECTORY}"))?,
    };
    for file in &files {
        load(file).context(|| format!("cannot load {}", file.display()))?;
    }
    Ok(!files.is_empty())
}

fn load(file: &Path) -> io::Result<()> {
    match rustix::system::finit_module(File::open(file)?, c"", 0) {
        // Built in, or loaded for another.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    let mut modules: Vec<_> = paths
        .into_iter()
        .filter(|path| path.extension() == Some(OsStr::new("ko")))
        .collect();
    modules.sort();
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_in_the_order_of_their_names() {
        let directory =
            std::env::temp_dir().join(format!("cofferdam-modules-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        for name in ["10-b.ko", "02-a.ko", "note.txt", "ko", "10-a.ko"] {
            File::create(directory.join(name)).unwrap();
        }
        let names: Vec<_> = list(&directory)
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["02-a.ko", "10-a.ko", "10-b.ko"]);
        assert_eq!(
            list(&directory).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
