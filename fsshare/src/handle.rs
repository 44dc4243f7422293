//! What stands for an open file on this system: a descriptor, or on Windows a handle.

#[cfg(unix)]
pub(crate) use std::os::fd::{BorrowedFd as BorrowedHandle, OwnedFd as OwnedHandle};
#[cfg(windows)]
pub(crate) use std::os::windows::io::{BorrowedHandle, OwnedHandle};
