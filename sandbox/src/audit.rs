//! The log of every decision about a guest's network.
//!
//! [`NetworkPolicy::audit_log`](crate::NetworkPolicy::audit_log) asks for it. The form of its lines, and what binds them to each other, is that of
//! [`netproxy::audit`]. The egress worker, which reads what the guest sends, tells the records and cannot touch the log: this program
//! writes it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use netproxy::audit::{BrokenChain, Digest, Entry, Fault, Lines, MAX_LINE, Verified, verify};

/// Most bytes of a log's file, unless set.
pub const DEFAULT_FILE_BYTES: u64 = 16 << 20;
/// The least that can be set: a file holds a few of the longest lines.
pub const MIN_FILE_BYTES: u64 = 1 << 20;
/// How many files a log has at most, unless set.
pub const DEFAULT_FILES: u32 = 8;
/// The most files that can be set.
pub const MAX_FILES: u32 = 1000;

/// Where a log is written, and how much of it is kept.
///
/// Lines are appended to the file. When it is full it becomes `FILE.1`, what was that becomes `FILE.2`, and so on; the oldest is removed. One
/// sandbox at a time writes a log.
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "the settings of a log do nothing by themselves"]
pub struct AuditLog {
    pub(crate) file: PathBuf,
    pub(crate) sandbox: Option<String>,
    pub(crate) file_bytes: u64,
    pub(crate) files: u32,
}

impl AuditLog {
    /// A log in `file`, which may not lie where the guest can write.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            sandbox: None,
            file_bytes: DEFAULT_FILE_BYTES,
            files: DEFAULT_FILES,
        }
    }

    /// What the sandbox is called in each line; of a long name, 300 bytes are kept. Unless set: the guest's host name, the process id of this
    /// program and a number.
    pub fn sandbox(mut self, name: impl Into<String>) -> Self {
        self.sandbox = Some(name.into());
        self
    }

    /// Most bytes of one file; at least [`MIN_FILE_BYTES`].
    pub const fn file_bytes(mut self, bytes: u64) -> Self {
        self.file_bytes = bytes;
        self
    }

    /// How many files there are at most, with the one that is written; 2 to [`MAX_FILES`].
    pub const fn files(mut self, count: u32) -> Self {
        self.files = count;
        self
    }
}

impl<P: Into<PathBuf>> From<P> for AuditLog {
    fn from(file: P) -> Self {
        Self::new(file)
    }
}

/// The name that a log's file `file` has when it was put aside so many times; itself for 0.
#[must_use]
pub fn rotated(file: &Path, times: u32) -> PathBuf {
    let mut name = OsString::from(file);
    if times > 0 {
        name.push(format!(".{times}"));
    }
    name.into()
}
