//! Which connections and requests may leave the sandbox: rules as a person writes them, and the compiled form that decides.
//!
//! A [`Policy`] is one document (a TOML file, or the same values in Rust). Up to three of them are put together as [`Layers`] and
//! checked and compiled once into an [`Engine`], which never changes. Its decisions are pure functions: they resolve no name, read no
//! clock, allocate nothing and cannot fail. Whatever no rule allows is denied; no policy at all denies everything.
//!
//! # The file
//!
//! ```toml
//! mode = "enforce"                  # the default; "audit" lets through what no rule denies, and says so
//!
//! [[allow]]
//! host = "api.github.com"           # a name, `*.name` (one or more labels before it, never the name itself), or a public address
//! scheme = "https"                  # the default; "http", or "tcp" for bytes that nobody reads
//! ports = [443]                     # the default is the scheme's; tcp has none
//! methods = ["GET", "POST"]         # any, if absent
//! paths = ["/repos/*/issues/**"]    # any, if absent; `*` is within a segment, `**` is any number of segments
//! quota = { sent_bytes = 1000000, received_bytes = 50000000, requests_per_minute = 60, connections = 8 }
//!
//! [[allow]]
//! host = "*.pinned.example"
//! passthrough = true                # TLS is carried as it is, not intercepted, and may be encrypted to its first message (ECH)
//!
//! [[deny]]                          # beats every allow rule
//! host = "gist.github.com"          # every scheme and every port, unless the rule says less
//!
//! [[service]]                       # the only way to something on the host
//! name = "db.host"
//! address = "127.0.0.1:5432"
//! ports = [5432]                    # as the guest sees them; the default is that of the address
//! scheme = "tcp"                    # the default
//! ```
//!
//! An allow rule without scheme and ports means as little as it can mean, a deny rule as much as it can.
//!
//! The same in Rust:
//!
//! ```
//! use netproxy::HostName;
//! use netproxy::policy::{Abilities, Allow, Engine, Host, Layers, Policy, Scheme};
//!
//! let policy = Policy {
//!     allow: vec![Allow { host: "api.github.com".into(), ..Allow::default() }],
//!     ..Policy::default()
//! };
//! let layers = Layers { sandbox: Some(policy), ..Layers::default() };
//! // In place of the last argument stands the filter of addresses.
//! let engine = Engine::compile(&layers, Abilities { intercepts_tls: true }, |_| false)?;
//! let github = Host::Name(HostName::parse("api.github.com")?);
//! assert!(engine.connection(&github, 443, Scheme::Https).verdict.permits());
//! assert!(!engine.connection(&github, 80, Scheme::Http).verdict.permits());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Which rule decides
//!
//! A deny rule that matches decides. Otherwise the most specific allow rule that matches: an exact name before a wildcard, a longer
//! wildcard before a shorter one, then the sandbox's file before the global one, then the order in the file. Its quota applies.
//!
//! The repository's file can only take away: its deny rules add to the others', and if it allows anything, then only what one of
//! its allow rules matches too is allowed. Its quotas are counted beside those of the user's rule, and the one that is used up first holds.
//!
//! A connection counts for the rule that allows it; where its requests are judged one by one, for each rule that has allowed one of them.
//!
//! A rule with methods or paths is enforced on what is read. Where it could match what is carried unread (tcp, `passthrough`, https
//! when nothing intercepts TLS), the policy is refused, because the rule would say more than is done.
//!
//! # Audit mode
//!
//! With `mode = "audit"` what no rule mentions is let through to public destinations, and each decision says that it would have been denied
//! ([`Verdict::Audited`]). It is for finding out what a policy has to allow, not for work that has to be contained. Still so:
//!
//! * What a deny rule matches is denied. The name of a service leads to that service and nowhere else.
//! * Only public addresses are dialled, whatever a name resolves to. Names that are not of the public DNS (single labels, `localhost`, `local`,
//!   `internal`, `test`, `invalid`, `onion`, `alt`, `arpa`) are not answered.
//! * On the ports 443 and 80, TLS has to be for the name of the connection, and all else has to be HTTP in clear, of which each request is read.
//! * On any other port TLS has to be for that name too, if it says one, and HTTP is read. What is neither is carried unread, also where the guest waits for the
//!   server to speak first. To an address without a name, this is all that is let through.
//!
//! The mode is audit if one of the user's layers says so and no layer says `mode = "enforce"`: a user's word in the global file is not overruled for one
//! sandbox, and the repository can end audit mode. It cannot ask for it: that is an error.
//!
//! # Cost
//!
//! A decision looks up the host and each of its parent names once, and compares the rules found for these. It depends on the number of
//! rules for one host, not on the number of rules: well under a microsecond with 10 000 rules for as many hosts (the test
//! `time_of_a_decision` measures it).

use std::net::IpAddr;

mod check;
mod conflict;
mod decision;
mod document;
mod engine;
mod error;
mod host;
mod index;
pub mod path;
mod rule;
mod suggestion;

pub(crate) use decision::is_method;
pub use decision::{Decision, Reason, Verdict};
pub use document::{
    Allow, Deny, LARGEST_FILE, LARGEST_PATTERN, MOST_RULES, Mode, Policy, Quota, Scheme, Service,
};
pub use engine::Engine;
pub(crate) use error::excerpt;
pub use error::{Origin, Place, PolicyError, Problem, Unread};
pub use host::Host;
pub(crate) use host::is_public_name;
pub use rule::{Rule, Schemes};

/// The policies that apply to one sandbox. Those that are absent say nothing; if all are, everything is denied.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The host user's own, for all sandboxes.
    pub global: Option<Policy>,
    /// The one for this sandbox, by whoever starts it. Adds to the global one. A service that the global one has too is an error.
    pub sandbox: Option<Policy>,
    /// The repository's, which whoever wrote the code wrote: it can only tighten.
    pub repository: Option<Policy>,
}

/// What is done with connections beside deciding about them. Rules that need more are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// TLS is intercepted, so that requests over https can be read. Otherwise https is carried unread.
    pub intercepts_tls: bool,
}

/// Whether an address is a public one, which a policy may name. The filter of addresses is not part of the policy.
pub type IsPublic = fn(IpAddr) -> bool;

#[cfg(test)]
mod tests;
