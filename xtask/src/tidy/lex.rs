//! Tells code, comments and strings of a Rust file apart, line by line: enough for counting, far from a parser.

/// One line of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// The code, with the insides of strings, character literals and comments left out.
    pub(super) code: String,
    /// What stands in comments.
    pub(super) comment: String,
    /// Whether the comment is documentation.
    pub(super) doc: bool,
}

impl Line {
    /// Whether there is code on the line.
    pub(super) fn has_code(&self) -> bool {
        !self.code.trim().is_empty()
    }

    /// Whether the line is documentation and nothing else.
    pub(super) fn is_doc(&self) -> bool {
        self.doc && !self.has_code()
    }

    /// Whether the line is a comment that is no documentation, and nothing else.
    pub(super) fn is_comment(&self) -> bool {
        !self.doc && !self.comment.is_empty() && !self.has_code()
    }

    /// Whether `word` stands in the code as a word of its own.
    pub(super) fn has_word(&self, word: &str) -> bool {
        words(&self.code).any(|found| found == word)
    }
}

/// The identifiers and keywords of a piece of code.
pub(super) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    /// Inside so many nested block comments.
    BlockComment(u32),
    String,
    /// A raw string that ends at a quote with so many `#`.
    RawString(usize),
}

/// Splits a file into its lines.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut lexer = Lexer {
        state: State::Code,
        line: Line::default(),
        done: Vec::new(),
    };
    for line in text.lines() {
        lexer.line(line);
    }
    lexer.done
}

struct Lexer {
    state: State,
    line: Line,
    done: Vec<Line>,
}

impl Lexer {
    fn line(&mut self, text: &str) {
        if self.state == State::LineComment {
            self.state = State::Code;
        }
        let mut rest = text;
        while !rest.is_empty() {
            let taken = match self.state {
                State::Code => self.code(rest),
                State::LineComment => self.comment(rest, rest.len()),
                State::BlockComment(depth) => self.block_comment(rest, depth),
                State::String => self.string(rest),
                State::RawString(hashes) => self.raw_string(rest, hashes),
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        self.done.push(std::mem::take(&mut self.line));
    }

    /// Takes the next piece of code; returns its length.
    fn code(&mut self, rest: &str) -> usize {
        if rest.starts_with("//") {
            self.line.doc = rest.starts_with("///") || rest.starts_with("//!");
            self.state = State::LineComment;
            return 2;
        }
        if rest.starts_with("/*") {
            self.line.doc = rest.starts_with("/**") || rest.starts_with("/*!");
            self.state = State::BlockComment(1);
            return 2;
        }
        if let Some(length) = self.raw_string_start(rest) {
            return length;
        }
        if let Some(length) = char_literal(rest) {
            self.line.code.push_str("' '");
            return length;
        }
        let first = rest.chars().next().unwrap_or_default();
        self.line.code.push(first);
        if first == '"' {
            self.state = State::String;
        }
        first.len_utf8()
    }

    /// `r"` and `r#"`, but not the `r` at the end of an identifier, nor a raw identifier.
    fn raw_string_start(&mut self, rest: &str) -> Option<usize> {
        let before = self.line.code.chars().next_back();
        let after_prefix = rest.strip_prefix('r')?;
        if before.is_some_and(|c| c.is_alphanumeric() && !"bc".contains(c) || c == '_') {
            return None;
        }
        let hashes = after_prefix.len() - after_prefix.trim_start_matches('#').len();
        if !after_prefix.get(hashes..)?.starts_with('"') {
            return None;
        }
        self.line.code.push('"');
        self.state = State::RawString(hashes);
        Some(hashes + 2)
    }

    fn comment(&mut self, rest: &str, length: usize) -> usize {
        self.line
            .comment
            .push_str(rest.get(..length).unwrap_or_default());
        length
    }

    fn block_comment(&mut self, rest: &str, depth: u32) -> usize {
        let border = |pattern| rest.find(pattern).unwrap_or(rest.len());
        let (open, close) = (border("/*"), border("*/"));
        let next = open.min(close);
        if next > 0 {
            return self.comment(rest, next);
        }
        self.state = match depth {
            1 if close == 0 => State::Code,
            depth if close == 0 => State::BlockComment(depth - 1),
            depth => State::BlockComment(depth + 1),
        };
        2
    }

    fn string(&mut self, rest: &str) -> usize {
        if rest.starts_with('\\') {
            return 1 + rest.chars().nth(1).map_or(0, char::len_utf8);
        }
        if rest.starts_with('"') {
            self.end_string();
        }
        rest.chars().next().map_or(1, char::len_utf8)
    }

    fn raw_string(&mut self, rest: &str, hashes: usize) -> usize {
        let end = format!("\"{}", "#".repeat(hashes));
        match rest.find(&end) {
            Some(at) => {
                self.end_string();
                at + end.len()
            }
            None => rest.len(),
        }
    }

    fn end_string(&mut self) {
        self.line.code.push('"');
        self.state = State::Code;
    }
}

/// The length of a character literal at the start of `rest`; a lifetime is none.
fn char_literal(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if let Some(escape) = inside.strip_prefix('\\') {
        let first = escape.chars().next()?.len_utf8();
        return escape
            .get(first..)?
            .find('\'')
            .map(|end| 2 + first + end + 1);
    }
    let first = inside.chars().next()?.len_utf8();
    inside
        .get(first..)?
        .starts_with('\'')
        .then_some(1 + first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Vec<String> {
        lines(text).into_iter().map(|line| line.code).collect()
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        for (text, expected) in [
            ("let a = \"unsafe { // \\\" }\"; b", "let a = \"\"; b"),
            ("let a = r#\"x\" unsafe\"#; b", "let a = \"\"; b"),
            ("let a = br\"\\\"; b", "let a = b\"\"; b"),
            ("a // unsafe", "a "),
            ("a /* b /* c */ d */ e", "a  e"),
            (
                "let c = '{'; let d = '\\''; let e = '\\u{7f}'; f",
                "let c = ' '; let d = ' '; let e = ' '; f",
            ),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("for r in bar {}", "for r in bar {}"),
            ("let r#type = 1;", "let r#type = 1;"),
        ] {
            assert_eq!(code(text), [expected], "{text}");
        }
    }

    #[test]
    fn strings_and_comments_go_over_lines() {
        assert_eq!(code("a \"x\ny } \\\nz\" b"), ["a \"", "", "\" b"]);
        assert_eq!(code("a /* x\ny */ b"), ["a ", " b"]);
    }

    #[test]
    fn kinds_of_lines() {
        let lines = lines("/// doc\n//! doc\n// SAFETY: why\ncode(); // why\n\n/** doc */");
        let kinds: Vec<_> = lines
            .iter()
            .map(|line| (line.is_doc(), line.is_comment(), line.has_code()))
            .collect();
        let (doc, comment, code, empty) = (
            (true, false, false),
            (false, true, false),
            (false, false, true),
            (false, false, false),
        );
        assert_eq!(kinds, [doc, doc, comment, code, empty, doc]);
        assert_eq!(lines[2].comment, " SAFETY: why");
    }

    #[test]
    fn words_are_whole() {
        let line = &lines("#![expect(unsafe_code)] unsafe { x }")[0];
        assert!(line.has_word("unsafe") && line.has_word("unsafe_code") && !line.has_word("code"));
    }
}
