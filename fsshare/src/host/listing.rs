//! A directory's listing that can be taken up anywhere, over a host's that only goes on or begins anew.
//!
//! The cookie of an entry is its place in the listing. Who goes on where the last call ended, as a guest's `readdir` does, costs nothing
//! more; another place is reached by beginning anew and passing over what is before it. So nothing is held but one entry.

use super::Next;
use crate::abi::DirEntry;
use crate::errno::Errno;

/// One entry, as the host tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) ino: u64,
    /// Type bits of a mode, as a directory entry has them (`DT_*`).
    pub(super) kind: u32,
    pub(super) name: Vec<u8>,
}

/// The host's listing.
pub(super) trait Stream {
    /// Begins anew.
    fn rewind(&mut self) -> Result<(), Errno>;
    /// The next entry, if there is one.
    fn next(&mut self) -> Result<Option<Listed>, Errno>;
}

/// A listing in progress.
#[derive(Debug)]
pub(super) struct Listing<S> {
    stream: S,
    /// Entries that were taken.
    taken: u64,
    /// What was read and not taken.
    pending: Option<Listed>,
}

impl<S: Stream> Listing<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            taken: 0,
            pending: None,
        }
    }

    #[cfg(any(target_os = "macos", test))]
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    /// Shows the entries from the cookie `from` on to `each` until it has enough or the directory ends. 0 is the beginning.
    pub(super) fn list(
        &mut self,
        from: u64,
        mut each: impl FnMut(&DirEntry<'_>) -> Result<Next, Errno>,
    ) -> Result<(), Errno> {
        if !self.go_to(from)? {
            return Ok(());
        }
        while let Some(entry) = self.next()? {
            let shown = DirEntry {
                ino: entry.ino,
                next: self.taken + 1,
                kind: entry.kind,
                name: &entry.name,
            };
            let outcome = each(&shown);
            if outcome == Ok(Next::More) {
                self.taken += 1;
            } else {
                self.pending = Some(entry);
                return outcome.map(drop);
            }
        }
        Ok(())
    }

    /// Whether there is such a place.
    fn go_to(&mut self, from: u64) -> Result<bool, Errno> {
        if from == 0 || from < self.taken {
            // What the directory became meanwhile is shown from the beginning on.
            self.pending = None;
            self.taken = 0;
            self.stream.rewind()?;
        }
        while self.taken < from {
            if self.next()?.is_none() {
                return Ok(false);
            }
            self.taken += 1;
        }
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Listed>, Errno> {
        match self.pending.take() {
            Some(entry) => Ok(Some(entry)),
            None => self.stream.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers below `end`; counts how often it began.
    #[derive(Debug)]
    struct Numbers {
        at: u64,
        end: u64,
        begun: usize,
    }

    impl Stream for Numbers {
        fn rewind(&mut self) -> Result<(), Errno> {
            self.at = 0;
            self.begun += 1;
            Ok(())
        }

        fn next(&mut self) -> Result<Option<Listed>, Errno> {
            let entry = (self.at < self.end).then(|| Listed {
                ino: self.at,
                kind: 8,
                name: self.at.to_string().into_bytes(),
            });
            self.at += u64::from(entry.is_some());
            Ok(entry)
        }
    }

    fn numbers(end: u64) -> Listing<Numbers> {
        Listing::new(Numbers {
            at: 0,
            end,
            begun: 0,
        })
    }

    /// At most `most` entries from `from` on, and the cookie to go on at.
    fn take(listing: &mut Listing<Numbers>, from: u64, most: usize) -> (Vec<u64>, u64) {
        let (mut shown, mut next) = (Vec::new(), from);
        let listed = listing.list(from, |entry| {
            if shown.len() == most {
                return Ok(Next::Enough);
            }
            shown.push(entry.ino);
            next = entry.next;
            Ok(Next::More)
        });
        assert_eq!(listed, Ok(()));
        (shown, next)
    }

    #[test]
    fn pieces_make_the_whole_and_the_host_is_asked_once() {
        let mut listing = numbers(7);
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            let (shown, next) = take(&mut listing, at, 2);
            if shown.is_empty() {
                break;
            }
            all.extend(shown);
            at = next;
        }
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(listing.stream().begun, 1);
    }

    #[test]
    fn any_place_is_found_again() {
        let mut listing = numbers(5);
        assert_eq!(take(&mut listing, 3, 9).0, [3, 4]);
        assert_eq!(take(&mut listing, 1, 2).0, [1, 2]);
        assert_eq!(take(&mut listing, 4, 2).0, [4]);
        assert_eq!(take(&mut listing, 5, 2).0, []);
        assert_eq!(take(&mut listing, 99, 2).0, []);
        assert_eq!(take(&mut listing, 0, 9).0, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn an_entry_that_was_refused_comes_again() {
        let mut listing = numbers(3);
        assert_eq!(listing.list(0, |_| Err(Errno::EINVAL)), Err(Errno::EINVAL));
        assert_eq!(take(&mut listing, 0, 1), (vec![0], 1));
        assert_eq!(listing.list(1, |_| Err(Errno::EIO)), Err(Errno::EIO));
        assert_eq!(take(&mut listing, 1, 9).0, [1, 2]);
    }
}
