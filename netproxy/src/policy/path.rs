//! Paths of requests in one form, and patterns for them.
//!
//! Servers disagree about what `/a/%2e%2e/b`, `/a//b`, `/a;x/b` and `/a\b` are. A rule about paths cannot be right for all of them, so
//! where such a rule has to decide, a path that could be read in two ways is refused. Everything else has one form: escapes of
//! ordinary characters are decoded, one slash at the end does not count, the query is left out. Case is kept, because servers keep it.

use std::fmt;
use std::str::Bytes;

use super::document::LARGEST_PATTERN;

/// The longest path on which a rule decides, in bytes as sent, without the query.
pub const LONGEST_PATH: usize = 4096;

/// Why a path is not in one clear form. No text repeats the path: it is the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    Relative,
    /// Longer than [`LONGEST_PATH`].
    #[error("the path is longer than 4096 bytes")]
    TooLong,
    /// Two slashes follow each other.
    #[error("the path has an empty segment (`//`)")]
    EmptySegment,
    /// A segment is `.` or `..`, in any spelling.
    #[error("the path has a segment `.` or `..`")]
    DotSegment,
    /// `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the path has an escape that is not valid")]
    Escape,
    /// An escape of a character that has a meaning: a slash, a backslash, `%`, `;`, `?` or `#`.
    #[error("the path has an escaped character that servers may act on")]
    EscapedDelimiter,
    /// A backslash, which some servers take for a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// `;`, from which some servers ignore the rest of the segment.
    #[error("the path has parameters (`;`)")]
    Parameters,
    /// A control character, a space, `#`, or a character beyond ASCII that is not escaped.
    #[error("the path has a character that paths cannot have")]
    Character,
}

/// Why a text is no pattern for paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Longer than [`LARGEST_PATTERN`].
    #[error("it is longer than 1024 bytes")]
    TooLong,
    /// `**` beside something else in a segment.
    #[error("`**` must be a segment of its own")]
    DoubleStar,
    /// `%`: patterns hold characters as they are.
    #[error("patterns hold characters as they are, without `%` escapes")]
    Escaped,
    /// `?`: the query is not compared.
    #[error("the query is not compared, so that `?` cannot match")]
    Query,
    /// No path with this could be matched.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A request's path that has one clear form. Displays decoded, without the query: for people, not for a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CanonicalPath<'a> {
    /// As sent, and checked. It is decoded as it is compared, so that deciding copies nothing.
    raw: &'a str,
}

impl<'a> CanonicalPath<'a> {
    /// Takes `target`, the path of a request (origin form, with or without a query), if it has one form.
    ///
    /// # Errors
    ///
    /// Says why the path could be read in several ways, or in none.
    pub fn parse(target: &'a str) -> Result<Self, PathError> {
        let raw = target.split_once('?').map_or(target, |(path, _)| path);
        if !raw.starts_with('/') {
            return Err(PathError::Relative);
        }
        if raw.len() > LONGEST_PATH {
            return Err(PathError::TooLong);
        }
        let mut rest = raw.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'%' => decoded(rest.next(), rest.next())?,
                other => literal(other)?,
            };
        }
        for segment in segments(raw) {
            check_segment(Decoded::of(segment))?;
        }
        Ok(Self { raw })
    }
}

impl fmt::Display for CanonicalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<u8> = Decoded::of(self.raw).collect();
        f.write_str(&String::from_utf8_lossy(&bytes))
    }
}

impl fmt::Debug for CanonicalPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The bytes of a text that is checked, with its escapes decoded.
#[derive(Clone)]
struct Decoded<'a>(Bytes<'a>);

impl<'a> Decoded<'a> {
    fn of(checked: &'a str) -> Self {
        Self(checked.bytes())
    }
}

impl Iterator for Decoded<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        match self.0.next()? {
            b'%' => decoded(self.0.next(), self.0.next()).ok(),
            byte => Some(byte),
        }
    }
}

fn decoded(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let value = digit(high).zip(digit(low));
    let value = value.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
    match value.ok_or(PathError::Escape)? {
        b'/' | b'\\' | b'%' | b';' | b'?' | b'#' => Err(PathError::EscapedDelimiter),
        control if control.is_ascii_control() => Err(PathError::Character),
        byte => Ok(byte),
    }
}

fn literal(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b';' => Err(PathError::Parameters),
        b'#' => Err(PathError::Character),
        _ if byte.is_ascii_graphic() => Ok(byte),
        _ => Err(PathError::Character),
    }
}

/// Refuses a segment that is nothing, the directory or the one above, or no text.
fn check_segment(segment: impl Iterator<Item = u8> + Clone) -> Result<(), PathError> {
    if segment.clone().next().is_none() {
        return Err(PathError::EmptySegment);
    }
    if segment.clone().eq(*b".") || segment.clone().eq(*b"..") {
        return Err(PathError::DotSegment);
    }
    match is_text(segment) {
        true => Ok(()),
        false => Err(PathError::Escape),
    }
}

/// Whether `bytes` are UTF-8, seen one character at a time.
fn is_text(mut bytes: impl Iterator<Item = u8>) -> bool {
    while let Some(first) = bytes.next() {
        let length = match first {
            0..0x80 => continue,
            0xc0..0xe0 => 2,
            0xe0..0xf0 => 3,
            _ => 4,
        };
        let mut character = [first, 0, 0, 0];
        for place in character.iter_mut().take(length).skip(1) {
            // What is missing stays 0, which continues nothing.
            *place = bytes.next().unwrap_or(0);
        }
        let is_valid = |text: &[u8]| str::from_utf8(text).is_ok();
        if !character.get(..length).is_some_and(is_valid) {
            return false;
        }
    }
    true
}

/// The parts between slashes. A slash at the end adds none, and `/` has none.
fn segments(path: &str) -> impl Iterator<Item = &str> + Clone {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    // `//` is not `/`: what is between its slashes is an empty segment.
    let is_root = path.len() <= 1;
    inner.split('/').skip(usize::from(is_root))
}

/// A pattern for paths: segments in which `*` stands for any characters, and `**` for any number of segments, also none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Any number of segments.
    Any,
    /// One segment with this name.
    Literal(Box<str>),
    /// One segment that matches this, which has a `*`.
    Glob(Box<str>),
}

impl PathPattern {
    /// The pattern that `text` is. It holds characters as they are, not escaped.
    ///
    /// # Errors
    ///
    /// Says why `text` is none, or could match no path.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > LARGEST_PATTERN {
            return Err(PatternError::TooLong);
        }
        check_characters(text)?;
        if !text.starts_with('/') {
            return Err(PathError::Relative.into());
        }
        for segment in segments(text) {
            check_segment(segment.bytes())?;
        }
        Ok(Self {
            text: text.into(),
            segments: segments(text).map(segment).collect::<Result<_, _>>()?,
        })
    }

    /// Whether `path` matches.
    #[must_use]
    pub fn matches(&self, path: &CanonicalPath<'_>) -> bool {
        let parts = segments(path.raw);
        glob(
            parts,
            self.segments.iter(),
            |pattern| **pattern == Segment::Any,
            |pattern, part| pattern.matches(part),
        )
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_characters(text: &str) -> Result<(), PatternError> {
    for character in text.chars() {
        match character {
            '%' => return Err(PatternError::Escaped),
            '?' => return Err(PatternError::Query),
            _ if character.is_control() => return Err(PathError::Character.into()),
            // What a path can hold escaped, a pattern holds as it is.
            ' ' => {}
            _ => {
                if let Ok(ascii) = u8::try_from(character)
                    && ascii.is_ascii()
                {
                    literal(ascii)?;
                }
            }
        }
    }
    Ok(())
}

fn segment(text: &str) -> Result<Segment, PatternError> {
    match text {
        "**" => Ok(Segment::Any),
        _ if text.contains("**") => Err(PatternError::DoubleStar),
        _ if text.contains('*') => Ok(Segment::Glob(text.into())),
        _ => Ok(Segment::Literal(text.into())),
    }
}

impl Segment {
    /// Whether it matches a segment as sent.
    fn matches(&self, part: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(name) => Decoded::of(part).eq(name.bytes()),
            Self::Glob(pattern) => glob(
                Decoded::of(part),
                pattern.bytes(),
                |byte| *byte == b'*',
                |pattern, byte| *pattern == byte,
            ),
        }
    }
}

/// Whether `items` match `pattern`, in which a star stands for any number of items. Its time is at most the product of the two
/// lengths: only the last star is ever taken back, because what an earlier one could gain by taking more, the later one gains too.
fn glob<I, P>(
    mut items: I,
    mut pattern: P,
    is_star: impl Fn(&P::Item) -> bool,
    matches: impl Fn(&P::Item, I::Item) -> bool,
) -> bool
where
    I: Iterator + Clone,
    P: Iterator + Clone,
{
    // What follows the last star, and the items that were left to that.
    let mut last_star: Option<(P, I)> = None;
    loop {
        let before = items.clone();
        let goes_on = match (pattern.next(), items.next()) {
            (None, None) => return true,
            (Some(part), _) if is_star(&part) => {
                items = before.clone();
                last_star = Some((pattern.clone(), before));
                true
            }
            (Some(part), Some(item)) => matches(&part, item),
            _ => false,
        };
        if goes_on {
            continue;
        }
        // The last star takes one item more.
        let Some((after, from)) = last_star.as_mut() else {
            return false;
        };
        if from.next().is_none() {
            return false;
        }
        pattern = after.clone();
        items = from.clone();
    }
}
