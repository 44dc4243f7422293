//! The structures of the protocol as they lie in memory (`include/uapi/linux/fuse.h`, version 7.41).
//!
//! Names and order of the fields are the header's, `fuse_` dropped; integers are in the byte order of the machine. Every structure
//! is free of padding, which `zerocopy` proves at compile time, so none can leak host memory to the guest.

#![expect(
    unnameable_types,
    missing_debug_implementations,
    reason = "both speak of helper types that zerocopy's derives make"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Of [`Attr::flags`]: the directory is the root of a file system of its own, with inode numbers of its own.
pub const ATTR_SUBMOUNT: u32 = 1;

macro_rules! wire {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    )*};
}

wire! {
    /// Head of every request.
    InHeader {
        /// Length of the whole request in bytes, this head included.
        len: u32,
        /// What is asked: see [`super::Opcode`].
        opcode: u32,
        /// The request's id, repeated in the reply.
        unique: u64,
        /// The node that is asked about.
        nodeid: u64,
        /// User id of the calling process in the guest.
        uid: u32,
        /// Group id of the calling process in the guest.
        gid: u32,
        /// Process id of the caller in the guest.
        pid: u32,
        /// Length of extensions at the end, in units of 8 bytes.
        total_extlen: u16,
        /// Unused.
        padding: u16,
    }
    /// Head of every reply.
    OutHeader {
        /// Length of the whole reply in bytes, this head included.
        len: u32,
        /// 0, or a negated Linux error number.
        error: i32,
        /// The id of the request.
        unique: u64,
    }
    /// What `stat` tells about a node.
    Attr {
        /// Inode number.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Blocks of 512 bytes in use.
        blocks: u64,
        /// Last access, seconds since 1970 (two's complement).
        atime: u64,
        /// Last change of content, seconds.
        mtime: u64,
        /// Last change of the inode, seconds.
        ctime: u64,
        /// Nanoseconds of `atime`.
        atimensec: u32,
        /// Nanoseconds of `mtime`.
        mtimensec: u32,
        /// Nanoseconds of `ctime`.
        ctimensec: u32,
        /// Type and permission bits.
        mode: u32,
        /// Number of hard links.
        nlink: u32,
        /// Owner, a guest's user id.
        uid: u32,
        /// Group, a guest's group id.
        gid: u32,
        /// Device number; always 0 here.
        rdev: u32,
        /// Preferred size of I/O in bytes.
        blksize: u32,
        /// `FUSE_ATTR_*`: [`ATTR_SUBMOUNT`] or 0 here.
        flags: u32,
    }
    /// Reply to whatever gives the guest a node.
    EntryOut {
        /// The node's id.
        nodeid: u64,
        /// Tells apart two nodes with one id; ids are never used twice here, so always 0.
        generation: u64,
        /// How long the name may be cached, seconds.
        entry_valid: u64,
        /// How long the attributes may be cached, seconds.
        attr_valid: u64,
        /// Nanoseconds of `entry_valid`.
        entry_valid_nsec: u32,
        /// Nanoseconds of `attr_valid`.
        attr_valid_nsec: u32,
        /// The node's attributes.
        attr: Attr,
    }
    /// Reply to GETATTR and SETATTR.
    AttrOut {
        /// How long the attributes may be cached, seconds.
        attr_valid: u64,
        /// Nanoseconds of `attr_valid`.
        attr_valid_nsec: u32,
        /// Unused.
        dummy: u32,
        /// The node's attributes.
        attr: Attr,
    }
    /// Body of INIT as all versions have it.
    InitIn {
        /// Major version; 7.
        major: u32,
        /// Minor version.
        minor: u32,
        /// Most read-ahead that the client will do, bytes.
        max_readahead: u32,
        /// Low half of what the client can do: see [`super::InitFlags`].
        flags: u32,
    }
    /// What INIT carries beyond [`InitIn`] since 7.36.
    InitInExt {
        /// High half of the flags.
        flags2: u32,
        /// Unused.
        unused: [u32; 11],
    }
    /// Reply to INIT.
    InitOut {
        /// Major version; 7.
        major: u32,
        /// Minor version.
        minor: u32,
        /// Most read-ahead, bytes.
        max_readahead: u32,
        /// Low half of what is agreed on.
        flags: u32,
        /// Most requests in flight that nobody waits for.
        max_background: u16,
        /// From how many of them the client holds back.
        congestion_threshold: u16,
        /// Most bytes in one WRITE.
        max_write: u32,
        /// Granularity of time stamps, nanoseconds.
        time_gran: u32,
        /// Most pages in one request.
        max_pages: u16,
        /// For DAX mappings; 0 here.
        map_alignment: u16,
        /// High half of the flags.
        flags2: u32,
        /// How many file systems may lie one upon the other below the share; 0 without passthrough.
        max_stack_depth: u32,
        /// Unused.
        unused: [u32; 6],
    }
    /// Body of FORGET.
    ForgetIn {
        /// How many lookups are given back.
        nlookup: u64,
    }
    /// Head of BATCH_FORGET.
    BatchForgetIn {
        /// How many [`ForgetOne`] follow.
        count: u32,
        /// Unused.
        dummy: u32,
    }
    /// One node of BATCH_FORGET.
    ForgetOne {
        /// The node.
        nodeid: u64,
        /// How many lookups are given back.
        nlookup: u64,
    }
    /// Body of GETATTR.
    GetAttrIn {
        /// Bit 0: `fh` is valid.
        getattr_flags: u32,
        /// Unused.
        dummy: u32,
        /// A handle open on the node.
        fh: u64,
    }
    /// Body of STATX.
    StatxIn {
        /// Bit 0: `fh` is valid.
        getattr_flags: u32,
        /// Unused.
        reserved: u32,
        /// A handle open on the node.
        fh: u64,
        /// `AT_STATX_*`.
        sx_flags: u32,
        /// What is asked for, `STATX_*`.
        sx_mask: u32,
    }
    /// A point in time in [`Statx`].
    SxTime {
        /// Seconds since 1970.
        tv_sec: i64,
        /// Nanoseconds.
        tv_nsec: u32,
        /// Unused.
        reserved: i32,
    }
    /// What `statx` tells about a node.
    Statx {
        /// Which fields are valid, `STATX_*`.
        mask: u32,
        /// Preferred size of I/O in bytes.
        blksize: u32,
        /// `STATX_ATTR_*`; none here.
        attributes: u64,
        /// Number of hard links.
        nlink: u32,
        /// Owner, a guest's user id.
        uid: u32,
        /// Group, a guest's group id.
        gid: u32,
        /// Type and permission bits.
        mode: u16,
        /// Unused.
        spare0: u16,
        /// Inode number.
        ino: u64,
        /// Size in bytes.
        size: u64,
        /// Blocks of 512 bytes in use.
        blocks: u64,
        /// Which `attributes` are known.
        attributes_mask: u64,
        /// Last access.
        atime: SxTime,
        /// Creation.
        btime: SxTime,
        /// Last change of the inode.
        ctime: SxTime,
        /// Last change of content.
        mtime: SxTime,
        /// Device number; 0 here.
        rdev_major: u32,
        /// Device number; 0 here.
        rdev_minor: u32,
        /// The host's device is not told; 0.
        dev_major: u32,
        /// The host's device is not told; 0.
        dev_minor: u32,
        /// Unused.
        spare2: [u64; 14],
    }
    /// Reply to STATX.
    StatxOut {
        /// How long the attributes may be cached, seconds.
        attr_valid: u64,
        /// Nanoseconds of `attr_valid`.
        attr_valid_nsec: u32,
        /// Unused.
        flags: u32,
        /// Unused.
        spare: [u64; 2],
        /// The attributes.
        stat: Statx,
    }
    /// Body of SETATTR.
    SetAttrIn {
        /// Which fields are to be set: see [`super::SetAttrFlags`].
        valid: u32,
        /// Unused.
        padding: u32,
        /// A handle open on the node.
        fh: u64,
        /// New size in bytes.
        size: u64,
        /// Owner of the locks that a truncation must respect.
        lock_owner: u64,
        /// New time of access, seconds (two's complement).
        atime: u64,
        /// New time of change, seconds.
        mtime: u64,
        /// New time of inode change, seconds; not settable here.
        ctime: u64,
        /// Nanoseconds of `atime`.
        atimensec: u32,
        /// Nanoseconds of `mtime`.
        mtimensec: u32,
        /// Nanoseconds of `ctime`.
        ctimensec: u32,
        /// New permission bits.
        mode: u32,
        /// Unused.
        unused4: u32,
        /// New owner.
        uid: u32,
        /// New group.
        gid: u32,
        /// Unused.
        unused5: u32,
    }
    /// Body of MKNOD before the name.
    MkNodIn {
        /// Type and permission bits.
        mode: u32,
        /// Device number.
        rdev: u32,
        /// The caller's mask, already applied.
        umask: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of MKDIR before the name.
    MkDirIn {
        /// Permission bits.
        mode: u32,
        /// The caller's mask, already applied.
        umask: u32,
    }
    /// Body of RENAME before the names.
    RenameIn {
        /// The directory that the node goes to.
        newdir: u64,
    }
    /// Body of RENAME2 before the names.
    Rename2In {
        /// The directory that the node goes to.
        newdir: u64,
        /// `RENAME_*`: see [`super::RenameMode`].
        flags: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of LINK before the name.
    LinkIn {
        /// The node that gets another name.
        oldnodeid: u64,
    }
    /// Body of OPEN and OPENDIR.
    OpenIn {
        /// `O_*`: see [`super::OpenFlags`].
        flags: u32,
        /// Bit 0: take away set-user-id and set-group-id.
        open_flags: u32,
    }
    /// Body of CREATE and TMPFILE before the name.
    CreateIn {
        /// `O_*`: see [`super::OpenFlags`].
        flags: u32,
        /// Type and permission bits.
        mode: u32,
        /// The caller's mask, already applied.
        umask: u32,
        /// Bit 0: take away set-user-id and set-group-id.
        open_flags: u32,
    }
    /// Reply to OPEN and OPENDIR, and the second half of that to CREATE.
    OpenOut {
        /// The handle.
        fh: u64,
        /// `FOPEN_*`: see [`super::OpenReply`].
        open_flags: u32,
        /// The client's own number of the file, with [`super::OpenReply::PASSTHROUGH`].
        backing_id: i32,
    }
    /// Body of RELEASE and RELEASEDIR.
    ReleaseIn {
        /// The handle.
        fh: u64,
        /// `O_*` of the open.
        flags: u32,
        /// Bit 0: flush; bit 1: give up the `flock`.
        release_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
    }
    /// Body of FLUSH.
    FlushIn {
        /// The handle.
        fh: u64,
        /// Unused.
        unused: u32,
        /// Unused.
        padding: u32,
        /// Whose record locks on the file end now.
        lock_owner: u64,
    }
    /// Body of READ, READDIR and READDIRPLUS.
    ReadIn {
        /// The handle.
        fh: u64,
        /// Position in bytes, or the cookie of a directory entry.
        offset: u64,
        /// Most bytes that the client takes.
        size: u32,
        /// Bit 1: `lock_owner` is valid.
        read_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
        /// `O_*` of the handle now.
        flags: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of WRITE before the bytes.
    WriteIn {
        /// The handle.
        fh: u64,
        /// Position in bytes.
        offset: u64,
        /// How many bytes follow.
        size: u32,
        /// Bit 0: from the page cache; bit 1: `lock_owner` is valid; bit 2: take away set-user-id and set-group-id.
        write_flags: u32,
        /// Owner of locks.
        lock_owner: u64,
        /// `O_*` of the handle now.
        flags: u32,
        /// Unused.
        padding: u32,
    }
    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut {
        /// Bytes taken.
        size: u32,
        /// Unused.
        padding: u32,
    }
    /// Reply to STATFS.
    StatFsOut {
        /// Size in units of `frsize`.
        blocks: u64,
        /// Free, in units of `frsize`.
        bfree: u64,
        /// Free for ordinary users.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// Preferred size of I/O in bytes.
        bsize: u32,
        /// Longest name in bytes.
        namelen: u32,
        /// Unit of the sizes in bytes.
        frsize: u32,
        /// Unused.
        padding: u32,
        /// Unused.
        spare: [u32; 6],
    }
    /// Body of FSYNC and FSYNCDIR.
    FsyncIn {
        /// The handle.
        fh: u64,
        /// Bit 0: data only.
        fsync_flags: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of SETXATTR before name and value, without the extension (which is not agreed on).
    SetXattrIn {
        /// Length of the value in bytes.
        size: u32,
        /// 1: create only; 2: replace only.
        flags: u32,
    }
    /// Body of GETXATTR before the name, and of LISTXATTR.
    GetXattrIn {
        /// Most bytes that the client takes; 0 asks for the size.
        size: u32,
        /// Unused.
        padding: u32,
    }
    /// Reply to GETXATTR and LISTXATTR that asked for the size.
    GetXattrOut {
        /// The size in bytes.
        size: u32,
        /// Unused.
        padding: u32,
    }
    /// A record lock.
    FileLock {
        /// First byte.
        start: u64,
        /// Last byte; `i64::MAX` for the end of the file, wherever it is.
        end: u64,
        /// 0 shared, 1 exclusive, 2 none.
        kind: u32,
        /// Process that holds it.
        pid: u32,
    }
    /// Body of GETLK, SETLK and SETLKW.
    LockIn {
        /// The handle.
        fh: u64,
        /// Owner of the lock.
        owner: u64,
        /// The lock.
        lock: FileLock,
        /// Bit 0: `flock`, not a record lock.
        lk_flags: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of ACCESS.
    AccessIn {
        /// `R_OK` 4, `W_OK` 2, `X_OK` 1, or 0.
        mask: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of INTERRUPT.
    InterruptIn {
        /// The request that nobody waits for any more.
        unique: u64,
    }
    /// Body of FALLOCATE.
    FallocateIn {
        /// The handle.
        fh: u64,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// `FALLOC_FL_*`.
        mode: u32,
        /// Unused.
        padding: u32,
    }
    /// Body of LSEEK.
    LseekIn {
        /// The handle.
        fh: u64,
        /// Where to begin, bytes.
        offset: u64,
        /// 3: data; 4: hole.
        whence: u32,
        /// Unused.
        padding: u32,
    }
    /// Reply to LSEEK.
    LseekOut {
        /// The position found, bytes.
        offset: u64,
    }
    /// Body of COPY_FILE_RANGE.
    CopyFileRangeIn {
        /// Handle to read from.
        fh_in: u64,
        /// Where to read, bytes.
        off_in: u64,
        /// Node to write to.
        nodeid_out: u64,
        /// Handle to write to.
        fh_out: u64,
        /// Where to write, bytes.
        off_out: u64,
        /// Number of bytes.
        len: u64,
        /// None exist.
        flags: u64,
    }
    /// Body of SYNCFS.
    SyncFsIn {
        /// Unused.
        padding: u64,
    }
    /// Head of a directory entry; the name follows, then zeros up to a multiple of 8.
    Dirent {
        /// Inode number.
        ino: u64,
        /// Cookie of the entry after this one.
        off: u64,
        /// Length of the name in bytes.
        namelen: u32,
        /// Type, `DT_*`.
        kind: u32,
    }
}
