//! The buffers of one request in progress, reused from request to request.
//!
//! A pool hands them out, so there are as many as requests were ever served at once, and none is made for a request.

use std::sync::{Mutex, PoisonError};

use zerocopy::{Immutable, IntoBytes};

use super::error::Error;
use crate::abi::{self, OUT_HEADER_LEN};
use crate::errno::Errno;
use crate::transfer::{Reader, Writer};

/// Longest listing that is read from the host at once, bytes.
const LONGEST_LISTING: usize = 32 << 10;

/// What follows the head of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nobody waits for a reply.
    Silence,
    /// What was put into the buffer for structures; maybe nothing.
    Structures,
    /// So many bytes from the beginning of the buffer for content.
    Content(usize),
}

/// The buffers for the answer.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Structures and listings.
    pub(super) structures: Vec<u8>,
    /// Bytes of files. Only ever grows, to be cleared once and not for every request.
    content: Vec<u8>,
    /// What the host's directory reading fills.
    pub(super) listing: Vec<u8>,
    /// Most bytes that may follow the head of this reply.
    pub(super) room: usize,
}

impl Scratch {
    /// Appends a structure to the answer.
    pub(super) fn put<T: IntoBytes + Immutable>(&mut self, structure: &T) -> Answer {
        self.structures.extend_from_slice(structure.as_bytes());
        Answer::Structures
    }

    /// A buffer for `len` bytes of content.
    pub(super) fn content(&mut self, len: usize) -> &mut [u8] {
        if self.content.len() < len {
            self.content.resize(len, 0);
        }
        self.content.get_mut(..len).unwrap_or_default()
    }

    /// Checks that a reply with `size` bytes behind its head fits what the guest left for it.
    pub(super) fn expect_room(&self, size: u32) -> Result<usize, Errno> {
        usize::try_from(size)
            .ok()
            .filter(|size| *size <= self.room)
            .ok_or(Errno::EINVAL)
    }

    /// Prepares for a request with room for `available` bytes of reply.
    pub(super) fn reset(&mut self, available: usize) {
        self.structures.clear();
        self.listing.clear();
        self.listing.reserve(LONGEST_LISTING);
        self.room = available.saturating_sub(OUT_HEADER_LEN);
    }

    /// Sends the reply; returns its length.
    pub(super) fn send(
        &self,
        unique: u64,
        outcome: Result<Answer, Errno>,
        writer: &mut dyn Writer,
    ) -> Result<usize, Error> {
        let payload = match outcome {
            Ok(Answer::Silence) => return Ok(0),
            Ok(Answer::Structures) => self.structures.as_slice(),
            Ok(Answer::Content(len)) => self.content.get(..len).unwrap_or_default(),
            Err(_) => &[],
        };
        let available = writer.available();
        if available < OUT_HEADER_LEN {
            return Err(Error::NoRoom { available });
        }
        let outcome = outcome.and(if payload.len() > self.room {
            Err(Errno::EINVAL)
        } else {
            Ok(payload.len())
        });
        let payload = if outcome.is_ok() { payload } else { &[] };
        writer
            .send(abi::head(unique, outcome).as_bytes(), payload)
            .map_err(Error::Transfer)?;
        Ok(OUT_HEADER_LEN + outcome.unwrap_or(0))
    }
}

/// The buffers for one request.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    request: Vec<u8>,
    pub(super) scratch: Scratch,
}

impl Buffers {
    /// Copies the request out of the transport, `most` bytes at most: a longer one is cut and fails its length check.
    pub(super) fn gather(
        &mut self,
        reader: &mut dyn Reader,
        most: usize,
    ) -> Result<(&[u8], &mut Scratch), Error> {
        let len = reader.remaining().min(most);
        if self.request.len() < len {
            self.request.resize(len, 0);
        }
        let request = self.request.get_mut(..len).unwrap_or_default();
        reader.read_exact(request).map_err(Error::Transfer)?;
        Ok((request, &mut self.scratch))
    }
}

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Buffers>>);

impl Pool {
    pub(super) fn take(&self) -> Buffers {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    pub(super) fn give(&self, buffers: Buffers) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffers);
    }
}
