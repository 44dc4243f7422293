//! What to run in the guest.

use std::ffi::OsStr;

use crate::protocol::{ExecRequest, Octets, TerminalSize, User};

/// A command for the guest, built like a [`std::process::Command`].
///
/// Without anything else said it runs as root in `/`, with empty standard input, no terminal, and an environment of `PATH`, `HOME`,
/// `LANG`, `USER`, `LOGNAME` and what the sandbox configures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    request: ExecRequest,
}

impl ExecSpec {
    /// A command that runs `program`: a path, or a name that the guest looks for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            request: ExecRequest::default(),
        }
        .arg(program)
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.request.argv.0.push(octets(arg.as_ref()));
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable over the guest's defaults.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let mut setting = octets(name.as_ref());
        setting.0.push(b'=');
        setting.0.extend(value.as_ref().as_encoded_bytes());
        self.request.environment.0.push(setting);
        self
    }

    /// Sets environment variables over the guest's defaults.
    #[must_use]
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(
        self,
        settings: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        settings
            .into_iter()
            .fold(self, |spec, (name, value)| spec.env(name, value))
    }

    /// Sets the working directory, a path in the guest.
    #[must_use]
    pub fn directory(mut self, directory: impl AsRef<OsStr>) -> Self {
        self.request.directory = Some(octets(directory.as_ref()));
        self
    }

    /// Runs it as this user of the guest: a name, or `uid:gid`, or one number for both.
    #[must_use]
    pub fn user(mut self, user: impl Into<User>) -> Self {
        self.request.user = Some(user.into());
        self
    }

    /// Gives it a terminal of this size. What it writes then comes on standard output only, and standard input is the keyboard.
    #[must_use]
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        self.request.terminal = Some(size);
        self
    }

    /// Lets the caller write its standard input; otherwise it is empty.
    #[must_use]
    pub fn piped_stdin(mut self) -> Self {
        self.request.stdin = true;
        self
    }

    pub(super) fn has_input(&self) -> bool {
        self.request.stdin || self.request.terminal.is_some()
    }

    pub(super) fn into_request(self, id: u32) -> ExecRequest {
        ExecRequest { id, ..self.request }
    }
}

/// The bytes that the guest sees: on Unix the very bytes, elsewhere UTF-8.
fn octets(text: &OsStr) -> Octets {
    Octets(text.as_encoded_bytes().to_vec())
}

impl From<&str> for User {
    /// `uid:gid` in decimal digits, one such number for both, or else a name.
    fn from(text: &str) -> Self {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Self::Ids { uid, gid },
            _ => Self::Name(text.to_owned()),
        }
    }
}

/// A number of digits alone: `parse` takes a sign as well.
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

impl From<String> for User {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers_or_names() {
        let ids = |uid, gid| User::Ids { uid, gid };
        for (text, user) in [
            ("1000", ids(1000, 1000)),
            ("0", ids(0, 0)),
            ("1000:27", ids(1000, 27)),
            ("4294967295", ids(u32::MAX, u32::MAX)),
        ] {
            assert_eq!(User::from(text), user, "{text}");
        }
        for name in [
            "agent",
            "",
            ":",
            "1000:",
            ":27",
            "1:2:3",
            "+1",
            "1:+2",
            "-1",
            "4294967296",
            "1000x",
        ] {
            assert_eq!(User::from(name), User::Name(name.into()));
        }
    }
}
