//! From an audit log to the smallest policy that covers it.
//!
//! A [`Learner`] takes the lines of a log ([`crate::audit`]) and keeps what was let through, by a rule or by audit mode only. What a policy that
//! there is does not allow of it, by the engine itself, becomes rules: one for each host, port and scheme, in which the host is an exact name, and one for each
//! set of methods with the same paths where requests are read. What was denied is never learned; it is told in a comment. So is what no rule can be added for.
//!
//! The result is for a person to read before it decides anything: whoever was in the guest chose what is in the log. Everything in it is what a policy
//! can hold, because it was made by the policy's own parsers; texts in comments are bounded and escaped.
//!
//! What a learner can hold is bounded: [`MOST_FLOWS`] destinations, [`MOST_PATHS`] paths, [`MOST_DENIED`] denials. What is beyond is counted, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::HostName;
use crate::audit::{Entry, Verdict};
use crate::policy::{
    Abilities, Engine, Host, IsPublic, Layers, Policy, PolicyError, Scheme, excerpt,
};

mod paths;
mod rules;
mod seen;
mod text;
mod wildcards;

pub use text::{Learned, LearnedRule};

use rules::Draft;
use seen::Seen;

/// Most destinations of a log that are kept.
pub const MOST_FLOWS: usize = 10_000;
/// Most paths of all requests that are kept.
pub const MOST_PATHS: usize = 100_000;
/// Most denials that are told of, each destination and reason once.
pub const MOST_DENIED: usize = 1000;

/// Whom a rule would be for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    host: Host,
    port: u16,
    scheme: Scheme,
}

/// Whether names of one domain become a wildcard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wildcards {
    /// Each name has its rule.
    #[default]
    Never,
    /// Three names and more below one name, which is no public suffix, become one rule for all names below it. That allows more than was seen: every name
    /// that the domain's owner, or whoever can have one there, puts below it.
    Below,
}

/// Reads a log, and learns what a policy has to allow.
#[derive(Debug)]
pub struct Learner {
    existing: Policy,
    engine: Engine,
    abilities: Abilities,
    is_public: IsPublic,
    flows: BTreeMap<Flow, Seen>,
    /// How many paths may still be kept.
    paths_left: usize,
    denied: BTreeMap<(String, String), u64>,
    counts: Counts,
}

/// What is told as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Lines that are records.
    records: u64,
    /// Records that the log says it lost.
    lost: u64,
    /// Lines that are none, or records of what could not have been let through.
    unusable: u64,
    /// Records beyond the bounds.
    beyond: u64,
}

impl Learner {
    /// Begins. What `existing` allows needs no rule; an empty policy allows nothing.
    ///
    /// # Errors
    ///
    /// `existing` is no policy.
    pub fn new(
        existing: Policy,
        abilities: Abilities,
        is_public: IsPublic,
    ) -> Result<Self, PolicyError> {
        let layers = Layers {
            global: Some(existing.clone()),
            ..Layers::default()
        };
        Ok(Self {
            engine: Engine::compile(&layers, abilities, is_public)?,
            existing,
            abilities,
            is_public,
            flows: BTreeMap::new(),
            paths_left: MOST_PATHS,
            denied: BTreeMap::new(),
            counts: Counts::default(),
        })
    }

    /// Takes a line of a log, without its break. What is no record is counted.
    pub fn learn(&mut self, line: &[u8]) {
        let Some(entry) = Entry::parse(line) else {
            self.counts.unusable += 1;
            return;
        };
        self.counts.records += 1;
        match (entry.event.as_str(), entry.verdict) {
            ("opened" | "request", Some(Verdict::Allow | Verdict::Audit)) => self.permitted(&entry),
            ("denied", _) => self.denied(&entry),
            ("lost", _) => {
                let lost = entry.records.unwrap_or_default();
                self.counts.lost = self.counts.lost.saturating_add(lost);
            }
            // That a connection has ended says nothing of what a rule has to be.
            _ => {}
        }
    }

    fn permitted(&mut self, entry: &Entry) {
        let Some(flow) = flow(entry, self.is_public) else {
            self.counts.unusable += 1;
            return;
        };
        let reads = self.engine.reads(flow.scheme);
        if self.flows.len() >= MOST_FLOWS && !self.flows.contains_key(&flow) {
            self.counts.beyond += 1;
            return;
        }
        let seen = self.flows.entry(flow).or_default();
        seen.note(entry);
        if entry.event == "opened" {
            seen.connections += 1;
        } else if reads && let (Some(method), Some(path)) = (&entry.method, &entry.path) {
            seen.requests.note(method, path, &mut self.paths_left);
        }
    }

    fn denied(&mut self, entry: &Entry) {
        let host = entry.host.as_deref().unwrap_or_default();
        let to = match entry.port {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let reason = entry.reason.as_deref().unwrap_or_default();
        let denial = (excerpt(&to), excerpt(reason));
        if self.denied.len() >= MOST_DENIED && !self.denied.contains_key(&denial) {
            self.counts.beyond += 1;
            return;
        }
        *self.denied.entry(denial).or_default() += 1;
    }

    /// The rules that are missing.
    ///
    /// # Errors
    ///
    /// They are no policy together with the one that there is.
    pub fn finish(self, wildcards: Wildcards) -> Result<Learned, PolicyError> {
        let mut drafts = self.drafts();
        if wildcards == Wildcards::Below {
            drafts = wildcards::join(drafts, &self.engine, self.abilities, self.is_public);
        }
        let (drafts, refused) = self.checked(drafts)?;
        Ok(Learned {
            rules: drafts.into_iter().map(Draft::finish).collect(),
            refused,
            denied: self.denied,
            counts: self.counts,
        })
    }

    /// A rule for each destination, or several where requests are read, if the policy that there is does not do.
    fn drafts(&self) -> Vec<Draft> {
        let uncovered = self.flows.iter().filter_map(|(flow, seen)| {
            let left = self.uncovered(flow, seen)?;
            Some((flow, left))
        });
        let mut uncovered: BTreeMap<&Flow, Seen> = uncovered.collect();
        // What may be anything may be http and https, too: it needs no other rule, and others could not be enforced.
        let anything: BTreeSet<(&Host, u16)> = uncovered
            .keys()
            .filter(|flow| flow.scheme == Scheme::Tcp)
            .map(|flow| (&flow.host, flow.port))
            .collect();
        uncovered.retain(|flow, _| {
            flow.scheme == Scheme::Tcp || !anything.contains(&(&flow.host, flow.port))
        });
        let drafts = uncovered
            .into_iter()
            .map(|(flow, seen)| Draft::of(flow, seen, self.engine.reads(flow.scheme)));
        drafts.flatten().collect()
    }

    /// What of `seen` the policy that there is does not allow; none, if it allows all.
    fn uncovered(&self, flow: &Flow, seen: &Seen) -> Option<Seen> {
        if !self.engine.reads(flow.scheme) || self.engine.is_carried_unread(&flow.host, flow.port) {
            return (!rules::is_allowed(&self.engine, flow, None)).then(|| seen.clone());
        }
        let is_left = |method: &str, path: &str| {
            let request = Some((method, path));
            !rules::is_allowed(&self.engine, flow, request)
        };
        let requests = seen.requests.filter(is_left);
        (!requests.is_empty()).then(|| Seen {
            requests,
            ..seen.clone()
        })
    }

    /// Those of `drafts` that allow something beside the policy that there is, and what that policy does not let be allowed.
    fn checked(&self, drafts: Vec<Draft>) -> Result<(Vec<Draft>, Vec<String>), PolicyError> {
        let mut refused = Vec::new();
        let mut possible = Vec::new();
        for draft in drafts {
            match self.problem(&draft) {
                None => possible.push(draft),
                Some(problem) => refused.push(format!("{}: {problem}", draft.flows())),
            }
        }
        let learned = Policy {
            allow: possible.iter().map(|draft| draft.allow.clone()).collect(),
            ..Policy::default()
        };
        let layers = Layers {
            global: Some(self.existing.clone()),
            sandbox: Some(learned),
            repository: None,
        };
        let engine = Engine::compile(&layers, self.abilities, self.is_public)?;
        possible.retain(|draft| {
            let denied = draft.still_denied(&engine);
            let is_useful = denied.len() < draft.len();
            refused.extend(denied);
            is_useful
        });
        Ok((possible, refused))
    }

    /// Why the rule cannot stand beside the policy that there is.
    fn problem(&self, draft: &Draft) -> Option<String> {
        let rule = crate::policy::Rule::allow(&draft.allow, self.abilities, self.is_public);
        let rule = match rule {
            Ok(rule) => rule,
            Err(problem) => return Some(problem.to_string()),
        };
        if draft.hosts().any(|host| self.engine.is_service(host)) {
            return Some("the name is a service's".to_owned());
        }
        let conflict = "it would be carried unread, and other rules judge its requests";
        let conflicts = self.engine.conflicts_with(&rule);
        conflicts.then(|| conflict.to_owned())
    }
}

/// Whom the record is about, if a rule can be for that.
fn flow(entry: &Entry, is_public: IsPublic) -> Option<Flow> {
    let (host, scheme) = (entry.host.as_deref()?, entry.scheme?);
    let host = match host.parse::<IpAddr>() {
        // Records have one form of each, and a policy would not take others.
        Ok(address) => {
            (address.to_string() == host && is_public(address)).then_some(address.into())
        }
        Err(_) => HostName::parse(host)
            .ok()
            .filter(|name| name.as_str() == host)
            .map(Host::Name),
    };
    Some(Flow {
        host: host?,
        port: entry.port.filter(|port| *port > 0)?,
        scheme,
    })
}

#[cfg(test)]
mod tests;
