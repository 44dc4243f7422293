//! Tells when a text appears on a guest's console.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A thread that reads a console until the text comes, and on to its end.
#[derive(Debug)]
pub(crate) struct Watch(JoinHandle<io::Result<Seen>>);

#[derive(Debug)]
struct Seen {
    at: Option<Instant>,
    text: Vec<u8>,
}

impl Watch {
    /// Waits for `text` in what `console` gives.
    pub(crate) fn start(console: impl Read + Send + 'static, text: &'static str) -> Self {
        Self(thread::spawn(move || read(console, text.as_bytes())))
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

fn read(mut console: impl Read, wanted: &[u8]) -> io::Result<Seen> {
    let mut seen = Seen {
        at: None,
        text: Vec::new(),
    };
    let mut buffer = [0; 4096];
    loop {
        let count = console.read(&mut buffer)?;
        if count == 0 {
            return Ok(seen);
        }
        seen.text
            .extend_from_slice(buffer.get(..count).unwrap_or_default());
        if seen.at.is_none() && contains(&seen.text, wanted) {
            seen.at = Some(Instant::now());
        }
    }
}

fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|part| part == wanted)
}

/// A named pipe as a console log, so that what the guest writes is seen as it comes.
#[derive(Debug)]
pub(crate) struct Pipe {
    path: PathBuf,
    watch: Watch,
    /// Keeps the pipe open until the guest has ended.
    writer: File,
}

impl Pipe {
    /// Makes the pipe and waits for `text` in it.
    pub(crate) fn create(folder: &Path, text: &'static str) -> Result<Self> {
        let path = folder.join(format!("console-{}", std::process::id()));
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .with_context(|| format!("cannot create {}", path.display()))?;
        // Opening one end blocks until the other is open; opening both at once does not.
        let writer = File::options().read(true).write(true).open(&path)?;
        let watch = Watch::start(File::open(&path)?, text);
        Ok(Self {
            path,
            watch,
            writer,
        })
    }

    /// The file that the sandbox is to append its console to.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When the text came. Call it when the guest has ended.
    pub(crate) async fn finish(self) -> Result<Instant> {
        std::fs::remove_file(&self.path)?;
        drop(self.writer);
        // Not on this thread: the sandbox's own end of the pipe is closed by a task that it runs.
        tokio::task::spawn_blocking(|| self.watch.finish()).await?
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
    fn a_pipe_is_read_until_its_guest_has_ended_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = Pipe::create(folder.path(), "x").unwrap();
        let path = pipe.path().to_owned();
        let mut guest = File::options().append(true).open(&path).unwrap();
        guest.write_all(b"..x..").unwrap();
        drop(guest);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(pipe.finish()).unwrap();
        assert!(!path.exists());
    }
}
