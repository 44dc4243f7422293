//! Our own words. The macros of the standard library panic when a stream is closed; these do not.

use std::io::{self, Write as _};

use sandbox::changes::visible;

use crate::failure::Failure;

/// Writes a line to standard error. When it cannot be written, nobody is left to be told.
pub(crate) fn say(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes `text` to standard output. A reader who has seen enough and left is no failure.
pub(crate) fn print(text: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Output("standard output", error))
        }
        _ => Ok(()),
    }
}

/// `text` on one line, without what would act on a terminal.
pub(crate) fn escaped(text: &str) -> String {
    let visible = visible(text.as_bytes());
    let visible = String::from_utf8_lossy(&visible);
    visible.replace('\n', "\\n").replace('\t', "\\t")
}
