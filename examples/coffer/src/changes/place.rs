//! Where the changes to a workspace are kept.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sandbox::Error;

use crate::failure::Failure;

/// Longest name of a directory.
const LONGEST_NAME: usize = 255;

/// The directory: `given`, or one of the workspace's own in the user's state folder, which is named after the workspace's whole path.
pub(crate) fn place(workspace: &Path, given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let state = state_folder(|name| std::env::var_os(name)).ok_or_else(|| {
        let problem = "there is no state folder for changes, since neither HOME nor XDG_STATE_HOME is an absolute path: \
                       name a directory with --changes";
        Failure::from(Error::Config(problem.into()))
    })?;
    let workspace = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.to_owned());
    Ok(place_in(&state, &workspace))
}

/// One name for the whole path: the directory of one workspace never lies in another's.
fn place_in(state: &Path, workspace: &Path) -> PathBuf {
    let name = folder_name(workspace);
    let parts = name.as_bytes().chunks(LONGEST_NAME);
    parts.fold(state.join("cofferdam/changes"), |folder, part| {
        folder.join(OsStr::from_bytes(part))
    })
}

/// A path as one name, or as one that is too long and is cut into several.
fn folder_name(path: &Path) -> OsString {
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

/// As the XDG Base Directory Specification has it.
fn state_folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_workspace_has_a_place_of_its_own() {
        let name = |path: &str| folder_name(Path::new(path));
        assert_eq!(name("/home/me/a b"), "%2Fhome%2Fme%2Fa b");
        assert_ne!(name("/a/b"), name("/a%2Fb"));
        let long = format!("/{}", "x".repeat(600));
        let place = place_in(Path::new("/state"), Path::new(&long));
        assert!(
            place.iter().all(|part| part.len() <= LONGEST_NAME),
            "{place:?}"
        );
        let given = super::place(Path::new("/a"), Some(Path::new("b")));
        assert_eq!(given.unwrap(), Path::new("b"));
    }

    #[test]
    fn there_is_no_state_folder_where_nobody_is_at_home() {
        let folder = |xdg: Option<&str>, home: Option<&str>| {
            state_folder(|name| match name {
                "HOME" => home.map(Into::into),
                _ => xdg.map(Into::into),
            })
        };
        assert_eq!(folder(Some("/s"), Some("/h")).unwrap(), Path::new("/s"));
        let in_home = Path::new("/h/.local/state");
        assert_eq!(folder(None, Some("/h")).unwrap(), in_home);
        assert_eq!(folder(Some("relative"), Some("/h")).unwrap(), in_home);
        assert_eq!(folder(Some(""), Some("")), None);
        assert_eq!(folder(None, None), None);
    }
}
