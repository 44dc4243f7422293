//! The audit log: every decision about the guest's network, one line of JSON each, every line bound to the one before it.
//!
//! A line is printable ASCII and nothing else: whatever the guest wrote is cut to a bound and escaped as JSON does it. Its first key, `prev`, is
//! the SHA-256 of the line before it, without its line break; the first line of all has zeros there, and the first line of a file that follows
//! a rotated one continues that one. So a line that is changed, removed, added or moved is found by [`verify`], except at the end: who cuts off
//! or changes the last lines can be found only by who knows what the last one was ([`Verified::head`]).
//!
//! Nothing here opens a file. [`Log`] writes to a [`Store`], which says what a file and its rotation are. What cannot be written is counted, and
//! the count is the next record that can be.
//!
//! What a line can have, in this order (what is not known is absent):
//!
//! | key | what |
//! |---|---|
//! | `prev` | SHA-256 of the line before, in hexadecimal |
//! | `time` | when it happened: RFC 3339, UTC, milliseconds |
//! | `sandbox` | whose network it is, as the host's program calls it |
//! | `event` | `opened`, `ended`: a connection; `request`: one of plain HTTP; `denied`; `lost`: records that are missing here |
//! | `flow` | the connection's number in this sandbox, from 1 |
//! | `host`, `port` | whom the guest meant; without a port, the name was only asked for |
//! | `scheme` | `https`, `http` or `tcp`, once it is known |
//! | `address` | address and port that were dialled |
//! | `method`, `path` | of a request; in the path's query the values are left out |
//! | `verdict` | `allow`, `audit` (let through only because the mode is audit) or `deny` |
//! | `reason` | why it was denied, or would have been |
//! | `rule`, `from` | the rule that decided, as a line of TOML, and where it is written |
//! | `sent`, `received` | bytes that were carried from and to the guest |
//! | `ms` | how long the connection lasted, in milliseconds |
//! | `records` | how many were lost |

mod chain;
mod log;
mod read;
mod record;

pub use chain::{BrokenChain, Digest, Fault, Lines, Verified, is_record, verify};
pub use log::{Log, Store};
pub use read::Entry;
pub use record::{Event, LONGEST_PATH, LONGEST_TEXT, MAX_LINE, Record, Verdict};

#[cfg(test)]
mod tests;
