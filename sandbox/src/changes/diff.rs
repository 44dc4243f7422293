//! Changes as text, in the form that git and patch(1) know.

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use fsshare::{Change, Changes, Content, FileKind, FileState, What};
use similar::{ChangeTag, TextDiff};

use crate::text::is_format;

/// Larger files are only said to differ, bytes.
const LONGEST: u64 = 4 << 20;
/// How much of a file is looked at to tell text from anything else, as git does.
const LOOKED_AT: usize = 8000;
/// Lines around a difference.
const AROUND: usize = 3;
/// After this time a difference is told more coarsely: the guest chose what is compared.
const PATIENCE: Duration = Duration::from_secs(2);

/// One change as a unified diff with git's extended head. What is no text, or longer than 4 MiB, is only said to differ. Where one kind of thing takes
/// the place of another it is two diffs, as git has it; of a directory, which git does not know, a line tells that patching programs skip.
///
/// # Errors
/// A file cannot be read.
pub fn unified_diff(changes: &Changes, change: &Change) -> io::Result<Vec<u8>> {
    let read = |content: Result<Content, _>| Side::of(content.map_err(io::Error::other)?);
    let (old, new) = (change.before, change.after);
    let is_same_kind = |old: FileState, new: FileState| old.kind == new.kind;
    let mut text = Vec::new();
    if let (Some(old), Some(new)) = (old, new)
        && !is_same_kind(old, new)
    {
        let before = read(changes.before(change))?;
        one_diff(&mut text, change, (Some(old), before), (None, Side::EMPTY));
        let after = read(changes.after(change))?;
        one_diff(&mut text, change, (None, Side::EMPTY), (Some(new), after));
    } else {
        let before = read(changes.before(change))?;
        let after = read(changes.after(change))?;
        one_diff(&mut text, change, (old, before), (new, after));
    }
    Ok(text)
}

/// What is on one side, and what it holds.
type Half = (Option<FileState>, Side);

/// The diff of two of a kind, of which one may not be there.
fn one_diff(text: &mut Vec<u8>, change: &Change, (old, before): Half, (new, after): Half) {
    let is_directory = |state: FileState| state.kind == FileKind::Directory;
    if old.or(new).is_some_and(is_directory) {
        text.extend_from_slice(directory_line(&change.path, old, new).as_bytes());
        return;
    }
    let old_path = match &change.what {
        What::Renamed { from } => from,
        _ => &change.path,
    };
    text.extend_from_slice(head(change, old_path, old, new).as_bytes());
    let (name, other) = (side_name("a", old_path), side_name("b", &change.path));
    match (before, after) {
        (Side::Text(before), Side::Text(after)) if before != after => {
            let or_null = |state: Option<FileState>, name: String| match state {
                Some(_) => name,
                None => "/dev/null".into(),
            };
            let (name, other) = (or_null(old, name), or_null(new, other));
            text.extend_from_slice(format!("--- {name}\n+++ {other}\n").as_bytes());
            hunks(text, &lines(&before), &lines(&after));
        }
        (Side::Text(_), Side::Text(_)) => {}
        _ => text.extend_from_slice(format!("Binary files {name} and {other} differ\n").as_bytes()),
    }
}

/// Where they differ, with some lines around it.
fn hunks(text: &mut Vec<u8>, before: &[&[u8]], after: &[&[u8]]) {
    let diff = TextDiff::configure()
        .timeout(PATIENCE)
        .diff_slices(before, after);
    for group in diff.grouped_ops(AROUND) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let old = first.old_range().start..last.old_range().end;
        let new = first.new_range().start..last.new_range().end;
        let head = format!("@@ -{} +{} @@\n", span(&old), span(&new));
        text.extend_from_slice(head.as_bytes());
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => b' ',
                ChangeTag::Delete => b'-',
                ChangeTag::Insert => b'+',
            };
            text.push(sign);
            text.extend_from_slice(change.value());
            if !change.value().ends_with(b"\n") {
                text.extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
    }
}

/// First line, counted from 1, and how many; of none, the line before.
fn span(lines: &Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// At line feeds only, as git has them: a lone carriage return ends no line.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').collect()
}

fn directory_line(path: &Path, old: Option<FileState>, new: Option<FileState>) -> String {
    let path = quoted(path);
    match (old, new) {
        (None, Some(new)) => format!("directory {path} new, mode {:04o}\n", new.mode),
        (Some(_), None) => format!("directory {path} deleted\n"),
        (old, new) => {
            let mode = |state: Option<FileState>| state.map_or(0, |state| state.mode);
            let (old, new) = (mode(old), mode(new));
            format!("directory {path} mode {old:04o}, now {new:04o}\n")
        }
    }
}

fn head(
    change: &Change,
    old_path: &Path,
    old: Option<FileState>,
    new: Option<FileState>,
) -> String {
    let (name, other) = (side_name("a", old_path), side_name("b", &change.path));
    let mut head = format!("diff --git {name} {other}\n");
    let mut line = |text: String| head.push_str(&format!("{text}\n"));
    match (old, new) {
        (None, Some(new)) => line(format!("new file mode {:06o}", mode(new))),
        (Some(old), None) => line(format!("deleted file mode {:06o}", mode(old))),
        (Some(old), Some(new)) if mode(old) != mode(new) => {
            line(format!("old mode {:06o}", mode(old)));
            line(format!("new mode {:06o}", mode(new)));
        }
        _ => {}
    }
    if matches!(change.what, What::Renamed { .. }) {
        line(format!("rename from {}", quoted(old_path)));
        line(format!("rename to {}", quoted(&change.path)));
    }
    head
}

/// The mode with its type, as git writes it.
fn mode(state: FileState) -> u32 {
    let kind = match state.kind {
        FileKind::File => 0o100_000,
        FileKind::Directory => 0o040_000,
        FileKind::Link => return 0o120_000,
        FileKind::Special => 0o010_000,
    };
    kind | state.mode
}

/// What is compared.
enum Side {
    Text(Vec<u8>),
    Opaque,
}

impl Side {
    const EMPTY: Self = Self::Text(Vec::new());

    fn of(content: Content) -> io::Result<Self> {
        Ok(match content {
            Content::Nothing | Content::Other => Self::Text(Vec::new()),
            Content::Link(text) => Self::Text(text),
            Content::File(file) => Self::of_file(file)?,
        })
    }

    fn of_file(file: File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        let begin = bytes.get(..LOOKED_AT).unwrap_or(&bytes);
        if bytes.len() as u64 > LONGEST || begin.contains(&0) {
            Ok(Self::Opaque)
        } else {
            Ok(Self::Text(bytes))
        }
    }
}

fn side_name(side: &str, path: &Path) -> String {
    quoted(&Path::new(side).join(path))
}

/// A path that can be printed: as it is, or, if it has control characters, quotes, backslashes or bytes that are no text, in double quotes and
/// with these escaped as git does it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\\') && !is_format(c);
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.chars().all(is_plain)
    {
        return text.into();
    }
    let escape = |byte: &u8| match byte {
        b'\n' => "\\n".into(),
        b'\t' => "\\t".into(),
        b'\r' => "\\r".into(),
        b'"' => "\\\"".into(),
        b'\\' => "\\\\".into(),
        0x20..=0x7e => char::from(*byte).to_string(),
        _ => format!("\\{byte:03o}"),
    };
    let escaped: String = bytes.iter().map(escape).collect();
    format!("\"{escaped}\"")
}

/// A text of the guest's whose lines and tabs are kept, and whose other control characters, and those that hide others or change their order,
/// are shown and do nothing to a terminal.
#[must_use]
pub fn visible(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => c.to_string(),
        _ if c.is_control() || is_format(c) => c.escape_default().to_string(),
        _ => c.to_string(),
    });
    shown.collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::changes::Overlay;

    /// The changes of a workspace, to which the guest's side was made by hand.
    fn changes(make: impl Fn(&Path, &Path)) -> (tempfile::TempDir, Changes) {
        let folder = tempfile::tempdir().unwrap();
        let overlay = Overlay {
            workspace: folder.path().join("work"),
            changes: folder.path().join("changes"),
        };
        fs::create_dir(&overlay.workspace).unwrap();
        let upper = overlay.changes.join("upper");
        fs::create_dir_all(&upper).unwrap();
        make(&overlay.workspace, &upper);
        let changes = overlay.read().unwrap();
        (folder, changes)
    }

    fn shown(changes: &Changes) -> Vec<u8> {
        let texts = changes.list().iter();
        let texts = texts.map(|change| unified_diff(changes, change).unwrap());
        texts.collect::<Vec<_>>().concat()
    }

    #[test]
    fn each_kind_has_its_form() {
        let (_folder, changes) = changes(|below, above| {
            fs::write(below.join("a"), "one\ntwo\nthree\n").unwrap();
            fs::write(above.join("a"), "one\n2\nthree").unwrap();
            fs::write(above.join("new"), "x\n").unwrap();
            fs::set_permissions(above.join("new"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(below.join("bin"), b"\0a").unwrap();
            fs::write(above.join("bin"), b"\0b").unwrap();
            std::os::unix::fs::symlink("a", above.join("link")).unwrap();
        });
        let expected = "diff --git a/a b/a\n\
                        --- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n one\n-two\n-three\n+2\n+three\n\
                        \\ No newline at end of file\n\
                        diff --git a/bin b/bin\nBinary files a/bin and b/bin differ\n\
                        diff --git a/link b/link\nnew file mode 120000\n--- /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+a\n\
                        \\ No newline at end of file\n\
                        diff --git a/new b/new\nnew file mode 100755\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+x\n";
        assert_eq!(String::from_utf8(shown(&changes)).unwrap(), expected);
    }

    fn has_git(test: &str) -> bool {
        let has_git = std::process::Command::new("git")
            .arg("--version")
            .output()
            .is_ok();
        if !has_git {
            // Past the capture of the test harness, so that it is counted.
            let line = format!("SKIP {test}: git is not installed\n");
            drop(io::stderr().write_all(line.as_bytes()));
        }
        has_git
    }

    /// Lets git make the changes in the workspace, of which it gives the path.
    fn apply_with_git(folder: &tempfile::TempDir, changes: &Changes) -> std::path::PathBuf {
        let (patch, work) = (folder.path().join("patch"), folder.path().join("work"));
        fs::write(&patch, shown(changes)).unwrap();
        let applied = std::process::Command::new("git")
            .args(["apply", "--verbose"])
            .arg(&patch)
            .env("GIT_CEILING_DIRECTORIES", folder.path())
            .current_dir(&work)
            .output()
            .unwrap();
        assert!(applied.status.success(), "{applied:?}");
        work
    }

    #[test]
    fn git_applies_what_is_shown() {
        if !has_git("git_applies_what_is_shown") {
            return;
        }
        let (folder, changes) = changes(|below, above| {
            fs::write(below.join("a"), "one\ntwo\n").unwrap();
            fs::write(above.join("a"), "one\nzwei").unwrap();
            fs::write(above.join("odd \"name\"\n"), "x\n").unwrap();
            std::os::unix::fs::symlink("nowhere", above.join("link")).unwrap();
            fs::create_dir(above.join("folder")).unwrap();
            fs::write(above.join("folder/inner"), "1\r2\n3\r").unwrap();
            fs::write(below.join("kind"), "was a file\n").unwrap();
            std::os::unix::fs::symlink("a", above.join("kind")).unwrap();
        });
        let work = apply_with_git(&folder, &changes);
        assert_eq!(fs::read(work.join("a")).unwrap(), b"one\nzwei");
        assert_eq!(fs::read(work.join("folder/inner")).unwrap(), b"1\r2\n3\r");
        assert_eq!(fs::read_link(work.join("kind")).unwrap(), Path::new("a"));
        assert_eq!(fs::read(work.join("odd \"name\"\n")).unwrap(), b"x\n");
        assert_eq!(
            fs::read_link(work.join("link")).unwrap(),
            Path::new("nowhere")
        );
    }

    #[test]
    fn git_makes_the_same_of_any_two_texts() {
        if !has_git("git_makes_the_same_of_any_two_texts") {
            return;
        }
        let texts: [&[u8]; 8] = [
            b"",
            b"a\n",
            b"a",
            b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n",
            b"a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\nL",
            b"x\na\r\nb\rc\n\n\nl",
            b"\r",
            b"\n\n\n\xff\n-a\n+b\n @@\n\\ no\n",
        ];
        for (before, after) in texts
            .iter()
            .flat_map(|one| texts.map(|other| (*one, other)))
        {
            let (folder, changes) = changes(|below, above| {
                fs::write(below.join("file"), before).unwrap();
                fs::write(above.join("file"), after).unwrap();
            });
            if before == after {
                assert!(changes.list().is_empty());
                continue;
            }
            let patched = apply_with_git(&folder, &changes);
            assert_eq!(fs::read(patched.join("file")).unwrap(), after, "{before:?}");
        }
    }

    #[test]
    fn another_kind_is_two_diffs_and_a_directory_a_line() {
        let (_folder, changes) = changes(|below, above| {
            fs::write(below.join("a"), "one\rstill\n").unwrap();
            std::os::unix::fs::symlink("b", above.join("a")).unwrap();
            fs::create_dir(above.join("new\n")).unwrap();
            fs::set_permissions(above.join("new\n"), fs::Permissions::from_mode(0o750)).unwrap();
        });
        let expected = "diff --git a/a b/a\ndeleted file mode 100644\n\
                        --- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\rstill\n\
                        diff --git a/a b/a\nnew file mode 120000\n\
                        --- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+b\n\\ No newline at end of file\n\
                        directory \"new\\n\" new, mode 0750\n";
        assert_eq!(String::from_utf8(shown(&changes)).unwrap(), expected);
    }

    #[test]
    fn what_is_shown_on_a_terminal_does_nothing_to_it() {
        let text = "+a\x1b[2Jb\r\n\tü\u{202e}".as_bytes();
        let shown = "+a\\u{1b}[2Jb\\r\n\tü\\u{202e}".as_bytes();
        assert_eq!(visible(text), shown);
        assert_eq!(visible(b"\xff"), "\u{fffd}".as_bytes());
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        for (name, expected) in [
            (b"plain name".as_slice(), "plain name"),
            ("größe".as_bytes(), "größe"),
            (b"\x1b[2J", "\"\\033[2J\""),
            (b"a\nb\"c\\", "\"a\\nb\\\"c\\\\\""),
            (b"\xff", "\"\\377\""),
            ("a\u{202e}b".as_bytes(), "\"a\\342\\200\\256b\""),
        ] {
            assert_eq!(quoted(Path::new(OsStr::from_bytes(name))), expected);
        }
    }
}
