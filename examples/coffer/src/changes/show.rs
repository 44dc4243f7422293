//! A change in one line.

use sandbox::changes::{Caution, Change, FileKind, FileState, What, quoted, visible};
use serde_json::{Value, json};

/// For people.
pub(super) fn line(change: &Change) -> String {
    let sign = match change.what {
        What::Added => 'A',
        What::Modified => 'M',
        What::Mode => 'm',
        What::Deleted => 'D',
        What::Renamed { .. } => 'R',
    };
    let conflict = if change.is_conflict { 'C' } else { ' ' };
    let caution = if change.caution.is_some() { '!' } else { ' ' };
    let path = match &change.what {
        What::Renamed { from } => format!("{} -> {}", quoted(from), quoted(&change.path)),
        _ => quoted(&change.path),
    };
    let is_directory = |state: FileState| state.kind == FileKind::Directory;
    let slash = if change.after.or(change.before).is_some_and(is_directory) {
        "/"
    } else {
        ""
    };
    format!("{sign}{conflict}{caution} {path}{slash}")
}

/// For programs. What would act on a terminal is escaped, which is the same to who reads JSON.
pub(super) fn json_line(change: &Change) -> String {
    let text = as_json(change).to_string();
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        let mut buffer = [0; 4];
        let bytes = c.encode_utf8(&mut buffer).as_bytes();
        if visible(bytes) == bytes {
            line.push(c);
        } else {
            let escape = |unit: &mut u16| line.push_str(&format!("\\u{unit:04x}"));
            c.encode_utf16(&mut [0; 2]).iter_mut().for_each(escape);
        }
    }
    line
}

fn as_json(change: &Change) -> Value {
    let what = match change.what {
        What::Added => "added",
        What::Modified => "modified",
        What::Mode => "mode",
        What::Deleted => "deleted",
        What::Renamed { .. } => "renamed",
    };
    let from = match &change.what {
        What::Renamed { from } => Some(from.to_string_lossy()),
        _ => None,
    };
    let caution = change.caution.map(|caution| match caution {
        Caution::LeadsOutside => "leads outside",
        _ => "runs on the host",
    });
    json!({
        "path": change.path.to_string_lossy(), "change": what, "from": from, "before": state(change.before),
        "after": state(change.after), "conflict": change.is_conflict, "caution": caution,
    })
}

fn state(state: Option<FileState>) -> Option<Value> {
    let state = state?;
    let kind = match state.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Special => "special",
    };
    Some(json!({ "kind": kind, "mode": format!("{:04o}", state.mode) }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::changes) fn change(path: &str, what: What) -> Change {
        let state = FileState {
            kind: FileKind::File,
            mode: 0o644,
        };
        Change {
            path: path.into(),
            what,
            before: Some(state),
            after: Some(state),
            is_conflict: true,
            caution: Some(Caution::RunsOnHost),
        }
    }

    #[test]
    fn a_line_and_an_object_tell_all_of_a_change() {
        let one = change("a\x1b[2J", What::Renamed { from: "b".into() });
        assert_eq!(line(&one), "RC! b -> \"a\\033[2J\"");
        let expected = json!({
            "path": "a\x1b[2J", "change": "renamed", "from": "b", "conflict": true, "caution": "runs on the host",
            "before": { "kind": "file", "mode": "0644" }, "after": { "kind": "file", "mode": "0644" },
        });
        assert_eq!(as_json(&one), expected);
        let line = json_line(&change("a\u{7f}\u{202e}\u{e0041}", What::Added));
        assert!(line.contains(r"a\u007f\u202e\udb40\udc41"), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], "a\u{7f}\u{202e}\u{e0041}");
    }
}
