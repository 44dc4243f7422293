//! JSON on one line, in printable ASCII.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;

/// `value` as one line, without a break. All that is not printable ASCII is escaped, so that nothing acts on a terminal, breaks a line or reorders
/// it.
pub(crate) fn line(value: &impl Serialize) -> String {
    let mut line = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut line, Ascii);
    // Texts and numbers can be written, and a vector takes them.
    drop(value.serialize(&mut serializer));
    String::from_utf8(line).unwrap_or_default()
}

struct Ascii;

impl Formatter for Ascii {
    /// What is not escaped by JSON anyway.
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if matches!(character, ' '..='~') {
                write!(writer, "{character}")?;
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_printable_and_comes_back() {
        for (text, expected) in [
            ("plain ~", r#""plain ~""#),
            ("a\"\\b", r#""a\"\\b""#),
            ("\u{1b}\n\u{7f}", r#""\u001b\n\u007f""#),
            ("ü\u{202e}x\u{10ffff}", r#""\u00fc\u202ex\udbff\udfff""#),
            ("", r#""""#),
        ] {
            assert_eq!(line(&text), expected);
            assert_eq!(serde_json::from_str::<String>(expected).unwrap(), text);
        }
    }
}
