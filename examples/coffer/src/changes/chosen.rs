//! Which changes are meant by the paths on the command line.

use std::path::{Component, Path, PathBuf};

use sandbox::Error;
use sandbox::changes::{Change, What, quoted};

use crate::failure::Failure;

/// Paths below a workspace; all of it if there are none.
pub(super) struct Chosen {
    paths: Vec<PathBuf>,
}

impl Chosen {
    /// Those that were given: relative to the workspace, or absolute and below it.
    pub(super) fn new(workspace: &Path, given: &[PathBuf]) -> Result<Self, Failure> {
        let whole = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.to_owned());
        let paths = given.iter().map(|path| below(&whole, path));
        Ok(Self {
            paths: paths.collect::<Result<_, _>>()?,
        })
    }

    /// Whether the change is at, or below, one of them.
    pub(super) fn mean(&self, change: &Change) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|path| is_below(change, path))
    }

    /// Whether it is one of them itself.
    pub(super) fn name(&self, change: &Change) -> bool {
        self.paths.contains(&change.path)
    }

    /// Those where nothing is changed.
    pub(super) fn without_change(&self, all: &[Change]) -> impl Iterator<Item = &Path> {
        let is_changed = |path: &Path| all.iter().any(|change| is_below(change, path));
        let paths = self.paths.iter().map(PathBuf::as_path);
        paths.filter(move |path| !is_changed(path))
    }
}

fn is_below(change: &Change, path: &Path) -> bool {
    let old = match &change.what {
        What::Renamed { from } => from.starts_with(path),
        _ => false,
    };
    old || change.path.starts_with(path)
}

/// A path as changes have it.
fn below(workspace: &Path, given: &Path) -> Result<PathBuf, Failure> {
    let relative = given.strip_prefix(workspace).unwrap_or(given);
    let mut path = PathBuf::new();
    for part in relative.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                let problem = format!(
                    "{} is not below the workspace: give paths relative to it, without `..`",
                    quoted(given)
                );
                return Err(Error::Config(problem).into());
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::change;
    use super::*;

    fn chosen(paths: &[&str]) -> Result<Chosen, Failure> {
        let paths: Vec<_> = paths.iter().map(PathBuf::from).collect();
        Chosen::new(Path::new("/nowhere/tree"), &paths)
    }

    #[test]
    fn paths_choose_what_is_below_them() {
        let renamed = What::Renamed {
            from: "old/file".into(),
        };
        for (one, path, meant, named) in [
            (change("src/main.rs", What::Modified), "src", true, false),
            (change("src/main.rs", What::Modified), "./src/", true, false),
            (change("src/main.rs", What::Modified), "sr", false, false),
            (change("Makefile", What::Modified), "./Makefile", true, true),
            (change("a/b", What::Added), "/nowhere/tree/a/b", true, true),
            (change("a/b", What::Added), "./", true, false),
            (change("new", renamed.clone()), "old", true, false),
            (change("new", renamed), "other", false, false),
        ] {
            let chosen = chosen(&[path]).unwrap();
            assert_eq!(chosen.mean(&one), meant, "{path}");
            assert_eq!(chosen.name(&one), named, "{path}");
            assert_eq!(chosen.without_change(&[one]).count(), usize::from(!meant));
        }
        let all = chosen(&[]).unwrap();
        assert!(all.mean(&change("any", What::Added)) && !all.name(&change("any", What::Added)));
    }

    #[test]
    fn paths_elsewhere_are_refused() {
        for path in ["../other", "/etc/passwd", "a/../b"] {
            let error = chosen(&[path]).err().unwrap().to_string();
            assert!(error.contains("is not below the workspace"), "{error}");
        }
    }
}
