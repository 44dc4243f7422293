//! Rules that are missing.

use std::collections::{BTreeMap, BTreeSet};

use super::paths::patterns;
use super::seen::{Paths, UNCLEAR};
use super::text::LearnedRule;
use super::{Flow, Seen};
use crate::policy::{Allow, Engine, Host, Scheme, Verdict, excerpt};

/// A rule, and what it is to allow.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) allow: Allow,
    pub(super) seen: Seen,
    /// Where requests are read, its methods and paths are what it is for.
    pub(super) of: Vec<(Flow, Option<(String, String)>)>,
    /// What a person should know of it.
    pub(super) notes: Vec<String>,
}

impl Draft {
    /// The rules for one destination.
    pub(super) fn of(flow: &Flow, seen: Seen, reads: bool) -> Vec<Self> {
        let whole = Self {
            allow: Allow {
                host: flow.host.to_string(),
                ports: (Some(flow.port) != flow.scheme.usual_port()).then(|| vec![flow.port]),
                scheme: flow.scheme,
                ..Allow::default()
            },
            of: vec![(flow.clone(), None)],
            notes: Vec::new(),
            seen,
        };
        match reads {
            true => whole.by_methods(flow),
            false => vec![whole],
        }
    }

    /// One rule for each set of methods with the same paths. No method is in two of them, so that none can do without one.
    fn by_methods(self, flow: &Flow) -> Vec<Self> {
        let requests = &self.seen.requests;
        if requests.any_method {
            return vec![self.any_request(flow)];
        }
        let mut groups: BTreeMap<Option<BTreeSet<String>>, Self> = BTreeMap::new();
        for (method, paths) in &requests.methods {
            let (few, note) = few(paths);
            let group = groups
                .entry(few)
                .or_insert_with_key(|few| self.about(few.as_ref(), note));
            let methods = group.allow.methods.get_or_insert_default();
            methods.push(method.clone());
            group.seen.requests.count += paths.count;
            group.of.extend(asked(flow, method, paths));
        }
        groups.into_values().collect()
    }

    /// The same rule for these paths, or all; its methods are still to come.
    fn about(&self, paths: Option<&BTreeSet<String>>, note: Option<&str>) -> Self {
        let mut draft = self.clone();
        draft.of.clear();
        draft.seen.requests.count = 0;
        draft.allow.paths = paths.map(|paths| paths.iter().cloned().collect());
        draft.notes = note.map(str::to_owned).into_iter().collect();
        draft
    }

    /// The rule without methods and paths.
    fn any_request(mut self, flow: &Flow) -> Self {
        let known = self.seen.requests.methods.iter();
        let known = known.flat_map(|(method, paths)| asked(flow, method, paths));
        let unclear = (flow.clone(), Some(("x".to_owned(), UNCLEAR.to_owned())));
        self.of = known.chain([unclear]).collect();
        let note = "any method and path: there were methods about which no rule can decide";
        self.notes = vec![note.to_owned()];
        self
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.of.iter().map(|(flow, _)| &flow.host)
    }

    /// How much it is to allow.
    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    /// Whom it is for, for people.
    pub(super) fn flows(&self) -> String {
        let flow = self.of.first().map(|(flow, _)| flow);
        flow.map_or_else(String::new, |flow| {
            format!("{} {}:{}", flow.scheme, self.allow.host, flow.port)
        })
    }

    /// What of it `engine`, of which the rule is a part, denies all the same.
    pub(super) fn still_denied(&self, engine: &Engine) -> Vec<String> {
        let denied = self.of.iter().filter_map(|(flow, request)| {
            let request = request.as_ref();
            let request = request.map(|(method, path)| (method.as_str(), path.as_str()));
            if is_allowed(engine, flow, request) {
                return None;
            }
            let request = request.map(|(method, path)| format!(" {method} {}", excerpt(path)));
            let to = format!("{} {}:{}", flow.scheme, flow.host, flow.port);
            Some(format!(
                "{to}{}: a deny rule of the policy that there is",
                request.unwrap_or_default()
            ))
        });
        denied.collect()
    }

    pub(super) fn finish(self) -> LearnedRule {
        LearnedRule::new(self.allow, &self.seen, self.notes)
    }
}

/// What was asked for with a method.
fn asked(flow: &Flow, method: &str, paths: &Paths) -> Vec<(Flow, Option<(String, String)>)> {
    let unclear = paths.any.then_some(UNCLEAR);
    let all = paths.literal.values().map(String::as_str).chain(unclear);
    let of = |path: &str| (flow.clone(), Some((method.to_owned(), path.to_owned())));
    all.map(of).collect()
}

/// The patterns of a rule for `paths`, none for any, and what there is to say of that.
fn few(paths: &Paths) -> (Option<BTreeSet<String>>, Option<&'static str>) {
    if paths.any {
        let note = "any path: there were paths about which no rule can decide, or too many";
        return (None, Some(note));
    }
    let few = patterns(&paths.literal.keys().cloned().collect());
    let note = match &few {
        None => Some("any path: there were too many to name"),
        Some(few) if few.len() < paths.literal.len() => {
            Some("all below some directories: there were too many paths to name")
        }
        Some(_) => None,
    };
    (few, note)
}

/// Whether a rule allows it, as a proxy asks: what is carried unread is decided about as that, and of what is read each request.
pub(super) fn is_allowed(engine: &Engine, flow: &Flow, request: Option<(&str, &str)>) -> bool {
    let (host, port) = (&flow.host, flow.port);
    let scheme = match engine.is_carried_unread(host, port) {
        true => Scheme::Tcp,
        false => flow.scheme,
    };
    let decision = match request {
        Some((method, path)) if scheme != Scheme::Tcp => {
            engine.request(host, port, scheme, method, path)
        }
        _ => engine.connection(host, port, scheme),
    };
    decision.verdict == Verdict::Allow
}
