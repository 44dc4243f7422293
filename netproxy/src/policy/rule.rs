//! One rule, checked: what it matches, and the line by which a person knows it.

use std::fmt;
use std::net::SocketAddr;

use super::check::Checker;
use super::decision::Question;
use super::document::{Allow, Quota, Scheme};
use super::error::{Origin, Place, Problem};
use super::host::HostPattern;
use super::path::{PathError, PathPattern};
use super::{Abilities, IsPublic};

/// A rule of a policy, checked. Displays as one line that is a policy with this rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) place: Place,
    pub(super) action: Action,
    pub(super) host: HostPattern,
    pub(super) force: bool,
    pub(super) ports: Ports,
    pub(super) schemes: Schemes,
    pub(super) methods: Option<Box<[Box<str>]>>,
    pub(super) paths: Option<Box<[PathPattern]>>,
    pub(super) quota: Quota,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow { passthrough: bool },
    Deny,
    Serve(SocketAddr),
}

/// The ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    All,
    /// In ascending order.
    Only(Box<[u16]>),
}

impl Ports {
    fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.binary_search(&port).is_ok(),
        }
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match self {
            Self::All => true,
            Self::Only(ports) => ports.iter().any(|port| other.contains(*port)),
        }
    }
}

/// Some of the schemes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schemes(u8);

impl Schemes {
    pub(super) const ALL: Self = Self::only(Scheme::Https).and(Scheme::Http).and(Scheme::Tcp);

    pub(super) const fn only(scheme: Scheme) -> Self {
        Self(0).and(scheme)
    }

    pub(super) const fn and(self, scheme: Scheme) -> Self {
        Self(self.0 | Self::bit(scheme))
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn bit(scheme: Scheme) -> u8 {
        match scheme {
            Scheme::Https => 1,
            Scheme::Http => 2,
            Scheme::Tcp => 4,
        }
    }

    /// Whether `scheme` is among them.
    #[must_use]
    pub const fn contains(self, scheme: Scheme) -> bool {
        self.0 & Self::bit(scheme) != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The scheme, if there is exactly one.
    fn single(self) -> Option<Scheme> {
        Scheme::ALL
            .into_iter()
            .find(|scheme| self == Self::only(*scheme))
    }
}

/// How far a rule for a host is from matching what is asked, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Match {
    OtherPort,
    OtherScheme,
    OtherRequest,
    /// Whether it matches depends on which of its readings the path has.
    AmbiguousPath(PathError),
    /// Whether it matches depends on how the server takes the method.
    AmbiguousMethod,
    /// It matches the connection, and some requests on it.
    SomeRequests,
    Full,
}

impl Rule {
    /// The rule that `allow` is, by itself.
    ///
    /// # Errors
    ///
    /// It is not valid, or could not be enforced.
    pub fn allow(
        allow: &Allow,
        abilities: Abilities,
        is_public: IsPublic,
    ) -> Result<Self, Problem> {
        let checker = Checker {
            abilities,
            is_public,
        };
        let place = Place {
            origin: Origin::default(),
            line: allow.line,
        };
        Ok(checker.allow(allow)?.at(place))
    }

    /// Where the rule is written.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// How much it allows.
    #[must_use]
    pub const fn quota(&self) -> Quota {
        self.quota
    }

    /// Whether it depends on more than the connection.
    pub(super) fn judges_requests(&self) -> bool {
        self.methods.is_some() || self.paths.is_some()
    }

    /// How this rule, which is for the host, matches the rest of the question.
    pub(super) fn matches(&self, question: &Question<'_>) -> Match {
        if !self.ports.contains(question.port) {
            return Match::OtherPort;
        }
        // What nobody reads could be of any scheme and any request, so whatever is denied of it is denied.
        if question.scheme == Scheme::Tcp && self.action == Action::Deny {
            return Match::Full;
        }
        if !self.schemes.contains(question.scheme) {
            return Match::OtherScheme;
        }
        self.matches_request(question)
    }

    fn matches_request(&self, question: &Question<'_>) -> Match {
        if !self.judges_requests() {
            return Match::Full;
        }
        let Some(request) = &question.request else {
            return Match::SomeRequests;
        };
        if let Some(methods) = &self.methods {
            if !request.method_is_clear() {
                return Match::AmbiguousMethod;
            }
            if !methods.iter().any(|method| **method == *request.method) {
                return Match::OtherRequest;
            }
        }
        let Some(paths) = &self.paths else {
            return Match::Full;
        };
        match request.path() {
            Err(error) => Match::AmbiguousPath(error),
            Ok(path) if paths.iter().any(|pattern| pattern.matches(&path)) => Match::Full,
            Ok(_) => Match::OtherRequest,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (list, fields) = self.fields();
        write!(f, "{list} = [{{ {} }}]", fields.join(", "))
    }
}

impl Rule {
    /// The rule as an entry of a policy file: several lines, each with its end.
    #[must_use]
    pub fn to_table(&self) -> String {
        let (list, fields) = self.fields();
        format!("[[{list}]]\n{}\n", fields.join("\n"))
    }

    /// The list that the rule is in, and its keys with their values.
    fn fields(&self) -> (&'static str, Vec<String>) {
        let (list, key) = match self.action {
            Action::Allow { .. } => ("allow", "host"),
            Action::Deny => ("deny", "host"),
            Action::Serve(_) => ("service", "name"),
        };
        let passthrough = self.action == Action::Allow { passthrough: true };
        let fields = [
            Some(format!("{key} = \"{}\"", self.host)),
            self.address_field(),
            self.scheme_field(),
            self.ports_field(),
            list_field("methods", self.methods.as_deref(), |method| method),
            list_field("paths", self.paths.as_deref(), PathPattern::as_str),
            passthrough.then(|| "passthrough = true".to_owned()),
            self.force.then(|| "force = true".to_owned()),
            quota_field(self.quota),
        ];
        (list, fields.into_iter().flatten().collect())
    }

    fn address_field(&self) -> Option<String> {
        match self.action {
            Action::Serve(address) => Some(format!("address = \"{address}\"")),
            _ => None,
        }
    }

    fn scheme_field(&self) -> Option<String> {
        let usual = match self.action {
            Action::Allow { .. } => Some(Scheme::Https),
            Action::Serve(_) => Some(Scheme::Tcp),
            Action::Deny => None,
        };
        let scheme = self.schemes.single()?;
        (Some(scheme) != usual).then(|| format!("scheme = \"{scheme}\""))
    }

    fn ports_field(&self) -> Option<String> {
        let Ports::Only(ports) = &self.ports else {
            return None;
        };
        let usual = match self.action {
            Action::Allow { .. } => self.schemes.single().and_then(Scheme::usual_port),
            Action::Serve(address) => Some(address.port()),
            Action::Deny => None,
        };
        let is_usual = matches!(&**ports, [port] if Some(*port) == usual);
        (!is_usual).then(|| format!("ports = {ports:?}"))
    }
}

fn list_field<T>(key: &str, list: Option<&[T]>, text: impl Fn(&T) -> &str) -> Option<String> {
    let items: Vec<String> = list?.iter().map(|item| quoted(text(item))).collect();
    Some(format!("{key} = [{}]", items.join(", ")))
}

fn quota_field(quota: Quota) -> Option<String> {
    let given = quota.limits().into_iter();
    let given = given.filter_map(|(key, limit)| Some(format!("{key} = {}", limit?)));
    let limits: Vec<String> = given.collect();
    (!limits.is_empty()).then(|| format!("quota = {{ {} }}", limits.join(", ")))
}

/// `text` as a basic string of TOML. What would only turn the direction of the text around it is escaped too.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '\'' => out.push(character),
            '"' | '\\' => out.extend(['\\', character]),
            _ if character.escape_debug().len() > 1 => {
                out.push_str(&format!("\\U{:08X}", u32::from(character)));
            }
            _ => out.push(character),
        }
    }
    out.push('"');
    out
}
