//! The policy of the guest's network, from files and options, and what it denied.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sandbox::{Denied, Error, NetworkPolicy};

use crate::cli::RunOptions;
use crate::failure::Failure;
use crate::print::say;

/// The user's own policy, in the folder for settings.
const GLOBAL: &str = "cofferdam/policy.toml";
/// The repository's, in the workspace.
const REPOSITORY: &str = ".cofferdam/policy.toml";
/// Destinations that are told of at the end.
const MOST_DENIED: usize = 8;

/// The policy that the options ask for; `None`: there is to be no network.
pub(crate) fn policy(
    options: &RunOptions,
    workspace: Option<&Path>,
) -> Result<Option<NetworkPolicy>, Failure> {
    if options.policy.is_none() && options.allow.is_empty() {
        return Ok(None);
    }
    let mut policy = NetworkPolicy::new();
    if let Some((origin, text)) = settings_folder()
        .map(|folder| folder.join(GLOBAL))
        .map_or(Ok(None), |file| read(&file))?
    {
        policy = policy.global(&origin, text);
    }
    let (origin, mut text) = match &options.policy {
        Some(file) => {
            read(file)?.ok_or_else(|| unreadable(file, &io::ErrorKind::NotFound.into()))?
        }
        None => ("--allow".to_owned(), Vec::new()),
    };
    text.extend(allowed(&options.allow).into_bytes());
    policy = policy.sandbox(&origin, text);
    let own = workspace.map(|workspace| workspace.join(REPOSITORY));
    if let Some((origin, text)) = own.map_or(Ok(None), |file| read(&file))? {
        policy = policy.repository(&origin, text);
    }
    Ok(Some(policy))
}

/// Rules for the hosts of `--allow`, to be put behind those of a file.
fn allowed(hosts: &[String]) -> String {
    let mut rules = String::new();
    for host in hosts {
        // Writing to a text does not fail. Debug's escapes are among those of TOML's strings, or the parser says so.
        let _ = write!(rules, "\n[[allow]]\nhost = {host:?}\n");
    }
    rules
}

fn settings_folder() -> Option<PathBuf> {
    let folder = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))
}

/// A policy file's name and content; `None`: there is no such file.
fn read(file: &Path) -> Result<Option<(String, Vec<u8>)>, Failure> {
    match fs::read(file) {
        Ok(text) => Ok(Some((file.display().to_string(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(file, &error)),
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Error::Config(format!(
        "the policy {} cannot be read: {error}",
        file.display()
    ))
    .into()
}

/// Tells what the command was kept from on its network.
pub(crate) fn say_denied(denied: &[Denied]) {
    for denied in denied.iter().take(MOST_DENIED) {
        say(&format!("coffer: denied: {denied}"));
    }
    match denied.len().saturating_sub(MOST_DENIED) {
        0 => {}
        more => say(&format!("coffer: and {more} more destinations")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_become_rules_and_nothing_more() {
        let rules = allowed(&["a.example".into(), "x\"\n[[allow]]\nhost = \"y".into()]);
        assert_eq!(
            rules,
            "\n[[allow]]\nhost = \"a.example\"\n\n[[allow]]\nhost = \"x\\\"\\n[[allow]]\\nhost = \\\"y\"\n"
        );
    }
}
