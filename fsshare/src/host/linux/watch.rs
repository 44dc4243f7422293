//! Whether someone else changes the tree: fanotify, as every user may have it (Linux 5.13).
//!
//! Of what happens in the directories that are watched the kernel tells who did it, as far as that was this process. All that the guest does is done
//! by this process, so the rest is the host's doing. What it was does not matter here.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Node;
use crate::sys;

/// The kernel is asked no more often than this.
const PAUSE: Duration = Duration::from_millis(1);
/// So long after a change of the host's there may be another at any time.
const ACTIVE: Duration = Duration::from_secs(2);
/// Bytes of events that are read at once.
const EVENTS: usize = 16 << 10;
/// So many directories are watched in all, each counted whenever it comes again: they are of a number that all programs of the user share.
const MOST: u64 = 64 << 10;

/// Watches directories for changes of the host's.
#[derive(Debug)]
pub(crate) struct Watch {
    group: OwnedFd,
    begin: Instant,
    /// When the kernel was asked last, and until when the host counts as active: nanoseconds since `begin`.
    asked: AtomicU64,
    active_until: AtomicU64,
    watched: AtomicU64,
    events: Mutex<Vec<u8>>,
}

impl Watch {
    /// Nothing is watched yet, wherever the tree is. `None` where the kernel does not offer it.
    pub(crate) fn new(_place: &Path) -> Option<Self> {
        Some(Self {
            group: sys::new_watch().ok()?,
            begin: Instant::now(),
            asked: AtomicU64::new(0),
            active_until: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            events: Mutex::new(vec![0; EVENTS]),
        })
    }

    /// Watches a directory and what is in it, but not what is below that. One that cannot be watched is not.
    pub(crate) fn add(&self, directory: &Node) {
        let more = |watched: u64| (watched < MOST).then_some(watched + 1);
        let order = Ordering::Relaxed;
        if self.watched.fetch_update(order, order, more).is_ok() {
            let _ = sys::watch_directory(&self.group, directory);
        }
    }

    /// A request of the guest's changes something now: the kernel says so itself.
    #[expect(clippy::unused_self, reason = "other systems' watches take it")]
    pub(crate) const fn expect_own(&self) {}

    /// Whether the host has changed something a moment ago.
    pub(crate) fn sees_changes(&self) -> bool {
        let now = nanos(self.begin.elapsed());
        let asked = self.asked.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(asked) >= nanos(PAUSE);
        let order = Ordering::Relaxed;
        if is_due
            && self
                .asked
                .compare_exchange(asked, now, order, order)
                .is_ok()
        {
            self.ask(now);
        }
        now < self.active_until.load(Ordering::Relaxed)
    }

    fn ask(&self, now: u64) {
        // Whoever else asks at this moment does it for us.
        let Ok(mut events) = self.events.try_lock() else {
            return;
        };
        while let Ok(len @ 1..) = rustix::io::read(&self.group, &mut *events) {
            let read = events.get(..len).unwrap_or_default();
            if sys::is_of_others(read) {
                let until = now.saturating_add(nanos(ACTIVE));
                self.active_until.store(until, Ordering::Relaxed);
            }
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::process::Command;

    use super::*;
    use crate::host::os::Host;

    #[test]
    fn changes_of_others_are_seen_and_our_own_are_not() {
        let place = tempfile::tempdir().unwrap();
        let (_, root) = Host::new(File::open(place.path()).unwrap().into(), false).unwrap();
        let watch = Watch::new(place.path());
        let is_watched = |watch: &Watch| sys::watch_directory(&watch.group, &root).is_ok();
        let Some(watch) = watch.filter(is_watched) else {
            // Past the capture of the test harness, so that it is counted.
            let skip = b"SKIP changes_of_others_are_seen_and_our_own_are_not: fanotify tells nothing of this file system\n";
            drop(std::io::stderr().write_all(skip));
            return;
        };
        watch.add(&root);
        for _ in 0..3 {
            std::fs::write(place.path().join("own"), "x").unwrap();
            std::fs::rename(place.path().join("own"), place.path().join("moved")).unwrap();
            std::thread::sleep(PAUSE);
            assert!(!watch.sees_changes());
        }
        for change in [
            "echo y > moved",
            "touch moved",
            "mv moved other",
            "chmod 600 other",
            "mkdir sub",
            "rm other",
        ] {
            watch.active_until.store(0, Ordering::Relaxed);
            let done = Command::new("sh")
                .args(["-c", change])
                .current_dir(place.path())
                .status();
            assert!(done.unwrap().success());
            std::thread::sleep(PAUSE);
            assert!(watch.sees_changes(), "{change}");
        }
    }
}
