//! What binds a line to the one before it, and who looks whether it does.

use std::fmt;
use std::io::{self, BufRead};

use sha2::{Digest as _, Sha256};

use super::record::MAX_LINE;

/// What every line begins with; the digest of the line before follows.
const BEGIN: &str = "{\"prev\":\"";

/// A line's SHA-256. Displays in hexadecimal, and is read from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of a line, without its line break.
    #[must_use]
    pub fn of(line: &[u8]) -> Self {
        Self(Sha256::digest(line).into())
    }

    /// The digest in `text`, 64 digits in lower case.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (pairs, []) = text.as_chunks::<2>() else {
            return None;
        };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A log whose lines follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many lines.
    pub lines: u64,
    /// The digest of the last line; of none, where the reader began.
    pub head: Digest,
    /// What the first line continues: nothing (zeros), or another file.
    pub begin: Digest,
}

/// The first line that does not fit.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {fault}")]
#[non_exhaustive]
pub struct BrokenChain {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It continues another line than the one before it: something was changed, removed, added or moved.
    #[error("it does not continue the line before it")]
    Follows,
    /// It is no record.
    #[error("it is no record of an audit log")]
    NoRecord,
    /// Its end is missing.
    #[error("its end is missing")]
    Cut,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Reads a log to its end and says whether each line continues the one before. `from` is what the first one has to continue; without it, that is
/// not looked at (the file before was rotated away).
///
/// # Errors
///
/// The first line that does not fit.
pub fn verify(reader: impl BufRead, from: Option<Digest>) -> Result<Verified, BrokenChain> {
    let mut lines = Lines::new(reader, from);
    while lines.read()?.is_some() {}
    Ok(lines.verified)
}

/// The lines of a log, each of which has to continue the one before.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    expected: Option<Digest>,
    verified: Verified,
}

impl<R: BufRead> Lines<R> {
    /// Those that `reader` gives, of which the first has to continue `from`; without it, that is not looked at.
    pub fn new(reader: R, from: Option<Digest>) -> Self {
        Self {
            reader,
            line: Vec::new(),
            expected: from,
            verified: Verified {
                lines: 0,
                head: from.unwrap_or_default(),
                begin: from.unwrap_or_default(),
            },
        }
    }

    /// The next line, without its break; none at the end.
    ///
    /// # Errors
    ///
    /// It does not fit. Who goes on all the same gets the lines behind it, and finds it in [`Self::line`].
    pub fn read(&mut self) -> Result<Option<&[u8]>, BrokenChain> {
        let number = self.verified.lines + 1;
        let broken = |fault| BrokenChain {
            line: number,
            fault,
        };
        let prev = match next(&mut self.reader, &mut self.line) {
            Ok(None) => return Ok(None),
            Ok(Some(prev)) => Ok(prev),
            Err(fault) => Err(fault),
        };
        self.verified.lines = number;
        self.verified.head = Digest::of(&self.line);
        let expected = self.expected.replace(self.verified.head);
        let prev = prev.map_err(broken)?;
        if expected.is_some_and(|expected| expected != prev) {
            return Err(broken(Fault::Follows));
        }
        if number == 1 {
            self.verified.begin = prev;
        }
        Ok(Some(&self.line))
    }

    /// The line that was read last, as far as it was.
    #[must_use]
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// What was read so far.
    #[must_use]
    pub const fn verified(&self) -> Verified {
        self.verified
    }
}

/// The next line, without its break, and what it says that it continues. `None`: there is none.
fn next(reader: impl BufRead, line: &mut Vec<u8>) -> Result<Option<Digest>, Fault> {
    line.clear();
    let most = u64::try_from(MAX_LINE).unwrap_or(u64::MAX);
    reader
        .take(most.saturating_add(1))
        .read_until(b'\n', line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return Err(if line.len() < MAX_LINE {
            Fault::Cut
        } else {
            Fault::NoRecord
        });
    }
    prev(line).map(Some).ok_or(Fault::NoRecord)
}

/// Whether `line`, without its break, has the form of a record.
#[must_use]
pub fn is_record(line: &[u8]) -> bool {
    prev(line).is_some()
}

/// What a line says that it continues. What follows it is one object still, on one line, in printable ASCII.
fn prev(line: &[u8]) -> Option<Digest> {
    let (digest, rest) = line.strip_prefix(BEGIN.as_bytes())?.split_at_checked(64)?;
    let is_plain = rest.iter().all(|byte| matches!(byte, b' '..=b'~'));
    let is_whole = rest.starts_with(b"\",\"") && rest.ends_with(b"}");
    (is_plain && is_whole).then(|| Digest::parse(digest))?
}
