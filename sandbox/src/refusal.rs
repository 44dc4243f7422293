//! What the guest was kept from in the shares.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why the guest was kept from a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RefusalReason {
    /// Its name is hidden: the guest asked for it and was told that there is none.
    Hidden,
    /// Its name is protected: the guest tried to change it, or what is in it.
    Protected,
    /// It had several names when the guest first saw it, so it may be a file outside the share, too: the guest tried to change what
    /// is in it.
    HardLink,
}

/// A file in a share that the guest was kept from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    pub reason: RefusalReason,
    /// The path below the share's root, safe to print; of a long one the last 300 characters.
    pub path: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            RefusalReason::Hidden => "hidden",
            RefusalReason::Protected => "protected",
            RefusalReason::HardLink => "a file of several names",
        };
        write!(f, "{} ({reason})", self.path)
    }
}
