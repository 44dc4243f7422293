//! `coffer diff`, `apply` and `discard`: what was changed in a workspace with an overlay.

mod chosen;
mod place;
mod show;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use sandbox::Error;
use sandbox::changes::{
    ApplyError, Change, ChangesError, OnConflict, Overlay, WorkspaceChanges, quoted, unified_diff,
    visible,
};

use self::chosen::Chosen;
pub(crate) use self::place::place;
use self::show::{json_line, line};
use crate::cli::{ApplyOptions, DiffOptions, OverlayOptions};
use crate::failure::Failure;
use crate::print::{print, say};

/// Marked changes, and paths that were not compared, that are told of.
const MOST_MARKED: usize = 16;

fn overlay(options: &OverlayOptions) -> Result<Overlay, Failure> {
    Ok(Overlay {
        workspace: options.workspace.clone(),
        changes: place(&options.workspace, options.changes.as_deref())?,
    })
}

/// Shows the changes.
pub(crate) fn diff(options: &DiffOptions) -> Result<ExitCode, Failure> {
    let chosen = Chosen::new(&options.overlay.workspace, &options.paths)?;
    let changes = overlay(&options.overlay)?.read()?;
    let is_terminal = std::io::stdout().is_terminal();
    let mut is_whole = changes.is_complete() && changes.unread().is_empty();
    for change in changes.list().iter().filter(|one| chosen.mean(one)) {
        if options.json {
            print(format!("{}\n", json_line(change)).as_bytes())?;
        } else if options.stat {
            print(format!("{}\n", line(change)).as_bytes())?;
        } else {
            match unified_diff(&changes, change) {
                Ok(text) => print(&if is_terminal { visible(&text) } else { text })?,
                Err(error) => {
                    is_whole = false;
                    say(&format!("coffer: {}: {error}", quoted(&change.path)));
                }
            }
        }
    }
    say_unread(changes.unread());
    say_rest(changes.is_complete());
    Ok(status(is_whole))
}

/// Makes the changes on the host.
pub(crate) fn apply(options: &ApplyOptions) -> Result<ExitCode, Failure> {
    let chosen = Chosen::new(&options.overlay.workspace, &options.paths)?;
    let changes = overlay(&options.overlay)?.read()?;
    let is_wanted = |change: &Change| {
        let is_accepted = change.caution.is_none() || options.marked || chosen.name(change);
        chosen.mean(change) && is_accepted
    };
    let on_conflict = match options.overwrite {
        true => OnConflict::Overwrite,
        false => OnConflict::Keep,
    };
    let wanted = changes.list().iter().filter(|one| is_wanted(one)).count();
    let failed = changes
        .apply(is_wanted, on_conflict)
        .map_err(|error| Failure::from(Error::Config(with_source(&error))))?;
    for (_, error) in &failed {
        let hint = match error {
            ApplyError::Conflict(_) => " (with --overwrite the guest's takes its place)",
            _ => "",
        };
        say(&format!("coffer: {}{hint}", with_source(error)));
    }
    say(&format!(
        "coffer: {} changes applied",
        wanted - failed.len()
    ));
    let left_out = |change: &&Change| chosen.mean(change) && !is_wanted(change);
    let left_out: Vec<_> = changes.list().iter().filter(left_out).collect();
    if !left_out.is_empty() {
        say(
            "coffer: left out, since programs of the host run or obey them, or they lead out of the workspace; apply them by name \
             or with --marked:",
        );
    }
    for change in &left_out {
        say(&format!("coffer:   {}", line(change)));
    }
    for path in chosen.without_change(changes.list()) {
        say(&format!("coffer: nothing is changed at {}", quoted(path)));
    }
    say_unread(changes.unread());
    say_rest(changes.is_complete());
    Ok(status(failed.is_empty()))
}

fn status(is_whole: bool) -> ExitCode {
    match is_whole {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Throws the changes away.
pub(crate) fn discard(options: &OverlayOptions) -> Result<ExitCode, Failure> {
    overlay(options)?.discard()?;
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
