//! The command line of `coffer policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const CHECK_HELP: &str = "\
Examples:
  coffer policy check https://example.com --policy policy.toml
  coffer policy check http://example.com/x --method POST --policy policy.toml -w .
  coffer policy check tcp://example.com:5432 --allow example.com --json
  coffer policy check ssh://git@example.com/x.git --policy policy.toml

The same layers of policies decide as in `coffer run` with these options, by the same engine; nothing is connected to.

Exit status:
  0    the policy lets it through, if only in audit mode
  1    it is denied
  125  there is no answer: the URL or a policy is not valid";

const LEARN_HELP: &str = "\
Examples:
  coffer run --policy audit.toml --audit-log net.log -- make test    with mode = \"audit\" in audit.toml
  coffer policy learn net.log > policy.toml                          all that was let through
  coffer policy learn net.log --policy policy.toml                   what that policy lacks

A rule is learned for each host, port and scheme that was let through, by a rule or by audit mode, in all of the logs' files
(FILE.1 and so on are read, too). Where requests are read (plain HTTP), it says methods and paths. What was denied is told
in comments and never learned. Whoever was in the guest chose what is in the log: read the rules before you use them.

The exit status is 125 when a log was changed, is not there or is none.";

const SUGGEST_HELP: &str = "\
Examples:
  coffer policy suggest                         of the user's tools, and the remotes of the present directory's repository
  coffer policy suggest -w ~/project > policy.toml

Looks into the user's settings of apt, cargo, git, go, npm and pip (files and variables), and into the workspace's git settings. It
knows no host by itself: what a tool has built in is found by audit mode and `coffer policy learn`. Passwords and tokens in
these settings are not printed. What cannot be read or understood is told on standard error, and the rest goes on.";

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell whether a guest could connect to a URL, and which rule decides
    #[command(after_help = CHECK_HELP)]
    Check(CheckOptions),
    /// Print the rules that a policy lacks for what an audit log tells was let through
    #[command(after_help = LEARN_HELP)]
    Learn(LearnOptions),
    /// Print rules for the hosts that this host's package managers and git are configured with
    #[command(after_help = SUGGEST_HELP)]
    Suggest(SuggestOptions),
}

impl PolicyCommand {
    /// Whether failures are to be told as JSON.
    pub(crate) const fn is_json(&self) -> bool {
        match self {
            Self::Check(options) => options.json,
            Self::Learn(_) | Self::Suggest(_) => false,
        }
    }
}

/// `coffer policy learn`.
#[derive(Debug, Args)]
pub(crate) struct LearnOptions {
    /// Logs that `coffer run --audit-log` has written
    #[arg(value_name = "FILE", required = true)]
    pub(crate) logs: Vec<PathBuf>,
    /// A policy: what it allows is not learned
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Make one rule for three names and more below the same name; it allows more than was seen
    #[arg(long)]
    pub(crate) wildcards: bool,
    /// Learn from a log that was changed, too
    #[arg(long)]
    pub(crate) unverified: bool,
}

/// `coffer policy suggest`.
#[derive(Debug, Args)]
pub(crate) struct SuggestOptions {
    /// The workspace, whose repository's remotes are looked at [default: the present directory]
    #[arg(
        short,
        long,
        value_name = "DIR",
        default_value = ".",
        hide_default_value = true
    )]
    pub(crate) workspace: PathBuf,
}

/// `coffer policy check`.
#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// What the guest would connect to: https, http, wss, ws, ssh, git, or tcp://HOST:PORT
    #[arg(value_name = "URL")]
    pub(crate) url: String,
    /// The policy, as of `coffer run --policy`; the user's own applies, too
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Allow HTTPS to this host too, as of `coffer run --allow`
    #[arg(long, value_name = "HOST")]
    pub(crate) allow: Vec<String>,
    /// The workspace, whose `.cofferdam/policy.toml` applies, too
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workspace: Option<PathBuf>,
    /// Method of the request, which matters where requests are read
    #[arg(long, value_name = "METHOD", default_value = "GET")]
    pub(crate) method: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
