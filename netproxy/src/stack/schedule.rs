//! When each connection has something to send.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

use smoltcp::time::Instant;

use super::Key;

/// Connections that are due, in turn, and those that will be.
#[derive(Default)]
pub(super) struct Schedule {
    now: VecDeque<Key>,
    is_now: HashSet<Key>,
    /// By time. An entry counts only if it is the connection's in `times`.
    later: BinaryHeap<Reverse<(Instant, KeyOrder)>>,
    times: HashMap<Key, Instant>,
}

/// Keys in any fixed order, for the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
struct KeyOrder(Key);

impl Ord for KeyOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.from, self.0.to).cmp(&(other.0.from, other.0.to))
    }
}

impl PartialOrd for KeyOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
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
        if self.times.get(&key).is_some_and(|&time| time <= at) {
            return;
        }
        self.times.insert(key, at);
        self.later.push(Reverse((at, KeyOrder(key))));
    }

    /// Takes the next connection that is due at `now`.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Key> {
        while self.next().is_some_and(|at| at <= now) {
            if let Some(Reverse((_, KeyOrder(key)))) = self.later.pop() {
                self.times.remove(&key);
                self.add_now(key);
            }
        }
        let key = self.now.pop_front()?;
        self.is_now.remove(&key);
        Some(key)
    }

    /// When the next connection that is not due yet will be.
    pub(super) fn next(&mut self) -> Option<Instant> {
        while let Some(&Reverse((at, KeyOrder(key)))) = self.later.peek() {
            if self.times.get(&key) == Some(&at) {
                return Some(at);
            }
            self.later.pop();
        }
        None
    }
}
