//! House rules and figures of the source. A broken rule is a failure; a figure only informs.

mod figures;
mod lex;
mod rules;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::{figures::Figures, source::Source};
use crate::host;

/// Files that are made by tools or must name the registry.
const EXEMPT: &[&str] = &["Cargo.lock", "deny.toml"];

/// Checks the workspace and prints the figures of each crate.
pub(crate) fn run() -> Result<()> {
    let root = host::workspace();
    let files = text_files(&root)?;
    let mut broken = Vec::new();
    let mut sources = Vec::new();
    for path in &files {
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        broken.extend(rules::check_text(path, &text));
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = Source::new(path.clone(), &text);
            broken.extend(rules::check_source(&source));
            sources.push(source);
        }
    }
    print_figures(&root, &files, sources)?;
    for line in &broken {
        println!("{line}");
    }
    if !broken.is_empty() {
        bail!("{} house rules are broken", broken.len());
    }
    Ok(())
}

fn print_figures(root: &Path, files: &[PathBuf], mut sources: Vec<Source>) -> Result<()> {
    println!("{}", figures::HEAD);
    let manifests = files.iter().filter(|path| path.ends_with("Cargo.toml"));
    let mut crates: Vec<_> = manifests
        .filter_map(|path| path.parent())
        .filter(|dir| !dir.as_os_str().is_empty())
        .collect();
    // A crate inside of another one's folder takes its files first.
    crates.sort_by_key(|dir| (std::cmp::Reverse(dir.components().count()), *dir));
    for dir in crates {
        let (own, rest) = sources
            .into_iter()
            .partition::<Vec<_>, _>(|source| source.path.starts_with(dir));
        sources = rest;
        let manifest = fs::read_to_string(root.join(dir).join("Cargo.toml"))?;
        println!(
            "{}",
            Figures::of(&own, &manifest).row(&dir.display().to_string())
        );
    }
    Ok(())
}

/// All files that people write, by their paths from the root on, sorted.
fn text_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(root.join(&dir))
            .with_context(|| format!("cannot list {}", dir.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            match entry.file_type()? {
                _ if !is_ours(&path) => {}
                kind if kind.is_dir() => open.push(path),
                kind if kind.is_file() && !EXEMPT.iter().any(|name| path.ends_with(name)) => {
                    found.push(path);
                }
                _ => {}
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether people write this file, or what is in this folder. A worktree's `.git` is a file.
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let generated = ["target", ".git", "corpus", "artifacts"];
    !generated.iter().any(|skipped| name == *skipped)
}
