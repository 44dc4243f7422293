//! What is told of the guest's connections.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::address::AddressRefusal;
use crate::dial::DialError;
use crate::frame::DroppedFrame;
use crate::http::Refused;
use crate::name::HostName;
use crate::policy::{Decision, Host, Reason, Rule, Scheme, Verdict};
use crate::quota::Spent;
use crate::relay::Carried;

/// Is told what becomes of what the guest asks. Called on the worker's one thread, which must not wait in it.
pub trait Observer {
    /// A connection was let through.
    fn opened(&self, flow: &Flow);

    /// A request of plain HTTP, of this method and target, was let through on a connection. Nothing is made of it before somebody wants it: there
    /// are many.
    fn requested(&self, flow: &Flow, request: (&str, &str), decision: &Decision<'_>);

    /// Something was denied, or could not be done.
    fn denied(&self, denial: &Denial);

    /// Only the mode audit let something through; it would have been denied like this. Of plain HTTP, that is about each request.
    fn audited(&self, denial: &Denial);

    /// A connection that was let through has come to its end, in whichever way.
    fn ended(&self, flow: &Flow, carried: Carried, duration: Duration);

    /// A frame went nowhere.
    fn dropped(&self, why: DroppedFrame);
}

/// Whom the guest meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// A name, or an address that stands for none.
    pub host: Host,
    /// The port; 0 where only the name was asked for.
    pub port: u16,
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (host, 0) => host.fmt(f),
            (Host::Address(IpAddr::V6(address)), port) => write!(f, "[{address}]:{port}"),
            (host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Something that the guest did not get.
#[derive(Debug)]
pub struct Denial {
    /// The connection's number, if it was about one.
    pub flow: Option<u64>,
    /// Whom it was for.
    pub destination: Destination,
    /// What was spoken, where that was seen.
    pub scheme: Option<Scheme>,
    /// Where it was a request of HTTP.
    pub request: Option<Request>,
    /// Why not.
    pub why: Why,
    /// The rule that denies it, if one does.
    pub decided_by: Option<RuleText>,
    /// A rule that a person could add to allow it, in one line of TOML, if a rule could.
    pub rule: Option<String>,
}

impl Denial {
    /// A name that does not exist for the guest, because no connection to it is allowed.
    #[must_use]
    pub fn name(name: &HostName, reason: Reason, rule: Option<String>) -> Self {
        let host = Host::Name(name.clone());
        Self {
            flow: None,
            destination: Destination { host, port: 0 },
            scheme: None,
            request: None,
            why: Why::Policy(reason),
            decided_by: None,
            rule,
        }
    }
}

/// A request of HTTP: its method and path, which are the guest's text. Values in the path's query, where secrets are, are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    path: String,
}

impl Request {
    /// With a path that may have a query.
    #[must_use]
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: without_values(target),
        }
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Its path, and the keys of its query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// `target` with `a=` for each `a=value` of its query. A piece without `=` could be all value, so `*` stands for it.
fn without_values(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let keys = query.split('&').map(|piece| match piece.split_once('=') {
        Some((key, _)) => format!("{key}="),
        None if piece.is_empty() => String::new(),
        None => "*".to_owned(),
    });
    format!("{path}?{}", keys.collect::<Vec<_>>().join("&"))
}

/// A rule as a person knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// The rule, in one line of TOML.
    pub text: String,
    /// Where it is written.
    pub place: String,
}

impl From<&Rule> for RuleText {
    fn from(rule: &Rule) -> Self {
        Self {
            text: rule.to_string(),
            place: rule.place().to_string(),
        }
    }
}

impl From<&Spent> for RuleText {
    fn from(spent: &Spent) -> Self {
        Self {
            text: spent.rule.clone(),
            place: spent.place.clone(),
        }
    }
}

/// Why something was let through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Only the mode let it through; it would be denied for this reason.
    pub audited: Option<Reason>,
    /// The rule that allows it.
    pub rule: Option<RuleText>,
}

impl Ruling {
    /// Of what was decided.
    #[must_use]
    pub fn of(decision: &Decision<'_>) -> Self {
        Self {
            audited: match decision.verdict {
                Verdict::Audited(reason) => Some(reason),
                _ => None,
            },
            rule: decision.rule.map(RuleText::from),
        }
    }
}

/// A connection that was let through.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Its number, from 1, in the order in which the guest asked.
    pub number: u64,
    /// Whom it is to.
    pub destination: Destination,
    /// What is spoken.
    pub scheme: Scheme,
    /// The address that was dialled, unless a proxy of the host's network did that.
    pub address: Option<SocketAddr>,
    /// Why it was let through.
    pub ruling: Ruling,
}

/// Why the guest did not get something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// The policy does not allow it.
    #[error("{0}")]
    Policy(Reason),
    /// The address is not one that may be dialled.
    #[error("the address may not be dialled: {0}")]
    Address(AddressRefusal),
    /// Nobody says which addresses are the host's, so any could be.
    #[error("this host's own addresses cannot be told: {0}")]
    OwnAddresses(io::Error),
    /// There is no connection to it.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS for another name than the connection is for.
    #[error("TLS for another name: {0}")]
    OtherName(HostName),
    /// TLS that does not say for which name.
    #[error("TLS that does not say for which name")]
    NoName,
    /// TLS that may be for another name than it says, which is encrypted. Only a rule with `passthrough` lets it through.
    #[error("TLS that may hide another name (ECH), which only a rule with `passthrough` allows")]
    HiddenName,
    /// Neither TLS nor HTTP, where nothing else is allowed.
    #[error("neither TLS nor HTTP, which is all that is allowed")]
    UnknownProtocol,
    /// Nothing was said in time.
    #[error("the guest said nothing")]
    Silent,
    /// The quota of the rule that allows it is used up.
    #[error("{0}")]
    Quota(Spent),
    /// A request was for another host, or none that can be passed on.
    #[error("{0}")]
    Request(Refused),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_query_is_kept() {
        for (target, kept) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a?", "/a?"),
            ("/a?x=secret", "/a?x="),
            ("/a?x=secret&y=secret=secret&&z=", "/a?x=&y=&&z="),
            ("/a?secret", "/a?*"),
            ("/a?x=1&secret", "/a?x=&*"),
            ("/a?x=se?cret;y=secret", "/a?x="),
            ("/a?=secret", "/a?="),
        ] {
            assert_eq!(Request::new("GET", target).path(), kept, "{target}");
        }
    }
}
