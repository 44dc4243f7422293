//! The guest's console on the host: the last part in memory, and a file when one is set.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::text::printable;

/// How much of the console is kept in memory.
const KEPT: usize = 64 * 1024;

/// The guest's console. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub(crate) struct Console(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    tail: VecDeque<u8>,
    file: Option<File>,
    problem: Option<String>,
}

impl Console {
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            tail: VecDeque::new(),
            file,
            problem: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the guest wrote. A file that cannot be written (a full disk) is given up, with
    /// the reason kept; the guest goes on.
    pub(crate) fn append(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.tail.extend(bytes);
        let excess = inner.tail.len().saturating_sub(KEPT);
        inner.tail.drain(..excess);
        if let Some(Err(error)) = inner.file.as_mut().map(|file| file.write_all(bytes)) {
            inner.problem = Some(format!("the console log ends here: {error}"));
            inner.file = None;
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
