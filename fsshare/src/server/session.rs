//! The session: what client and server agreed on at INIT.

use std::sync::atomic::{AtomicU64, Ordering};

use super::config::{Config, LockPolicy};
use crate::abi::{InitFlags, MAJOR, MINOR, OLDEST_MINOR, Operation, wire};
use crate::errno::Errno;

/// Unit in which the protocol counts the size of a request.
const PAGE: u32 = 4096;
/// Requests that the client may have in flight without anyone waiting (read-ahead, write-back).
const MAX_BACKGROUND: u16 = 64;

/// What is agreed on, or nothing before INIT.
#[derive(Debug)]
pub(super) struct Session {
    /// Bits of [`InitFlags`], which are never 0 once agreed on: `INIT_EXT` marks a session that is open.
    agreed: AtomicU64,
    offer: InitFlags,
    max_write: u32,
}

impl Session {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            agreed: AtomicU64::new(0),
            offer: offer(config),
            max_write: config.limits.max_write,
        }
    }

    /// The one session of several shares, whose own ones are to follow it: what all of them offer, and that each is a file system of its own.
    pub(super) fn of_many<'a>(sessions: impl Iterator<Item = &'a Self>) -> Self {
        let everything = (InitFlags::all(), u32::MAX);
        let (offer, max_write) = sessions.fold(everything, |(offer, max_write), session| {
            (offer & session.offer, max_write.min(session.max_write))
        });
        Self {
            agreed: AtomicU64::new(0),
            offer: offer | InitFlags::SUBMOUNTS,
            max_write,
        }
    }

    /// Most bytes in one WRITE.
    pub(super) fn max_write(&self) -> u32 {
        self.max_write
    }

    /// The client may read and write files itself, unless it holds written data back.
    #[cfg(feature = "fuse-mount")]
    pub(super) fn offer_passthrough(&mut self) {
        let holds_back = self.offer.contains(InitFlags::WRITEBACK_CACHE);
        self.offer.set(InitFlags::PASSTHROUGH, !holds_back);
    }

    /// Whether the client reads and writes files itself if it is told to.
    pub(super) fn passes_through(&self) -> bool {
        self.agreed().contains(InitFlags::PASSTHROUGH)
    }

    /// Opens the session.
    pub(super) fn open(
        &self,
        (major, minor): (u32, u32),
        max_readahead: u32,
        asked: InitFlags,
    ) -> Result<wire::InitOut, Errno> {
        if major > MAJOR {
            // The client is to try again with our version.
            return Ok(wire::InitOut {
                major: MAJOR,
                minor: MINOR,
                ..wire::InitOut::default()
            });
        }
        if major < MAJOR || minor < OLDEST_MINOR {
            return Err(Errno::EPROTO);
        }
        let agreed = self.offer & asked;
        self.agreed
            .store((agreed | InitFlags::INIT_EXT).bits(), Ordering::Relaxed);
        Ok(wire::InitOut {
            major: MAJOR,
            minor: minor.min(MINOR),
            max_readahead: max_readahead.min(self.max_write),
            flags: agreed.low(),
            max_background: MAX_BACKGROUND,
            congestion_threshold: MAX_BACKGROUND / 4 * 3,
            max_write: self.max_write,
            time_gran: 1,
            max_pages: u16::try_from(self.max_write / PAGE).unwrap_or(u16::MAX),
            flags2: agreed.high(),
            max_stack_depth: agreed.contains(InitFlags::PASSTHROUGH).into(),
            ..wire::InitOut::default()
        })
    }

    /// Agrees on what another session has agreed on.
    pub(super) fn follow(&self, other: &Self) {
        self.agreed
            .store(other.agreed.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Before INIT there is nothing to be had.
    pub(super) fn admit(&self, operation: &Operation<'_>) -> Result<(), Errno> {
        let begins = matches!(operation, Operation::Init { .. } | Operation::Destroy);
        if self.is_open() || begins || !operation.is_answered() {
            Ok(())
        } else {
            Err(Errno::EIO)
        }
    }

    /// Ends it.
    pub(super) fn close(&self) {
        self.agreed.store(0, Ordering::Relaxed);
    }

    /// Whether there was an INIT.
    pub(super) fn is_open(&self) -> bool {
        self.agreed().contains(InitFlags::INIT_EXT)
    }

    /// Whether the client holds written data back.
    pub(super) fn caches_writes(&self) -> bool {
        self.agreed().contains(InitFlags::WRITEBACK_CACHE)
    }

    fn agreed(&self) -> InitFlags {
        InitFlags::from_bits_truncate(self.agreed.load(Ordering::Relaxed))
    }
}

/// What the server can do under `config`.
fn offer(config: &Config) -> InitFlags {
    let mut offer = InitFlags::all();
    offer.set(
        InitFlags::WRITEBACK_CACHE,
        config.cache.writeback && !config.read_only,
    );
    offer.set(
        InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS,
        config.locks == LockPolicy::Host,
    );
    offer.remove(InitFlags::PASSTHROUGH | InitFlags::SUBMOUNTS);
    // Targets are cached without a time limit, and the host may replace a link.
    offer.remove(InitFlags::CACHE_SYMLINKS);
    offer
}
