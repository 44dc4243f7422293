//! A Rust file with the borders of its functions and of its tests.

use std::{ops::Range, path::PathBuf};

use super::lex::{self, Line, words};

/// A Rust file of the workspace.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is, from the workspace's root on.
    pub(super) path: PathBuf,
    /// Its lines.
    pub(super) lines: Vec<Line>,
    /// Its functions.
    pub(super) functions: Vec<Function>,
    /// The lines that are tests: all, none, or those of a `#[cfg(test)]` module.
    tests: Vec<Range<usize>>,
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    /// The line of its `fn`, counted from 0.
    pub(super) line: usize,
    /// How many lines stand between its braces; 1 for what is on one line.
    pub(super) length: usize,
}

impl Source {
    /// Looks at the text of a file.
    pub(super) fn new(path: PathBuf, text: &str) -> Self {
        let lines = lex::lines(text);
        let is_test = path.file_stem().is_some_and(|stem| stem == "tests")
            || path
                .components()
                .any(|part| part.as_os_str() == "tests" || part.as_os_str() == "benches");
        let whole = 0..lines.len();
        let tests = if is_test {
            vec![whole]
        } else {
            test_modules(&lines)
        };
        Self {
            functions: functions(&lines),
            path,
            lines,
            tests,
        }
    }

    /// Whether this line, counted from 0, is part of the tests.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&line))
    }

    /// How many lines are tests.
    pub(super) fn test_lines(&self) -> usize {
        self.tests.iter().map(ExactSizeIterator::len).sum()
    }

    /// The lines that are no tests, with their numbers from 0.
    pub(super) fn product_lines(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines
            .iter()
            .enumerate()
            .filter(|(number, _)| !self.is_test(*number))
    }
}

/// The lines of `#[cfg(test)] mod … { … }`, attribute included.
fn test_modules(lines: &[Line]) -> Vec<Range<usize>> {
    let starts = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.code.trim().starts_with("#[cfg(test)]"));
    let module = |(start, _): (usize, &Line)| {
        let (head, line) = lines
            .iter()
            .enumerate()
            .skip(start)
            .find(|(_, line)| line.has_word("mod"))?;
        (head <= start + 2 && line.code.contains('{'))
            .then(|| start..closing_line(lines, head, 0) + 1)
    };
    starts.filter_map(module).collect()
}

/// The line of the brace that closes the first one opened at or after `column` of line `start`.
fn closing_line(lines: &[Line], start: usize, column: usize) -> usize {
    let mut depth = 0_usize;
    for (number, line) in lines.iter().enumerate().skip(start) {
        let code = if number == start {
            line.code.get(column..).unwrap_or_default()
        } else {
            &line.code
        };
        for c in code.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth <= 1 => return number,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    lines.len().saturating_sub(1)
}

fn functions(lines: &[Line]) -> Vec<Function> {
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = function_name(&line.code) else {
            continue;
        };
        if let Some((open, column)) = body_start(lines, number) {
            let close = closing_line(lines, open, column);
            let length = (close - open).saturating_sub(1).max(1);
            found.push(Function {
                name: name.to_owned(),
                line: number,
                length,
            });
        }
    }
    found
}

/// The name after `fn`; a function pointer type has none.
fn function_name(code: &str) -> Option<&str> {
    let at = code
        .find("fn ")
        .filter(|at| *at == 0 || code[..*at].ends_with(' '))?;
    words(code.get(at + 3..)?).next()
}

/// Where the body opens; a declaration that ends with a semicolon has none.
fn body_start(lines: &[Line], start: usize) -> Option<(usize, usize)> {
    let mut brackets = 0_i32;
    for (number, line) in lines.iter().enumerate().skip(start) {
        let from = if number == start {
            line.code.find("fn ")?
        } else {
            0
        };
        for (column, c) in line
            .code
            .char_indices()
            .filter(|(column, _)| *column >= from)
        {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '{' if brackets == 0 => return Some((number, column)),
                ';' if brackets == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.into(), text)
    }

    #[test]
    fn functions_are_found_with_their_lengths() {
        let text = "fn one() { x }\n\npub(crate) fn two<'a>(\n    x: [u8; 4],\n) -> &'a str\nwhere T: X {\n    a\n    if b {\n    }\n}\n\
                    trait T { fn three(&self); }\ntype F = fn(u8) -> u8;\nlet s = \"fn four() {\";\n";
        let found: Vec<_> = source("a.rs", text)
            .functions
            .into_iter()
            .map(|f| (f.name, f.line, f.length))
            .collect();
        assert_eq!(found, [("one".into(), 0, 1), ("two".into(), 2, 3)]);
    }

    #[test]
    fn test_module_is_told_from_the_rest() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n";
        let source = source("a.rs", text);
        let tests: Vec<_> = (0..6).filter(|line| source.is_test(*line)).collect();
        assert_eq!(tests, [1, 2, 3, 4]);
        assert_eq!(source.test_lines(), 4);
    }

    #[test]
    fn test_files_are_tests_throughout() {
        for path in ["x/src/y/tests.rs", "x/tests/y.rs"] {
            assert_eq!(
                source(path, "fn a() {}\nfn b() {}\n").test_lines(),
                2,
                "{path}"
            );
        }
        assert_eq!(
            source("x/src/a.rs", "#[cfg(test)]\nmod tests;\n").test_lines(),
            0
        );
    }
}
