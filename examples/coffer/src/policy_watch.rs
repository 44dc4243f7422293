//! Follows the files of the guest's policy while its command runs.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sandbox::{Error, NetworkPolicy, Sandbox};
use tokio::sync::Notify;

use crate::network::{self, Sources, logged};
use crate::print::say;

/// Editors change a file in several steps.
const SETTLE: Duration = Duration::from_millis(10);
/// How long it is waited before a policy that the network did not take is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Has the sandbox decide by what the files say, whenever that is something else than `known`, by which it does. What is no policy is told, and the one before holds.
pub(crate) async fn follow(
    sandbox: &Sandbox,
    sources: Sources<'_>,
    audit_log: Option<&Path>,
    mut known: NetworkPolicy,
) -> Infallible {
    let files = network::files(sources);
    let changed = Arc::new(Notify::new());
    // What was changed before there was a watch is seen at the first look.
    changed.notify_one();
    loop {
        // Anew each time: a folder may be another one by now.
        let watcher = watch(&files, Arc::clone(&changed));
        if let Err(error) = &watcher {
            say(&format!(
                "coffer: changes of the policy go unnoticed: {error}"
            ));
        }
        changed.notified().await;
        tokio::time::sleep(SETTLE).await;
        let policy = match network::policy(sources) {
            Ok(Some(policy)) => logged(policy, audit_log),
            Ok(None) => continue,
            Err(failure) => {
                say(&format!("coffer: the policy stays as it was: {failure}"));
                continue;
            }
        };
        if known == policy {
            continue;
        }
        match sandbox.replace_policy(policy.clone()).await {
            Ok(()) => {
                say("coffer: another policy decides now");
                network::say_mode(&policy);
            }
            Err(Error::Config(problem)) => {
                say(&format!("coffer: the policy stays as it was: {problem}"));
            }
            // The network may have ended in that moment: it is not to start again by the one before.
            Err(error) => {
                say(&format!("coffer: the policy is tried again: {error}"));
                tokio::time::sleep(RETRY).await;
                changed.notify_one();
                continue;
            }
        }
        known = policy;
    }
}

/// Tells of changes of these files, and of the folders in which they may come, for as long as it is there.
fn watch(files: &[PathBuf], changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    // A link may stay as it is when its file changes.
    let linked = files.iter().filter_map(|file| file.canonicalize().ok());
    let files: Vec<_> = linked.chain(files.iter().cloned()).collect();
    let watched = files.clone();
    let tell = move |event: notify::Result<notify::Event>| {
        let concerns = |event: &notify::Event| {
            let is_ours = |path: &PathBuf| watched.iter().any(|file| file.starts_with(path));
            !event.kind.is_access() && event.paths.iter().any(is_ours)
        };
        // An error: events were lost.
        if event.as_ref().map_or(true, concerns) {
            changed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(tell)?;
    for file in &files {
        let mut folders = file.ancestors().skip(1);
        // The file may come with its folder.
        if let Some(folder) = folders.find(|folder| folder.is_dir()) {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
    }
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn changes_of_the_files_are_told_and_others_are_not() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        let (own, other) = (place.join("policy.toml"), place.join("other"));
        let nested = place.join(".cofferdam/policy.toml");
        fs::write(&own, "a").unwrap();
        let changed = Arc::new(Notify::new());
        let _watcher = watch(&[own.clone(), nested.clone()], Arc::clone(&changed)).unwrap();
        let soon = |limit| tokio::time::timeout(Duration::from_millis(limit), changed.notified());
        fs::write(&other, "x").unwrap();
        assert!(soon(300).await.is_err(), "another file");
        fs::write(&own, "b").unwrap();
        assert!(soon(5000).await.is_ok(), "written");
        while soon(300).await.is_ok() {}
        fs::write(&other, "c").unwrap();
        fs::rename(&other, &own).unwrap();
        assert!(soon(5000).await.is_ok(), "replaced");
        while soon(300).await.is_ok() {}
        fs::create_dir(place.join(".cofferdam")).unwrap();
        assert!(soon(5000).await.is_ok(), "its folder came");
        let _watcher = watch(std::slice::from_ref(&nested), Arc::clone(&changed)).unwrap();
        while soon(300).await.is_ok() {}
        fs::write(&nested, "d").unwrap();
        assert!(soon(5000).await.is_ok(), "it came");
    }
}
