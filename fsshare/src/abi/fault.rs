//! Why a request was refused before anyone asked what it wants.

use thiserror::Error;

use super::opcode::Opcode;
use crate::errno::Errno;

/// A request that is no request. Always the guest's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseError {
    /// There is no complete head, so there is no id to answer to.
    #[error("the guest sent {len} bytes where a FUSE request has at least 40")]
    NoHeader {
        /// Bytes that were there.
        len: usize,
    },
    /// The head was read, the rest is wrong.
    #[error("the guest's FUSE request {unique} (operation {opcode}) is malformed: {refusal}")]
    Refused {
        /// The request's id.
        unique: u64,
        /// The number of the operation that was asked for.
        opcode: u32,
        /// What is wrong.
        refusal: Refusal,
    },
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// `len` of the head is not the number of bytes sent.
    #[error("the stated length is not the length sent")]
    Length,
    /// The operation's structure or text ends early.
    #[error("it ends early")]
    Truncated,
    /// Bytes follow the end.
    #[error("bytes follow its end")]
    Trailing,
    /// It carries extensions that were not agreed on.
    #[error("it carries extensions that were not agreed on")]
    Extension,
    /// A name is empty, `.`, `..` or holds a `/`.
    #[error("a name is not one directory entry's name")]
    BadName,
    /// A name has more than 255 bytes, or a link's target more than 4095.
    #[error("a name is too long")]
    NameTooLong,
    /// An extended attribute's name has no bytes or more than 255.
    #[error("an extended attribute's name is empty or too long")]
    XattrName,
    /// Flags hold bits that mean nothing.
    #[error("flags have unknown bits")]
    Flags,
    /// The operation's number is not known.
    #[error("the operation is not known")]
    Unknown,
}

impl Refusal {
    /// What the guest is told.
    pub fn errno(self) -> Errno {
        match self {
            Self::NameTooLong => Errno::ENAMETOOLONG,
            Self::XattrName => Errno::ERANGE,
            Self::Unknown => Errno::ENOSYS,
            _ => Errno::EINVAL,
        }
    }
}

impl ParseError {
    /// The request's id and the error to send, unless the guest waits for no answer or there is no id.
    pub fn answer(&self) -> Option<(u64, Errno)> {
        match *self {
            Self::Refused {
                unique,
                opcode,
                refusal,
            } if Opcode::from_number(opcode).is_none_or(Opcode::is_answered) => {
                Some((unique, refusal.errno()))
            }
            _ => None,
        }
    }
}
