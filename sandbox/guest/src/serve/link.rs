//! The connection to the host: events out through a bounded queue, requests in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::ServeError;
use crate::protocol::{Event, FrameDecoder, Request, encode};

/// Queued bytes above which nothing more is read from processes, files or the host. The queue exceeds it by at most
/// what one batch of requests is answered with.
const HIGH_WATER: usize = 256 * 1024;

/// Bytes taken from the connection at once.
const READ_LEN: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Link {
    connection: OwnedFd,
    queue: Vec<u8>,
    /// Bytes at the front of the queue that are sent already.
    sent: usize,
}

impl Link {
    pub(crate) fn new(connection: OwnedFd) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&connection, true)?;
        Ok(Self {
            connection,
            queue: Vec::new(),
            sent: 0,
        })
    }

    /// Queues an event.
    pub(crate) fn send(&mut self, event: &Event) -> Result<(), ServeError> {
        encode(event, &mut self.queue).map_err(ServeError::Encode)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() - self.sent < HIGH_WATER
    }

    pub(crate) fn is_flushed(&self) -> bool {
        self.queue.is_empty()
    }

    /// Writes as much of the queue as the connection takes.
    pub(crate) fn flush(&mut self) -> Result<(), ServeError> {
        while let Some(rest @ [_, ..]) = self.queue.get(self.sent..) {
            match rustix::io::write(&self.connection, rest) {
                Ok(len) => self.sent += len,
                Err(Errno::AGAIN) => {
                    self.compact();
                    return Ok(());
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(ServeError::Connection(errno)),
            }
        }
        self.queue.clear();
        self.sent = 0;
        Ok(())
    }

    /// Moves the unsent bytes to the front once that is worth the copy, so that the queue cannot creep.
    fn compact(&mut self) {
        if self.sent >= HIGH_WATER / 2 {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// What reading the connection gave.
#[derive(Debug)]
pub(crate) enum Incoming {
    Bytes,
    Nothing,
    /// The host closed the connection.
    End,
}

/// Cuts what the host sends into requests.
#[derive(Debug)]
pub(crate) struct Inbox {
    decoder: FrameDecoder<Request>,
    buffer: Box<[u8]>,
    filled: std::ops::Range<usize>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            decoder: FrameDecoder::default(),
            buffer: vec![0; READ_LEN].into(),
            filled: 0..0,
        }
    }
}

impl Inbox {
    /// Reads once.
    pub(crate) fn fill(&mut self, link: &Link) -> Result<Incoming, ServeError> {
        match rustix::io::read(link, &mut *self.buffer) {
            Ok(0) => self
                .decoder
                .finish()
                .map(|()| Incoming::End)
                .map_err(ServeError::Frame),
            Ok(len) => {
                self.filled = 0..len;
                Ok(Incoming::Bytes)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Incoming::Nothing),
            Err(errno) => Err(ServeError::Connection(errno)),
        }
    }

    /// The next whole request of what was read.
    pub(crate) fn next(&mut self) -> Result<Option<Request>, ServeError> {
        let mut input = self.buffer.get(self.filled.clone()).unwrap_or_default();
        let request = self.decoder.decode(&mut input).map_err(ServeError::Frame)?;
        self.filled.start = self.filled.end - input.len();
        Ok(request)
    }
}
