//! The calls of the Windows kernel that take a directory's handle. They are as old as NTFS, and no library above offers them.
//!
//! What they read and write is kept in words of 64 bits, because the kernel refuses answers that are not aligned.

#![expect(
    unsafe_code,
    reason = "opening relative to a handle has no safe form in std or windows-sys"
)]

use std::ffi::c_void;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr;

use windows_sys::Wdk::Foundation::OBJECT_ATTRIBUTES;
use windows_sys::Wdk::Storage::FileSystem as nt;
use windows_sys::Win32::Foundation::{
    HANDLE, NTSTATUS, OBJ_CASE_INSENSITIVE, STATUS_BUFFER_OVERFLOW, STATUS_NAME_TOO_LONG,
    STATUS_OPLOCK_BREAK_IN_PROGRESS, UNICODE_STRING,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE, SYNCHRONIZE,
};
use windows_sys::Win32::System::IO::IO_STATUS_BLOCK;
use zerocopy::IntoBytes as _;

use crate::errno::Errno;

/// What the kernel said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(super) NTSTATUS);

impl From<Status> for Errno {
    fn from(status: Status) -> Self {
        Self::from_status(status.0)
    }
}

impl From<Status> for std::io::Error {
    fn from(status: Status) -> Self {
        Self::other(format!("NTSTATUS 0x{:08X}", status.0))
    }
}

/// How to open.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    /// `FILE_*` rights; that to wait is added.
    pub(super) access: u32,
    /// `FILE_OPEN` or `FILE_CREATE`.
    pub(super) disposition: u32,
    /// `FILE_*` options. Those that keep from following, and that make calls wait for their end, are added.
    pub(super) options: u32,
    /// `FILE_ATTRIBUTE_*` of a new file.
    pub(super) attributes: u32,
}

/// Others may do with the file what they like: nobody on the host is to notice that it is shared.
const SHARE: u32 = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
/// A reparse point is opened itself, every call ends before it returns, and none waits for whoever holds an opportunistic lock.
const ALWAYS: u32 =
    nt::FILE_OPEN_REPARSE_POINT | nt::FILE_SYNCHRONOUS_IO_NONALERT | nt::FILE_COMPLETE_IF_OPLOCKED;

fn check(status: NTSTATUS) -> Result<(), Status> {
    if status >= 0 {
        Ok(())
    } else {
        Err(Status(status))
    }
}

/// A name for the kernel, which copies it during the call.
fn string(name: &[u16]) -> Result<UNICODE_STRING, Status> {
    let len = u16::try_from(size_of_val(name)).map_err(|_| Status(STATUS_NAME_TOO_LONG))?;
    Ok(UNICODE_STRING {
        Length: len,
        MaximumLength: len,
        Buffer: name.as_ptr().cast_mut(),
    })
}

fn len_of(buffer: &[u64]) -> u32 {
    u32::try_from(size_of_val(buffer)).unwrap_or(u32::MAX)
}

/// Opens `name` in the directory `parent`, or what `parent` is itself if the name is empty. Whoever calls this has checked that the
/// name is one component.
pub(super) fn open(
    parent: BorrowedHandle<'_>,
    name: &[u16],
    how: How,
) -> Result<OwnedHandle, Status> {
    let name = string(name)?;
    let object = OBJECT_ATTRIBUTES {
        Length: u32::try_from(size_of::<OBJECT_ATTRIBUTES>()).unwrap_or(0),
        RootDirectory: parent.as_raw_handle(),
        ObjectName: &raw const name,
        Attributes: OBJ_CASE_INSENSITIVE,
        SecurityDescriptor: ptr::null(),
        SecurityQualityOfService: ptr::null(),
    };
    let (mut handle, mut block) = (HANDLE::default(), IO_STATUS_BLOCK::default());
    // SAFETY: all pointers are to live values of the types that the call takes, or null where it takes none; `name` and what it points to
    // (read only, whatever its type says) outlive the call, and `parent` is borrowed for as long.
    let status = unsafe {
        nt::NtCreateFile(
            &raw mut handle,
            how.access | SYNCHRONIZE,
            &raw const object,
            &raw mut block,
            ptr::null(),
            how.attributes,
            SHARE,
            how.disposition,
            how.options | ALWAYS,
            ptr::null(),
            0,
        )
    };
    check(status)?;
    // SAFETY: the call succeeded, so `handle` is a new open handle that nobody else has.
    let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
    // Whatever is done with it would wait now. The lock's holder was told, so another try may find it gone.
    if status == STATUS_OPLOCK_BREAK_IN_PROGRESS {
        return Err(Status(status));
    }
    Ok(handle)
}

/// Asks for a class of information. An answer that is longer than `answer` is cut.
pub(super) fn query(
    file: BorrowedHandle<'_>,
    class: i32,
    answer: &mut [u64],
) -> Result<(), Status> {
    let mut block = IO_STATUS_BLOCK::default();
    let (into, len): (*mut c_void, _) = (answer.as_mut_ptr().cast(), len_of(answer));
    // SAFETY: the kernel writes at most `len` bytes to `into`, which is exclusively borrowed memory of at least that length; any bytes are
    // valid there. The handle is borrowed for the call, and no call goes on after it returned, because of how handles are opened here.
    let status = unsafe {
        nt::NtQueryInformationFile(file.as_raw_handle(), &raw mut block, into, len, class)
    };
    match status {
        STATUS_BUFFER_OVERFLOW => Ok(()),
        status => check(status),
    }
}

/// As [`query`], of the volume.
pub(super) fn query_volume(
    file: BorrowedHandle<'_>,
    class: i32,
    answer: &mut [u64],
) -> Result<(), Status> {
    let mut block = IO_STATUS_BLOCK::default();
    let (into, len): (*mut c_void, _) = (answer.as_mut_ptr().cast(), len_of(answer));
    // SAFETY: as in `query`.
    let status = unsafe {
        nt::NtQueryVolumeInformationFile(file.as_raw_handle(), &raw mut block, into, len, class)
    };
    match status {
        STATUS_BUFFER_OVERFLOW => Ok(()),
        status => check(status),
    }
}

/// Sets a class of information to the bytes of `value`.
pub(super) fn set(file: BorrowedHandle<'_>, class: i32, value: &[u64]) -> Result<(), Status> {
    let mut block = IO_STATUS_BLOCK::default();
    let (from, len): (*const c_void, _) = (value.as_ptr().cast(), len_of(value));
    // SAFETY: the kernel reads at most `len` bytes from `from`, which is borrowed memory of at least that length, and checks what it finds
    // there. The handle is borrowed for the call.
    check(unsafe {
        nt::NtSetInformationFile(file.as_raw_handle(), &raw mut block, from, len, class)
    })
}

/// Gives the file another name, or one more, in `directory`: `class` says which, `flags` are its own.
pub(super) fn set_name(
    file: BorrowedHandle<'_>,
    class: i32,
    flags: u32,
    directory: BorrowedHandle<'_>,
    name: &[u16],
) -> Result<(), Status> {
    const AT: usize = std::mem::offset_of!(nt::FILE_RENAME_INFORMATION, FileName);
    const LEN_AT: usize = std::mem::offset_of!(nt::FILE_RENAME_INFORMATION, FileNameLength);
    const ROOT_AT: usize = std::mem::offset_of!(nt::FILE_RENAME_INFORMATION, RootDirectory);
    let len = string(name)?.Length;
    // As long as the structure at least, which ends in padding.
    let bytes = (AT + usize::from(len)).max(size_of::<nt::FILE_RENAME_INFORMATION>());
    let mut value = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
    let root = directory.as_raw_handle().expose_provenance();
    let parts = [
        (0, flags.as_bytes()),
        (ROOT_AT, root.as_bytes()),
        (LEN_AT, u32::from(len).as_bytes()),
        (AT, name.as_bytes()),
    ]
    .map(|(at, part)| (at, part.to_vec()));
    for (at, part) in parts {
        let place = value.as_mut_bytes().get_mut(at..at + part.len());
        place.unwrap_or_default().copy_from_slice(&part);
    }
    set(file, class, &value)
}

/// Reads entries of a directory in a class that says their numbers. `None` at the end. With a `name`, only of what has it, be it the
/// short one.
pub(super) fn list(
    directory: BorrowedHandle<'_>,
    answer: &mut [u64],
    name: Option<&[u16]>,
    anew: bool,
) -> Result<(), Status> {
    let mut block = IO_STATUS_BLOCK::default();
    let name = name.map(string).transpose()?;
    let (into, len): (*mut c_void, _) = (answer.as_mut_ptr().cast(), len_of(answer));
    // SAFETY: as in `query`; `name`, if there is one, and what it points to outlive the call. Event, routine and context may be null.
    let status = unsafe {
        nt::NtQueryDirectoryFile(
            directory.as_raw_handle(),
            ptr::null_mut(),
            None,
            ptr::null(),
            &raw mut block,
            into,
            len,
            nt::FileIdBothDirectoryInformation,
            name.is_some(),
            name.as_ref().map_or(ptr::null(), ptr::from_ref),
            anew,
        )
    };
    check(status)
}

/// Makes the file system do what `code` says, with `input`; returns how much of `answer` it filled.
pub(super) fn control(
    file: BorrowedHandle<'_>,
    code: u32,
    input: &[u8],
    answer: &mut [u64],
) -> Result<usize, Status> {
    let mut block = IO_STATUS_BLOCK::default();
    let (into, len): (*mut c_void, _) = (answer.as_mut_ptr().cast(), len_of(answer));
    let input_len = u32::try_from(input.len()).unwrap_or(0);
    // SAFETY: as in `query`, and the kernel reads at most `input_len` bytes from `input`. Event, routine and context may be null.
    let status = unsafe {
        nt::NtFsControlFile(
            file.as_raw_handle(),
            ptr::null_mut(),
            None,
            ptr::null(),
            &raw mut block,
            code,
            input.as_ptr().cast(),
            input_len,
            into,
            len,
        )
    };
    check(status)?;
    Ok(block.Information.min(size_of_val(answer)))
}
