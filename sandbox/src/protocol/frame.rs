//! Frames: the length, the body, and the incremental decoder.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{Event, HEADER_LEN, MAX_EVENT, MAX_REQUEST, Request};

/// An end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The application's side.
    Host,
    /// The program inside the machine.
    Guest,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Guest => "guest",
        })
    }
}

/// What one end sends.
pub trait Message: Serialize + DeserializeOwned {
    /// Who sends it, hence whose fault a bad frame is.
    const SENDER: Peer;
    /// Largest body in bytes.
    const MAX_BODY: usize;
    /// How many kinds there are; the first varint of a body is below it.
    const KINDS: u32;
}

impl Message for Request {
    const SENDER: Peer = Peer::Host;
    const MAX_BODY: usize = MAX_REQUEST;
    const KINDS: u32 = 13;
}

impl Message for Event {
    const SENDER: Peer = Peer::Guest;
    const MAX_BODY: usize = MAX_EVENT;
    const KINDS: u32 = 12;
}

/// A frame that its sender should not have sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The announced length is over the cap; nothing was allocated for it.
    #[error("the {sender} announced a frame of {len} bytes; at most {max} are allowed")]
    Oversize {
        /// Whose fault.
        sender: Peer,
        /// Announced length of the body.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// A kind of message that this version does not have.
    #[error("the {sender} sent a message of the unknown kind {kind}")]
    UnknownKind {
        /// Whose fault.
        sender: Peer,
        /// The kind's number.
        kind: u32,
    },
    /// The body does not decode.
    #[error("the {sender} sent a malformed message")]
    Malformed {
        /// Whose fault.
        sender: Peer,
        /// What the decoder met.
        #[source]
        source: postcard::Error,
    },
    /// The message ends before its frame does.
    #[error("the {sender} sent a message with {extra} bytes behind it")]
    Trailing {
        /// Whose fault.
        sender: Peer,
        /// Bytes left over.
        extra: usize,
    },
    /// The connection ended inside a frame.
    #[error("the {sender} ended the connection inside a frame")]
    Truncated {
        /// Whose fault.
        sender: Peer,
    },
}

/// A message that cannot be sent. Fault of the caller.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// Too long for one frame, e.g. a command line or an environment of more than 256 KiB.
    #[error(
        "the message takes {len} bytes; at most {max} fit a frame: shorten the arguments or the environment"
    )]
    TooLong {
        /// Length of the body.
        len: usize,
        /// The cap.
        max: usize,
    },
    /// postcard refused the value.
    #[error("the message cannot be encoded")]
    Encoding(#[source] postcard::Error),
}

/// Lets postcard append to a buffer that already holds frames.
struct Tail<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Tail<'_> {
    fn extend<I: IntoIterator<Item = u8>>(&mut self, bytes: I) {
        self.0.extend(bytes);
    }
}

/// Appends `message` as one frame to `out`; `out` is unchanged on error.
pub fn encode<M: Message>(message: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let result = encode_at(start, message, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_at<M: Message>(start: usize, message: &M, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    out.extend([0; HEADER_LEN]);
    postcard::to_extend(message, Tail(out)).map_err(EncodeError::Encoding)?;
    let len = out.len() - start - HEADER_LEN;
    let too_long = EncodeError::TooLong {
        len,
        max: M::MAX_BODY,
    };
    let header = u32::try_from(len).map_err(|_| too_long.clone())?;
    if len > M::MAX_BODY {
        return Err(too_long);
    }
    if let Some(place) = out.get_mut(start..start + HEADER_LEN) {
        place.copy_from_slice(&header.to_le_bytes());
    }
    Ok(())
}

/// Most bytes reserved at once for a frame that is still arriving.
const GROWTH: usize = 64 * 1024;

/// Cuts a byte stream into messages, in whatever pieces it arrives. Holds at most one frame, and of that no more than has
/// arrived plus a fixed amount. After an error the stream has no frame boundary any more: end the connection.
#[derive(Debug)]
pub struct FrameDecoder<M> {
    /// The start of the frame under way, header included.
    buffer: Vec<u8>,
    message: PhantomData<M>,
}

impl<M> Default for FrameDecoder<M> {
    fn default() -> Self {
        Self {
            buffer: Vec::new(),
            message: PhantomData,
        }
    }
}

impl<M: Message> FrameDecoder<M> {
    /// Takes bytes from the front of `input` up to the end of the next message. `None`: all of `input` was taken and the
    /// message goes on.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<M>, FrameError> {
        if !self.fill(HEADER_LEN, input) {
            return Ok(None);
        }
        let body = self.body_len()?;
        if !self.fill(HEADER_LEN + body, input) {
            return Ok(None);
        }
        let message = decode_body(self.buffer.get(HEADER_LEN..).unwrap_or_default());
        self.buffer.clear();
        message.map(Some)
    }

    /// Says whether the stream may end here: an error inside a frame.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated { sender: M::SENDER })
        }
    }

    /// Moves bytes over until the buffer has `wanted`; says whether it has.
    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let missing = wanted.saturating_sub(self.buffer.len());
        let (taken, rest) = input.split_at_checked(missing).unwrap_or((*input, &[]));
        self.buffer
            .reserve_exact(missing.min(GROWTH.max(taken.len())));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        taken.len() == missing
    }

    fn body_len(&self) -> Result<usize, FrameError> {
        let header = self.buffer.first_chunk().copied().unwrap_or_default();
        let len = usize::try_from(u32::from_le_bytes(header)).unwrap_or(usize::MAX);
        if len > M::MAX_BODY {
            return Err(FrameError::Oversize {
                sender: M::SENDER,
                len,
                max: M::MAX_BODY,
            });
        }
        Ok(len)
    }
}

fn decode_body<M: Message>(body: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(FrameError::Trailing {
            sender: M::SENDER,
            extra: rest.len(),
        }),
        Err(source) => Err(diagnose::<M>(body, source)),
    }
}

fn diagnose<M: Message>(body: &[u8], source: postcard::Error) -> FrameError {
    match postcard::take_from_bytes::<u32>(body) {
        Ok((kind, _)) if kind >= M::KINDS => FrameError::UnknownKind {
            sender: M::SENDER,
            kind,
        },
        _ => FrameError::Malformed {
            sender: M::SENDER,
            source,
        },
    }
}
