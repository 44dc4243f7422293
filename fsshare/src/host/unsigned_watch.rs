//! Whether someone else changes the tree, where the system tells of changes and not who made them: FSEvents and `ReadDirectoryChangesW`.
//!
//! All that the guest does is done by this process, which says so ([`Watch::expect_own`]); what comes a moment later is taken for that. A change of
//! the host's in the same moment goes unnoticed, and the guest finds it when what it was told is no longer valid, as without a watch.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

/// So long after a change of the host's there may be another at any time.
const ACTIVE: Duration = Duration::from_secs(2);
/// So long after a change of our own the system may tell of it. FSEvents collects for a moment.
const DELAY: Duration = Duration::from_millis(100);

/// Watches a tree for changes of the host's.
#[derive(Debug)]
pub(crate) struct Watch {
    seen: Arc<Seen>,
    /// It watches as long as it is there.
    _watcher: RecommendedWatcher,
}

/// Times in nanoseconds since `begin`.
#[derive(Debug)]
struct Seen {
    begin: Instant,
    own_until: AtomicU64,
    active_until: AtomicU64,
}

impl Seen {
    fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    fn change(&self) {
        let now = self.now();
        if nanos(now) >= self.own_until.load(Ordering::Relaxed) {
            self.active_until
                .store(nanos(now + ACTIVE), Ordering::Relaxed);
        }
    }
}

impl Watch {
    /// Watches the tree at `place`. `None` where that is not told, or is no place that the system watches.
    pub(crate) fn new(place: &Path) -> Option<Self> {
        if !place.is_absolute() {
            return None;
        }
        let seen = Arc::new(Seen {
            begin: Instant::now(),
            own_until: AtomicU64::new(0),
            active_until: AtomicU64::new(0),
        });
        let seen_there = Arc::clone(&seen);
        let tell = move |event: notify::Result<Event>| match event {
            Ok(event) if event.kind.is_access() => {}
            // An error: events were lost.
            _ => seen_there.change(),
        };
        let mut watcher = notify::recommended_watcher(tell).ok()?;
        watcher.watch(place, RecursiveMode::Recursive).ok()?;
        Some(Self {
            seen,
            _watcher: watcher,
        })
    }

    /// The directory is in the tree, and so watched already.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "Linux watches each directory")]
    pub(crate) const fn add(&self, _directory: &super::os::Node) {}

    /// A request of the guest's changes something now.
    pub(crate) fn expect_own(&self) {
        let until = nanos(self.seen.now() + DELAY);
        self.seen.own_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Whether the host has changed something a moment ago.
    pub(crate) fn sees_changes(&self) -> bool {
        nanos(self.seen.now()) < self.seen.active_until.load(Ordering::Relaxed)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Waits until the watch sees something; false after a while.
    fn sees(watch: &Watch) -> bool {
        let begin = Instant::now();
        while !watch.sees_changes() && begin.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        watch.sees_changes()
    }

    #[test]
    fn changes_of_others_are_seen_and_our_own_are_not() {
        let place = tempfile::tempdir().unwrap();
        // Wine, which runs this test, tells of nothing below the top.
        let folder = place
            .path()
            .join(if cfg!(windows) { "." } else { "deep/er" });
        fs::create_dir_all(&folder).unwrap();
        let path = place.path().canonicalize().unwrap();
        let watch = Watch::new(&path).unwrap();
        assert!(!watch.sees_changes());
        let file = folder.join("file");
        // The last of ours is told of when it is no longer expected only by a system slower than this.
        for round in 0..10 {
            watch.expect_own();
            fs::write(&file, format!("{round}")).unwrap();
            std::thread::sleep(DELAY / 10);
        }
        std::thread::sleep(2 * DELAY);
        assert!(!watch.sees_changes());
        fs::write(&file, "the host's").unwrap();
        assert!(sees(&watch), "a write");
        watch.seen.active_until.store(0, Ordering::Relaxed);
        fs::rename(&file, place.path().join("moved")).unwrap();
        assert!(sees(&watch), "a rename");
    }

    #[test]
    fn without_a_place_there_is_no_watch() {
        for place in ["", ".", "src"] {
            assert!(Watch::new(Path::new(place)).is_none(), "{place:?}");
        }
        let place = tempfile::tempdir().unwrap();
        assert!(Watch::new(&place.path().join("nothing")).is_none());
    }
}
