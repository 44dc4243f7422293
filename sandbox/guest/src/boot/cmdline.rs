//! The keys of the kernel command line that are ours.
//!
//! | key | meaning | without it |
//! |---|---|---|
//! | `cofferdam.root=DEVICE` | block device with the EROFS root file system; `none` stays in the initrd | `/dev/vda` |
//! | `cofferdam.port=N` | vsock port of the host to connect to | 1024 |
//! | `cofferdam.bench=poweroff` | power off at once after the first line | serve |
//!
//! A key that is not in the table, or a value that cannot be used, stops the boot: a typing error must not be half a configuration.

use thiserror::Error;

use crate::protocol::PORT;

const PREFIX: &str = "cofferdam.";

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Device of the root file system; `None` stays in the initrd.
    pub root: Option<String>,
    /// vsock port of the host to connect to.
    pub port: u32,
    /// Power off right after the first line.
    pub power_off: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            root: Some("/dev/vda".into()),
            port: PORT,
            power_off: false,
        }
    }
}

/// A word of the command line that means nothing here. Fault of the host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "the kernel command line has {0:?}, which means nothing: see the table of cofferdam.* keys"
)]
pub struct BadParameter(String);

impl Parameters {
    /// Reads the words of a kernel command line; those of others are not looked at.
    pub fn parse(command_line: &str) -> Result<Self, BadParameter> {
        let mut parameters = Self::default();
        for word in command_line.split_ascii_whitespace() {
            if let Some(setting) = word.strip_prefix(PREFIX) {
                parameters
                    .apply(setting)
                    .ok_or_else(|| BadParameter(word.to_owned()))?;
            }
        }
        Ok(parameters)
    }

    fn apply(&mut self, setting: &str) -> Option<()> {
        match setting.split_once('=')? {
            ("root", "none") => self.root = None,
            ("root", device) if device.starts_with("/dev/") => self.root = Some(device.to_owned()),
            ("port", port) => self.port = port.parse().ok()?,
            ("bench", "poweroff") => self.power_off = true,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(root: Option<&str>, port: u32, power_off: bool) -> Parameters {
        Parameters {
            root: root.map(Into::into),
            port,
            power_off,
        }
    }

    #[test]
    fn known_keys() {
        let cases = [
            ("", parameters(Some("/dev/vda"), 1024, false)),
            (
                "console=ttyS0 root=/dev/sda quiet\n",
                parameters(Some("/dev/vda"), 1024, false),
            ),
            (
                "cofferdam.root=none panic=-1",
                parameters(None, 1024, false),
            ),
            (
                "cofferdam.root=/dev/vdb cofferdam.port=7",
                parameters(Some("/dev/vdb"), 7, false),
            ),
            (
                "  cofferdam.bench=poweroff ",
                parameters(Some("/dev/vda"), 1024, true),
            ),
            (
                "cofferdam.port=1 cofferdam.port=2",
                parameters(Some("/dev/vda"), 2, false),
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(Parameters::parse(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn anything_else_of_ours_is_refused() {
        for word in [
            "cofferdam.",
            "cofferdam.rot=none",
            "cofferdam.root=vda",
            "cofferdam.root",
            "cofferdam.port=",
            "cofferdam.port=-1",
            "cofferdam.port=4294967296",
            "cofferdam.bench=fast",
            "cofferdam.root=",
        ] {
            assert_eq!(
                Parameters::parse(&format!("quiet {word} panic=-1")),
                Err(BadParameter(word.into()))
            );
        }
    }
}
