//! From rules as written to rules that mean something: each is checked by itself, and against the others of its policy.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use super::decision::is_method;
use super::document::{Allow, Deny, MOST_RULES, Mode, Policy, Quota, Scheme, Service};
use super::error::{Place, PolicyError, Problem, Unread, excerpt};
use super::host::{HostPattern, is_public};
use super::path::PathPattern;
use super::rule::{Action, Ports, Rule, Schemes};
use super::{Abilities, IsPublic};

/// Whose policy it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    User,
    Repository,
}

pub(super) struct Checker {
    pub(super) abilities: Abilities,
    pub(super) is_public: IsPublic,
}

impl Checker {
    /// The rules of `policy`.
    pub(super) fn rules(&self, policy: &Policy, layer: Layer) -> Result<Vec<Rule>, PolicyError> {
        let place = |line| Place {
            origin: policy.origin.clone(),
            line,
        };
        let error = |line, problem| PolicyError {
            place: place(line),
            problem,
        };
        let count = policy.allow.len() + policy.deny.len() + policy.service.len();
        if count > MOST_RULES {
            return Err(error(None, Problem::TooManyRules));
        }
        if layer == Layer::Repository {
            only_tightens(policy).map_err(|(line, key)| error(line, Problem::Repository(key)))?;
        }
        let allow = policy.allow.iter().map(|it| (it.line, self.allow(it)));
        let deny = policy.deny.iter().map(|it| (it.line, self.deny(it)));
        let service = policy.service.iter().map(|it| (it.line, self.service(it)));
        let mut rules = Vec::with_capacity(count);
        for (line, checked) in allow.chain(deny).chain(service) {
            let checked = checked.map_err(|problem| error(line, problem))?;
            rules.push(checked.at(place(line)));
        }
        no_duplicates(&rules)?;
        Ok(rules)
    }

    pub(super) fn allow(&self, allow: &Allow) -> Result<Unplaced, Problem> {
        let read = match allow.scheme {
            Scheme::Tcp => Err(Unread::Tcp),
            Scheme::Https if allow.passthrough => Err(Unread::Passthrough),
            scheme => self.reads(scheme),
        };
        if allow.passthrough && allow.scheme != Scheme::Https {
            return Err(Problem::Passthrough);
        }
        Ok(Unplaced {
            action: Action::Allow {
                passthrough: allow.passthrough,
            },
            host: HostPattern::parse(&allow.host, allow.force, self.is_public)?,
            force: allow.force,
            ports: ports_or(allow.ports.as_deref(), allow.scheme.usual_port())?,
            schemes: Schemes::only(allow.scheme),
            methods: methods(allow.methods.as_deref(), read)?,
            paths: paths(allow.paths.as_deref(), read)?,
            quota: quota(allow.quota, read)?,
        })
    }

    fn deny(&self, deny: &Deny) -> Result<Unplaced, Problem> {
        let read = match deny.scheme {
            Some(Scheme::Tcp) => Err(Unread::Tcp),
            // Every scheme: what is said of requests must hold for https too.
            scheme => self.reads(scheme.unwrap_or(Scheme::Https)),
        };
        let ports = deny.ports.as_deref();
        Ok(Unplaced {
            action: Action::Deny,
            host: HostPattern::parse(&deny.host, deny.force, self.is_public)?,
            force: deny.force,
            ports: ports.map_or(Ok(Ports::All), some_ports)?,
            schemes: deny.scheme.map_or(Schemes::ALL, Schemes::only),
            methods: methods(deny.methods.as_deref(), read)?,
            paths: paths(deny.paths.as_deref(), read)?,
            quota: Quota::default(),
        })
    }

    fn service(&self, service: &Service) -> Result<Unplaced, Problem> {
        let scheme = service.scheme.unwrap_or(Scheme::Tcp);
        let read = match scheme {
            Scheme::Tcp => Err(Unread::Tcp),
            scheme => self.reads(scheme),
        };
        let address = self.service_address(&service.address)?;
        Ok(Unplaced {
            action: Action::Serve(address),
            host: service_name(&service.name)?,
            force: false,
            ports: ports_or(service.ports.as_deref(), Some(address.port()))?,
            schemes: Schemes::only(scheme),
            methods: None,
            paths: None,
            quota: quota(service.quota, read)?,
        })
    }

    fn service_address(&self, text: &str) -> Result<SocketAddr, Problem> {
        let address: SocketAddr = text
            .parse()
            .map_err(|_| Problem::Syntax("`address` is not `address:port`".to_owned()))?;
        let canonical = address.ip().to_canonical();
        let possible = is_one_host(canonical) && !is_public(self.is_public, canonical);
        match address.port() {
            0 => Err(Problem::PortZero),
            port if possible => Ok(SocketAddr::new(canonical, port)),
            _ => Err(Problem::ServiceAddress(address)),
        }
    }

    /// Whether requests with this scheme are read.
    fn reads(&self, scheme: Scheme) -> Result<(), Unread> {
        match scheme {
            Scheme::Https if !self.abilities.intercepts_tls => Err(Unread::NotIntercepted),
            _ => Ok(()),
        }
    }
}

/// A rule before it is known where it stands.
pub(super) struct Unplaced {
    action: Action,
    host: HostPattern,
    force: bool,
    ports: Ports,
    schemes: Schemes,
    methods: Option<Box<[Box<str>]>>,
    paths: Option<Box<[PathPattern]>>,
    quota: Quota,
}

impl Unplaced {
    pub(super) fn at(self, place: Place) -> Rule {
        Rule {
            place,
            action: self.action,
            host: self.host,
            force: self.force,
            ports: self.ports,
            schemes: self.schemes,
            methods: self.methods,
            paths: self.paths,
            quota: self.quota,
        }
    }
}

/// What in a repository's policy would loosen the user's: its line and key.
fn only_tightens(policy: &Policy) -> Result<(), (Option<u32>, &'static str)> {
    if policy.mode == Some(Mode::Audit) {
        return Err((None, "mode = \"audit\""));
    }
    if let Some(service) = policy.service.first() {
        return Err((service.line, "service"));
    }
    match policy.allow.iter().find(|allow| allow.passthrough) {
        Some(allow) => Err((allow.line, "passthrough")),
        None => Ok(()),
    }
}

/// Two rules are the same if they display as the same: then all that they mean is equal, in whatever spelling and order it was written.
fn no_duplicates(rules: &[Rule]) -> Result<(), PolicyError> {
    let mut seen = HashMap::with_capacity(rules.len());
    for rule in rules {
        if let Some(first) = seen.insert(rule.to_string(), &rule.place) {
            return Err(PolicyError {
                place: rule.place.clone(),
                problem: Problem::Duplicate(first.clone()),
            });
        }
    }
    Ok(())
}

fn service_name(text: &str) -> Result<HostPattern, Problem> {
    let is_exact = !text.contains('*') && text.parse::<IpAddr>().is_err();
    if !is_exact {
        return Err(Problem::ServiceName);
    }
    Ok(HostPattern::Exact(crate::HostName::parse(text)?))
}

/// Link-local addresses are left out because those of clouds' metadata are among them.
fn is_one_host(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !link_local && !address.is_unspecified() && !address.is_multicast()
}

fn ports_or(ports: Option<&[u16]>, usual: Option<u16>) -> Result<Ports, Problem> {
    match (ports, usual) {
        (Some(ports), _) => some_ports(ports),
        (None, Some(usual)) => Ok(Ports::Only([usual].into())),
        (None, None) => Err(Problem::NoPorts),
    }
}

fn some_ports(ports: &[u16]) -> Result<Ports, Problem> {
    if ports.contains(&0) {
        return Err(Problem::PortZero);
    }
    Ok(Ports::Only(sorted("ports", ports.to_vec())?))
}

fn methods(
    list: Option<&[String]>,
    read: Result<(), Unread>,
) -> Result<Option<Box<[Box<str>]>>, Problem> {
    let Some(list) = list else { return Ok(None) };
    read.map_err(|because| Problem::Unread {
        key: "methods",
        because,
    })?;
    if let Some(method) = list.iter().find(|method| !is_method(method)) {
        return Err(Problem::Method(excerpt(method)));
    }
    let list = list.iter().map(|method| method.as_str().into());
    sorted("methods", list.collect()).map(Some)
}

fn paths(
    list: Option<&[String]>,
    read: Result<(), Unread>,
) -> Result<Option<Box<[PathPattern]>>, Problem> {
    let Some(list) = list else { return Ok(None) };
    read.map_err(|because| Problem::Unread {
        key: "paths",
        because,
    })?;
    let list = sorted("paths", list.iter().collect())?;
    let parse = |text: &&String| {
        PathPattern::parse(text).map_err(|error| Problem::Pattern {
            pattern: excerpt(text),
            error,
        })
    };
    list.iter().map(parse).collect::<Result<_, _>>().map(Some)
}

/// `list` in order, with something in it and nothing twice.
fn sorted<T: Ord + std::fmt::Display>(
    key: &'static str,
    mut list: Vec<T>,
) -> Result<Box<[T]>, Problem> {
    if list.is_empty() {
        return Err(Problem::Empty(key));
    }
    list.sort();
    let twice = list.windows(2).find_map(|pair| match pair {
        [one, other] if one == other => Some(excerpt(&one.to_string())),
        _ => None,
    });
    match twice {
        Some(value) => Err(Problem::Repeated { list: key, value }),
        None => Ok(list.into()),
    }
}

fn quota(quota: Quota, read: Result<(), Unread>) -> Result<Quota, Problem> {
    if let Some((key, _)) = quota.limits().into_iter().find(|limit| limit.1 == Some(0)) {
        return Err(Problem::NoQuota(key));
    }
    match (quota.requests_per_minute, read) {
        (Some(_), Err(because)) => Err(Problem::Unread {
            key: "quota.requests_per_minute",
            because,
        }),
        _ => Ok(quota),
    }
}
