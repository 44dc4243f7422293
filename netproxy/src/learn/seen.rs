//! What a log says of one destination.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::paths::literal;
use crate::audit::Entry;
use crate::policy::{excerpt, is_method};

/// Most names of sandboxes that are kept of a destination.
const MOST_SANDBOXES: usize = 4;
/// Most methods of a destination's requests that are told apart.
const MOST_METHODS: usize = 16;

/// What was let through to one destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: u64,
    pub(super) requests: Requests,
    pub(super) first: Option<Timestamp>,
    pub(super) last: Option<Timestamp>,
    /// Printable.
    pub(super) sandboxes: BTreeSet<String>,
}

impl Seen {
    /// Notes when it was, and whose.
    pub(super) fn note(&mut self, entry: &Entry) {
        if let Ok(time) = entry.time.parse::<Timestamp>() {
            self.first = Some(self.first.map_or(time, |first| first.min(time)));
            self.last = Some(self.last.map_or(time, |last| last.max(time)));
        }
        if self.sandboxes.len() < MOST_SANDBOXES {
            self.sandboxes.insert(excerpt(&entry.sandbox));
        }
    }

    /// With what was seen of another destination.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.connections = self.connections.saturating_add(other.connections);
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.sandboxes.extend(other.sandboxes);
        self
    }
}

/// The requests to one destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    pub(super) count: u64,
    pub(super) methods: BTreeMap<String, Paths>,
    /// Methods were seen about which no rule can decide, or too many of them.
    pub(super) any_method: bool,
}

/// The paths of requests with one method.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    /// How many requests there were.
    pub(super) count: u64,
    /// As rules have them, and as one of the requests had them.
    pub(super) literal: BTreeMap<String, String>,
    /// There are others, which no rule about paths can allow, or too many of them.
    pub(super) any: bool,
}

impl Requests {
    pub(super) fn note(&mut self, method: &str, path: &str, paths_left: &mut usize) {
        self.count += 1;
        let is_known = self.methods.contains_key(method);
        if !is_method(method) || !is_known && self.methods.len() >= MOST_METHODS {
            self.any_method = true;
            return;
        }
        let paths = self.methods.entry(method.to_owned()).or_default();
        paths.count += 1;
        match literal(path) {
            Some(pattern) if paths.literal.contains_key(&pattern) => {}
            Some(pattern) if *paths_left > 0 => {
                *paths_left -= 1;
                paths.literal.insert(pattern, path.to_owned());
            }
            _ => paths.any = true,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The requests for which `is_left` says so. Where not all are known, it is asked whether any could be.
    pub(super) fn filter(&self, is_left: impl Fn(&str, &str) -> bool) -> Self {
        let methods = self.methods.iter().filter_map(|(method, paths)| {
            let left = paths.literal.iter();
            let left = left.filter(|(_, path)| is_left(method, path));
            let left = Paths {
                count: paths.count,
                literal: left
                    .map(|(one, other)| (one.clone(), other.clone()))
                    .collect(),
                any: paths.any && is_left(method, UNCLEAR),
            };
            (left.any || !left.literal.is_empty()).then(|| (method.clone(), left))
        });
        let methods: BTreeMap<_, _> = methods.collect();
        let any_method = self.any_method && is_left("x", UNCLEAR);
        Self {
            count: if methods.is_empty() && !any_method {
                0
            } else {
                self.count
            },
            methods,
            any_method,
        }
    }
}

/// A path about which no rule can decide.
pub(super) const UNCLEAR: &str = "//";
