//! Host names in their one canonical form.
//!
//! Policy, DNS, dialling, SNI, `Host` and the audit compare names by this form only, so that no two of them can read the same bytes as
//! different names.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use idna::AsciiDenyList;

/// RFC 1035, section 2.3.4: 255 octets on the wire are 253 characters without the trailing dot.
pub const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// A host's name in canonical form: ASCII, lower case, international labels as UTS 46 encodes them (`xn--`), no trailing dot, not
/// an address in any spelling.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

/// Why a text is no host name. The texts do not repeat what was given: it may be the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is nothing, or nothing but a dot.
    #[error("the name is empty")]
    Empty,
    /// The name or one of its labels is longer than DNS can carry.
    #[error("the name is longer than 253 characters, or a label of it longer than 63")]
    TooLong,
    /// Two dots follow each other, or the name begins with one.
    #[error("the name has an empty label")]
    EmptyLabel,
    /// A character that is in no host name, or an international label that UTS 46 does not accept.
    #[error("the name has a character or a label that host names cannot have")]
    Character,
    /// The last label is a number: programs disagree about which address such a name is (`0x7f.1`, `127.1`).
    #[error("the name ends in a number, as addresses do")]
    Address,
}

impl HostName {
    /// The canonical form of `text`, which may be in any case, international, and end in one dot.
    ///
    /// # Errors
    ///
    /// Says why `text` is no host name. Addresses in any spelling are none.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // Before anything else looks at it: what is longer in any form cannot become a name.
        if text.len() > LONGEST_NAME * 4 {
            return Err(NameError::TooLong);
        }
        let ascii = idna::domain_to_ascii_cow(text.as_bytes(), AsciiDenyList::URL)
            .map_err(|_| NameError::Character)?;
        // After the mapping: it makes dots of other full stops.
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > LONGEST_NAME {
            return Err(NameError::TooLong);
        }
        for label in name.split('.') {
            check_label(label)?;
        }
        if name.rsplit('.').next().is_some_and(is_number) {
            return Err(NameError::Address);
        }
        Ok(Self(name.into()))
    }

    /// The name, in canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Letters, digits, hyphens within, and underscores, which names of services and of some hosts have.
fn check_label(label: &str) -> Result<(), NameError> {
    if label.is_empty() {
        return Err(NameError::EmptyLabel);
    }
    if label.len() > LONGEST_LABEL {
        return Err(NameError::TooLong);
    }
    let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if !label.bytes().all(is_known) || label.starts_with('-') || label.ends_with('-') {
        return Err(NameError::Character);
    }
    Ok(())
}

/// Whether some parser of addresses takes this last label for a number (WHATWG URL, "ends in a number").
fn is_number(label: &str) -> bool {
    let digits = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
