//! What was learned, for a person to read.

use std::collections::BTreeMap;
use std::fmt;

use super::{Counts, Seen};
use crate::policy::{Abilities, Allow, Rule};

/// Most lines of a comment about what was not learned.
const MOST_TOLD: usize = 50;

/// What was learned. Displays as a policy's file, with comments.
#[derive(Clone, Debug)]
pub struct Learned {
    pub(super) rules: Vec<LearnedRule>,
    /// What could not be learned, and why.
    pub(super) refused: Vec<String>,
    /// What was denied, by destination and reason.
    pub(super) denied: BTreeMap<(String, String), u64>,
    pub(super) counts: Counts,
}

/// A rule that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LearnedRule {
    /// The rule.
    pub allow: Allow,
    /// Of what it was learned, for people: lines that are safe to print.
    pub comments: Vec<String>,
}

impl LearnedRule {
    pub(super) fn new(allow: Allow, seen: &Seen, notes: Vec<String>) -> Self {
        let mut comment = match seen.requests.count {
            0 => plural(seen.connections, "connection"),
            requests => plural(requests, "request"),
        };
        if let (Some(first), Some(last)) = (seen.first, seen.last) {
            comment.push_str(&format!(", {first:.0} to {last:.0}"));
        }
        let most = 3;
        let names: Vec<&str> = seen
            .sandboxes
            .iter()
            .take(most)
            .map(String::as_str)
            .collect();
        comment.push_str(&format!(", by {}", names.join(", ")));
        if seen.sandboxes.len() > most {
            comment.push_str(" and others");
        }
        let comments = [comment].into_iter().chain(notes).collect();
        Self { allow, comments }
    }
}

impl Learned {
    /// The rules that are missing.
    #[must_use]
    pub fn rules(&self) -> &[LearnedRule] {
        &self.rules
    }
}

fn plural(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = u64::try_from(self.rules.len()).unwrap_or(u64::MAX);
        let (records, rules) = (plural(self.counts.records, "record"), plural(rules, "rule"));
        writeln!(f, "# Learned from {records}: {rules}.")?;
        writeln!(
            f,
            "# Whoever was in the guest chose what is in the log: read each rule before you use it."
        )?;
        for (what, count) in [
            ("Missing in the log, and so here", self.counts.lost),
            ("Of nothing that a rule could be for", self.counts.unusable),
            (
                "Left out, because there are too many destinations",
                self.counts.beyond,
            ),
        ] {
            if count > 0 {
                writeln!(f, "# {what}: {}.", plural(count, "record"))?;
            }
        }
        for LearnedRule { allow, comments } in &self.rules {
            writeln!(f)?;
            comments
                .iter()
                .try_for_each(|line| writeln!(f, "# {line}"))?;
            // They were rules already; the two say nothing that would not be written.
            let abilities = Abilities {
                intercepts_tls: true,
            };
            if let Ok(rule) = Rule::allow(allow, abilities, |_| true) {
                f.write_str(&rule.to_table())?;
            }
        }
        let denied = self.denied.iter();
        let denied =
            denied.map(|((to, why), count)| format!("{to}: {why} ({})", plural(*count, "time")));
        told(
            f,
            "Not learned, because no rule can be added for it",
            self.refused.iter().cloned(),
        )?;
        told(f, "Denied, and so not learned", denied)
    }
}

/// A comment of several lines, if there are any.
fn told(
    f: &mut fmt::Formatter<'_>,
    head: &str,
    lines: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    let more = lines.len().saturating_sub(MOST_TOLD);
    for (at, line) in lines.take(MOST_TOLD).enumerate() {
        if at == 0 {
            writeln!(f, "\n# {head}:")?;
        }
        writeln!(f, "#   {line}")?;
    }
    match more {
        0 => Ok(()),
        more => writeln!(f, "#   and {more} more"),
    }
}
