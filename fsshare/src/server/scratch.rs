//! The buffers of one request in progress, reused from request to request.
//!
//! A pool hands them out, so there are as many as requests were ever served at once, and none is made for a request.

use std::sync::{Arc, Mutex, PoisonError};

use zerocopy::{Immutable, IntoBytes};

use super::error::Error;
use super::handles::OpenFile;
use crate::abi::{self, OUT_HEADER_LEN, ParseError, Request};
use crate::errno::Errno;
use crate::transfer::{FileReply, Reader, Writer};

/// Longest listing that is read from the host at once, bytes.
const LONGEST_LISTING: usize = 32 << 10;

/// What follows the head of a reply.
#[derive(Debug)]
pub(super) enum Answer {
    /// Nobody waits for a reply.
    Silence,
    /// What was put into the buffer for structures; maybe nothing.
    Structures,
    /// So many bytes from the beginning of the buffer for values.
    Value(usize),
    /// What is in a file. It is read when the reply is sent, when the request had its turn: nobody's turn is about who reads.
    File(FilePart),
}

/// A part of an open file. It fits the reply.
#[derive(Debug)]
pub(super) struct FilePart {
    pub(super) open: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) len: usize,
}

/// The buffers for the answer.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Structures and listings.
    pub(super) structures: Vec<u8>,
    /// Values of extended attributes. Only ever grows, to be cleared once and not for every request.
    value: Vec<u8>,
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

    /// A buffer for `len` bytes of a value.
    pub(super) fn value(&mut self, len: usize) -> &mut [u8] {
        if self.value.len() < len {
            self.value.resize(len, 0);
        }
        self.value.get_mut(..len).unwrap_or_default()
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
        if let Ok(Answer::Silence) = outcome {
            return Ok(0);
        }
        let available = writer.available();
        if available < OUT_HEADER_LEN {
            return Err(Error::NoRoom { available });
        }
        let payload = match outcome {
            Ok(Answer::File(FilePart { open, offset, len })) => {
                let reply = FileReply::new(unique, open.object.handle(), offset, len);
                return writer.send_file(&reply).map_err(Error::Transfer);
            }
            Ok(Answer::Value(len)) => Ok(self.value.get(..len).unwrap_or_default()),
            Ok(_) => Ok(self.structures.as_slice()),
            Err(errno) => Err(errno),
        };
        let payload = payload.and_then(|payload| {
            if payload.len() > self.room {
                Err(Errno::EINVAL)
            } else {
                Ok(payload)
            }
        });
        let head = abi::head(unique, payload.map(<[u8]>::len));
        let payload = payload.unwrap_or_default();
        writer
            .send(head.as_bytes(), payload)
            .map_err(Error::Transfer)?;
        Ok(OUT_HEADER_LEN + payload.len())
    }
}

/// A request as far as it is parsed.
#[derive(Debug)]
struct Gathered<'a> {
    bytes: &'a [u8],
    /// Bytes that were left in the transport.
    left: usize,
}

/// The buffers for one request.
#[derive(Debug, Default)]
struct Buffers {
    request: Vec<u8>,
    scratch: Scratch,
}

impl Buffers {
    /// Copies the request out of the transport, but for what is to go into a file. It has `most` bytes at most: a longer one is cut and
    /// fails its length check.
    fn gather(
        &mut self,
        reader: &mut dyn Reader,
        most: usize,
    ) -> Result<(Gathered<'_>, &mut Scratch), Error> {
        let total = reader.remaining().min(most);
        let mut len = total.min(abi::BEFORE_CONTENT);
        self.request.clear();
        self.append(reader, len)?;
        // Looked at in the copy: in the transport it may be another one the next time.
        if !abi::has_content(&self.request) {
            self.append(reader, total - len)?;
            len = total;
        }
        let gathered = Gathered {
            bytes: &self.request,
            left: total - len,
        };
        Ok((gathered, &mut self.scratch))
    }

    fn append(&mut self, reader: &mut dyn Reader, len: usize) -> Result<(), Error> {
        let begin = self.request.len();
        self.request.resize(begin + len, 0);
        let place = self.request.get_mut(begin..).unwrap_or_default();
        reader.read_exact(place).map_err(Error::Transfer)
    }
}

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(super) struct Pool(Mutex<Vec<Buffers>>);

impl Pool {
    /// Takes a request of `most` bytes at most out of `request`, and has it answered into `reply`: by `answer`, which gets what of the content was left in
    /// the transport, if it is one.
    pub(super) fn serve(
        &self,
        request: &mut dyn Reader,
        most: usize,
        reply: &mut dyn Writer,
        answer: impl FnOnce(
            &Request<'_>,
            &mut dyn Reader,
            &mut Scratch,
            &mut dyn Writer,
        ) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let mut buffers = self.take();
        let outcome = buffers
            .gather(request, most)
            .and_then(|(gathered, scratch)| {
                match abi::parse_without(gathered.bytes, gathered.left) {
                    Ok(parsed) => answer(&parsed, request, scratch, reply),
                    Err(malformed) => refuse(malformed, scratch, reply),
                }
            });
        self.give(buffers);
        outcome
    }

    fn take(&self) -> Buffers {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
            .unwrap_or_default()
    }

    fn give(&self, buffers: Buffers) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(buffers);
    }
}

/// Answers what is no request.
fn refuse(
    malformed: ParseError,
    scratch: &mut Scratch,
    reply: &mut dyn Writer,
) -> Result<usize, Error> {
    scratch.reset(reply.available());
    let (unique, errno) = malformed.answer().ok_or(malformed)?;
    scratch.send(unique, Err(errno), reply)
}
