//! What a process finds in its environment, and where its program is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::users::Account;
use crate::protocol::{ExecFailure, Octets};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Used when neither the configuration nor the exec says what the terminal is.
const TERM: &str = "xterm-256color";

/// Name and value of each variable.
#[derive(Debug, Default)]
pub(crate) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The sane minimum for `account`; `TERM` only where there is a terminal.
    pub(crate) fn of(account: &Account, terminal: bool) -> Self {
        let mut minimum = vec![("PATH", PATH), ("LANG", "C.UTF-8"), ("HOME", &account.home)];
        if !account.name.is_empty() {
            minimum.extend([("USER", account.name.as_str()), ("LOGNAME", &account.name)]);
        }
        if terminal {
            minimum.push(("TERM", TERM));
        }
        Self(
            minimum
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// Puts `NAME=value` strings over what is there. A string without `=` or without a name means nothing to a process.
    pub(crate) fn overlay(&mut self, settings: &[Octets]) {
        for Octets(setting) in settings {
            let Some(split) = setting
                .iter()
                .position(|byte| *byte == b'=')
                .filter(|at| *at > 0)
            else {
                continue;
            };
            let (name, value) = setting.split_at(split);
            let value = value.get(1..).unwrap_or_default().to_vec();
            self.0
                .insert(OsString::from_vec(name.to_vec()), OsString::from_vec(value));
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    /// Finds the program as a shell would: with a slash as it is (from `directory`), else in this environment's `PATH`.
    pub(crate) fn find_program(
        &self,
        program: &OsStr,
        directory: &Path,
    ) -> Result<PathBuf, ExecFailure> {
        if program.as_bytes().contains(&b'/') {
            let path = directory.join(program);
            return check(&path).map(|()| path);
        }
        let mut verdict = ExecFailure::NotFound;
        let search = self
            .0
            .get(OsStr::new("PATH"))
            .map(OsString::as_os_str)
            .unwrap_or_default();
        for candidate in
            std::env::split_paths(search).map(|part| directory.join(part).join(program))
        {
            match check(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(ExecFailure::NotFound) => {}
                Err(failure) => verdict = failure,
            }
        }
        Err(verdict)
    }
}

fn check(path: &Path) -> Result<(), ExecFailure> {
    let found = path.metadata().map_err(|_| ExecFailure::NotFound)?;
    let executable = found.is_file() && found.permissions().mode() & 0o111 != 0;
    if executable {
        Ok(())
    } else {
        Err(ExecFailure::NotExecutable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(settings: &[&str]) -> Environment {
        let mut environment = Environment::default();
        environment.overlay(
            &settings
                .iter()
                .map(|text| Octets::from(*text))
                .collect::<Vec<_>>(),
        );
        environment
    }

    #[test]
    fn later_settings_win_and_nonsense_is_left_out() {
        let environment = environment(&["A=1", "A=2", "B=x=y", "C=", "=D", "E", ""]);
        let pairs: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap()))
            .collect();
        assert_eq!(pairs, [("A", "2"), ("B", "x=y"), ("C", "")]);
    }

    #[test]
    fn the_minimum_depends_on_the_account() {
        let account = |name: &str| Account {
            name: name.into(),
            uid: 1,
            gid: 1,
            groups: vec![],
            home: "/h".into(),
        };
        let names = |env: Environment| {
            env.iter()
                .map(|(name, _)| name.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            names(Environment::of(&account("a"), true)),
            "HOME LANG LOGNAME PATH TERM USER"
        );
        assert_eq!(
            names(Environment::of(&account(""), false)),
            "HOME LANG PATH"
        );
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let root = Path::new("/");
        let find = |path: &str, program: &str| {
            environment(&[path]).find_program(OsStr::new(program), root)
        };
        assert_eq!(find("PATH=/nowhere:/bin", "sh"), Ok("/bin/sh".into()));
        assert_eq!(find("PATH=/nowhere", "sh"), Err(ExecFailure::NotFound));
        assert_eq!(find("NOPATH=1", "sh"), Err(ExecFailure::NotFound));
        assert_eq!(
            find("PATH=/", "etc"),
            Err(ExecFailure::NotExecutable),
            "a directory"
        );
        assert_eq!(find("PATH=/etc", "passwd"), Err(ExecFailure::NotExecutable));
        assert_eq!(
            find("PATH=/etc:/bin", "bin/sh"),
            Ok("/bin/sh".into()),
            "a slash: from the directory, not PATH"
        );
        assert_eq!(find("PATH=/bin", ""), Err(ExecFailure::NotExecutable));
    }
}
