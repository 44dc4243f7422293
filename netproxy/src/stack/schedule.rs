//! When each connection has something to send.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use smoltcp::time::Instant;

use super::Key;

/// Connections that are due, in turn, and those that will be.
#[derive(Default)]
pub(super) struct Schedule {
    now: VecDeque<Key>,
    is_now: HashSet<Key>,
    /// By time; each connection once, with its time in `times`.
    later: BTreeSet<(Instant, Key)>,
    times: HashMap<Key, Instant>,
}

impl Schedule {
    /// Makes a connection due. False: it was.
    pub(super) fn add_now(&mut self, key: Key) -> bool {
        let is_new = self.is_now.insert(key);
        if is_new {
            self.now.push_back(key);
        }
        is_new
    }

    /// Makes a connection due at `at`, unless it is earlier anyway.
    pub(super) fn add(&mut self, key: Key, at: Instant) {
        match self.times.get(&key) {
            Some(&time) if time <= at => return,
            Some(&time) => {
                self.later.remove(&(time, key));
            }
            None => {}
        }
        self.times.insert(key, at);
        self.later.insert((at, key));
    }

    /// Forgets a connection that is no more, but for its turn, which comes to nothing.
    pub(super) fn forget(&mut self, key: Key) {
        if let Some(time) = self.times.remove(&key) {
            self.later.remove(&(time, key));
        }
    }

    /// Takes the next connection that is due at `now`.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Key> {
        while self.next().is_some_and(|at| at <= now) {
            if let Some((_, key)) = self.later.pop_first() {
                self.times.remove(&key);
                self.add_now(key);
            }
        }
        let key = self.now.pop_front()?;
        self.is_now.remove(&key);
        Some(key)
    }

    /// Whether a connection waits for its turn.
    pub(super) fn is_due(&self) -> bool {
        !self.now.is_empty()
    }

    /// When the next connection that is not due yet will be.
    pub(super) fn next(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }
}
