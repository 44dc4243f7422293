//! Changes as text, in the form that git and patch(1) know.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use fsshare::{Change, Changes, Content, FileKind, FileState, What};
use similar::TextDiff;

use crate::text::is_format;

/// Larger files are only said to differ, bytes.
const LONGEST: u64 = 4 << 20;
/// How much of a file is looked at to tell text from anything else, as git does.
const LOOKED_AT: usize = 8000;
/// After this time a difference is told more coarsely: the guest chose what is compared.
const PATIENCE: Duration = Duration::from_secs(2);

/// One change as a unified diff with git's extended head. What is no text, or longer than 4 MiB, is only said to differ.
///
/// # Errors
/// A file cannot be read.
pub fn unified_diff(changes: &Changes, change: &Change) -> io::Result<Vec<u8>> {
    let old = match &change.what {
        What::Renamed { from } => from,
        _ => &change.path,
    };
    let mut text = head(change, old).into_bytes();
    let before = Side::of(changes.before(change).map_err(io::Error::other)?)?;
    let after = Side::of(changes.after(change).map_err(io::Error::other)?)?;
    let (name, other) = (side_name("a", old), side_name("b", &change.path));
    match (before, after) {
        (Side::Text(before), Side::Text(after)) if before != after => {
            let absent = |state: Option<FileState>, name: String| match state {
                Some(_) => name,
                None => "/dev/null".into(),
            };
            let is_rename = matches!(change.what, What::Renamed { .. });
            let name = absent(change.before.filter(|_| !is_rename), name);
            let other = absent(change.after, other);
            let mut config = TextDiff::configure();
            let diff = config
                .timeout(PATIENCE)
                .diff_lines(before.as_slice(), after.as_slice());
            diff.unified_diff()
                .header(&name, &other)
                .to_writer(&mut text)?;
        }
        (Side::Text(_), Side::Text(_)) => {}
        _ => text.extend_from_slice(format!("Binary files {name} and {other} differ\n").as_bytes()),
    }
    Ok(text)
}

fn head(change: &Change, old: &Path) -> String {
    let (name, other) = (side_name("a", old), side_name("b", &change.path));
    let mut head = format!("diff --git {name} {other}\n");
    let mut line = |text: String| head.push_str(&format!("{text}\n"));
    match (&change.what, change.before, change.after) {
        (What::Renamed { .. }, ..) => {
            line(format!("rename from {}", quoted(old)));
            line(format!("rename to {}", quoted(&change.path)));
        }
        (_, None, Some(new)) => line(format!("new file mode {:06o}", mode(new))),
        (_, Some(old), None) => line(format!("deleted file mode {:06o}", mode(old))),
        (_, Some(old), Some(new)) if mode(old) != mode(new) => {
            line(format!("old mode {:06o}", mode(old)));
            line(format!("new mode {:06o}", mode(new)));
        }
        _ => {}
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

    fn shown(changes: &Changes) -> String {
        let texts = changes.list().iter();
        let texts = texts.map(|change| unified_diff(changes, change).unwrap());
        String::from_utf8(texts.collect::<Vec<_>>().concat()).unwrap()
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
        assert_eq!(shown(&changes), expected);
    }

    #[test]
    fn git_applies_what_is_shown() {
        if std::process::Command::new("git")
            .arg("--version")
            .output()
            .is_err()
        {
            println!("SKIP: git is not installed, so its reading of our diffs cannot be asked for");
            return;
        }
        let (folder, changes) = changes(|below, above| {
            fs::write(below.join("a"), "one\ntwo\n").unwrap();
            fs::write(above.join("a"), "one\nzwei").unwrap();
            fs::write(above.join("odd \"name\"\n"), "x\n").unwrap();
            std::os::unix::fs::symlink("nowhere", above.join("link")).unwrap();
        });
        let patch = folder.path().join("patch");
        fs::write(&patch, shown(&changes)).unwrap();
        let applied = std::process::Command::new("git")
            .args(["apply", "--verbose"])
            .arg(&patch)
            .env("GIT_CEILING_DIRECTORIES", folder.path())
            .current_dir(folder.path().join("work"))
            .output()
            .unwrap();
        assert!(applied.status.success(), "{applied:?}");
        let work = folder.path().join("work");
        assert_eq!(fs::read(work.join("a")).unwrap(), b"one\nzwei");
        assert_eq!(fs::read(work.join("odd \"name\"\n")).unwrap(), b"x\n");
        assert_eq!(
            fs::read_link(work.join("link")).unwrap(),
            Path::new("nowhere")
        );
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
