//! What is written down of a path, one after the other in a file.
//!
//! Each record is two NULs and two texts that end with NUL: the path below the root, and what is said of it. That is
//!
//! * the decimal numbers mode, size, inode, seconds and nanoseconds of the last change of content, with a blank behind each: what was there;
//! * `-` and a blank: nothing was there;
//! * `>`, or `<>`, another path, and two slashes: the directory has the other path from now on, or each has that of the other;
//! * `x` and a blank: the directory is about to be removed, so what was in it is gone.
//!
//! One that was cut off, since its writer was ended, spoils none behind it.

use super::origins::Origin;

const NOTHING: &[u8] = b"- ";
const EMPTIED: &[u8] = b"x ";
const MOVED: &[u8] = b">";
const EXCHANGED: &[u8] = b"<>";
/// In no path.
const END: &[u8] = b"//";

/// What is said of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// This was there.
    Was(Origin),
    Nothing,
    MovedTo(Vec<u8>),
    ExchangedWith(Vec<u8>),
    /// A directory that is about to be removed.
    Emptied,
}

impl Record {
    fn parse(text: &[u8]) -> Option<Self> {
        if text == NOTHING {
            return Some(Self::Nothing);
        }
        if text == EMPTIED {
            return Some(Self::Emptied);
        }
        let path = |mark| Some(text.strip_prefix(mark)?.strip_suffix(END)?.to_vec());
        path(MOVED)
            .map(Self::MovedTo)
            .or_else(|| path(EXCHANGED).map(Self::ExchangedWith))
            .or_else(|| Origin::parse(text).map(Self::Was))
    }

    fn text(&self) -> Vec<u8> {
        match self {
            Self::Was(origin) => origin.text().into_bytes(),
            Self::Nothing => NOTHING.into(),
            Self::MovedTo(path) => [MOVED, path, END].concat(),
            Self::ExchangedWith(path) => [EXCHANGED, path, END].concat(),
            Self::Emptied => EMPTIED.into(),
        }
    }
}

/// The record as it is written.
pub(super) fn framed(path: &[u8], record: &Record) -> Vec<u8> {
    [b"\0\0", path, b"\0", &record.text(), b"\0"].concat()
}

/// The records in their order.
pub(super) fn records(bytes: &[u8]) -> impl Iterator<Item = (Vec<u8>, Record)> + '_ {
    let texts = || bytes.split(|byte| *byte == 0);
    let threes = texts().zip(texts().skip(1)).zip(texts().skip(2));
    threes.filter_map(|((before, path), text)| {
        let is_framed = before.is_empty() && !path.is_empty();
        let record = Record::parse(text).filter(|_| is_framed)?;
        Some((path.to_vec(), record))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &[u8] = b"a b/\xff\n";
    const RECORD: &[u8] = b"\0\0a b/\xff\n\x0033188 12 5 -3 7 \0";
    const ORIGIN: Origin = Origin {
        mode: 0o100_644,
        size: 12,
        inode: 5,
        modified: (-3, 7),
    };

    fn parse(bytes: &[u8]) -> Vec<(Vec<u8>, Record)> {
        records(bytes).collect()
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        assert_eq!(framed(PATH, &Record::Was(ORIGIN)), RECORD);
        let to = || b"to/-\n".to_vec();
        let all = [
            Record::Was(ORIGIN),
            Record::Nothing,
            Record::MovedTo(to()),
            Record::ExchangedWith(to()),
            Record::Emptied,
        ];
        let bytes: Vec<u8> = all.iter().flat_map(|one| framed(PATH, one)).collect();
        assert_eq!(parse(&bytes), all.map(|one| (PATH.to_vec(), one)));
    }

    #[test]
    fn a_record_that_was_cut_off_spoils_none_behind_it() {
        for other in [
            Record::Was(ORIGIN),
            Record::Nothing,
            Record::Emptied,
            Record::MovedTo(b"a/b/c".to_vec()),
        ] {
            let other = framed(b"other", &other);
            for cut in 0..other.len() - 1 {
                let bytes = [&other[..cut], RECORD].concat();
                assert_eq!(
                    parse(&bytes),
                    [(PATH.to_vec(), Record::Was(ORIGIN))],
                    "{cut}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_looks_like_a_record_is_a_name() {
        for name in [b"33188 12 5 -3 7 ".as_slice(), b">x", b"- "] {
            let bytes = [framed(name, &Record::Nothing), RECORD.to_vec()].concat();
            let expected = [
                (name.to_vec(), Record::Nothing),
                (PATH.to_vec(), Record::Was(ORIGIN)),
            ];
            assert_eq!(parse(&bytes), expected);
        }
    }
}
