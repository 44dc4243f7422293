//! What is wrong with a policy, and where.

use std::fmt;
use std::sync::Arc;

use super::path::PatternError;
use crate::NameError;

/// The most characters of a policy that a message quotes.
const LONGEST_EXCERPT: usize = 200;

/// Where a policy came from, for people: a file's path, or words.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    /// Named as given; characters that a terminal would act on are escaped.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(printable(name).into())
    }
}

impl Default for Origin {
    fn default() -> Self {
        Self::new("policy")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` without characters that a terminal would act on: a repository's file may hold some.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => out.push(character),
            other => out.extend(other.escape_debug()),
        }
    }
    out
}

/// The beginning of `text`, printable: what is quoted in a message may be as long as a file.
pub(crate) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(LONGEST_EXCERPT) {
        Some((end, _)) => printable(text.get(..end).unwrap_or_default()) + "…",
        None => printable(text),
    }
}

/// A policy and a line in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The policy.
    pub origin: Origin,
    /// The line, from 1; none for what was not read from a file, and for the file as a whole.
    pub line: Option<u32>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin.fmt(f)?;
        self.line.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

/// Why a policy is refused. Then nothing of it applies: whoever asked for it must not go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
#[non_exhaustive]
pub struct PolicyError {
    /// Where: the line of the rule's head, or of the mistake in syntax.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// More than [`LARGEST_FILE`](super::LARGEST_FILE) bytes.
    #[error("the file is larger than 1 MiB")]
    TooLarge,
    /// Not UTF-8.
    #[error("the file is not text (UTF-8)")]
    NotText,
    /// Not TOML, or a key, a type or a value that policies do not have.
    #[error("{0}")]
    Syntax(String),
    /// More than [`MOST_RULES`](super::MOST_RULES) in one policy.
    #[error("there are more than 100000 rules")]
    TooManyRules,
    /// A list with nothing in it could be read as everything and as nothing.
    #[error("`{0}` is empty; leave it out, or say what it is to hold")]
    Empty(&'static str),
    /// The same twice in one list.
    #[error("`{list}` names {value} twice")]
    Repeated {
        /// The key.
        list: &'static str,
        /// The beginning of what is there twice.
        value: String,
    },
    /// Two rules of one policy say the same.
    #[error("the same rule is at {0} already")]
    Duplicate(Place),
    /// `*` as a host.
    #[error("`*` would match every host; name hosts, or use `*.name`")]
    Everything,
    /// A `*` elsewhere than as the first label.
    #[error("a wildcard is `*.` and a name; `*` cannot stand elsewhere")]
    Wildcard,
    /// A wildcard where names are exact.
    #[error("a service's name is exact: it cannot be a wildcard or an address")]
    ServiceName,
    /// Not a host's name.
    #[error("the host is not valid: {0}")]
    Host(NameError),
    /// Anyone may register a name there.
    #[error(
        "`*.{0}` covers names of unrelated owners ({0} is a public suffix); if that is meant, add `force = true`"
    )]
    PublicSuffix(String),
    /// An address that no rule can open.
    #[error(
        "{0} is not a public address; what is on the host or in its network is reached by a [[service]] only"
    )]
    NotPublic(std::net::IpAddr),
    /// Port 0.
    #[error("0 is no port")]
    PortZero,
    /// There is no usual port of tcp.
    #[error("a rule with `scheme = \"tcp\"` needs `ports`")]
    NoPorts,
    /// Not a method's name in upper case.
    #[error("methods are words in upper case, such as \"GET\"; this is not: `{0}`")]
    Method(String),
    /// A path pattern that could not match, or is unclear.
    #[error("the path pattern `{pattern}` is not valid: {error}")]
    Pattern {
        /// The beginning of the pattern.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// A condition on requests, where requests are not read.
    #[error("`{key}` cannot be enforced: {because}")]
    Unread {
        /// The condition's key.
        key: &'static str,
        /// Why nothing is read.
        because: Unread,
    },
    /// A condition on requests, and another rule by which they are not read.
    #[error(
        "methods and paths of this rule cannot be enforced, because the rule at {0} lets the same traffic through unread"
    )]
    Conflict(Place),
    /// Nothing but https is intercepted.
    #[error("`passthrough` is for https; other schemes are not intercepted")]
    Passthrough,
    /// A limit of nothing.
    #[error("`quota.{0}` is 0; to allow nothing, deny it")]
    NoQuota(&'static str),
    /// A service at an address where no service of the host can be.
    #[error(
        "{0} is no address of a service on the host: it must be one host's, and not public or link-local"
    )]
    ServiceAddress(std::net::SocketAddr),
    /// The name of a service in another service or in an allow rule.
    #[error("this name belongs to the service at {0}")]
    ServiceTaken(Place),
    /// Something in the repository's policy that would loosen the user's.
    #[error("`{0}` has no place in a repository's policy: that can only tighten")]
    Repository(&'static str),
}

/// Why requests are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unread {
    /// The scheme is tcp.
    #[error("with `scheme = \"tcp\"` nothing is read")]
    Tcp,
    /// The rule says `passthrough`.
    #[error("with `passthrough = true` nothing is read")]
    Passthrough,
    /// The rule is about https, and TLS is not intercepted.
    #[error("TLS is not intercepted here, so that requests over https are not read")]
    NotIntercepted,
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::Host(error)
    }
}
