//! Text of a guest or a worker on its way to a person's terminal.

/// Most characters of a text that are kept.
const LONGEST: usize = 300;

/// `text` without control characters and invisible ones that reorder or hide text, and at most 300
/// characters of it: a guest's escape sequences are not to act on the terminal of who reads it.
pub(crate) fn printable(text: &str) -> String {
    harmless(text).take(LONGEST).collect()
}

/// As [`printable`], for a path: of a long one the end is kept, which says which file it is.
pub(crate) fn printable_path(path: &str) -> String {
    let length = harmless(path).count();
    harmless(path)
        .skip(length.saturating_sub(LONGEST))
        .collect()
}

fn harmless(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_control() && !is_format(*c))
}

/// Whether it hides others or changes their order, or is not seen itself: Unicode's format characters (general category Cf), line and paragraph
/// separators, and variation selectors.
pub(crate) const fn is_format(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
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
            ("a\u{61c}b\u{2028}c\u{e0041}d\u{2066}", "abcd"),
            ("two\nlines\r", "twolines"),
        ] {
            assert_eq!(printable(text), expected);
            assert_eq!(printable_path(text), expected);
        }
    }

    #[test]
    fn of_a_long_text_the_begin_is_kept_and_of_a_long_path_the_end() {
        let long = format!("begin{}\x1b/ümlaut", "x".repeat(LONGEST));
        assert_eq!(
            printable(&long),
            format!("begin{}", "x".repeat(LONGEST - "begin".len()))
        );
        assert_eq!(
            printable_path(&long),
            format!("{}/ümlaut", "x".repeat(LONGEST - "/umlaut".len()))
        );
    }
}
