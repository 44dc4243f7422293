//! Rules about requests, and rules that let the same traffic through unread: together they would promise what is not done.

use super::Abilities;
use super::document::Scheme;
use super::error::{PolicyError, Problem};
use super::index::{Group, Index};
use super::rule::{Action, Rule};

/// Refuses rules with methods or paths that some other rule makes ineffective.
///
/// Patterns of hosts overlap only where one of them is for every host of the other, so two searches upwards find all: from each
/// rule about requests, and from each rule of traffic that is not read.
pub(super) fn check(index: &Index, abilities: Abilities) -> Result<(), PolicyError> {
    let conflicts = index.all().flat_map(|group| {
        let above = group
            .rules()
            .filter_map(|rule| above(index, rule, abilities));
        let allow = group.allow.iter();
        above.chain(allow.filter_map(|rule| below(index, rule, abilities)))
    });
    // The first in the file, because the index has no order.
    let first = conflicts.min_by_key(|conflict| conflict.about_requests.place.line);
    first.map_or(Ok(()), |conflict| {
        Err(PolicyError {
            place: conflict.about_requests.place.clone(),
            problem: Problem::Conflict(conflict.unread.place.clone()),
        })
    })
}

/// Whether `rule`, which would be one more of the user's allow rules, is in conflict with those that there are.
pub(super) fn would_conflict(index: &Index, rule: &Rule, abilities: Abilities) -> bool {
    above(index, rule, abilities).is_some() || below(index, rule, abilities).is_some()
}

struct Conflict<'a> {
    about_requests: &'a Rule,
    unread: &'a Rule,
}

/// `rule` is about requests, and a rule that is for all its hosts lets them through unread.
fn above<'a>(index: &'a Index, rule: &'a Rule, abilities: Abilities) -> Option<Conflict<'a>> {
    if !rule.judges_requests() {
        return None;
    }
    let groups = index.covering(&rule.host);
    let mut allow = groups.flat_map(|group| &group.allow);
    let unread = allow.find(|other| clash(rule, other, abilities))?;
    Some(Conflict {
        about_requests: rule,
        unread,
    })
}

/// `rule` lets something through unread, and a rule that is for all its hosts is about requests.
fn below<'a>(index: &'a Index, rule: &'a Rule, abilities: Abilities) -> Option<Conflict<'a>> {
    if !is_unread(rule, abilities) {
        return None;
    }
    let groups = index.covering(&rule.host);
    let mut rules = groups.flat_map(Group::rules);
    let about_requests =
        rules.find(|other| other.judges_requests() && clash(other, rule, abilities))?;
    Some(Conflict {
        about_requests,
        unread: rule,
    })
}

/// Whether what `unread` lets through could hold what `about_requests` is about.
fn clash(about_requests: &Rule, unread: &Rule, abilities: Abilities) -> bool {
    let same_scheme = match unread.schemes.contains(Scheme::Tcp) {
        // Any scheme can be spoken there.
        true => true,
        false => about_requests.schemes.contains(Scheme::Https),
    };
    is_unread(unread, abilities) && same_scheme && about_requests.ports.overlaps(&unread.ports)
}

fn is_unread(rule: &Rule, abilities: Abilities) -> bool {
    let intercepted =
        abilities.intercepts_tls && rule.action != Action::Allow { passthrough: true };
    match rule.action {
        Action::Deny => false,
        Action::Allow { .. } | Action::Serve(_) => {
            rule.schemes.contains(Scheme::Tcp)
                || rule.schemes.contains(Scheme::Https) && !intercepted
        }
    }
}
