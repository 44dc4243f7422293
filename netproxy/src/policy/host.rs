//! Destinations, and what a rule says of them.

use std::fmt;
use std::net::IpAddr;

use super::IsPublic;
use super::error::Problem;
use crate::HostName;

/// A destination: a name, or an address without a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A name, which is not resolved yet.
    Name(HostName),
    /// An address.
    Address(IpAddr),
}

impl From<HostName> for Host {
    fn from(name: HostName) -> Self {
        Self::Name(name)
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The hosts of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HostPattern {
    Exact(HostName),
    /// Every name that ends in a dot and this one.
    Below(HostName),
    /// In one form only: an IPv4 address is never written as an IPv6 one.
    Address(IpAddr),
}

impl HostPattern {
    pub(super) fn parse(text: &str, force: bool, is_public: IsPublic) -> Result<Self, Problem> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return public_address(address, is_public);
        }
        match text.strip_prefix("*.") {
            Some(base) => below(base, force),
            None if text == "*" => Err(Problem::Everything),
            None => Ok(Self::Exact(name(text)?)),
        }
    }
}

fn public_address(address: IpAddr, filter: IsPublic) -> Result<HostPattern, Problem> {
    if is_public(filter, address) {
        Ok(HostPattern::Address(address.to_canonical()))
    } else {
        Err(Problem::NotPublic(address))
    }
}

/// Whether `filter` takes `address` for public in both its forms: it must not be got round by the one that it does not know.
pub(super) fn is_public(filter: IsPublic, address: IpAddr) -> bool {
    filter(address) && filter(address.to_canonical())
}

/// Names that are not of the public DNS: RFC 6761 (but for `example`, which resolves as any other), RFC 6762, RFC 7686, RFC 9476, `internal` as
/// ICANN reserved it, and `arpa`, where addresses and home networks are.
const LOCAL: [&str; 8] = [
    "alt",
    "arpa",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// Whether `name` can be of the public DNS, to which audit mode may connect. A single label is one of the local network.
pub(crate) fn is_public_name(name: &HostName) -> bool {
    let last = name.as_str().rsplit_once('.').map(|(_, last)| last);
    last.is_some_and(|last| !LOCAL.contains(&last))
}

fn below(base: &str, force: bool) -> Result<HostPattern, Problem> {
    let base = name(base)?;
    if !force && covers_strangers(base.as_str()) {
        return Err(Problem::PublicSuffix(base.to_string()));
    }
    Ok(HostPattern::Below(base))
}

fn name(text: &str) -> Result<HostName, Problem> {
    if text.contains('*') {
        return Err(Problem::Wildcard);
    }
    Ok(HostName::parse(text)?)
}

/// Whether anyone may register a name directly below `base`, or below every name below it (as with `*.kawasaki.jp` in the list).
fn covers_strangers(base: &str) -> bool {
    // A label that is in no list's exception.
    let child = format!("cofferdam-probe.{base}");
    is_public_suffix(base) || is_public_suffix(&child)
}

fn is_public_suffix(name: &str) -> bool {
    psl::suffix_str(name) == Some(name)
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Below(base) => write!(f, "*.{base}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}
