//! Writes the log of the network's decisions: a thread of its own, so that a slow disk holds up nobody's runtime.
//!
//! Between the worker and the disk every buffer is bounded. When they are full the worker counts what it cannot tell, and tells the count.

mod files;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use netproxy::audit::{Event, Log, Record};
use tokio::sync::{mpsc, watch};

pub(crate) use self::files::LogFiles;
use crate::audit::{AuditLog, MAX_FILES, MIN_FILE_BYTES};
use crate::error::{Error, Result};
use crate::text::printable;

/// Most records that wait for the disk.
const MAX_WAITING: usize = 256;

/// Opens the log that is asked for, of a sandbox whose guest has this host name.
pub(super) fn open(settings: &AuditLog, hostname: &str) -> Result<Log<LogFiles>> {
    if settings.file_bytes < MIN_FILE_BYTES {
        return Err(Error::Config(format!(
            "an audit log of {} bytes a file: at least {MIN_FILE_BYTES}",
            settings.file_bytes
        )));
    }
    if !(2..=MAX_FILES).contains(&settings.files) {
        return Err(Error::Config(format!(
            "an audit log of {} files: choose 2 to {MAX_FILES}",
            settings.files
        )));
    }
    let name = settings.sandbox.clone();
    let name = name.unwrap_or_else(|| usual_name(hostname));
    let opened = LogFiles::open(&settings.file, settings.files).map_err(|problem| Error::Path {
        what: "audit log",
        path: settings.file.clone(),
        problem,
    })?;
    let mut log = Log::new(opened.files, opened.head, &name, settings.file_bytes);
    log.count_lost(opened.lost);
    Ok(log)
}

fn usual_name(hostname: &str) -> String {
    static STARTED: AtomicU64 = AtomicU64::new(1);
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("{hostname}-{}-{number}", std::process::id())
}

/// Takes records to the log. When it is dropped, the log is written to its end and closed.
#[derive(Debug)]
pub(crate) struct AuditWriter(mpsc::Sender<Record>);

/// What became of a log. Clones are about the same one.
#[derive(Clone, Debug)]
pub(crate) struct AuditState {
    lost: Arc<Mutex<Lost>>,
    /// Closes when the log is.
    open: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Lost {
    records: u64,
    why: String,
}

impl AuditWriter {
    /// Writes `log` from now on.
    pub(crate) fn start(mut log: Log<LogFiles>) -> Result<(Self, AuditState)> {
        let (sender, mut receiver) = mpsc::channel::<Record>(MAX_WAITING);
        let (closed, open) = watch::channel(());
        let state = AuditState {
            lost: Arc::default(),
            open,
        };
        let lost = Arc::clone(&state.lost);
        let write = move || {
            while let Some(record) = receiver.blocking_recv() {
                if let Event::Lost { records } = record.event {
                    note(&lost, records, "they came faster than they could be told");
                }
                if let Err(error) = log.write(&record) {
                    note(&lost, 1, &error.to_string());
                }
            }
            // What it could not write has been noted.
            drop(log.settle(now()));
            drop((log, closed));
        };
        let thread = std::thread::Builder::new().name("audit".into());
        thread.spawn(write).map_err(|source| Error::Host {
            what: "cannot start a thread for the audit log".into(),
            source,
        })?;
        Ok((Self(sender), state))
    }

    /// Hands over a record; waits while too many do.
    pub(crate) async fn write(&self, record: Record) {
        // The thread goes only when this has gone.
        drop(self.0.send(record).await);
    }
}

fn note(lost: &Mutex<Lost>, records: u64, why: &str) {
    let mut lost = lock(lost);
    lost.records = lost.records.saturating_add(records);
    why.clone_into(&mut lost.why);
}

fn lock(lost: &Mutex<Lost>) -> MutexGuard<'_, Lost> {
    lost.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AuditState {
    /// What the log lacks, in a line for a person.
    pub(crate) fn problem(&self) -> Option<String> {
        let lost = lock(&self.lost);
        let why = printable(&lost.why);
        (lost.records > 0).then(|| format!("the audit log lacks {} records: {why}", lost.records))
    }

    /// Waits until the log is closed.
    pub(crate) async fn closed(&self) {
        let mut open = self.open.clone();
        while open.changed().await.is_ok() {}
    }
}

/// Milliseconds since 1970, by the host's clock.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// As text, for who is told of a path.
fn text(error: impl Into<io::Error>) -> String {
    error.into().to_string()
}

#[cfg(test)]
mod tests;
