//! What is left of the quotas of rules.
//!
//! Each rule with a quota has one count in a sandbox, which all that it lets through shares. It outlives a new policy in which there is
//! an equal rule, wherever that is written there. Counts are made when a rule with a quota is first used, so there are no more than such rules.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::policy::{Decision, Engine, Quota, Rule};

/// For how long requests are counted together.
const MINUTE: Duration = Duration::from_secs(60);

/// One of the limits that a quota has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Bytes from the guest.
    SentBytes,
    /// Bytes to the guest.
    ReceivedBytes,
    /// Requests in a minute, which begins with the first of them.
    RequestsPerMinute,
    /// Connections at a time.
    Connections,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SentBytes => "sent_bytes",
            Self::ReceivedBytes => "received_bytes",
            Self::RequestsPerMinute => "requests_per_minute",
            Self::Connections => "connections",
        })
    }
}

/// A quota of which nothing is left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule's quota is used up: {limit} = {most}")]
pub struct Spent {
    /// Which limit.
    pub limit: Limit,
    /// How much it is.
    pub most: u64,
    /// The rule, in one line of TOML.
    pub rule: String,
    /// Where it is written.
    pub place: String,
}

/// What was used of one rule's quota.
#[derive(Debug)]
pub(crate) struct Tally {
    quota: Quota,
    rule: String,
    place: String,
    sent: Cell<u64>,
    received: Cell<u64>,
    connections: Cell<u32>,
    /// When the minute that is counted began, and how many requests there were in it.
    minute: Cell<Option<(Instant, u32)>>,
}

impl Tally {
    fn of(rule: &Rule) -> Self {
        Self {
            quota: rule.quota(),
            rule: rule.to_string(),
            place: rule.place().to_string(),
            sent: Cell::default(),
            received: Cell::default(),
            connections: Cell::default(),
            minute: Cell::default(),
        }
    }

    /// How many more bytes may go; none where nothing limits it.
    pub(crate) fn left(&self, limit: Limit) -> Option<u64> {
        let (most, used) = match limit {
            Limit::SentBytes => (self.quota.sent_bytes, &self.sent),
            _ => (self.quota.received_bytes, &self.received),
        };
        Some(most?.saturating_sub(used.get()))
    }

    pub(crate) fn count_bytes(&self, limit: Limit, len: u64) {
        let used = match limit {
            Limit::SentBytes => &self.sent,
            _ => &self.received,
        };
        used.set(used.get().saturating_add(len));
    }

    pub(crate) fn spent(&self, limit: Limit) -> Spent {
        let most = match limit {
            Limit::SentBytes => self.quota.sent_bytes,
            Limit::ReceivedBytes => self.quota.received_bytes,
            Limit::RequestsPerMinute => self.quota.requests_per_minute.map(u64::from),
            Limit::Connections => self.quota.connections.map(u64::from),
        };
        Spent {
            limit,
            most: most.unwrap_or_default(),
            rule: self.rule.clone(),
            place: self.place.clone(),
        }
    }

    /// Requests of the minute that `now` is in.
    fn requests(&self, now: Instant) -> (Instant, u32) {
        let running = |(begin, _): &(Instant, u32)| now.saturating_duration_since(*begin) < MINUTE;
        self.minute.get().filter(running).unwrap_or((now, 0))
    }

    fn has_room_for_request(&self, now: Instant) -> bool {
        let (_, count) = self.requests(now);
        self.quota
            .requests_per_minute
            .is_none_or(|most| count < most)
    }

    fn count_request(&self, now: Instant) {
        let (begin, count) = self.requests(now);
        self.minute.set(Some((begin, count.saturating_add(1))));
    }
}

/// Counts a request for all of `tallies`, or for none.
///
/// # Errors
///
/// The first of which nothing is left in this minute.
pub(crate) fn count_request(tallies: &[Rc<Tally>], now: Instant) -> Result<(), Spent> {
    let full = tallies
        .iter()
        .find(|tally| !tally.has_room_for_request(now));
    if let Some(tally) = full {
        return Err(tally.spent(Limit::RequestsPerMinute));
    }
    tallies.iter().for_each(|tally| tally.count_request(now));
    Ok(())
}

/// A connection that is counted as long as this is there.
#[derive(Debug)]
pub(crate) struct Lease(Rc<Tally>);

impl Lease {
    /// Counts a connection.
    ///
    /// # Errors
    ///
    /// There are as many as there may be, or nothing is left of the bytes in one direction.
    pub(crate) fn take(tally: &Rc<Tally>) -> Result<Self, Spent> {
        for limit in [Limit::SentBytes, Limit::ReceivedBytes] {
            if tally.left(limit) == Some(0) {
                return Err(tally.spent(limit));
            }
        }
        let count = tally.connections.get();
        if tally.quota.connections.is_some_and(|most| count >= most) {
            return Err(tally.spent(Limit::Connections));
        }
        tally.connections.set(count.saturating_add(1));
        Ok(Self(Rc::clone(tally)))
    }

    pub(crate) fn is_of(&self, tally: &Rc<Tally>) -> bool {
        Rc::ptr_eq(&self.0, tally)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connections = &self.0.connections;
        connections.set(connections.get().saturating_sub(1));
    }
}

/// The counts of a sandbox's rules.
#[derive(Debug, Default)]
pub(crate) struct Ledger(RefCell<HashMap<Key, Rc<Tally>>>);

/// Whether it is one of the repository's, which count by themselves, and the rule's text.
type Key = (bool, String);

impl Ledger {
    /// The counts that apply to what was decided: those of the user's rule and of the repository's, if they have a quota.
    pub(crate) fn tallies(&self, decision: &Decision<'_>) -> Vec<Rc<Tally>> {
        let rules = [(false, decision.rule), (true, decision.narrow)];
        let limited = rules
            .into_iter()
            .filter_map(|(is_narrow, rule)| Some((is_narrow, rule?)))
            .filter(|(_, rule)| rule.quota() != Quota::default());
        let mut all = self.0.borrow_mut();
        let tally = |(is_narrow, rule): (bool, &Rule)| {
            let tally = all.entry((is_narrow, rule.to_string()));
            Rc::clone(tally.or_insert_with(|| Rc::new(Tally::of(rule))))
        };
        limited.map(tally).collect()
    }

    /// Forgets the counts of rules that `engine` has not.
    pub(crate) fn keep(&self, engine: &Engine) {
        let known: std::collections::HashSet<Key> = engine
            .limited()
            .map(|(is_narrow, rule)| (is_narrow, rule.to_string()))
            .collect();
        self.0.borrow_mut().retain(|key, _| known.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(quota: Quota) -> Rc<Tally> {
        Rc::new(Tally {
            quota,
            rule: "rule".into(),
            place: "place".into(),
            sent: Cell::default(),
            received: Cell::default(),
            connections: Cell::default(),
            minute: Cell::default(),
        })
    }

    #[test]
    fn requests_are_counted_by_the_minute_for_all_or_none() {
        let quota = |most| Quota {
            requests_per_minute: Some(most),
            ..Quota::default()
        };
        let (few, many) = (tally(quota(2)), tally(quota(5)));
        let both = [Rc::clone(&many), few];
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        for second in [0, 59] {
            count_request(&both, at(second)).unwrap();
        }
        let spent = count_request(&both, at(59)).unwrap_err();
        assert_eq!((spent.limit, spent.most), (Limit::RequestsPerMinute, 2));
        // What was refused was not counted: three are left for the other.
        for _ in 0..3 {
            count_request(&both[..1], at(59)).unwrap();
        }
        assert!(count_request(&both[..1], at(59)).is_err());
        count_request(&both, at(60)).unwrap();
    }

    #[test]
    fn connections_are_counted_while_they_are_held() {
        let two = tally(Quota {
            connections: Some(2),
            ..Quota::default()
        });
        let one = Lease::take(&two).unwrap();
        let _other = Lease::take(&two).unwrap();
        let spent = Lease::take(&two).unwrap_err();
        assert_eq!(
            spent.to_string(),
            "the rule's quota is used up: connections = 2"
        );
        drop(one);
        Lease::take(&two).unwrap();
    }

    #[test]
    fn without_bytes_there_is_no_connection() {
        for limit in [Limit::SentBytes, Limit::ReceivedBytes] {
            let ten = tally(Quota {
                sent_bytes: Some(10),
                received_bytes: Some(10),
                ..Quota::default()
            });
            ten.count_bytes(limit, 9);
            assert_eq!(ten.left(limit), Some(1));
            drop(Lease::take(&ten).unwrap());
            ten.count_bytes(limit, 1);
            assert_eq!(Lease::take(&ten).unwrap_err().limit, limit);
        }
    }
}
