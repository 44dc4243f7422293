//! Counted places: how a cap is kept exactly, also while requests run side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::Errno;

/// So many places, no more.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<AtomicUsize>,
    total: usize,
}

/// One place. It is kept with what fills it and becomes free again when that is dropped.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<AtomicUsize>>);

impl Budget {
    pub(super) fn new(total: usize) -> Self {
        Self {
            free: Arc::new(AtomicUsize::new(total)),
            total,
        }
    }

    /// Takes a place, before the host is asked for what shall fill it.
    pub(super) fn take(&self) -> Result<Place, Errno> {
        // The counter guards nothing but itself, so no ordering is needed.
        self.free
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(1)
            })
            .map(|_| Place(Some(Arc::clone(&self.free))))
            .map_err(|_| Errno::ENFILE)
    }

    /// Frees places that were kept.
    pub(super) fn give_back(&self, places: usize) {
        self.free.fetch_add(places, Ordering::Relaxed);
    }

    /// Whether less than a quarter is free: time to stop giving places to what nobody asked for by name.
    pub(super) fn is_scarce(&self) -> bool {
        self.free.load(Ordering::Relaxed) < self.total / 4
    }
}

impl Place {
    /// The place stays taken until [`Budget::give_back`].
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(free) = &self.0 {
            free.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_come_back() {
        let budget = Budget::new(2);
        let (first, _second) = (budget.take().unwrap(), budget.take().unwrap());
        assert_eq!(budget.take().unwrap_err(), Errno::ENFILE);
        drop(first);
        assert!(budget.take().is_ok());
    }

    #[test]
    fn scarcity_begins_below_a_quarter() {
        let budget = Budget::new(8);
        let mut held: Vec<_> = (0..6).map(|_| budget.take().unwrap()).collect();
        assert!(!budget.is_scarce());
        held.push(budget.take().unwrap());
        assert!(budget.is_scarce());
    }
}
