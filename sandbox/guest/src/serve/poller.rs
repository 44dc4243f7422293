//! Which stream of which exec is ready: epoll with typed tokens.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::protocol::Id;

/// What an exec waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Stdin,
    Stdout,
    Stderr,
    /// The process itself, by its pidfd.
    Process,
}

/// Names one source of one exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: Id,
    pub(crate) source: Source,
}

impl Token {
    fn pack(self) -> u64 {
        let source = match self.source {
            Source::Stdin => 0,
            Source::Stdout => 1,
            Source::Stderr => 2,
            Source::Process => 3,
        };
        u64::from(self.id) << 2 | source
    }

    fn unpack(value: u64) -> Self {
        let source = match value & 3 {
            0 => Source::Stdin,
            1 => Source::Stdout,
            2 => Source::Stderr,
            _ => Source::Process,
        };
        Self {
            id: Id::try_from(value >> 2).unwrap_or_default(),
            source,
        }
    }
}

/// Sources handled before the connection gets its turn again.
const BATCH: usize = 32;

/// When a watched source is reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Trigger {
    /// As long as it is ready.
    Ready,
    /// Once, and again when something has happened to it.
    Change,
}

#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> Result<Self, Errno> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Reports `token` when `fd` can be read (or written, for standard input). The kernel hands out ready sources in turn, so
    /// none starves.
    pub(crate) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        trigger: Trigger,
    ) -> Result<(), Errno> {
        let direction = match token.source {
            Source::Stdin => epoll::EventFlags::OUT,
            _ => epoll::EventFlags::IN,
        };
        let flags = match trigger {
            Trigger::Ready => direction,
            Trigger::Change => direction | epoll::EventFlags::ET,
        };
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.pack()),
            flags,
        )
    }

    /// Must come before the descriptor is closed: a duplicate of it would keep the registration.
    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        // Only fails for a descriptor that is not watched, which is what is wanted.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// What is ready now; never waits.
    pub(crate) fn ready(&self) -> Result<Vec<Token>, Errno> {
        let mut events = Vec::with_capacity(BATCH);
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&now),
        )?;
        Ok(events
            .iter()
            .map(|event| Token::unpack(event.data.u64()))
            .collect())
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_packing() {
        for id in [0, 1, 77, Id::MAX] {
            for source in [
                Source::Stdin,
                Source::Stdout,
                Source::Stderr,
                Source::Process,
            ] {
                let token = Token { id, source };
                assert_eq!(Token::unpack(token.pack()), token);
            }
        }
    }
}
