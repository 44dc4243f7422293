//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sandbox::{GuestFiles, Mount, ShareMode};

use crate::policy::options::PolicyCommand;

const EXAMPLES: &str = "\
Examples:
  coffer run -- uname -a                        one command in a fresh Linux guest
  coffer run -w . -- make test                  with the present directory shared, at the same path
  coffer run -w . --read-only -- ls -l          the same, but nothing in it can be changed
  coffer run -w . -it -- bash                   a shell
  coffer run --allow example.com -- curl https://example.com    with a network that ends there
  coffer policy check https://example.com --policy policy.toml    what a policy makes of it
  coffer run -w . --overlay -- agent            what it changes is kept apart, until
  coffer diff                                   it is looked at, and
  coffer apply                                  made on the host, or
  coffer discard                                thrown away
  coffer doctor                                 what is missing on this host, and what to do";

const RUN_HELP: &str = "\
Examples:
  coffer run -- uname -a                        one command in a fresh Linux guest
  coffer run -w . -- make test                  with the present directory shared, at the same path
  coffer run -w . --read-only -- ls -l          the same, but nothing in it can be changed
  coffer run -w . -it -- bash                   a shell
  coffer run -w . --timeout 10m -- make test    no longer than ten minutes

Exit status:
  the command's own; 128 + n when signal n ended it
  124  it did not end within --timeout
  125  the sandbox failed, or an output could not be written
  126  the command cannot be executed
  127  the command is not found
  130, 143, 129  coffer itself was ended by SIGINT, SIGTERM or SIGHUP
  141  nobody reads the output any more";

const DIFF_HELP: &str = "\
Examples:
  coffer diff                                   all that was changed in the present directory, as a patch
  coffer diff --stat                            one line a path
  coffer diff src Makefile                      these, and what is below them
  coffer diff --json | jq .path                 one JSON object a line

Signs of --stat: A added, M changed, m only its permissions, D removed, R renamed; behind it C where the host has changed
it, too, and ! where programs of the host run or obey such a file, or a link leads out of the workspace. The exit status is
1 when not all could be shown.";

const APPLY_HELP: &str = "\
Examples:
  coffer apply                                  all but what is marked and what the host has changed, too
  coffer apply src README.md                    these, and what is below them
  coffer apply --marked                         also what programs of the host run or obey
  coffer apply --overwrite src/main.rs          the guest's, also where the host has changed it

A file that is named in full is applied though it is marked. A file is replaced in one step, or stays as it is. The
exit status is 1 when something that was asked for was not applied.";

const DISCARD_HELP: &str = "\
Examples:
  coffer discard                                all changes to the present directory that were not applied";

const LOG_HELP: &str = "\
Examples:
  coffer log net.log                            every decision about the guest's network
  coffer log -f --denied net.log                what is denied, as it happens
  coffer log --verify net.log                   whether every record is as it was written, in all of the log's files

The log's own lines are JSON, for programs; FILE.1 and so on are what was written before. --verify prints the last record's
digest: only who knows it can tell that the end is missing. Its exit status is 1 when a record does not fit.";

const DOCTOR_HELP: &str = "\
Examples:
  coffer doctor                                 each check, and what to do where it fails
  coffer doctor --json --guest /srv/guest       for programs, and for other files of a guest

The exit status is 0 when a sandbox can start, also with warnings, and 1 when a check failed.";

const COMPLETIONS_HELP: &str = "\
Examples:
  coffer completions bash > ~/.local/share/bash-completion/completions/coffer
  coffer completions fish > ~/.config/fish/completions/coffer.fish";

/// Runs commands inside a microVM, on a shared workspace.
#[derive(Debug, Parser)]
#[command(name = "coffer", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new sandbox, which ends with it
    #[command(after_help = RUN_HELP)]
    Run(Box<RunOptions>),
    /// Show what was changed in a workspace with an overlay
    #[command(after_help = DIFF_HELP)]
    Diff(DiffOptions),
    /// Make changes of an overlay on the host
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyOptions),
    /// Throw the changes of an overlay away
    #[command(after_help = DISCARD_HELP)]
    Discard(OverlayOptions),
    /// Show what `coffer run --audit-log` has written
    #[command(after_help = LOG_HELP)]
    Log(LogOptions),
    /// Check, learn and suggest policies of the guest's network
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Check what a sandbox needs of this host
    #[command(after_help = DOCTOR_HELP)]
    Doctor(DoctorOptions),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The guest's files.
#[derive(Debug, Args)]
pub(crate) struct GuestOptions {
    /// Folder with the guest's files, as `cargo xtask guest` makes it [default: COFFERDAM_GUEST, or
    /// where the library looks]
    #[arg(long, value_name = "DIR")]
    guest: Option<PathBuf>,
    /// Kernel: a 64-bit ELF with PVH entry, or a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM file system
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Root image (EROFS)
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

impl GuestOptions {
    /// The files that are meant.
    pub(crate) fn files(&self) -> GuestFiles {
        let mut files = self
            .guest
            .as_deref()
            .map_or_else(GuestFiles::locate, GuestFiles::in_folder);
        files.kernel = self.kernel.clone().unwrap_or(files.kernel);
        files.initrd = self.initrd.clone().unwrap_or(files.initrd);
        files.root = self.root.clone().or(files.root);
        files
    }
}

/// `coffer run`.
#[derive(Debug, Args)]
pub(crate) struct RunOptions {
    /// Directory to share with the guest, at the same path; the command starts in it
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Nothing in the workspace can be changed
    #[arg(long, requires = "workspace")]
    pub(crate) read_only: bool,
    /// Keep what is changed in the workspace apart from it, for `coffer diff`, `apply` and `discard`. What an earlier
    /// run left there is there again
    #[arg(long, requires = "workspace", conflicts_with = "read_only")]
    pub(crate) overlay: bool,
    /// Keep it in this directory [default: one of the workspace's own in the user's state folder]
    #[arg(long, value_name = "DIR", requires = "overlay")]
    pub(crate) changes: Option<PathBuf>,
    /// Share another directory too, at the same path unless GUEST says another, read-only unless with `:rw`; may be given several times
    #[arg(long = "mount", value_name = "HOST[:GUEST][:ro|:rw]", value_parser = parse_mount)]
    pub(crate) mounts: Vec<Mount>,
    /// How long the guest may trust what it knows of the workspace: `auto` a tenth of a second, and not at all while the host
    /// changes something and in `.git`; `always` a day (nobody on the host may change it meanwhile); `never` not at all
    #[arg(
        long,
        value_name = "WHEN",
        requires = "workspace",
        default_value = "auto"
    )]
    pub(crate) cache: CacheOption,
    /// Hide names in the workspace, e.g. `*.key`, `secrets/*`; `!.env` shows what is usually hidden
    #[arg(long, value_name = "PATTERN", requires = "workspace")]
    pub(crate) hide: Vec<String>,
    /// Keep the guest from changing names in the workspace, e.g. `Makefile`; `!.vscode` frees what usually
    /// is protected
    #[arg(long, value_name = "PATTERN", requires = "workspace")]
    pub(crate) protect: Vec<String>,
    /// Hide and protect nothing but what --hide and --protect say
    #[arg(long, requires = "workspace")]
    pub(crate) no_usual_rules: bool,
    /// Let files be changed that have several names; they may be files outside, too
    #[arg(long, requires = "workspace")]
    pub(crate) writable_hard_links: bool,
    /// How much the command may add to the workspace, in whole MiB, e.g. 2G; more is refused
    #[arg(long, value_name = "SIZE", requires = "workspace", value_parser = parse_size_mib)]
    pub(crate) quota: Option<u64>,
    /// How many files, folders and links it may add
    #[arg(long, value_name = "N", requires = "workspace")]
    pub(crate) quota_files: Option<u64>,
    /// Give the guest a network, on which it may connect to what this file allows (TOML, see the README), the user's own policy, and
    /// --allow; the workspace's `.cofferdam/policy.toml` may only tighten it. Without --policy and --allow there is no network
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Allow HTTPS to this host too: a name, or `*.` and a name for all names below it
    #[arg(long, value_name = "HOST")]
    pub(crate) allow: Vec<String>,
    /// Publish a port of the guest's on this host's loopback, e.g. 8080, 3000:8080, 0:8080 (any free port, which is told) or `[::1]:3000:8080`. In
    /// the guest the server must listen at its address on the network (0.0.0.0), not only at 127.0.0.1. Gives the guest a network, which by itself allows it nothing
    #[arg(short, long, value_name = "[[ADDRESS:]PORT:]GUEST_PORT", value_parser = parse_publish)]
    pub(crate) publish: Vec<(SocketAddr, u16)>,
    /// Reach what is outside by this proxy, `http://[USER:PASSWORD@]HOST:PORT`, or by none [default: what the variables HTTPS_PROXY and NO_PROXY say here, which other
    /// users of this host do not see as they see a command line]
    #[arg(long, value_name = "URL|none")]
    pub(crate) upstream_proxy: Option<String>,
    /// Append every decision about the network to this file, for `coffer log`. At 16 MiB it becomes FILE.1, of which seven are kept
    #[cfg_attr(
        feature = "otel",
        doc = "\n\nWhat is appended is exported to an OpenTelemetry collector, too, if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_LOGS_ENDPOINT` names one"
    )]
    #[arg(long, value_name = "FILE")]
    pub(crate) audit_log: Option<PathBuf>,
    /// Processors
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) cpus: u32,
    /// Memory in whole MiB, e.g. 512M or 2G
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_size_mib)]
    pub(crate) memory: u64,
    /// Set a variable for the command; only its name: with the value it has here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// User of the guest who runs the command, and owns the workspace there: `agent`, UID or
    /// UID:GID; root unless set. With any other name the workspace stays root's, and that user
    /// cannot write to it: give the numbers
    #[arg(short, long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// Directory in which the command starts
    #[arg(long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// End the command after this time, e.g. 90s, 10m, 1h
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Pass on standard input (it always is when it is not a terminal)
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the command a terminal (the default when standard input and output are one)
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Append the guest's console to a file
    #[arg(long, value_name = "FILE")]
    pub(crate) console_log: Option<PathBuf>,
    /// Give the guest a serial port, as a stock kernel needs for its console
    #[arg(long)]
    pub(crate) serial: bool,
    /// Add a word to the kernel's command line
    #[arg(long, value_name = "WORD")]
    pub(crate) kernel_arg: Vec<String>,
    /// Print when each phase of the start was reached, to standard error
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Print JSON lines to standard error: at the start {"timeline": [{"phase", "ms"}]} if
    /// --timeline is given, {"error", "fault"} when the exit status is not the command's
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) guest: GuestOptions,
    /// The command and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub(crate) command: Vec<String>,
}

/// [`sandbox::ShareCache`].
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum CacheOption {
    Auto,
    Always,
    Never,
}

/// A workspace with an overlay.
#[derive(Debug, Args)]
pub(crate) struct OverlayOptions {
    /// The workspace [default: the present directory]
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    pub(crate) workspace: PathBuf,
    /// Where its changes are kept [default: as for `coffer run --overlay`]
    #[arg(long, value_name = "DIR")]
    pub(crate) changes: Option<PathBuf>,
}

/// `coffer diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffOptions {
    #[command(flatten)]
    pub(crate) overlay: OverlayOptions,
    /// One line a path
    #[arg(long)]
    pub(crate) stat: bool,
    /// One JSON object a line
    #[arg(long, conflicts_with = "stat")]
    pub(crate) json: bool,
    /// Paths below the workspace; all unless given
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// `coffer apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyOptions {
    #[command(flatten)]
    pub(crate) overlay: OverlayOptions,
    /// Also what programs of the host run or obey, and links that lead out of the workspace
    #[arg(long)]
    pub(crate) marked: bool,
    /// Also what the host has changed meanwhile; the host's is lost
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Paths below the workspace; all unless given
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// `coffer log`.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// The log
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Go on as more is written
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only what was denied, would have been but for audit mode, or could not be done
    #[arg(long)]
    pub(crate) denied: bool,
    /// Print nothing of it, but check that each record continues the one before it
    #[arg(long, conflicts_with_all = ["follow", "denied"])]
    pub(crate) verify: bool,
}

/// `coffer doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Print the checks as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) guest: GuestOptions,
}

/// A size with an optional unit (K, M, G, T; bytes without), which must be whole MiB.
fn parse_size_mib(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text} is not a size, e.g. 512M"))?;
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("unknown unit in {text}: use K, M, G or T")),
    };
    let bytes = number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too much"))?;
    if bytes.trailing_zeros() < 20 {
        return Err(format!(
            "{text} is not a whole number of MiB, e.g. 512M (a number without a unit counts bytes)"
        ));
    }
    Ok(bytes >> 20)
}

/// A number with an optional unit (ms, s, m, h; seconds without).
/// A directory to share beside the workspace, as `docker run -v` has it, but for the default.
fn parse_mount(text: &str) -> Result<Mount, String> {
    let (text, mode) = match (text.strip_suffix(":rw"), text.strip_suffix(":ro")) {
        (Some(rest), _) => (rest, ShareMode::Direct),
        (_, Some(rest)) => (rest, ShareMode::ReadOnly),
        _ => (text, ShareMode::ReadOnly),
    };
    let (host, guest) = match text.split_once(':') {
        Some((host, guest)) => (host, Some(PathBuf::from(guest))),
        None => (text, None),
    };
    if host.is_empty() || guest.as_ref().is_some_and(|guest| !guest.is_absolute()) {
        return Err(format!(
            "{text:?} is not HOST[:GUEST][:ro|:rw] with an absolute path GUEST"
        ));
    }
    Ok(Mount {
        host: host.into(),
        guest,
        mode,
    })
}

fn parse_publish(text: &str) -> Result<(SocketAddr, u16), String> {
    let port = |text: &str| {
        let number: Result<u16, _> = text.parse();
        number.map_err(|_| format!("`{text}` is no port: give a number up to 65535"))
    };
    let (rest, guest) = match text.rsplit_once(':') {
        Some((rest, guest)) => (rest, port(guest)?),
        None => (text, port(text)?),
    };
    if guest == 0 {
        return Err("the guest's port is one from 1 to 65535".into());
    }
    let address = if rest.contains(':') {
        let address: Result<SocketAddr, _> = rest.parse();
        address.map_err(|_| {
            format!("`{rest}` is no address with a port, such as 127.0.0.1:3000 or [::1]:3000")
        })?
    } else {
        SocketAddr::from(([127, 0, 0, 1], port(rest)?))
    };
    if !address.ip().is_loopback() {
        let problem = "ports are published at loopback addresses only: 127.0.0.1 or [::1]";
        return Err(problem.into());
    }
    Ok((address, guest))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text} is not a duration, e.g. 90s"))?;
    let millis = match text.strip_prefix(digits).unwrap_or_default() {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("unknown unit in {text}: use ms, s, m or h")),
    };
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mounts() {
        let mount = |host: &str, guest: Option<&str>, mode| Mount {
            host: host.into(),
            guest: guest.map(Into::into),
            mode,
        };
        for (text, expected) in [
            ("data", mount("data", None, ShareMode::ReadOnly)),
            ("/a:ro", mount("/a", None, ShareMode::ReadOnly)),
            ("/a:rw", mount("/a", None, ShareMode::Direct)),
            ("/a:/b", mount("/a", Some("/b"), ShareMode::ReadOnly)),
            ("a:/b c:rw", mount("a", Some("/b c"), ShareMode::Direct)),
        ] {
            assert_eq!(parse_mount(text).unwrap(), expected, "{text}");
        }
        for text in ["", ":rw", "a:b", "a:", ":/b"] {
            assert!(parse_mount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn published_ports() {
        for (text, address, port) in [
            ("8080", "127.0.0.1:8080", 8080),
            ("3000:8080", "127.0.0.1:3000", 8080),
            ("0:8080", "127.0.0.1:0", 8080),
            ("127.0.0.2:3000:8080", "127.0.0.2:3000", 8080),
            ("[::1]:3000:8080", "[::1]:3000", 8080),
        ] {
            let expected = (address.parse().unwrap(), port);
            assert_eq!(parse_publish(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "x",
            "0",
            "8080:0",
            "65536",
            "1:65536",
            ":80",
            "80:",
            "::1:3000:8080",
            "localhost:3000:8080",
            "0.0.0.0:3000:8080",
            "[::]:3000:8080",
            "192.168.1.1:3000:8080",
        ] {
            assert!(parse_publish(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, mib) in [
            ("512M", 512),
            ("2G", 2048),
            ("2GiB", 2048),
            ("1048576", 1),
            ("0", 0),
            ("64mb", 64),
            ("2048K", 2),
        ] {
            assert_eq!(parse_size_mib(text), Ok(mib), "{text}");
        }
        for (text, part) in [
            ("", "not a size"),
            ("x", "not a size"),
            ("M", "not a size"),
            ("-1", "not a size"),
            ("1X", "unknown unit"),
            ("1ib", "unknown unit"),
            ("99999999999T", "too much"),
            ("100K", "100K is not a whole number of MiB"),
            ("1500K", "not a whole number of MiB"),
            ("512", "without a unit counts bytes"),
        ] {
            let message = parse_size_mib(text).unwrap_err();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("90s", 90_000),
            ("90", 90_000),
            ("250ms", 250),
            ("2m", 120_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["", "s", "1d", "1.5s", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_follows_the_command_is_its_own() {
        let cli = Cli::parse_from(["coffer", "run", "--cpus", "2", "--", "ls", "--cpus", "-l"]);
        let Command::Run(options) = cli.command else {
            panic!("not run")
        };
        assert_eq!(
            (options.cpus, options.command),
            (2, vec!["ls".into(), "--cpus".into(), "-l".into()])
        );
    }
}
