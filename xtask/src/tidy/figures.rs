//! The figures of a crate's source. They inform; none of them fails a check.

use super::{lex::Line, rules::unsafe_blocks, source::Source};

/// What is counted in a crate.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Figures {
    /// Lines of each file without its tests.
    files: Vec<usize>,
    /// Lines of each function's body, tests left out.
    functions: Vec<usize>,
    lines: usize,
    test_lines: usize,
    product_lines: usize,
    code_lines: usize,
    doc_lines: usize,
    comment_lines: usize,
    public_items: usize,
    documented_items: usize,
    unsafe_blocks: usize,
    explained_blocks: usize,
    unwraps: usize,
    dependencies: usize,
}

/// The head of the table of which [`Figures::row`] gives a row.
pub(super) const HEAD: &str = "crate            lines  files med/p90/max  fn med/p90/max  doc% com%  pub doc%  test%  unsafe (SAFETY%)  unwrap/1000  deps";

impl Figures {
    /// Counts a crate's files; `manifest` is its Cargo.toml.
    pub(super) fn of(sources: &[Source], manifest: &str) -> Self {
        let mut figures = Self {
            dependencies: dependencies(manifest),
            ..Self::default()
        };
        for source in sources {
            figures.add(source);
        }
        figures.files.sort_unstable();
        figures.functions.sort_unstable();
        figures
    }

    fn add(&mut self, source: &Source) {
        let product = source.lines.len() - source.test_lines();
        if product > 0 {
            self.files.push(product);
        }
        self.lines += source.lines.len();
        self.test_lines += source.test_lines();
        self.product_lines += product;
        let functions = source
            .functions
            .iter()
            .filter(|function| !source.is_test(function.line));
        self.functions
            .extend(functions.map(|function| function.length));
        for (number, line) in source.product_lines() {
            self.add_line(source, number, line);
        }
        let blocks = unsafe_blocks(source);
        self.unsafe_blocks += blocks.len();
        self.explained_blocks += blocks.iter().filter(|(_, explained)| *explained).count();
    }

    fn add_line(&mut self, source: &Source, number: usize, line: &Line) {
        self.code_lines += usize::from(line.has_code());
        self.doc_lines += usize::from(line.is_doc());
        self.comment_lines += usize::from(line.is_comment());
        self.unwraps +=
            line.code.matches(".unwrap()").count() + line.code.matches(".expect(").count();
        if is_public_item(&line.code) {
            self.public_items += 1;
            self.documented_items += usize::from(is_documented(source, number));
        }
    }

    /// The crate's row of the table.
    pub(super) fn row(&self, name: &str) -> String {
        format!(
            "{name:<16} {:>5}  {:>17}  {:>14}  {:>4} {:>4}  {:>8}  {:>5}  {:>6} {:>9}  {:>11.1}  {:>4}",
            self.lines,
            spread(&self.files),
            spread(&self.functions),
            percent(self.doc_lines, self.product_lines),
            percent(self.comment_lines, self.product_lines),
            percent(self.documented_items, self.public_items),
            percent(self.test_lines, self.lines),
            self.unsafe_blocks,
            format!("({})", percent(self.explained_blocks, self.unsafe_blocks)),
            per_thousand(self.unwraps, self.code_lines),
            self.dependencies,
        )
    }
}

/// Median, 90th percentile and maximum of sorted numbers.
fn spread(sorted: &[usize]) -> String {
    let at = |part: usize| {
        sorted
            .get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1)))
            .unwrap_or(&0)
    };
    format!("{}/{}/{}", at(50), at(90), at(100))
}

fn percent(part: usize, whole: usize) -> String {
    (part * 100 + whole / 2)
        .checked_div(whole)
        .map_or_else(|| "-".into(), |share| share.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "line counts are far below 2^52")]
fn per_thousand(part: usize, whole: usize) -> f64 {
    part as f64 * 1000.0 / whole.max(1) as f64
}

/// Items that a reader of the documentation sees; a module's documentation is in its own file.
fn is_public_item(code: &str) -> bool {
    let kinds = [
        "fn", "struct", "enum", "trait", "const", "static", "type", "union", "unsafe", "async",
    ];
    let mut words = code
        .trim_start()
        .strip_prefix("pub ")
        .unwrap_or_default()
        .split_whitespace();
    words.next().is_some_and(|kind| kinds.contains(&kind))
}

fn is_documented(source: &Source, item: usize) -> bool {
    let above = source.lines.get(..item).unwrap_or_default().iter().rev();
    // Attributes may stand between the documentation and the item.
    let mut above = above
        .skip_while(|line| line.code.trim_start().starts_with("#[") || line.code.trim() == ")]");
    above.next().is_some_and(Line::is_doc)
}

/// The direct dependencies for all targets together, those of tests left out.
fn dependencies(manifest: &str) -> usize {
    let mut inside = false;
    let mut names: Vec<&str> = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[dependencies]"
                || line.starts_with("[target.") && line.ends_with(".dependencies]");
        } else if inside && !line.starts_with('#') {
            names.extend(
                line.split(['=', '.'])
                    .next()
                    .map(str::trim)
                    .filter(|_| line.contains('=')),
            );
        }
    }
    names.sort_unstable();
    names.dedup();
    names.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_small_crate() {
        let text = "//! Module.\n\n/// Documented.\n#[must_use]\npub fn a() -> u8 {\n    // why\n    b.unwrap()\n}\n\npub struct B;\n\
                    pub(crate) struct C;\n#[cfg(test)]\nmod tests {\n    fn t() { x.unwrap() }\n}\n";
        let figures = Figures::of(&[Source::new("a/src/lib.rs".into(), text)], "");
        assert_eq!(
            (figures.lines, figures.test_lines, figures.product_lines),
            (15, 4, 11)
        );
        assert_eq!(
            (figures.doc_lines, figures.comment_lines, figures.code_lines),
            (2, 1, 6)
        );
        assert_eq!(
            (
                figures.public_items,
                figures.documented_items,
                figures.unwraps
            ),
            (2, 1, 1)
        );
        assert_eq!(figures.functions, [2]);
    }

    #[test]
    fn spread_of_numbers() {
        let hundred: Vec<_> = (1..=100).collect();
        for (numbers, text) in [(&[][..], "0/0/0"), (&[7], "7/7/7"), (&hundred, "51/91/100")] {
            assert_eq!(spread(numbers), text);
        }
    }

    #[test]
    fn dependencies_are_counted_once_and_without_those_of_tests() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\na.workspace = true\n# b = 1\nc = { version = \"1\" }\n\
                        [target.'cfg(unix)'.dependencies]\na.workspace = true\nd = \"1\"\n[dev-dependencies]\ne = \"1\"\n";
        assert_eq!(dependencies(manifest), 3);
    }
}
