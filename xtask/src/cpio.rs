//! Writes initial RAM disks: uncompressed cpio archives of the `newc` kind, as the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst` describes them.
//!
//! Owner, time and inode numbers are fixed, so equal content gives an equal archive.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::{Context, Result};

const TYPE_FILE: u32 = 0o100_000;
const TYPE_DIR: u32 = 0o040_000;
const TYPE_CHAR: u32 = 0o020_000;

/// An archive that is being written to `out`.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub(crate) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    /// Adds an empty folder. Its parents must have been added before.
    pub(crate) fn dir(&mut self, name: &str) -> Result<()> {
        self.entry(name, TYPE_DIR | 0o755, (0, 0), &[])
    }

    /// Adds a file that may be executed.
    pub(crate) fn program(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.entry(name, TYPE_FILE | 0o755, (0, 0), content)
    }

    /// Adds a copy of the file at `path`.
    pub(crate) fn copy(&mut self, name: &str, path: &Path) -> Result<()> {
        let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.program(name, &content)
    }

    /// Adds a character device.
    pub(crate) fn char_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, TYPE_CHAR | 0o600, (major, minor), &[])
    }

    /// Ends the archive and gives the writer back.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.entries = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len()).context("a file in an initrd is over 4 GiB")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let inode = self.entries;
        self.entries += 1;
        let fields = [
            inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0,
        ];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        // The header has 110 bytes; header and name, then the content, are padded to four.
        self.pad(110 + name.len(), 1)?;
        self.out.write_all(content)?;
        Ok(self.pad(content.len(), 0)?)
    }

    fn pad(&mut self, written: usize, at_least: usize) -> io::Result<()> {
        let total = (written + at_least).next_multiple_of(4) - written;
        self.out.write_all(&[0; 4][..total.min(4)])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_reads_what_was_written() {
        let mut archive = Archive::new(Vec::new());
        archive.dir("dev").unwrap();
        archive.char_device("dev/console", 5, 1).unwrap();
        // Names and contents of every length modulo four, so that every padding occurs.
        for length in 0..9 {
            archive
                .program(&"n".repeat(length + 1), &vec![b'x'; length])
                .unwrap();
        }
        let bytes = archive.finish().unwrap();
        let mut child = Command::new("cpio")
            .args(["--list", "--verbose", "--numeric-uid-gid", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = listing.lines().collect();
        assert_eq!(lines.len(), 11, "{listing}");
        assert!(lines[0].starts_with("drwxr-xr-x") && lines[0].ends_with("dev"));
        assert!(lines[1].starts_with("crw-------") && lines[1].contains("5,   1"));
        for (length, line) in lines[2..].iter().enumerate() {
            assert!(
                line.contains(&format!(" {length} ")) && line.ends_with(&"n".repeat(length + 1))
            );
        }
    }

    #[test]
    fn archive_is_reproducible() {
        let make = || {
            let mut archive = Archive::new(Vec::new());
            archive.program("init", b"hello").unwrap();
            archive.finish().unwrap()
        };
        assert_eq!(make(), make());
        assert_eq!(make().len() % 4, 0);
    }
}
