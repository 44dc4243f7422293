//! The host calls that rustix does not offer as safe functions: record locks that belong to an open file (`F_OFD_*`), and further queues
//! of a FUSE mount.
//!
//! The usual record locks belong to the process, so two guests' programs would never be in each other's way, and
//! closing any descriptor of the file would drop all of them.

#![expect(
    unsafe_code,
    reason = "fcntl with a pointer argument has no safe form in rustix or std"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes a fresh `/dev/fuse` another queue of the mount whose device is `first` (`FUSE_DEV_IOC_CLONE` of `linux/fuse.h`).
#[cfg(all(target_os = "linux", feature = "fuse-mount"))]
pub(crate) fn join_fuse(device: &std::os::fd::OwnedFd, first: BorrowedFd<'_>) -> io::Result<()> {
    const CLONE: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(229, 0);
    let first = u32::try_from(first.as_raw_fd()).unwrap_or(u32::MAX);
    // SAFETY: the kernel reads one `u32` through the pointer that `Setter` gives it, which points to a live one; both descriptors
    // are borrowed for the call.
    unsafe { rustix::ioctl::ioctl(device, rustix::ioctl::Setter::<CLONE, u32>::new(first)) }?;
    Ok(())
}

/// Makes the kernel of a FUSE mount take hold of a file that is open here (`FUSE_DEV_IOC_BACKING_OPEN`); gives its number there.
#[cfg(all(target_os = "linux", feature = "fuse-mount"))]
pub(crate) fn open_backing(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<i32> {
    const OPEN: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<BackingMap>(229, 1);
    let map = BackingMap {
        descriptor: file.as_raw_fd(),
        flags: 0,
        padding: 0,
    };
    let pointer: *const BackingMap = &raw const map;
    // SAFETY: the kernel reads one `fuse_backing_map` through the pointer, which points to a live one of the same layout; both
    // descriptors are borrowed for the call.
    let id = unsafe { libc::ioctl(device.as_raw_fd(), OPEN.into(), pointer) };
    if id < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(id)
    }
}

/// `struct fuse_backing_map` of `linux/fuse.h`.
#[cfg(all(target_os = "linux", feature = "fuse-mount"))]
#[repr(C)]
struct BackingMap {
    descriptor: i32,
    flags: u32,
    padding: u64,
}

/// Makes it let go of that file (`FUSE_DEV_IOC_BACKING_CLOSE`).
#[cfg(all(target_os = "linux", feature = "fuse-mount"))]
pub(crate) fn close_backing(device: BorrowedFd<'_>, id: i32) -> io::Result<()> {
    const CLOSE: rustix::ioctl::Opcode = rustix::ioctl::opcode::write::<u32>(229, 2);
    let id = u32::try_from(id).unwrap_or(0);
    // SAFETY: the kernel reads one `u32` through the pointer that `Setter` gives it, which points to a live one; the descriptor
    // is borrowed for the call.
    unsafe { rustix::ioctl::ioctl(device, rustix::ioctl::Setter::<CLOSE, u32>::new(id)) }?;
    Ok(())
}

/// A group of watches that tells of changes, and who made them (`fanotify_init`). Everyone may have one since Linux 5.13.
#[cfg(target_os = "linux")]
pub(crate) fn new_watch() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd as _;
    let flags =
        libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_FID;
    // SAFETY: the call takes two numbers.
    let group =
        unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned()) };
    if group < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made the descriptor, so nobody else owns it.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(group) })
}

/// Adds a directory with its entries to a group of watches. The kernel may forget it with the directory.
#[cfg(target_os = "linux")]
pub(crate) fn watch_directory(
    group: &std::os::fd::OwnedFd,
    directory: &impl std::os::fd::AsFd,
) -> io::Result<()> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR | libc::FAN_MARK_EVICTABLE;
    let changes = libc::FAN_MODIFY
        | libc::FAN_ATTRIB
        | libc::FAN_CREATE
        | libc::FAN_DELETE
        | libc::FAN_MOVED_FROM
        | libc::FAN_MOVED_TO
        | libc::FAN_EVENT_ON_CHILD
        | libc::FAN_ONDIR;
    let directory = directory.as_fd().as_raw_fd();
    // SAFETY: the kernel reads the text, which ends with NUL and lives for ever; both descriptors are borrowed for the call.
    let added =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, changes, directory, c".".as_ptr()) };
    if added < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Whether one of these events (`struct fanotify_event_metadata`, with more behind each) was not this process's doing, or some were lost.
#[cfg(target_os = "linux")]
pub(crate) fn is_of_others(mut events: &[u8]) -> bool {
    let own = std::process::id();
    let number = |event: &[u8], at: usize| {
        let bytes = event.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map(|bytes| u32::from_ne_bytes(*bytes))
    };
    while let (Some(len), Some(process)) = (number(events, 0), number(events, 20)) {
        if process != own {
            return true;
        }
        events = events.get(len.max(24) as usize..).unwrap_or_default();
    }
    false
}

/// Kind of a lock. The constants have another type on each system.
pub(crate) type LockKind = libc::c_int;

/// Kind of a lock that several may hold.
pub(crate) const SHARED: LockKind = libc::F_RDLCK as LockKind;
/// Kind of a lock that one may hold.
pub(crate) const EXCLUSIVE: LockKind = libc::F_WRLCK as LockKind;
/// No lock.
pub(crate) const NONE: LockKind = libc::F_UNLCK as LockKind;

/// Last byte of a lock that goes to the end of the file, wherever it is.
const TO_THE_END: u64 = i64::MAX.cast_unsigned();

/// A record lock over the bytes `start..=end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordLock {
    pub(crate) kind: LockKind,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

/// Takes or gives up a lock, without waiting. The error is the host's error number.
pub(crate) fn set_record_lock(file: BorrowedFd<'_>, lock: RecordLock) -> Result<(), i32> {
    control(file, libc::F_OFD_SETLK, &mut to_host(lock)?)
}

/// The lock that keeps `lock` from being taken, if there is one. The error is the host's error number.
pub(crate) fn record_lock_in_the_way(
    file: BorrowedFd<'_>,
    lock: RecordLock,
) -> Result<Option<RecordLock>, i32> {
    let mut host = to_host(lock)?;
    control(file, libc::F_OFD_GETLK, &mut host)?;
    Ok(if LockKind::from(host.l_type) == NONE {
        None
    } else {
        Some(from_host(&host))
    })
}

fn control(file: BorrowedFd<'_>, command: libc::c_int, lock: &mut libc::flock) -> Result<(), i32> {
    let pointer: *mut libc::flock = lock;
    // SAFETY: `pointer` comes from an exclusive reference to an initialised `flock`, which is what both commands that get
    // here (F_OFD_SETLK, F_OFD_GETLK) read and write, and only during the call; the descriptor is borrowed for as long.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, pointer) };
    if result == -1 {
        Err(io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO))
    } else {
        Ok(())
    }
}

fn to_host(lock: RecordLock) -> Result<libc::flock, i32> {
    let invalid = libc::EINVAL;
    if lock.start > lock.end || lock.end > TO_THE_END {
        return Err(invalid);
    }
    let len = if lock.end == TO_THE_END {
        0
    } else {
        lock.end - lock.start + 1
    };
    Ok(libc::flock {
        l_type: lock.kind.try_into().map_err(|_| invalid)?,
        l_whence: 0, // SEEK_SET
        l_start: lock.start.cast_signed(),
        l_len: len.cast_signed(),
        l_pid: 0, // must be 0 for locks of an open file
    })
}

fn from_host(lock: &libc::flock) -> RecordLock {
    let start = lock.l_start.cast_unsigned();
    let end = match lock.l_len {
        0 => TO_THE_END,
        len => start.saturating_add(len.cast_unsigned()).saturating_sub(1),
    };
    RecordLock {
        kind: lock.l_type.into(),
        start,
        end,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    const CASES: [(u64, u64); 5] = [
        (0, 0),
        (0, TO_THE_END),
        (5, 9),
        (TO_THE_END, TO_THE_END),
        (TO_THE_END - 1, TO_THE_END - 1),
    ];

    #[test]
    fn ranges_survive_the_way_to_the_host_and_back() {
        for (start, end) in CASES {
            let lock = RecordLock {
                kind: EXCLUSIVE,
                start,
                end,
            };
            assert_eq!(from_host(&to_host(lock).unwrap()), lock);
        }
    }

    #[test]
    fn ranges_that_no_file_has_are_refused() {
        for (start, end) in [
            (1, 0),
            (0, TO_THE_END + 1),
            (u64::MAX, u64::MAX),
            (0, u64::MAX),
        ] {
            assert_eq!(
                to_host(RecordLock {
                    kind: SHARED,
                    start,
                    end
                })
                .err(),
                Some(libc::EINVAL),
                "{start} {end}"
            );
        }
    }

    #[test]
    fn two_open_files_of_one_process_exclude_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (file.reopen().unwrap(), file.reopen().unwrap());
        let lock = RecordLock {
            kind: EXCLUSIVE,
            start: 10,
            end: 19,
        };
        set_record_lock(a.as_fd(), lock).unwrap();
        assert_eq!(set_record_lock(b.as_fd(), lock), Err(libc::EAGAIN));
        assert_eq!(record_lock_in_the_way(b.as_fd(), lock), Ok(Some(lock)));
        set_record_lock(a.as_fd(), RecordLock { kind: NONE, ..lock }).unwrap();
        assert_eq!(record_lock_in_the_way(b.as_fd(), lock), Ok(None));
        set_record_lock(b.as_fd(), lock).unwrap();
    }
}
