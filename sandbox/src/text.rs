//! Text of a guest or a worker on its way to a person's terminal.

/// `text` without control characters and invisible ones that reorder or hide text, and at most 300
/// characters of it: a guest's escape sequences are not to act on the terminal of who reads it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() && !is_format(*c))
        .take(300)
        .collect()
}

const fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_is_left() {
        for (text, expected) in [
            ("plain text, ümlaut", "plain text, ümlaut"),
            ("\x1b]52;c;AAAA\x07x", "]52;c;AAAAx"),
            ("a\u{202e}b\u{200b}c\u{feff}", "abc"),
            ("two\nlines\r", "twolines"),
        ] {
            assert_eq!(printable(text), expected);
        }
        assert_eq!(printable(&"x".repeat(1000)).len(), 300);
    }
}
