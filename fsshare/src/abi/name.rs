//! Names: the only text in a request that reaches the host's file system.

use std::ffi::CStr;

use super::fault::Refusal;

/// Longest name of a directory entry or an extended attribute, bytes (`NAME_MAX`, `XATTR_NAME_MAX`).
const LONGEST_NAME: usize = 255;
/// Longest target of a symbolic link, bytes (`PATH_MAX` without the terminator).
const LONGEST_TARGET: usize = 4095;

/// One directory entry's name: 1 to 255 bytes, no `/`, neither `.` nor `..`.
///
/// There is no other way to make one, so a host call that takes a `Name` cannot be told to leave its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a CStr);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Refusal::NameTooLong`] beyond 255 bytes, else [`Refusal::BadName`].
    pub fn new(text: &'a CStr) -> Result<Self, Refusal> {
        let bytes = text.to_bytes();
        if bytes.len() > LONGEST_NAME {
            return Err(Refusal::NameTooLong);
        }
        match bytes {
            b"" | b"." | b".." => Err(Refusal::BadName),
            _ if bytes.contains(&b'/') => Err(Refusal::BadName),
            _ => Ok(Self(text)),
        }
    }

    /// The name for a host call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

/// What a symbolic link says: 1 to 4095 bytes of anything. The server stores it and never follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a>(&'a CStr);

impl<'a> Target<'a> {
    /// Checks a target.
    ///
    /// # Errors
    /// [`Refusal::NameTooLong`] beyond 4095 bytes, [`Refusal::BadName`] if it is empty.
    pub fn new(text: &'a CStr) -> Result<Self, Refusal> {
        match text.to_bytes().len() {
            0 => Err(Refusal::BadName),
            1..=LONGEST_TARGET => Ok(Self(text)),
            _ => Err(Refusal::NameTooLong),
        }
    }

    /// The target for a host call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}

/// An extended attribute's name: 1 to 255 bytes, the name space included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XattrName<'a>(&'a CStr);

impl<'a> XattrName<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// [`Refusal::XattrName`] if it is empty or longer than 255 bytes.
    pub fn new(text: &'a CStr) -> Result<Self, Refusal> {
        match text.to_bytes().len() {
            1..=LONGEST_NAME => Ok(Self(text)),
            _ => Err(Refusal::XattrName),
        }
    }

    /// The name for a host call.
    pub fn as_c_str(self) -> &'a CStr {
        self.0
    }
}
