//! Files whose content the kernel of a mount on this host reads and writes itself, past this server.
//!
//! The kernel's rules (`fs/fuse/iomode.c`): all who have a file open at once use either its cached pages or the same
//! backing file; so what the first open of a file decides holds until the last is closed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use crate::handle::BorrowedHandle;

/// The side of the kernel that takes files over.
pub(crate) trait Backing: Send + Sync {
    /// Makes the kernel take hold of a file; gives its number there.
    fn open(&self, file: BorrowedHandle<'_>) -> io::Result<i32>;

    /// No reply will name that number any more.
    fn close(&self, id: i32);
}

/// How all who have a file open use it.
#[derive(Debug)]
struct Use {
    /// The kernel's number of the file, or none if this server is asked for its content.
    backing: Option<i32>,
    opens: usize,
}

/// Which open files are whose business.
#[derive(Default)]
pub(super) struct Passthrough {
    kernel: Option<Box<dyn Backing>>,
    by_node: Mutex<HashMap<u64, Use>>,
}

impl Passthrough {
    #[cfg(feature = "fuse-mount")]
    pub(super) fn to(kernel: Box<dyn Backing>) -> Self {
        Self {
            kernel: Some(kernel),
            by_node: Mutex::default(),
        }
    }

    pub(super) fn is_possible(&self) -> bool {
        self.kernel.is_some()
    }

    /// One more has the file open. Gives the kernel's number of it if its content is the kernel's business, which is so from the first
    /// open on if `is_wanted` then.
    pub(super) fn begin(
        &self,
        node: u64,
        file: BorrowedHandle<'_>,
        is_wanted: bool,
    ) -> Option<i32> {
        let kernel = self.kernel.as_ref()?;
        match self.by_node().entry(node) {
            Entry::Occupied(mut known) => {
                known.get_mut().opens += 1;
                known.get().backing
            }
            Entry::Vacant(place) => {
                // A file system that is itself stacked upon others is refused; then it is ours as ever.
                let backing = is_wanted.then(|| kernel.open(file).ok()).flatten();
                place.insert(Use { backing, opens: 1 }).backing
            }
        }
    }

    /// One less has it open.
    pub(super) fn end(&self, node: u64) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        if let Entry::Occupied(mut known) = self.by_node().entry(node) {
            known.get_mut().opens -= 1;
            if known.get().opens == 0
                && let Some(backing) = known.remove().backing
            {
                kernel.close(backing);
            }
        }
    }

    /// Whether the kernel reads or writes the file now.
    pub(super) fn is_used(&self, node: u64) -> bool {
        let by_node = self.by_node();
        by_node
            .get(&node)
            .is_some_and(|known| known.backing.is_some())
    }

    pub(super) fn clear(&self) {
        for known in self.by_node().drain().map(|(_, known)| known) {
            if let (Some(kernel), Some(backing)) = (&self.kernel, known.backing) {
                kernel.close(backing);
            }
        }
    }

    fn by_node(&self) -> MutexGuard<'_, HashMap<u64, Use>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Passthrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passthrough")
            .field("is_possible", &self.is_possible())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "fuse-mount"))]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::sync::Arc;

    use super::*;

    /// Numbers that the kernel gave out and that were not closed.
    #[derive(Default)]
    struct Kernel(Arc<Mutex<Vec<i32>>>);

    impl Backing for Kernel {
        fn open(&self, _: BorrowedHandle<'_>) -> io::Result<i32> {
            let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            open.push(7);
            Ok(7)
        }

        fn close(&self, id: i32) {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|other| *other != id);
        }
    }

    #[test]
    fn the_first_open_decides_until_the_last_close() {
        let kernel = Kernel::default();
        let open = Arc::clone(&kernel.0);
        let passthrough = Passthrough::to(Box::new(kernel));
        let file = File::open("/proc/self/stat").unwrap();
        let begin = |is_wanted| passthrough.begin(1, file.as_fd(), is_wanted);
        assert_eq!([begin(true), begin(false)], [Some(7); 2]);
        passthrough.end(1);
        assert!(passthrough.is_used(1));
        passthrough.end(1);
        assert!(!passthrough.is_used(1) && open.lock().unwrap().is_empty());
        assert_eq!([begin(false), begin(true)], [None; 2]);
    }
}
