//! The guest's console on the host: the last part in memory, and a file of bounded size when one is set.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::text::printable;

/// How much of the console is kept in memory.
const KEPT: usize = 64 * 1024;

/// The longest that a console log becomes, in bytes: a guest must not fill the host's disk.
const MAX_LOG: usize = 64 << 20;

/// The guest's console. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct Console(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tail: VecDeque<u8>,
    log: Option<Log>,
    problem: Option<String>,
}

/// The file that the console is appended to.
#[derive(Debug)]
struct Log {
    file: File,
    /// How many bytes it may still take.
    room: usize,
}

impl Log {
    fn new(file: File) -> Self {
        let length = file.metadata().map_or(0, |data| data.len());
        let room = MAX_LOG.saturating_sub(usize::try_from(length).unwrap_or(MAX_LOG));
        Self { file, room }
    }

    /// Writes what there is room for. A failure says why the file must be given up.
    fn append(&mut self, bytes: &[u8]) -> Result<(), String> {
        let fits = bytes.get(..self.room).unwrap_or(bytes);
        self.file.write_all(fits).map_err(|e| e.to_string())?;
        self.room -= fits.len();
        if fits.len() < bytes.len() {
            return Err(format!("it has reached {} MiB", MAX_LOG >> 20));
        }
        Ok(())
    }
}

impl Console {
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            tail: VecDeque::new(),
            log: file.map(Log::new),
            problem: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the guest wrote. A file that cannot be written (a full disk) or is long enough is
    /// given up, with the reason kept; the guest goes on.
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.tail.extend(bytes);
        let excess = inner.tail.len().saturating_sub(KEPT);
        inner.tail.drain(..excess);
        if let Some(Err(why)) = inner.log.as_mut().map(|log| log.append(bytes)) {
            inner.problem = Some(format!("the console log ends here: {why}"));
            inner.log = None;
        }
    }

    /// What is kept of the console.
    pub(crate) fn tail(&self) -> Vec<u8> {
        self.lock().tail.iter().copied().collect()
    }

    /// Why the file is no longer written, if it is not.
    pub(crate) fn problem(&self) -> Option<String> {
        self.lock().problem.clone()
    }

    /// The last line that is not empty, without control characters.
    pub(crate) fn last_line(&self) -> String {
        let tail = self.tail();
        let text = String::from_utf8_lossy(&tail);
        let line = text
            .lines()
            .rev()
            .map(printable)
            .find(|line| !line.trim().is_empty());
        line.unwrap_or_else(|| "(nothing)".into())
    }

    /// The reason that the kernel printed when it panicked.
    pub(crate) fn panic_reason(&self) -> Option<String> {
        let tail = self.tail();
        let text = String::from_utf8_lossy(&tail);
        let line = text
            .lines()
            .rev()
            .find_map(|line| line.split_once("Kernel panic - "))?;
        Some(printable(line.1))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom};

    use super::*;

    #[test]
    fn only_the_tail_is_kept() {
        let console = Console::new(None);
        for _ in 0..100 {
            console.append(&[b'x'; 10_000]);
        }
        console.append(b"end");
        let tail = console.tail();
        assert_eq!((tail.len(), tail.ends_with(b"xend")), (KEPT, true));
    }

    #[test]
    fn last_line_is_safe_to_print() {
        let console = Console::new(None);
        assert_eq!(console.last_line(), "(nothing)");
        console.append("one\n\x1b]52;c;AAAA\x07two\u{202e}\r\n  \n".as_bytes());
        assert_eq!(console.last_line(), "]52;c;AAAAtwo");
    }

    #[test]
    fn a_panic_is_found() {
        let console = Console::new(None);
        assert_eq!(console.panic_reason(), None);
        console.append(b"[ 0.1] Kernel panic - not syncing: VFS: no root\n[ 0.2] Rebooting\n");
        assert_eq!(
            console.panic_reason().as_deref(),
            Some("not syncing: VFS: no root")
        );
    }

    #[test]
    fn a_log_ends_at_its_longest() {
        let file = tempfile::tempfile().unwrap();
        let length = || file.metadata().unwrap().len();
        file.set_len(MAX_LOG as u64 - 3).unwrap();
        let mut log = file.try_clone().unwrap();
        log.seek(SeekFrom::End(0)).unwrap();
        let console = Console::new(Some(log));
        console.append(b"ab");
        assert_eq!((length(), console.problem()), (MAX_LOG as u64 - 1, None));
        for _ in 0..2 {
            console.append(b"cd");
            assert_eq!(length(), MAX_LOG as u64);
        }
        assert_eq!(
            console.problem().as_deref(),
            Some("the console log ends here: it has reached 64 MiB")
        );
        assert!(console.tail().ends_with(b"abcdcd"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_ends_the_file_and_says_so() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let console = Console::new(Some(full));
        console.append(b"lost\n");
        console.append(b"kept\n");
        assert!(
            console
                .problem()
                .unwrap()
                .starts_with("the console log ends here")
        );
        assert_eq!(console.last_line(), "kept");
    }
}
