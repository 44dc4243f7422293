//! Writes the log of the network's decisions: a thread of its own, so that a slow disk holds up nobody's runtime.
//!
//! Between the worker and the disk every buffer is bounded. When they are full the worker counts what it cannot tell, and tells the count.

#[cfg(feature = "otel")]
mod export;
mod files;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use netproxy::audit::{Digest, Event, Log, Record};
use tokio::sync::{mpsc, watch};

pub(crate) use self::files::LogFiles;
use crate::audit::{AuditLog, MAX_FILES, MIN_FILE_BYTES};
use crate::error::{Error, Result};
use crate::text::printable;

/// Most records that wait for the disk.
const MAX_WAITING: usize = 256;

/// Opens the log that is asked for, of a sandbox whose guest has this host name.
fn open(settings: &AuditLog, hostname: &str) -> Result<Log<LogFiles>> {
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

/// A log that can be written, and to whom else its records go.
#[derive(Debug)]
pub(crate) struct Opened {
    log: Log<LogFiles>,
    #[cfg(feature = "otel")]
    export: Option<export::Ready>,
}

/// Opens all that is asked for.
pub(super) fn prepare(settings: &AuditLog, hostname: &str) -> Result<Opened> {
    let log = open(settings, hostname)?;
    Ok(Opened {
        #[cfg(feature = "otel")]
        export: export::Ready::open(&settings.export, log.sandbox())?,
        log,
    })
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
    #[cfg(feature = "otel")]
    exported: Option<Exported>,
}

/// What became of the records that were to be exported.
#[cfg(feature = "otel")]
#[derive(Clone, Debug)]
struct Exported {
    tally: export::Tally,
    /// Closes when nothing is exported any more.
    open: watch::Receiver<()>,
}

#[derive(Debug, Default)]
struct Lost {
    records: u64,
    why: String,
}

impl AuditWriter {
    /// Writes from now on.
    pub(crate) fn start(opened: Opened) -> Result<(Self, AuditState)> {
        let (sender, receiver) = mpsc::channel(MAX_WAITING);
        let (closed, open) = watch::channel(());
        #[cfg(feature = "otel")]
        let (done, exported) = watch::channel(());
        let state = AuditState {
            lost: Arc::default(),
            open,
            #[cfg(feature = "otel")]
            exported: opened.export.as_ref().map(|export| Exported {
                tally: export.tally(),
                open: exported,
            }),
        };
        let lost = Arc::clone(&state.lost);
        // Not on the thread below: the SDK panics where the host has no thread for it, and that must not end the log unseen.
        #[cfg(feature = "otel")]
        let export = opened.export.map(export::Ready::start);
        let write = move || {
            write(opened.log, receiver, &lost, |record, digest| {
                #[cfg(feature = "otel")]
                export
                    .iter()
                    .for_each(|export| export.export(record, digest));
                #[cfg(not(feature = "otel"))]
                let _ = (record, digest);
            });
            drop(closed);
            // The file is done: it has not to wait for this.
            #[cfg(feature = "otel")]
            drop((export.map(export::Exporting::finish), done));
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

/// Writes all that comes, and closes the log. `written` gets each record, and the digest of its line if that is in the file.
fn write(
    mut log: Log<LogFiles>,
    mut records: mpsc::Receiver<Record>,
    lost: &Mutex<Lost>,
    written: impl Fn(&Record, Option<Digest>),
) {
    while let Some(record) = records.blocking_recv() {
        if let Event::Lost { records } = record.event {
            note(lost, records, "they came faster than they could be told");
        }
        let done = log.write(&record);
        written(&record, done.is_ok().then(|| log.head()));
        if let Err(error) = done {
            note(lost, 1, &error.to_string());
        }
    }
    // What it could not write has been noted.
    drop(log.settle(now()));
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

#[cfg(feature = "otel")]
impl AuditState {
    /// What was not exported, in a line for a person.
    pub(crate) fn export_problem(&self) -> Option<String> {
        self.exported.as_ref()?.tally.problem()
    }

    /// Waits until nothing is exported any more, which has a time limit of its own once the log is closed.
    pub(crate) async fn exported(&self) {
        if let Some(exported) = &self.exported {
            let mut open = exported.open.clone();
            while open.changed().await.is_ok() {}
        }
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
