//! The protocol's bit sets. Bits that are not named here are dropped or refused where the set is made.

use bitflags::bitflags;

bitflags! {
    /// What client and server can do (`FUSE_*` of INIT), both halves.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct InitFlags: u64 {
        /// Reads may overtake each other.
        const ASYNC_READ = 1;
        /// Record locks are the server's.
        const POSIX_LOCKS = 1 << 1;
        /// `O_TRUNC` comes with OPEN.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// `flock` locks are the server's.
        const FLOCK_LOCKS = 1 << 10;
        /// The client drops cached pages when size or time of change differ.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS exists.
        const DO_READDIRPLUS = 1 << 13;
        /// The client chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O may be asynchronous.
        const ASYNC_DIO = 1 << 15;
        /// The client may hold written data back.
        const WRITEBACK_CACHE = 1 << 16;
        /// LOOKUP and READDIR of one directory may run at once.
        const PARALLEL_DIROPS = 1 << 18;
        /// `max_pages` of the reply is valid.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// The client makes a file system of its own of each directory that the server says is one (`ATTR_SUBMOUNT`).
        const SUBMOUNTS = 1 << 27;
        /// The server takes away set-user-id and set-group-id when told to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// The high half is valid.
        const INIT_EXT = 1 << 30;
        /// The client may read and write files of its own host itself.
        const PASSTHROUGH = 1 << 37;
    }

    /// `O_*` of OPEN and CREATE that mean the same on every architecture of Linux.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpenFlags: u32 {
        /// For writing only.
        const WRONLY = 1;
        /// For reading and writing.
        const RDWR = 2;
        /// Fail if the name exists.
        const EXCL = 0o200;
        /// Empty the file.
        const TRUNC = 0o1000;
        /// Write at the end, always.
        const APPEND = 0o2000;
        /// Each write is durable as to its data.
        const DSYNC = 0o10000;
        /// Each write is durable (comes together with `DSYNC`).
        const SYNC = 0o4000000;
    }

    /// What the server says about an open file (`FOPEN_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct OpenReply: u32 {
        /// Keep the pages of the last time.
        const KEEP_CACHE = 1 << 1;
        /// Keep the listing of a directory.
        const CACHE_DIR = 1 << 3;
        /// The client reads and writes the file itself, by `backing_id`.
        const PASSTHROUGH = 1 << 7;
    }

    /// Which fields SETATTR sets (`FATTR_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SetAttrFlags: u32 {
        /// Permission bits.
        const MODE = 1;
        /// Owner.
        const UID = 1 << 1;
        /// Group.
        const GID = 1 << 2;
        /// Size.
        const SIZE = 1 << 3;
        /// Time of access.
        const ATIME = 1 << 4;
        /// Time of change.
        const MTIME = 1 << 5;
        /// `fh` is valid.
        const FH = 1 << 6;
        /// Time of access becomes now.
        const ATIME_NOW = 1 << 7;
        /// Time of change becomes now.
        const MTIME_NOW = 1 << 8;
        /// `lock_owner` is valid.
        const LOCKOWNER = 1 << 9;
        /// Time of inode change.
        const CTIME = 1 << 10;
        /// Take away set-user-id and set-group-id.
        const KILL_SUIDGID = 1 << 11;
    }

    /// `RENAME_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RenameMode: u32 {
        /// Fail if the new name exists.
        const NOREPLACE = 1;
        /// Swap the two.
        const EXCHANGE = 1 << 1;
        /// Leave a whiteout device behind.
        const WHITEOUT = 1 << 2;
    }

    /// `FALLOC_FL_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct FallocateMode: u32 {
        /// The size stays.
        const KEEP_SIZE = 1;
        /// Free the range.
        const PUNCH_HOLE = 1 << 1;
        /// Fill the range with zeros.
        const ZERO_RANGE = 1 << 4;
    }

    /// `XATTR_*` of SETXATTR.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct XattrMode: u32 {
        /// Fail if the attribute exists.
        const CREATE = 1;
        /// Fail unless it exists.
        const REPLACE = 1 << 1;
    }
}

impl OpenFlags {
    /// The set that a request's `flags` stand for; unknown bits are dropped.
    pub fn from_request(flags: u32) -> Self {
        Self::from_bits_truncate(flags)
    }

    /// Whether bytes may be written through the handle.
    pub fn writes(self) -> bool {
        self.intersects(Self::WRONLY | Self::RDWR)
    }

    /// Whether the open itself or what may follow it changes the file.
    pub fn changes(self) -> bool {
        self.writes() || self.contains(Self::TRUNC)
    }
}

impl InitFlags {
    /// Joins the two halves that the wire has.
    pub fn from_halves(low: u32, high: u32) -> Self {
        Self::from_bits_truncate(u64::from(low) | u64::from(high) << 32)
    }

    /// The low half, as the wire wants it.
    pub fn low(self) -> u32 {
        let [a, b, c, d, ..] = self.bits().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The high half, as the wire wants it.
    pub fn high(self) -> u32 {
        let [.., a, b, c, d] = self.bits().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}
