//! What a line says, to who reads it.

use serde::Deserialize;

use super::record::Verdict;
use crate::policy::Scheme;

/// A line, read. Its texts are the guest's, or whoever's who wrote the file: anything may be in them. Keys that are not of interest here, and those
/// of later versions, are passed over.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// When it happened (RFC 3339).
    pub time: String,
    /// Whose network it is.
    pub sandbox: String,
    /// What happened.
    pub event: String,
    /// Whom the guest meant.
    pub host: Option<String>,
    /// The port it meant.
    pub port: Option<u16>,
    /// What was spoken.
    pub scheme: Option<Scheme>,
    /// A request's method.
    pub method: Option<String>,
    /// A request's path, without the values of its query.
    pub path: Option<String>,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Why it was denied, or would have been.
    pub reason: Option<String>,
    /// How many records were lost.
    pub records: Option<u64>,
}

impl Entry {
    /// What `line` says, if it is a record.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }
}
