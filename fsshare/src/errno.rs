//! Error numbers as the guest knows them.
//!
//! A FUSE reply carries a negated *Linux* error number whatever the host is, so every host error passes through
//! one table on its way out. On Linux the table is the identity; those of other systems are here on every system, for their tests.

#[cfg(any(target_os = "macos", test))]
mod macos;
#[cfg(any(windows, test))]
mod windows;

use std::{fmt, io};

/// A Linux error number, always in `1..512` (the range a FUSE client accepts).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

/// First number that Linux keeps for itself (`ERESTARTSYS` and its kind); a FUSE client rejects it.
#[cfg(target_os = "linux")]
const FIRST_INTERNAL: i32 = 512;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// All that have a name, with the host's number of that name.
            #[cfg(all(test, target_os = "linux"))]
            const NAMED: &[(Self, i32)] = &[$((Self::$name, libc::$name)),*];

            fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1;
    /// No such file or directory.
    ENOENT = 2;
    /// Input/output error.
    EIO = 5;
    /// No such position.
    ENXIO = 6;
    /// Argument list or value too long.
    E2BIG = 7;
    /// Bad file descriptor: a file handle that is not open, or open for something else.
    EBADF = 9;
    /// Try again: a lock is held by someone else.
    EAGAIN = 11;
    /// Out of memory.
    ENOMEM = 12;
    /// Permission denied.
    EACCES = 13;
    /// In use, and so not to be changed.
    EBUSY = 16;
    /// File exists.
    EEXIST = 17;
    /// The name leads to another mount.
    EXDEV = 18;
    /// No such device.
    ENODEV = 19;
    /// Not a directory.
    ENOTDIR = 20;
    /// Is a directory.
    EISDIR = 21;
    /// Invalid argument.
    EINVAL = 22;
    /// The server holds as many files as it may.
    ENFILE = 23;
    /// The process holds as many descriptors as it may.
    EMFILE = 24;
    /// Inappropriate ioctl.
    ENOTTY = 25;
    /// File too large.
    EFBIG = 27;
    /// No space left.
    ENOSPC = 28;
    /// Read-only file system.
    EROFS = 30;
    /// Too many links.
    EMLINK = 31;
    /// Result does not fit.
    ERANGE = 34;
    /// Name too long.
    ENAMETOOLONG = 36;
    /// Function not implemented.
    ENOSYS = 38;
    /// Directory not empty.
    ENOTEMPTY = 39;
    /// A symbolic link where none may be followed.
    ELOOP = 40;
    /// No such extended attribute.
    ENODATA = 61;
    /// Protocol error: the client speaks a version that is too old.
    EPROTO = 71;
    /// Operation not supported here.
    EOPNOTSUPP = 95;
    /// It took too long.
    ETIMEDOUT = 110;
    /// The node is not known (any more).
    ESTALE = 116;
    /// The guest has added as much as it may.
    EDQUOT = 122;
    /// Given up on the host.
    ECANCELED = 125;
}

impl Errno {
    /// The number, in `1..512`.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The value of the `error` field of a FUSE reply.
    pub fn reply_code(self) -> i32 {
        -i32::from(self.0)
    }

    /// Translates the error number of a host call. What the guest could not understand becomes `EIO`.
    #[cfg(target_os = "macos")]
    pub fn from_host(number: i32) -> Self {
        macos::to_linux(number).unwrap_or(Self::EIO)
    }

    /// Translates the error number of a host call (Win32). What the guest could not understand becomes `EIO`.
    #[cfg(windows)]
    pub fn from_host(number: i32) -> Self {
        windows::of_error(number).unwrap_or(Self::EIO)
    }

    /// Translates the status of a call of the Windows kernel.
    #[cfg(windows)]
    pub(crate) fn from_status(status: i32) -> Self {
        windows::of_status(status).unwrap_or(Self::EIO)
    }

    /// Translates the error number of a host call. What the guest could not understand becomes `EIO`.
    #[cfg(target_os = "linux")]
    pub fn from_host(number: i32) -> Self {
        match u16::try_from(number) {
            Ok(known) if known > 0 && number < FIRST_INTERNAL => Self(known),
            _ => Self::EIO,
        }
    }
}

#[cfg(unix)]
impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Self::from_host(error.raw_os_error())
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_host)
    }
}

impl From<Errno> for io::Error {
    #[cfg(target_os = "linux")]
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.number().into())
    }

    /// The number would mean something else here.
    #[cfg(not(target_os = "linux"))]
    fn from(errno: Errno) -> Self {
        Self::other(errno.to_string())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_linux_table_is_the_identity_within_the_range_of_the_protocol() {
        for number in 1..FIRST_INTERNAL {
            assert_eq!(i32::from(Errno::from_host(number).number()), number);
        }
    }

    #[test]
    fn numbers_outside_the_range_become_an_input_output_error() {
        for number in [i32::MIN, -1, 0, FIRST_INTERNAL, 4095, 65_536 + 2, i32::MAX] {
            assert_eq!(Errno::from_host(number), Errno::EIO, "{number}");
        }
    }

    #[test]
    fn our_names_agree_with_the_hosts_headers() {
        for &(ours, host) in Errno::NAMED {
            assert_eq!(i32::from(ours.number()), host, "{ours}");
            assert_eq!(ours.reply_code(), -host);
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        assert!(Errno::NAMED.is_sorted_by_key(|(ours, _)| ours.number()));
    }

    #[test]
    fn an_unnamed_number_is_still_printed() {
        assert_eq!(Errno::from_host(libc::EROFS).to_string(), "EROFS");
        assert_eq!(Errno::from_host(libc::EUSERS).to_string(), "Errno(87)");
    }
}
