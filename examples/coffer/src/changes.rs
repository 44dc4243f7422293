//! `coffer diff`, `apply` and `discard`: what was changed in a workspace with an overlay.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sandbox::changes::{
    Caution, Change, ChangesError, FileKind, FileState, OnConflict, Overlay, What,
    WorkspaceChanges, quoted, unified_diff, visible,
};
use serde_json::{Value, json};

use crate::cli::{ApplyOptions, DiffOptions, OverlayOptions};
use crate::failure::Failure;
use crate::print::{print, say};

/// Marked changes, and paths that were not compared, that are told of.
const MOST_MARKED: usize = 16;
/// Longest name of a directory.
const LONGEST_NAME: usize = 255;

/// Where the changes to a workspace are kept: `given`, or a directory of its own in the user's state folder, which is named after the
/// workspace's whole path.
pub(crate) fn place(workspace: &Path, given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let workspace = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.to_owned());
    let state = state_folder().join("cofferdam/changes");
    // One name for the whole path: the directory of one workspace never lies in another's.
    let name = folder_name(&workspace);
    name.as_bytes()
        .chunks(LONGEST_NAME)
        .fold(state, |folder, part| folder.join(OsStr::from_bytes(part)))
}

/// A path as one name, or as one that is too long and is cut into several.
fn folder_name(path: &Path) -> std::ffi::OsString {
    let mut name = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' => name.extend_from_slice(b"%2F"),
            b'%' => name.extend_from_slice(b"%25"),
            _ => name.push(*byte),
        }
    }
    OsStr::from_bytes(&name).to_owned()
}

fn state_folder() -> PathBuf {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(home)
        .unwrap_or_default()
}

fn overlay(options: &OverlayOptions) -> Overlay {
    Overlay {
        workspace: options.workspace.clone(),
        changes: place(&options.workspace, options.changes.as_deref()),
    }
}

/// Shows the changes.
pub(crate) fn diff(options: &DiffOptions) -> Result<ExitCode, Failure> {
    let changes = overlay(&options.overlay).read()?;
    let is_terminal = std::io::stdout().is_terminal();
    for change in changes
        .list()
        .iter()
        .filter(|one| is_meant(one, &options.paths))
    {
        if options.json {
            print(format!("{}\n", as_json(change)).as_bytes())?;
        } else if options.stat {
            print(format!("{}\n", line(change)).as_bytes())?;
        } else {
            let text = unified_diff(&changes, change)
                .unwrap_or_else(|error| format!("{}: {error}\n", quoted(&change.path)).into());
            print(&if is_terminal { visible(&text) } else { text })?;
        }
    }
    say_unread(changes.unread());
    say_rest(changes.is_complete());
    Ok(ExitCode::SUCCESS)
}

/// Makes the changes on the host.
pub(crate) fn apply(options: &ApplyOptions) -> Result<ExitCode, Failure> {
    let changes = overlay(&options.overlay).read()?;
    let is_named = |change: &Change| options.paths.contains(&change.path);
    let is_wanted = |change: &Change| {
        is_meant(change, &options.paths)
            && (change.caution.is_none() || options.marked || is_named(change))
    };
    let on_conflict = if options.overwrite {
        OnConflict::Overwrite
    } else {
        OnConflict::Keep
    };
    let wanted = changes.list().iter().filter(|one| is_wanted(one)).count();
    let failed = changes
        .apply(is_wanted, on_conflict)
        .map_err(|error| Failure::from(sandbox::Error::Config(with_source(&error))))?;
    for (_, error) in &failed {
        say(&format!("coffer: {}", with_source(error)));
    }
    let done = wanted - failed.len();
    say(&format!("coffer: {done} changes applied"));
    let left_out = |change: &&Change| is_meant(change, &options.paths) && !is_wanted(change);
    let marked: Vec<_> = changes.list().iter().filter(left_out).collect();
    if !marked.is_empty() {
        say(
            "coffer: left out, since programs of the host run or obey them; apply them by name or with --marked:",
        );
        marked
            .iter()
            .for_each(|change| say(&format!("coffer:   {}", line(change))));
    }
    say_unread(changes.unread());
    say_rest(changes.is_complete());
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Throws the changes away.
pub(crate) fn discard(options: &OverlayOptions) -> Result<ExitCode, Failure> {
    overlay(options).discard()?;
    Ok(ExitCode::SUCCESS)
}

/// Tells at the end of a run what to look at.
pub(crate) fn say_summary(changes: &WorkspaceChanges) {
    let all = changes.list();
    let marked: Vec<_> = all
        .iter()
        .filter(|change| change.caution.is_some())
        .collect();
    match changes {
        WorkspaceChanges::Overlay(changes) => {
            if !all.is_empty() {
                say(&format!(
                    "coffer: {} paths changed, {} of them marked: look at them with `coffer diff`, then `coffer apply` or `coffer discard`",
                    all.len(),
                    marked.len()
                ));
            }
            say_unread(changes.unread());
            say_rest(changes.is_complete());
        }
        WorkspaceChanges::InPlace(changes) => {
            say_marked(&marked);
            say_unread(&changes.unread);
            say_rest(changes.is_complete);
        }
    }
}

fn say_rest(is_complete: bool) {
    if !is_complete {
        say("coffer: so many paths were changed that not all are told");
    }
}

fn say_marked(marked: &[&Change]) {
    if !marked.is_empty() {
        say(
            "coffer: changed, and programs of the host run or obey it, or it leads out of the workspace:",
        );
    }
    let shown = marked.iter().take(MOST_MARKED);
    shown.for_each(|change| say(&format!("coffer:   {}", line(change))));
    if let more @ 1.. = marked.len().saturating_sub(MOST_MARKED) {
        say(&format!("coffer:   and {more} more"));
    }
}

fn say_unread(unread: &[ChangesError]) {
    for error in unread.iter().take(MOST_MARKED) {
        say(&format!("coffer: not compared: {}", with_source(error)));
    }
    if let more @ 1.. = unread.len().saturating_sub(MOST_MARKED) {
        say(&format!("coffer: and {more} more not compared"));
    }
}

/// An error of which the names may be the guest's, in one line.
fn with_source(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {source}"));
    let line = format!("{error}{}", source.unwrap_or_default());
    String::from_utf8_lossy(&visible(line.as_bytes())).replace('\n', "\\n")
}

/// Whether the change is at, or below, one of the paths.
fn is_meant(change: &Change, paths: &[PathBuf]) -> bool {
    let is_below = |path: &PathBuf| match &change.what {
        What::Renamed { from } => change.path.starts_with(path) || from.starts_with(path),
        _ => change.path.starts_with(path),
    };
    paths.is_empty() || paths.iter().any(|path| is_below(&plain(path)))
}

/// `./a/` as `a`.
fn plain(path: &Path) -> PathBuf {
    let parts = path.components();
    parts
        .filter(|part| *part != std::path::Component::CurDir)
        .collect()
}

fn line(change: &Change) -> String {
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
mod tests {
    use super::*;

    fn change(path: &str, what: What) -> Change {
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
    fn each_workspace_has_a_place_of_its_own() {
        let name = |path: &str| folder_name(Path::new(path));
        assert_eq!(name("/home/me/a b"), "%2Fhome%2Fme%2Fa b");
        assert_ne!(name("/a/b"), name("/a%2Fb"));
        let long = format!("/{}", "x".repeat(600));
        let place = place(Path::new(&long), None);
        assert!(
            place.iter().all(|part| part.len() <= LONGEST_NAME),
            "{place:?}"
        );
        assert_eq!(
            super::place(Path::new("/a"), Some(Path::new("b"))),
            Path::new("b")
        );
    }

    #[test]
    fn paths_choose_what_is_below_them() {
        let renamed = What::Renamed {
            from: "old/file".into(),
        };
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        for (one, path, meant) in [
            (change("src/main.rs", What::Modified), "src", true),
            (change("src/main.rs", What::Modified), "./src/", true),
            (change("src/main.rs", What::Modified), "sr", false),
            (change("new", renamed.clone()), "old", true),
            (change("new", renamed), "other", false),
        ] {
            assert_eq!(is_meant(&one, &paths(&[path])), meant, "{path}");
        }
        assert!(is_meant(&change("any", What::Added), &[]));
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
    }
}
