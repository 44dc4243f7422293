//! macOS (`bsd/sys/errno.h` of xnu): numbers up to 34 are those of Linux, but for one; the others are not.

use super::Errno;

/// The last number that both systems share.
const LAST_COMMON: u16 = 34; // ERANGE
/// `EDEADLK` of macOS, where Linux has `EAGAIN`.
const EDEADLK: u16 = 11;

/// What macOS calls so, and what Linux does; in order. What no file system says (of remote procedures and devices) is left out.
const TABLE: &[(u16, u16)] = &[
    (35, 11),   // EAGAIN
    (36, 115),  // EINPROGRESS
    (37, 114),  // EALREADY
    (38, 88),   // ENOTSOCK
    (39, 89),   // EDESTADDRREQ
    (40, 90),   // EMSGSIZE
    (41, 91),   // EPROTOTYPE
    (42, 92),   // ENOPROTOOPT
    (43, 93),   // EPROTONOSUPPORT
    (44, 94),   // ESOCKTNOSUPPORT
    (45, 95),   // ENOTSUP
    (46, 96),   // EPFNOSUPPORT
    (47, 97),   // EAFNOSUPPORT
    (48, 98),   // EADDRINUSE
    (49, 99),   // EADDRNOTAVAIL
    (50, 100),  // ENETDOWN
    (51, 101),  // ENETUNREACH
    (52, 102),  // ENETRESET
    (53, 103),  // ECONNABORTED
    (54, 104),  // ECONNRESET
    (55, 105),  // ENOBUFS
    (56, 106),  // EISCONN
    (57, 107),  // ENOTCONN
    (58, 108),  // ESHUTDOWN
    (59, 109),  // ETOOMANYREFS
    (60, 110),  // ETIMEDOUT
    (61, 111),  // ECONNREFUSED
    (62, 40),   // ELOOP
    (63, 36),   // ENAMETOOLONG
    (64, 112),  // EHOSTDOWN
    (65, 113),  // EHOSTUNREACH
    (66, 39),   // ENOTEMPTY
    (68, 87),   // EUSERS
    (69, 122),  // EDQUOT
    (70, 116),  // ESTALE
    (71, 66),   // EREMOTE
    (77, 37),   // ENOLCK
    (78, 38),   // ENOSYS
    (79, 22),   // EFTYPE as EINVAL
    (80, 13),   // EAUTH as EACCES
    (81, 13),   // ENEEDAUTH as EACCES
    (84, 75),   // EOVERFLOW
    (85, 8),    // EBADEXEC as ENOEXEC
    (86, 8),    // EBADARCH as ENOEXEC
    (87, 8),    // ESHLIBVERS as ENOEXEC
    (88, 8),    // EBADMACHO as ENOEXEC
    (89, 125),  // ECANCELED
    (90, 43),   // EIDRM
    (91, 42),   // ENOMSG
    (92, 84),   // EILSEQ
    (93, 61),   // ENOATTR as ENODATA
    (94, 74),   // EBADMSG
    (95, 72),   // EMULTIHOP
    (96, 61),   // ENODATA
    (97, 67),   // ENOLINK
    (98, 63),   // ENOSR
    (99, 60),   // ENOSTR
    (100, 71),  // EPROTO
    (101, 62),  // ETIME
    (102, 95),  // EOPNOTSUPP
    (103, 1),   // ENOPOLICY as EPERM
    (104, 131), // ENOTRECOVERABLE
    (105, 130), // EOWNERDEAD
    (107, 18),  // ENOTCAPABLE as EXDEV: the name leads out of its directory
];

/// The number that says the same on Linux, if there is one.
pub(super) fn to_linux(number: i32) -> Option<Errno> {
    let number = u16::try_from(number).ok()?;
    match number {
        EDEADLK => Some(Errno(35)),
        1..=LAST_COMMON => Some(Errno(number)),
        _ => {
            let found = TABLE.binary_search_by_key(&number, |row| row.0).ok()?;
            TABLE.get(found).map(|row| Errno(row.1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_says_nothing_outside_the_protocols_range() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for row in TABLE {
            assert!(row.0 > LAST_COMMON && (1..512).contains(&row.1), "{row:?}");
        }
    }

    #[test]
    fn what_the_numbers_of_macos_mean_is_said_with_those_of_linux() {
        for (macos, linux) in [
            (1, Some(Errno::EPERM)),
            (2, Some(Errno::ENOENT)),
            (11, Some(Errno(35))),
            (13, Some(Errno::EACCES)),
            (17, Some(Errno::EEXIST)),
            (28, Some(Errno::ENOSPC)),
            (30, Some(Errno::EROFS)),
            (34, Some(Errno::ERANGE)),
            (35, Some(Errno::EAGAIN)),
            (45, Some(Errno::EOPNOTSUPP)),
            (62, Some(Errno::ELOOP)),
            (63, Some(Errno::ENAMETOOLONG)),
            (66, Some(Errno::ENOTEMPTY)),
            (69, Some(Errno::EDQUOT)),
            (70, Some(Errno::ESTALE)),
            (78, Some(Errno::ENOSYS)),
            (93, Some(Errno::ENODATA)),
            (102, Some(Errno::EOPNOTSUPP)),
            (107, Some(Errno::EXDEV)),
            (0, None),
            (-1, None),
            (67, None),
            (106, None),
            (108, None),
            (65_538, None),
        ] {
            assert_eq!(to_linux(macos), linux, "{macos}");
        }
    }
}
