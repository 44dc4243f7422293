//! What is asked of a policy, and what it answers.

use std::cell::OnceCell;
use std::net::SocketAddr;

use super::document::{Quota, Scheme};
use super::path::{CanonicalPath, PathError};
use super::rule::{Action, Match, Rule};

/// What a policy says of a connection or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision<'a> {
    /// Whether it may go.
    pub verdict: Verdict,
    /// The rule that decided: the one that denies, or else the one that allows.
    pub rule: Option<&'a Rule>,
    /// The repository's rule that allows it, too, if its policy allows anything.
    pub narrow: Option<&'a Rule>,
    /// The limits that apply to it, the smaller ones of these two rules.
    pub quota: Quota,
    /// Each request on this connection is still to be judged, by [`Engine::request`](super::Engine::request).
    pub each_request: bool,
    /// The rule says that TLS is not to be intercepted. No rule that applies to requests is about this connection.
    pub passthrough: bool,
    /// Where to connect instead of resolving the name: the address of a service on the host.
    pub service: Option<SocketAddr>,
}

/// Whether something may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// A rule allows it.
    Allow,
    /// It goes only because the mode is audit; otherwise it would be denied for this reason.
    Audited(Reason),
    /// It may not go.
    Deny(Reason),
}

impl Verdict {
    /// Whether it may go, for whichever reason.
    #[must_use]
    pub const fn permits(self) -> bool {
        !matches!(self, Self::Deny(_))
    }
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// A deny rule matches.
    #[error("a rule denies it")]
    DenyRule,
    /// No rule allows anything to this host.
    #[error("no rule allows this host")]
    Host,
    /// Rules allow the host, on other ports.
    #[error("no rule allows this port of the host")]
    Port,
    /// Rules allow the host and the port, with another scheme.
    #[error("no rule allows this scheme on this port of the host")]
    Scheme,
    /// Rules allow the connection, but not a request with this method and path.
    #[error("no rule allows this method and path")]
    Request,
    /// A rule about paths has to decide, and the path could be read in several ways.
    #[error("a rule about paths cannot decide: {0}")]
    AmbiguousPath(PathError),
    /// A rule about methods has to decide, and the method is not a word in upper case.
    #[error("a rule about methods cannot decide: the method is not a word in upper case")]
    AmbiguousMethod,
    /// The user's policies allow it, and the repository's does not.
    #[error("the repository's policy does not allow it")]
    Repository,
    /// The mode is audit, and the name or address is not a public one.
    #[error("no rule allows it, and audit mode is for public names and addresses")]
    NotPublic,
}

impl<'a> Decision<'a> {
    pub(super) fn deny(reason: Reason, rule: Option<&'a Rule>) -> Self {
        Self::new(Verdict::Deny(reason), rule, Quota::default())
    }

    /// With what `rule`, which allows it, says of how.
    pub(super) fn new(verdict: Verdict, rule: Option<&'a Rule>, quota: Quota) -> Self {
        let action = rule.map(|rule| rule.action);
        let service = match action {
            Some(Action::Serve(address)) => Some(address),
            _ => None,
        };
        Self {
            verdict,
            rule,
            narrow: None,
            quota,
            each_request: false,
            passthrough: action == Some(Action::Allow { passthrough: true }),
            service,
        }
    }
}

/// What is asked, beside the host.
pub(super) struct Question<'a> {
    pub(super) port: u16,
    pub(super) scheme: Scheme,
    /// None before there is one: the question is about the connection.
    pub(super) request: Option<Request<'a>>,
}

pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    target: &'a str,
    /// Made when the first rule needs it: paths about which there is no rule may be as they like.
    path: OnceCell<Result<CanonicalPath<'a>, PathError>>,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: &'a str, target: &'a str) -> Self {
        Self {
            method,
            target,
            path: OnceCell::new(),
        }
    }

    /// Servers differ about `get`, so a rule about GET cannot decide about it.
    pub(super) fn method_is_clear(&self) -> bool {
        is_method(self.method)
    }

    pub(super) fn path(&self) -> Result<CanonicalPath<'a>, PathError> {
        *self.path.get_or_init(|| CanonicalPath::parse(self.target))
    }
}

/// Whether `text` is a method in the one spelling that rules compare.
pub(crate) fn is_method(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_uppercase())
        && bytes.all(|byte| byte.is_ascii_uppercase() || byte == b'-')
}

impl Reason {
    /// Why nothing is allowed of which the nearest rule matches as far as `nearest`.
    pub(super) fn not_allowed(nearest: Option<Match>) -> Self {
        match nearest {
            None => Self::Host,
            Some(Match::OtherPort) => Self::Port,
            Some(Match::OtherScheme) => Self::Scheme,
            Some(Match::AmbiguousPath(error)) => Self::AmbiguousPath(error),
            Some(Match::AmbiguousMethod) => Self::AmbiguousMethod,
            Some(Match::OtherRequest | Match::SomeRequests | Match::Full) => Self::Request,
        }
    }
}
