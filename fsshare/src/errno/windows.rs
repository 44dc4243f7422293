//! Windows, which has two sets of numbers: NTSTATUS of its kernel, and Win32 of the calls above ([MS-ERREF] 2.3 and 2.2).

use super::Errno;

/// NTSTATUS and what Linux says, in order.
const STATUSES: &[(u32, Errno)] = &[
    (0x0000_0108, Errno::EAGAIN),       // OPLOCK_BREAK_IN_PROGRESS
    (0x8000_0005, Errno::ERANGE),       // BUFFER_OVERFLOW
    (0x8000_0006, Errno::ENOENT),       // NO_MORE_FILES
    (0x8000_002D, Errno::ELOOP),        // STOPPED_ON_SYMLINK
    (0xC000_0002, Errno::ENOSYS),       // NOT_IMPLEMENTED
    (0xC000_0003, Errno::EOPNOTSUPP),   // INVALID_INFO_CLASS
    (0xC000_0008, Errno::EBADF),        // INVALID_HANDLE
    (0xC000_000D, Errno::EINVAL),       // INVALID_PARAMETER
    (0xC000_000E, Errno::ENODEV),       // NO_SUCH_DEVICE
    (0xC000_000F, Errno::ENOENT),       // NO_SUCH_FILE
    (0xC000_0010, Errno::EOPNOTSUPP),   // INVALID_DEVICE_REQUEST
    (0xC000_0017, Errno::ENOMEM),       // NO_MEMORY
    (0xC000_0022, Errno::EACCES),       // ACCESS_DENIED
    (0xC000_0023, Errno::ERANGE),       // BUFFER_TOO_SMALL
    (0xC000_0024, Errno::ENOTDIR),      // OBJECT_TYPE_MISMATCH
    (0xC000_0033, Errno::EINVAL),       // OBJECT_NAME_INVALID
    (0xC000_0034, Errno::ENOENT),       // OBJECT_NAME_NOT_FOUND
    (0xC000_0035, Errno::EEXIST),       // OBJECT_NAME_COLLISION
    (0xC000_0039, Errno::ENOTDIR),      // OBJECT_PATH_INVALID
    (0xC000_003A, Errno::ENOENT),       // OBJECT_PATH_NOT_FOUND
    (0xC000_003B, Errno::EINVAL),       // OBJECT_PATH_SYNTAX_BAD
    (0xC000_0043, Errno::EBUSY),        // SHARING_VIOLATION
    (0xC000_0044, Errno::EDQUOT),       // QUOTA_EXCEEDED
    (0xC000_0054, Errno::EAGAIN),       // FILE_LOCK_CONFLICT
    (0xC000_0055, Errno::EAGAIN),       // LOCK_NOT_GRANTED
    (0xC000_0056, Errno::ENOENT),       // DELETE_PENDING
    (0xC000_0061, Errno::EPERM),        // PRIVILEGE_NOT_HELD
    (0xC000_007F, Errno::ENOSPC),       // DISK_FULL
    (0xC000_009A, Errno::ENOMEM),       // INSUFFICIENT_RESOURCES
    (0xC000_00A2, Errno::EROFS),        // MEDIA_WRITE_PROTECTED
    (0xC000_00B5, Errno::ETIMEDOUT),    // IO_TIMEOUT
    (0xC000_00BA, Errno::EISDIR),       // FILE_IS_A_DIRECTORY
    (0xC000_00BB, Errno::EOPNOTSUPP),   // NOT_SUPPORTED
    (0xC000_00D4, Errno::EXDEV),        // NOT_SAME_DEVICE
    (0xC000_0101, Errno::ENOTEMPTY),    // DIRECTORY_NOT_EMPTY
    (0xC000_0103, Errno::ENOTDIR),      // NOT_A_DIRECTORY
    (0xC000_0106, Errno::ENAMETOOLONG), // NAME_TOO_LONG
    (0xC000_011F, Errno::EMFILE),       // TOO_MANY_OPENED_FILES
    (0xC000_0120, Errno::ECANCELED),    // CANCELLED
    (0xC000_0121, Errno::EPERM),        // CANNOT_DELETE
    (0xC000_0123, Errno::ESTALE),       // FILE_DELETED
    (0xC000_012D, Errno::ENOMEM),       // COMMITMENT_LIMIT
    (0xC000_0243, Errno::EBUSY),        // USER_MAPPED_FILE
    (0xC000_0265, Errno::EMLINK),       // TOO_MANY_LINKS
    (0xC000_0275, Errno::EINVAL),       // NOT_A_REPARSE_POINT
    (0xC000_0279, Errno::ELOOP),        // IO_REPARSE_TAG_NOT_HANDLED
    (0xC000_0281, Errno::ELOOP),        // DIRECTORY_IS_A_REPARSE_POINT
    (0xC000_050B, Errno::ELOOP),        // REPARSE_POINT_ENCOUNTERED
    (0xC000_0802, Errno::EDQUOT),       // DISK_QUOTA_EXCEEDED
    (0xC000_0904, Errno::EFBIG),        // FILE_TOO_LARGE
];

/// Win32 and what Linux says, in order.
const ERRORS: &[(u32, Errno)] = &[
    (1, Errno::EOPNOTSUPP),     // INVALID_FUNCTION
    (2, Errno::ENOENT),         // FILE_NOT_FOUND
    (3, Errno::ENOENT),         // PATH_NOT_FOUND
    (4, Errno::EMFILE),         // TOO_MANY_OPEN_FILES
    (5, Errno::EACCES),         // ACCESS_DENIED
    (6, Errno::EBADF),          // INVALID_HANDLE
    (8, Errno::ENOMEM),         // NOT_ENOUGH_MEMORY
    (14, Errno::ENOMEM),        // OUTOFMEMORY
    (17, Errno::EXDEV),         // NOT_SAME_DEVICE
    (18, Errno::ENOENT),        // NO_MORE_FILES
    (19, Errno::EROFS),         // WRITE_PROTECT
    (32, Errno::EBUSY),         // SHARING_VIOLATION
    (33, Errno::EAGAIN),        // LOCK_VIOLATION
    (39, Errno::ENOSPC),        // HANDLE_DISK_FULL
    (50, Errno::EOPNOTSUPP),    // NOT_SUPPORTED
    (80, Errno::EEXIST),        // FILE_EXISTS
    (87, Errno::EINVAL),        // INVALID_PARAMETER
    (112, Errno::ENOSPC),       // DISK_FULL
    (122, Errno::ERANGE),       // INSUFFICIENT_BUFFER
    (123, Errno::EINVAL),       // INVALID_NAME
    (131, Errno::EINVAL),       // NEGATIVE_SEEK
    (145, Errno::ENOTEMPTY),    // DIR_NOT_EMPTY
    (183, Errno::EEXIST),       // ALREADY_EXISTS
    (206, Errno::ENAMETOOLONG), // FILENAME_EXCED_RANGE
    (223, Errno::EFBIG),        // FILE_TOO_LARGE
    (234, Errno::ERANGE),       // MORE_DATA
    (267, Errno::ENOTDIR),      // DIRECTORY
    (303, Errno::ENOENT),       // DELETE_PENDING
    (1_142, Errno::EMLINK),     // TOO_MANY_LINKS
    (1_224, Errno::EBUSY),      // USER_MAPPED_FILE
    (1_295, Errno::EDQUOT),     // DISK_QUOTA_EXCEEDED
    (1_314, Errno::EPERM),      // PRIVILEGE_NOT_HELD
    (1_450, Errno::ENOMEM),     // NO_SYSTEM_RESOURCES
    (1_455, Errno::ENOMEM),     // COMMITMENT_LIMIT
    (1_460, Errno::ETIMEDOUT),  // TIMEOUT
    (1_816, Errno::ENOMEM),     // NOT_ENOUGH_QUOTA
    (4_390, Errno::EINVAL),     // NOT_A_REPARSE_POINT
];

fn find(table: &[(u32, Errno)], number: u32) -> Option<Errno> {
    let found = table.binary_search_by_key(&number, |row| row.0).ok()?;
    table.get(found).map(|row| row.1)
}

/// What a status of the kernel means.
pub(super) fn of_status(status: i32) -> Option<Errno> {
    find(STATUSES, status.cast_unsigned())
}

/// What an error of a Win32 call means.
pub(super) fn of_error(error: i32) -> Option<Errno> {
    find(ERRORS, error.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_in_order() {
        for table in [STATUSES, ERRORS] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    #[test]
    fn what_both_sets_say_means_the_same() {
        for (status, error, errno) in [
            (0xC000_0022_u32, 5, Errno::EACCES),
            (0xC000_0034, 2, Errno::ENOENT),
            (0xC000_003A, 3, Errno::ENOENT),
            (0xC000_0035, 183, Errno::EEXIST),
            (0xC000_0043, 32, Errno::EBUSY),
            (0xC000_007F, 112, Errno::ENOSPC),
            (0xC000_00A2, 19, Errno::EROFS),
            (0xC000_0101, 145, Errno::ENOTEMPTY),
            (0xC000_0103, 267, Errno::ENOTDIR),
            (0xC000_00D4, 17, Errno::EXDEV),
            (0xC000_0061, 1314, Errno::EPERM),
            (0xC000_0265, 1142, Errno::EMLINK),
        ] {
            assert_eq!(of_status(status.cast_signed()), Some(errno), "{status:x}");
            assert_eq!(of_error(error), Some(errno), "{error}");
        }
    }

    #[test]
    fn what_means_nothing_to_a_guest_is_not_in_the_tables() {
        for number in [0, -1, 259, i32::MIN, i32::MAX] {
            assert_eq!(of_status(number).or(of_error(number)), None, "{number}");
        }
    }
}
