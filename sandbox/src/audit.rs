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
    #[cfg(feature = "otel")]
    pub(crate) export: Export,
}

/// Where records are exported to.
#[cfg(feature = "otel")]
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Export {
    /// Nowhere.
    #[default]
    No,
    /// Where the standard variables say, if they do.
    AsEnvironmentSays,
    /// To this URL.
    To(String),
}

impl AuditLog {
    /// A log in `file`, which may not lie where the guest can write.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            sandbox: None,
            file_bytes: DEFAULT_FILE_BYTES,
            files: DEFAULT_FILES,
            #[cfg(feature = "otel")]
            export: Export::default(),
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

/// # Export to OpenTelemetry (feature `otel`)
///
/// Each record goes to a collector, too, as a log record by OTLP over HTTP (`http/protobuf`). Its event name is `cofferdam.network.` and the `event` of the
/// line; its severity is `INFO`, of what was denied or would have been `WARN`, and of lost records `ERROR`. Whatever the guest wrote is the value of an
/// attribute: `server.address` and `server.port` (whom it meant), `network.peer.address`, `network.peer.port`, `network.type` and `network.transport` (what was
/// dialled), `url.scheme`, `http.request.method`, `url.path` and `url.query`; and `cofferdam.` with `sandbox`, `flow`, `scheme`, `verdict`, `reason`, `rule`,
/// `rule.from`, `sent`, `received`, `duration_ms` and `records`. `log.record.uid` is the digest of the line in the file, so that who has the collector's records
/// sees what was changed in the file, also at its end. `cofferdam.not_exported` is how many records before it did not get there.
///
/// The file comes first and never waits for the collector. At most 2048 records wait, are sent in batches and tried again for a while; what finds no room, is refused
/// or is not answered in time is counted ([`Sandbox::export_problem`](crate::Sandbox::export_problem)). When the sandbox ends, what waits has five seconds.
///
/// Of the standard variables of this program, these hold: `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_HEADERS`, `…_TIMEOUT`, `…_CERTIFICATE` (whom alone to trust; without it, whom this host
/// does), each also as `OTEL_EXPORTER_OTLP_LOGS_…`; `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BLRP_SCHEDULE_DELAY` and
/// `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE`; `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. Another protocol than `http/protobuf`, and
/// compression, are refused when the sandbox is started; there are no client certificates.
#[cfg(feature = "otel")]
impl AuditLog {
    /// Exports to the collector that the variables name; to none, if they name none, or if `OTEL_SDK_DISABLED` is `true` or `OTEL_LOGS_EXPORTER` is `none`.
    pub fn export(mut self) -> Self {
        self.export = Export::AsEnvironmentSays;
        self
    }

    /// Exports to the collector at this URL, `http` or `https`, to which requests go as it is: `http://localhost:4318/v1/logs`.
    pub fn export_to(mut self, url: impl Into<String>) -> Self {
        self.export = Export::To(url.into());
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
