//! Several names of one domain as one rule, for who asks for that.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::Draft;
use crate::policy::{Abilities, Allow, Engine, Host, IsPublic, Rule, Scheme};

/// Fewer names than these are named.
const FEWEST: usize = 3;

/// `drafts`, in which those that are for names of one domain, on the same port and with the same scheme, are one. Only what is not read is joined: what
/// is said of requests is said of one host.
pub(super) fn join(
    drafts: Vec<Draft>,
    engine: &Engine,
    abilities: Abilities,
    is_public: IsPublic,
) -> Vec<Draft> {
    let mut groups: BTreeMap<(String, u16, Scheme), Vec<Draft>> = BTreeMap::new();
    let mut others = Vec::new();
    // There a wildcard of tcp would let go unread what other rules are about.
    let recognised = drafts.iter().filter(|it| it.allow.scheme != Scheme::Tcp);
    let recognised: BTreeSet<u16> = recognised.filter_map(port).collect();
    for draft in drafts {
        let port = port(&draft).unwrap_or_default();
        let scheme = draft.allow.scheme;
        let is_possible =
            !engine.reads(scheme) && (scheme == Scheme::Https || !recognised.contains(&port));
        match domain(&draft).filter(|_| is_possible) {
            Some(domain) => groups
                .entry((domain, port, scheme))
                .or_default()
                .push(draft),
            None => others.push(draft),
        }
    }
    let is_rule = |allow: &Allow| Rule::allow(allow, abilities, is_public).is_ok();
    for ((domain, ..), group) in groups {
        others.extend(joined(&domain, group, is_rule));
    }
    others
}

fn port(draft: &Draft) -> Option<u16> {
    draft.of.first().map(|(flow, _)| flow.port)
}

/// The name that somebody has registered, above or at the draft's one.
fn domain(draft: &Draft) -> Option<String> {
    let Some(Host::Name(name)) = draft.hosts().next() else {
        return None;
    };
    psl::domain_str(name.as_str()).map(str::to_owned)
}

/// The drafts of a group: those for names below one become one, if they are enough and it is a rule.
fn joined(domain: &str, group: Vec<Draft>, is_rule: impl Fn(&Allow) -> bool) -> Vec<Draft> {
    let names: Vec<&str> = group.iter().map(|draft| &*draft.allow.host).collect();
    let below: Vec<&str> = names.into_iter().filter(|name| *name != domain).collect();
    let base = base(domain, &below);
    let host = format!("*.{base}");
    // The name itself is not below it.
    let is_below = |draft: &Draft| draft.allow.host != domain && draft.allow.host != base;
    let names: Vec<String> = group
        .iter()
        .filter(|draft| is_below(draft))
        .map(|draft| draft.allow.host.clone())
        .collect();
    let is_possible = group.first().is_some_and(|draft| {
        is_rule(&Allow {
            host: host.clone(),
            ..draft.allow.clone()
        })
    });
    if names.len() < FEWEST || !is_possible {
        return group;
    }
    let (rest, mut drafts): (Vec<_>, Vec<_>) = group.into_iter().partition(is_below);
    let one = rest.into_iter().reduce(|mut one, other| {
        one.of.extend(other.of);
        one.seen = one.seen.and(other.seen);
        one
    });
    drafts.extend(one.map(|mut one| {
        one.allow.host = host;
        one.notes = vec![format!("more than was seen, which is {}", some(&names))];
        one
    }));
    drafts
}

/// The longest name above all of `names`, which are below `domain`.
fn base(domain: &str, names: &[&str]) -> String {
    let above = |name: &str, base: &str| {
        let rest = name.strip_suffix(base);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let mut base = names.first().copied().unwrap_or(domain);
    while let Some((_, parent)) = base.split_once('.')
        && base != domain
        && !names.iter().all(|name| above(name, base))
    {
        base = parent;
    }
    base.to_owned()
}

/// The first of `names`, and how many more there are.
fn some(names: &[String]) -> String {
    const MOST: usize = 8;
    let first = names
        .get(..MOST.min(names.len()))
        .unwrap_or_default()
        .join(", ");
    match names.len().saturating_sub(MOST) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
