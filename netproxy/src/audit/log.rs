//! Records on their way into files.

use std::fmt;
use std::io;

use super::chain::Digest;
use super::record::{Event, Record};

/// Where lines go.
pub trait Store {
    /// Appends a line, all of it or nothing.
    ///
    /// # Errors
    ///
    /// It is not there then.
    fn append(&mut self, line: &[u8]) -> io::Result<()>;

    /// How many bytes there are already.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts what there is aside and begins with nothing.
    ///
    /// # Errors
    ///
    /// What there is may have been put aside or not.
    fn rotate(&mut self) -> io::Result<()>;
}

/// A log of one sandbox that is being written.
pub struct Log<S> {
    pub(super) store: S,
    sandbox: String,
    head: Digest,
    /// Most bytes of a file.
    limit: u64,
    lost: u64,
}

impl<S: Store> Log<S> {
    /// Goes on after the line whose digest is `head` (the default: there is none), for a sandbox of this name. A file gets at most `limit` bytes,
    /// but one record at least.
    pub fn new(store: S, head: Digest, sandbox: &str, limit: u64) -> Self {
        Self {
            store,
            sandbox: sandbox.to_owned(),
            head,
            limit,
            lost: 0,
        }
    }

    /// Writes a record. If that fails, it is counted, and the count is written before the next one.
    ///
    /// # Errors
    ///
    /// Why it is not written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let done = self.settle(record.time).and_then(|()| self.append(record));
        if done.is_err() {
            self.lost = self.lost.saturating_add(record.weight());
        }
        done
    }

    /// Writes how many records were lost, if any were; `now` in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// It cannot be written, and is still to be.
    pub fn settle(&mut self, now: u64) -> io::Result<()> {
        if self.lost > 0 {
            self.append(&Record::lost(now, self.lost))?;
            self.lost = 0;
        }
        Ok(())
    }

    /// Counts records that were lost before they came here.
    pub const fn count_lost(&mut self, records: u64) {
        self.lost = self.lost.saturating_add(records);
    }

    /// How many records were lost and are not told of in the log yet.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// What the sandbox is called.
    pub fn sandbox(&self) -> &str {
        &self.sandbox
    }

    /// The digest of the last line.
    pub const fn head(&self) -> Digest {
        self.head
    }

    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = record.line(&self.head, &self.sandbox).into_bytes();
        let head = Digest::of(&line);
        line.push(b'\n');
        let len = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if !self.store.is_empty() && self.store.len().saturating_add(len) > self.limit {
            self.store.rotate()?;
        }
        self.store.append(&line)?;
        self.head = head;
        Ok(())
    }
}

impl Record {
    /// For how many records it stands.
    const fn weight(&self) -> u64 {
        match self.event {
            Event::Lost { records } => records,
            _ => 1,
        }
    }
}

impl<S> fmt::Debug for Log<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("sandbox", &self.sandbox)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
