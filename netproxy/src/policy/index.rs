//! Rules by their hosts, so that a decision looks only at those for the host in question.

use std::collections::HashMap;
use std::iter;
use std::net::IpAddr;

use super::error::{PolicyError, Problem};
use super::host::{Host, HostPattern};
use super::rule::{Action, Rule};
use crate::HostName;

/// All rules, by host.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    names: HashMap<HostName, Named>,
    addresses: HashMap<IpAddr, Group>,
}

/// The rules with one name.
#[derive(Clone, Debug, Default)]
struct Named {
    exact: Group,
    /// Those for every name below it.
    below: Group,
}

/// The rules with one host, those first that decide first.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) deny: Vec<Rule>,
    /// The user's; also services.
    pub(super) allow: Vec<Rule>,
    /// The repository's allow rules, of which one must match too.
    pub(super) narrow: Vec<Rule>,
}

impl Group {
    pub(super) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.deny.iter().chain(&self.allow).chain(&self.narrow)
    }

    /// Whether these are the rules of a service's name, for which other allow rules do not count.
    pub(super) fn is_service(&self) -> bool {
        self.allow
            .first()
            .is_some_and(|rule| matches!(rule.action, Action::Serve(_)))
    }
}

impl Index {
    /// Adds a deny rule, an allow rule or a service of the user, or a deny rule of the repository.
    pub(super) fn add(&mut self, rule: Rule) -> Result<(), PolicyError> {
        let group = self.group_mut(&rule.host);
        if rule.action == Action::Deny {
            group.deny.push(rule);
            return Ok(());
        }
        if let Some(owner) = name_taken(group, &rule) {
            return Err(PolicyError {
                problem: Problem::ServiceTaken(owner.place.clone()),
                place: rule.place,
            });
        }
        group.allow.push(rule);
        Ok(())
    }

    /// Adds an allow rule of the repository.
    pub(super) fn add_narrow(&mut self, rule: Rule) {
        self.group_mut(&rule.host).narrow.push(rule);
    }

    fn group_mut(&mut self, host: &HostPattern) -> &mut Group {
        match host {
            HostPattern::Exact(name) => &mut self.names.entry(name.clone()).or_default().exact,
            HostPattern::Below(base) => &mut self.names.entry(base.clone()).or_default().below,
            HostPattern::Address(address) => self.addresses.entry(*address).or_default(),
        }
    }

    /// The groups of rules that are for `host`, the most specific first.
    pub(super) fn groups<'a>(&'a self, host: &Host) -> impl Iterator<Item = &'a Group> {
        let (name, address) = match host {
            Host::Name(name) => (Some(name.as_str()), None),
            Host::Address(address) => (None, self.addresses.get(&address.to_canonical())),
        };
        let exact = name.and_then(|name| self.names.get(name));
        let above = name.into_iter().flat_map(|name| self.above(name));
        let exact = exact.map(|named| &named.exact);
        address.into_iter().chain(exact).chain(above)
    }

    /// The wildcard rules that match `name`.
    fn above<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Group> {
        let parents = iter::successors(parent(name), |name| parent(name));
        parents.filter_map(|parent| Some(&self.names.get(parent)?.below))
    }

    /// The groups of rules that are for every host of `pattern`.
    pub(super) fn covering<'a>(&'a self, pattern: &HostPattern) -> impl Iterator<Item = &'a Group> {
        let (name, same) = match pattern {
            HostPattern::Exact(name) => (Some(name), self.names.get(name).map(|it| &it.exact)),
            HostPattern::Below(base) => (Some(base), self.names.get(base).map(|it| &it.below)),
            HostPattern::Address(address) => (None, self.addresses.get(address)),
        };
        let above = name.into_iter().flat_map(|name| self.above(name.as_str()));
        same.into_iter().chain(above)
    }

    /// All groups, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Group> {
        let named = self.names.values();
        named
            .flat_map(|named| [&named.exact, &named.below])
            .chain(self.addresses.values())
    }
}

fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, parent)| parent)
}

/// The rule to which the name of `rule` belongs already. A service's name is the service's alone, on all ports; several services may
/// share one, on different ports.
fn name_taken<'a>(group: &'a Group, rule: &Rule) -> Option<&'a Rule> {
    // All rules of a group are services, or none is: so the first tells.
    match (group.is_service(), matches!(rule.action, Action::Serve(_))) {
        (true, true) => {
            let mut services = group.allow.iter();
            services.find(|other| other.ports.overlaps(&rule.ports))
        }
        (false, false) => None,
        _ => group.allow.first(),
    }
}
