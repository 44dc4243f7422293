//! One JSON object on one line, in printable ASCII.

use std::fmt::Write as _;

/// An object that is being written.
pub(crate) struct Object(String);

impl Object {
    pub(crate) fn new() -> Self {
        Self("{".to_owned())
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.string(key);
        self.0.push(':');
    }

    /// A member with a text of which at most `most` bytes are kept.
    pub(crate) fn text(&mut self, key: &str, text: &str, most: usize) {
        self.key(key);
        self.string(&bounded(text, most));
    }

    /// A member with a number.
    pub(crate) fn number(&mut self, key: &str, number: u64) {
        self.key(key);
        // Writing to a text does not fail.
        let _ = write!(self.0, "{number}");
    }

    pub(crate) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }

    /// `text` as a JSON string (RFC 8259, section 7). All that is not printable ASCII is escaped, so that nothing acts on a terminal,
    /// breaks a line or reorders it.
    fn string(&mut self, text: &str) {
        self.0.push('"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend(['\\', character]),
                ' '..='~' => self.0.push(character),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.0, "\\u{unit:04x}");
                    }
                }
            }
        }
        self.0.push('"');
    }
}

/// `text`, or its beginning and a mark, in at most `most` bytes.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    const MARK: &str = "...";
    if text.len() <= most {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(most.saturating_sub(MARK.len()));
    format!("{}{MARK}", text.get(..kept).unwrap_or_default())
}
