//! Where tools have their settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sandbox::{ShareMode, git};

use super::{Found, Parsed, Tool, apt, parse};
use crate::network::open_regular;

/// A longer file is not read.
const LONGEST: u64 = 1 << 20;
/// Most files of a folder that are read.
const MOST_FILES: usize = 256;

/// The variables that this program was started with, as far as they are text.
#[derive(Debug, Default)]
pub(super) struct Environment(BTreeMap<String, String>);

impl Environment {
    pub(super) fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(variables.into_iter().filter_map(text).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The folder that a variable names.
    fn folder(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.get(name)?);
        path.is_absolute().then_some(path)
    }

    /// What is in the user's folder for settings.
    fn settings(&self, name: &str) -> Option<PathBuf> {
        let home = || Some(self.folder("HOME")?.join(".config"));
        let settings = self.folder("XDG_CONFIG_HOME").or_else(home)?;
        Some(settings.join(name))
    }

    fn home(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder("HOME")?.join(name))
    }
}

/// Finds all, in one order.
pub(super) fn all(environment: &Environment, workspace: &Path, take: &mut impl FnMut(Found)) {
    let variables = [
        (Tool::Cargo, parse::cargo_variables(environment)),
        (Tool::Go, parse::go_variables(environment)),
        (Tool::Npm, parse::npm_variables(environment)),
        (Tool::Pip, parse::pip_variables(environment)),
    ];
    for (tool, parsed) in variables {
        take(Found {
            tool,
            origin: "environment".to_owned(),
            parsed,
        });
    }
    for (tool, file) in of_user(environment) {
        let is_lines = file
            .extension()
            .is_none_or(|extension| extension != "sources");
        let mut mirrors = Vec::new();
        take_file(tool, &file, read(&file), take, |text| match tool {
            Tool::Apt => {
                let parsed = if is_lines {
                    apt::lines(text)
                } else {
                    apt::fields(text)
                };
                mirrors = apt::mirrors(&parsed);
                parsed
            }
            Tool::Cargo => parse::cargo(text),
            Tool::Git => parse::git(text),
            Tool::Go => parse::go(text),
            Tool::Npm => parse::npm(text, environment),
            Tool::Pip => parse::pip(text),
        });
        for file in mirrors.into_iter().take(MOST_FILES) {
            take_file(Tool::Apt, &file, read(&file), take, apt::mirror_list);
        }
    }
    for file in of_workspace(workspace) {
        // Who wrote it is not trusted: a link could lead anywhere.
        let text = open_regular(&file).and_then(content);
        take_file(Tool::Git, &file, text, take, parse::git);
    }
}

fn take_file(
    tool: Tool,
    file: &Path,
    text: io::Result<String>,
    take: &mut impl FnMut(Found),
    parse: impl FnOnce(&str) -> Parsed,
) {
    use io::ErrorKind::{NotADirectory, NotFound};
    let parsed = match text {
        Ok(text) => parse(&text),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return,
        Err(error) => Parsed::problem(format!("it cannot be read: {error}")),
    };
    take(Found {
        tool,
        origin: file.display().to_string(),
        parsed,
    });
}

/// The files of the user's tools, and of the host's, whether they are there or not.
fn of_user(environment: &Environment) -> Vec<(Tool, PathBuf)> {
    let etc = Path::new("/etc");
    let mut files = vec![(Tool::Apt, Some(etc.join("apt/sources.list")))];
    let more = listed(&etc.join("apt/sources.list.d"));
    files.extend(more.into_iter().map(|file| (Tool::Apt, Some(file))));

    let cargo = environment.folder("CARGO_HOME");
    let cargo = cargo.or_else(|| environment.home(".cargo"));
    for name in ["config.toml", "config"] {
        let file = cargo.as_ref().map(|folder| folder.join(name));
        files.push((Tool::Cargo, file));
    }
    let go = environment.folder("GOENV");
    files.push((Tool::Go, go.or_else(|| environment.settings("go/env"))));

    files.push((Tool::Git, environment.settings("git/config")));
    files.push((Tool::Git, environment.home(".gitconfig")));

    // Where npm was installed decides which of them it is.
    let npm = environment
        .folder("NPM_CONFIG_GLOBALCONFIG")
        .map(|file| vec![file]);
    let usual = || {
        ["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"]
            .map(Into::into)
            .into()
    };
    let npm: Vec<PathBuf> = npm.unwrap_or_else(usual);
    files.extend(npm.into_iter().map(|file| (Tool::Npm, Some(file))));
    let npm = environment.folder("NPM_CONFIG_USERCONFIG");
    files.push((Tool::Npm, npm.or_else(|| environment.home(".npmrc"))));

    // With this, pip reads no file.
    if environment.get("PIP_CONFIG_FILE") != Some("/dev/null") {
        files.extend([
            (Tool::Pip, Some(etc.join("pip.conf"))),
            (Tool::Pip, Some(etc.join("xdg/pip/pip.conf"))),
            (Tool::Pip, environment.home(".pip/pip.conf")),
            (Tool::Pip, environment.settings("pip/pip.conf")),
            (
                Tool::Pip,
                environment
                    .folder("VIRTUAL_ENV")
                    .map(|folder| folder.join("pip.conf")),
            ),
            (Tool::Pip, environment.folder("PIP_CONFIG_FILE")),
        ]);
    }
    let there = files
        .into_iter()
        .filter_map(|(tool, file)| Some((tool, file?)));
    there.collect()
}

/// The files of a folder of apt's that apt reads, in its order.
fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path()).filter(|file| {
        let extension = file.extension().unwrap_or_default();
        extension == "list" || extension == "sources"
    });
    let mut files: Vec<PathBuf> = files.take(MOST_FILES).collect();
    files.sort();
    files
}

/// The files of the workspace's repository that name others.
fn of_workspace(workspace: &Path) -> Vec<PathBuf> {
    let folder = workspace.join(".git");
    let is_folder = fs::symlink_metadata(&folder).is_ok_and(|data| data.is_dir());
    // Of a worktree or a submodule it lies elsewhere.
    let elsewhere = || {
        git::repository(workspace, &ShareMode::ReadOnly)
            .ok()??
            .host
            .into()
    };
    let repository: Option<PathBuf> = if is_folder { Some(folder) } else { elsewhere() };
    let config = repository.map(|repository| repository.join("config"));
    let modules = workspace.join(".gitmodules");
    config.into_iter().chain([modules]).collect()
}

/// A file of the user's, which may be a link.
fn read(file: &Path) -> io::Result<String> {
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    content(File::open(file)?)
}

fn content(file: File) -> io::Result<String> {
    let mut text = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut text)?;
    if u64::try_from(text.len()).is_ok_and(|len| len > LONGEST) {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(text).map_err(|_| io::Error::other("it is not text (UTF-8)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::of(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn files_are_where_the_tools_look_for_them() {
        let files = |variables: &[(&str, &str)], tool| {
            let all = of_user(&environment(variables));
            let files = all.into_iter().filter(|(of, _)| *of == tool);
            let files = files.map(|(_, file)| file.display().to_string());
            files
                .filter(|file| !file.starts_with("/etc/"))
                .collect::<Vec<_>>()
        };
        let home = ("HOME", "/h");
        for (variables, tool, expected) in [
            (
                &[home][..],
                Tool::Cargo,
                &["/h/.cargo/config.toml", "/h/.cargo/config"][..],
            ),
            (
                &[home, ("CARGO_HOME", "/c")],
                Tool::Cargo,
                &["/c/config.toml", "/c/config"],
            ),
            (
                &[home, ("CARGO_HOME", "c")],
                Tool::Cargo,
                &["/h/.cargo/config.toml", "/h/.cargo/config"],
            ),
            (&[home], Tool::Go, &["/h/.config/go/env"]),
            (&[home, ("XDG_CONFIG_HOME", "/x")], Tool::Go, &["/x/go/env"]),
            (&[home, ("GOENV", "/g")], Tool::Go, &["/g"]),
            (
                &[home],
                Tool::Npm,
                &["/usr/etc/npmrc", "/usr/local/etc/npmrc", "/h/.npmrc"],
            ),
            (
                &[home, ("NPM_CONFIG_USERCONFIG", "/n")],
                Tool::Npm,
                &["/usr/etc/npmrc", "/usr/local/etc/npmrc", "/n"],
            ),
            (
                &[home],
                Tool::Pip,
                &["/h/.pip/pip.conf", "/h/.config/pip/pip.conf"],
            ),
            (
                &[home, ("PIP_CONFIG_FILE", "/p")],
                Tool::Pip,
                &["/h/.pip/pip.conf", "/h/.config/pip/pip.conf", "/p"],
            ),
            (&[home, ("PIP_CONFIG_FILE", "/dev/null")], Tool::Pip, &[]),
            (
                &[home, ("VIRTUAL_ENV", "/v")],
                Tool::Pip,
                &["/h/.pip/pip.conf", "/h/.config/pip/pip.conf", "/v/pip.conf"],
            ),
            (
                &[home],
                Tool::Git,
                &["/h/.config/git/config", "/h/.gitconfig"],
            ),
            (&[("NPM_CONFIG_GLOBALCONFIG", "/g")], Tool::Npm, &["/g"]),
            (&[], Tool::Npm, &["/usr/etc/npmrc", "/usr/local/etc/npmrc"]),
        ] {
            assert_eq!(files(variables, tool), expected, "{variables:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_is_told_and_the_rest_goes_on() {
        use std::os::unix::fs::symlink;

        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        fs::create_dir_all(home.join(".config/go")).unwrap();
        fs::create_dir_all(home.join("w/.git")).unwrap();
        fs::create_dir_all(home.join(".cargo/config.toml")).unwrap();
        fs::write(home.join(".config/go/env"), [0xff]).unwrap();
        let large = " ".repeat(usize::try_from(LONGEST).unwrap() + 1);
        fs::write(home.join(".npmrc"), large).unwrap();
        // A user's own link is followed, a repository's is not.
        fs::write(
            home.join("pip.conf"),
            "[global]\nindex-url = https://a.example/\n",
        )
        .unwrap();
        fs::create_dir(home.join(".pip")).unwrap();
        symlink(home.join("pip.conf"), home.join(".pip/pip.conf")).unwrap();
        fs::write(
            home.join("secret"),
            "[remote \"x\"]\nurl = https://b.example/\n",
        )
        .unwrap();
        symlink(home.join("secret"), home.join("w/.git/config")).unwrap();
        let found = |variables: &[(&str, &str)]| {
            let (mut urls, mut problems) = (Vec::new(), Vec::new());
            all(
                &environment(variables),
                &home.join("w"),
                &mut |found: Found| {
                    let is_ours = found.origin.starts_with(home.to_str().unwrap());
                    if is_ours || found.origin == "environment" {
                        urls.extend(found.parsed.urls.into_iter().map(|(_, url)| url));
                        problems.extend(
                            found
                                .parsed
                                .problems
                                .into_iter()
                                .map(|it| (found.tool.name(), it)),
                        );
                    }
                },
            );
            (urls, problems)
        };
        let (urls, problems) = found(&[
            ("HOME", home.to_str().unwrap()),
            ("GOPROXY", "https://c.example"),
        ]);
        assert_eq!(urls, ["https://c.example", "https://a.example/"]);
        let told: Vec<_> = problems
            .iter()
            .map(|(tool, it)| (*tool, it.as_str()))
            .collect();
        assert_eq!(
            told[..3],
            [
                ("cargo", "it cannot be read: it is no regular file"),
                ("go", "it cannot be read: it is not text (UTF-8)"),
                ("npm", "it cannot be read: it is larger than 1 MiB"),
            ]
        );
        assert!(told.len() == 4 && told[3].0 == "git", "{told:?}");
        fs::remove_file(home.join("w/.git/config")).unwrap();
        fs::rename(home.join("secret"), home.join("w/.git/config")).unwrap();
        assert_eq!(found(&[]).0, ["https://b.example/"]);
    }
}
