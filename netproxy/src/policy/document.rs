//! A policy as a person writes it: the TOML file, and the same as plain values.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::error::{Origin, Place, PolicyError, Problem, excerpt};

/// The largest policy file, in bytes.
pub const LARGEST_FILE: usize = 1 << 20;
/// The most rules (allow, deny and services) of one policy.
pub const MOST_RULES: usize = 100_000;
/// The longest path pattern, in bytes.
pub const LARGEST_PATTERN: usize = 1024;

/// One policy, as written: nothing in it is checked before [`Engine::compile`](super::Engine::compile).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Where it is from, for messages.
    pub origin: Origin,
    /// What becomes of what no rule mentions; [`Mode::Enforce`] if no layer says, or any layer says so.
    pub mode: Option<Mode>,
    /// What is allowed.
    pub allow: Vec<Allow>,
    /// What is denied although it is allowed.
    pub deny: Vec<Deny>,
    /// What the guest can reach on the host.
    pub service: Vec<Service>,
}

/// What becomes of what no rule mentions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Mode {
    /// It is denied.
    #[default]
    Enforce,
    /// It is let through to public destinations, and the decision says so: for learning what a policy must allow. See [audit mode](super#audit-mode).
    Audit,
}

/// How a connection's bytes are understood.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Scheme {
    /// HTTP over TLS.
    #[default]
    Https,
    /// HTTP in clear.
    Http,
    /// Not at all: they are carried as they are.
    Tcp,
}

impl Scheme {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Https, Self::Http, Self::Tcp];

    /// The port that a rule with this scheme means unless it says another; of tcp, there is none.
    #[must_use]
    pub const fn usual_port(self) -> Option<u16> {
        match self {
            Self::Https => Some(443),
            Self::Http => Some(80),
            Self::Tcp => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tcp => "tcp",
        })
    }
}

/// `[[allow]]`: connections and requests that may leave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// A host's name, `*.name`, or a public address.
    pub host: String,
    /// The ports; if absent, the usual one of the scheme.
    pub ports: Option<Vec<u16>>,
    /// The scheme.
    #[serde(default)]
    pub scheme: Scheme,
    /// The methods of requests, in upper case; if absent, any. None includes another: GET is not HEAD.
    pub methods: Option<Vec<String>>,
    /// Patterns of which a request's path must match one; if absent, any path.
    pub paths: Option<Vec<String>>,
    /// TLS is carried as it is, although it could be intercepted.
    #[serde(default)]
    pub passthrough: bool,
    /// The wildcard is meant, although it covers names of unrelated owners.
    #[serde(default)]
    pub force: bool,
    /// How much of it.
    #[serde(default)]
    pub quota: Quota,
    /// The rule's line in its file, if it was read from one.
    #[serde(skip)]
    pub line: Option<u32>,
}

/// `[[deny]]`: what may not leave, whatever allows it. What is absent restricts nothing: without `scheme`, every scheme.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// A host's name, `*.name`, or a public address.
    pub host: String,
    /// The ports; if absent, all.
    pub ports: Option<Vec<u16>>,
    /// The scheme; if absent, every one. Connections that nobody reads are denied too, because they could be of any scheme.
    pub scheme: Option<Scheme>,
    /// The methods of requests, in upper case; if absent, any.
    pub methods: Option<Vec<String>>,
    /// Patterns of which a request's path must match one; if absent, any path.
    pub paths: Option<Vec<String>>,
    /// The wildcard is meant, although it covers names of unrelated owners.
    #[serde(default)]
    pub force: bool,
    /// The rule's line in its file, if it was read from one.
    #[serde(skip)]
    pub line: Option<u32>,
}

/// `[[service]]`: something on the host, under a name that the guest can connect to. The name is never resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The name, exact.
    pub name: String,
    /// Where the service is, as the host sees it: address and port.
    pub address: String,
    /// The ports on which the guest finds it; if absent, that of the address.
    pub ports: Option<Vec<u16>>,
    /// How it is read; tcp if absent.
    pub scheme: Option<Scheme>,
    /// How much of it.
    #[serde(default)]
    pub quota: Quota,
    /// The service's line in its file, if it was read from one.
    #[serde(skip)]
    pub line: Option<u32>,
}

/// Limits for all that one rule allows. What is absent is not limited. [`Proxy`](crate::proxy::Proxy) counts them, for each sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes from the guest, in the sandbox's life, as they are sent on. What would be one more ends the connection.
    pub sent_bytes: Option<u64>,
    /// Bytes to the guest, in the sandbox's life, as its other side sends them.
    pub received_bytes: Option<u64>,
    /// Requests in a minute, which begins with its first request.
    pub requests_per_minute: Option<u32>,
    /// Connections at a time.
    pub connections: Option<u32>,
}

impl Quota {
    /// The smaller of each limit.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            sent_bytes: smaller(self.sent_bytes, other.sent_bytes),
            received_bytes: smaller(self.received_bytes, other.received_bytes),
            requests_per_minute: smaller(self.requests_per_minute, other.requests_per_minute),
            connections: smaller(self.connections, other.connections),
        }
    }

    /// The limits with their keys.
    pub(super) fn limits(self) -> [(&'static str, Option<u64>); 4] {
        [
            ("sent_bytes", self.sent_bytes),
            ("received_bytes", self.received_bytes),
            (
                "requests_per_minute",
                self.requests_per_minute.map(u64::from),
            ),
            ("connections", self.connections.map(u64::from)),
        ]
    }
}

fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The file's top level. A list that is there and empty is an error, so absence must be told from it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Option<Mode>,
    allow: Option<Vec<Spanned<Allow>>>,
    deny: Option<Vec<Spanned<Deny>>>,
    service: Option<Vec<Spanned<Service>>>,
}

impl Policy {
    /// The policy that the file `bytes` holds. An empty file is an empty policy.
    ///
    /// # Errors
    ///
    /// Says at which line what is wrong: the file is too large, not UTF-8 or not TOML, a key or a value is not one of a policy's, a list of
    /// rules is empty. What the rules say is checked when they are compiled.
    pub fn parse(bytes: &[u8], origin: Origin) -> Result<Self, PolicyError> {
        let parser = Parser::new(bytes, origin)?;
        let file = parser.file()?;
        Ok(Self {
            mode: file.mode,
            allow: parser.list("allow", file.allow, |rule: &mut Allow| &mut rule.line)?,
            deny: parser.list("deny", file.deny, |rule: &mut Deny| &mut rule.line)?,
            service: parser.list("service", file.service, |one: &mut Service| &mut one.line)?,
            origin: parser.origin,
        })
    }
}

struct Parser<'a> {
    text: &'a str,
    /// Where each line ends.
    ends: Vec<usize>,
    origin: Origin,
}

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8], origin: Origin) -> Result<Self, PolicyError> {
        let ends: Vec<usize> = bytes
            .iter()
            .take(LARGEST_FILE)
            .enumerate()
            .filter_map(|(at, byte)| (*byte == b'\n').then_some(at))
            .collect();
        let mut parser = Self {
            text: "",
            ends,
            origin,
        };
        if bytes.len() > LARGEST_FILE {
            return Err(parser.error(None, Problem::TooLarge));
        }
        match str::from_utf8(bytes) {
            Ok(text) => parser.text = text,
            Err(error) => return Err(parser.error(Some(error.valid_up_to()), Problem::NotText)),
        }
        Ok(parser)
    }

    fn file(&self) -> Result<File, PolicyError> {
        toml::from_str(self.text).map_err(|error| {
            let at = error.span().map(|span| span.start);
            self.error(at, Problem::Syntax(excerpt(error.message())))
        })
    }

    /// The entries of a list, each with its line.
    fn list<T>(
        &self,
        key: &'static str,
        entries: Option<Vec<Spanned<T>>>,
        line_of: impl Fn(&mut T) -> &mut Option<u32>,
    ) -> Result<Vec<T>, PolicyError> {
        let entries = entries.map_or(Ok(Vec::new()), |entries| {
            (!entries.is_empty())
                .then_some(entries)
                .ok_or_else(|| self.error(None, Problem::Empty(key)))
        })?;
        let with_line = |entry: Spanned<T>| {
            let line = self.line(entry.span().start);
            let mut entry = entry.into_inner();
            *line_of(&mut entry) = line;
            entry
        };
        Ok(entries.into_iter().map(with_line).collect())
    }

    /// The number of the line with byte `at`.
    fn line(&self, at: usize) -> Option<u32> {
        let before = self.ends.partition_point(|end| *end < at);
        u32::try_from(before + 1).ok()
    }

    fn error(&self, at: Option<usize>, problem: Problem) -> PolicyError {
        PolicyError {
            place: Place {
                origin: self.origin.clone(),
                line: at.and_then(|at| self.line(at)),
            },
            problem,
        }
    }
}
