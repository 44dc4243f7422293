//! Tells when a text appears on a guest's console.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// A thread that reads a console until the text comes, and on to its end.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<io::Result<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    at: Option<Instant>,
    text: Vec<u8>,
}

impl Watch {
    /// Waits for `text` in what `console` gives.
    pub(crate) fn start(console: impl Read + Send + 'static, text: &'static str) -> Self {
        let read = move || {
            let mut seen = Seen::default();
            seen.take(console, text.as_bytes())?;
            Ok(seen)
        };
        Self(thread::spawn(read))
    }

    /// When the text came. Call it when the console has ended.
    pub(crate) fn finish(self) -> Result<Instant> {
        let ended = self.0.join();
        let seen = ended.map_err(|_| anyhow!("the console's reader failed"))??;
        let Some(at) = seen.at else {
            bail!(
                "the line did not come; the console: {}",
                String::from_utf8_lossy(&seen.text)
            );
        };
        Ok(at)
    }
}

impl Seen {
    /// Takes what the console gives, to its present end.
    fn take(&mut self, mut console: impl Read, wanted: &[u8]) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let count = console.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let new = buffer.get(..count).unwrap_or_default();
            self.text.extend_from_slice(new);
            if self.at.is_none() && contains(&self.text, wanted) {
                self.at = Some(Instant::now());
            }
        }
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

/// A console log that is watched. Nothing polls: that would take time from the guest.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    watch: Watch,
    ended: Arc<AtomicBool>,
}

impl Log {
    /// Makes the file and waits for `text` in it.
    pub(crate) fn create(folder: &Path, text: &'static str) -> Result<Self> {
        let path = folder.join(format!("console-{}", std::process::id()));
        File::create_new(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let log = File::open(&path)?;
        let events = inotify::init(CreateFlags::CLOEXEC)?;
        // The removal of the file comes as a change of its attributes: the number of its names.
        inotify::add_watch(&events, &path, WatchFlags::MODIFY | WatchFlags::ATTRIB)?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let follow = move || follow(&log, File::from(events), &end, text.as_bytes());
        let watch = Watch(thread::spawn(follow));
        Ok(Self { path, watch, ended })
    }

    /// The file that the sandbox is to append its console to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When the text came. Call it when the guest has ended.
    pub(crate) fn finish(self) -> Result<Instant> {
        self.ended.store(true, Ordering::Release);
        std::fs::remove_file(&self.path)?;
        self.watch.finish()
    }
}

fn follow(log: &File, mut events: File, ended: &AtomicBool, text: &[u8]) -> io::Result<Seen> {
    let mut seen = Seen::default();
    loop {
        let last = ended.load(Ordering::Acquire);
        seen.take(log, text)?;
        if last {
            return Ok(seen);
        }
        // That something happened is all that the events are for.
        let _ = events.read(&mut [0; 4096])?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_text_is_seen_however_it_is_cut() {
        let console = b"[0.1] quiet\ncoffer".chain(&b"dam: init\r\nmore"[..]);
        let before = Instant::now();
        let at = Watch::start(console, "cofferdam: init").finish().unwrap();
        assert!(at >= before);
        let error = Watch::start(&b"panic"[..], "cofferdam: init").finish();
        assert!(error.unwrap_err().to_string().contains("panic"));
    }

    #[test]
    fn a_log_is_followed_until_its_guest_has_ended_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        for (written, comes) in [("..x..", true), ("....", false)] {
            let log = Log::create(folder.path(), "x").unwrap();
            let path = log.path().to_owned();
            let mut guest = File::options().append(true).open(&path).unwrap();
            guest.write_all(written.as_bytes()).unwrap();
            assert_eq!(log.finish().is_ok(), comes);
            assert!(!path.exists());
        }
    }
}
