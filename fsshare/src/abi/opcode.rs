//! The operations' numbers (`enum fuse_opcode`).

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// What a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum Opcode { $($(#[$doc])* $name = $number,)* }

        impl Opcode {
            /// Every operation that this version knows.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The operation with this number, if it is known.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    /// Finds a name in a directory.
    Lookup = 1,
    /// Gives back lookups of one node; never answered.
    Forget = 2,
    /// Reads attributes.
    GetAttr = 3,
    /// Changes attributes.
    SetAttr = 4,
    /// Reads a symbolic link.
    ReadLink = 5,
    /// Makes a symbolic link.
    Symlink = 6,
    /// Makes a node.
    MkNod = 8,
    /// Makes a directory.
    MkDir = 9,
    /// Removes a name that is not a directory's.
    Unlink = 10,
    /// Removes an empty directory.
    RmDir = 11,
    /// Moves a node.
    Rename = 12,
    /// Gives a node another name.
    Link = 13,
    /// Opens a file.
    Open = 14,
    /// Reads from a file.
    Read = 15,
    /// Writes to a file.
    Write = 16,
    /// Tells sizes of the file system.
    StatFs = 17,
    /// Closes a file for good.
    Release = 18,
    /// Makes a file's content durable.
    Fsync = 20,
    /// Sets an extended attribute.
    SetXattr = 21,
    /// Reads an extended attribute.
    GetXattr = 22,
    /// Lists extended attributes.
    ListXattr = 23,
    /// Removes an extended attribute.
    RemoveXattr = 24,
    /// One of a file's descriptors was closed.
    Flush = 25,
    /// Opens the session.
    Init = 26,
    /// Opens a directory.
    OpenDir = 27,
    /// Lists a directory.
    ReadDir = 28,
    /// Closes a directory.
    ReleaseDir = 29,
    /// Makes a directory durable.
    FsyncDir = 30,
    /// Asks who holds a lock.
    GetLk = 31,
    /// Takes or gives up a lock.
    SetLk = 32,
    /// The same, and waits.
    SetLkW = 33,
    /// Asks for permission.
    Access = 34,
    /// Makes and opens a file.
    Create = 35,
    /// Nobody waits for a request any more; never answered.
    Interrupt = 36,
    /// Maps a block.
    Bmap = 37,
    /// Ends the session.
    Destroy = 38,
    /// Device control.
    Ioctl = 39,
    /// Readiness.
    Poll = 40,
    /// Answer to a notification.
    NotifyReply = 41,
    /// Gives back lookups of many nodes; never answered.
    BatchForget = 42,
    /// Reserves or frees space in a file.
    Fallocate = 43,
    /// Lists a directory and looks each entry up.
    ReadDirPlus = 44,
    /// Moves a node, with conditions.
    Rename2 = 45,
    /// Finds data or a hole.
    Lseek = 46,
    /// Copies between two files.
    CopyFileRange = 47,
    /// Maps a file into the DAX window.
    SetupMapping = 48,
    /// Unmaps it.
    RemoveMapping = 49,
    /// Makes the whole share durable.
    SyncFs = 50,
    /// Makes and opens a file without a name.
    TmpFile = 51,
    /// Reads extended attributes of the `statx` kind.
    Statx = 52,
}

impl Opcode {
    /// Whether a client waits for a reply.
    pub fn is_answered(self) -> bool {
        !matches!(
            self,
            Self::Forget | Self::BatchForget | Self::Interrupt | Self::NotifyReply
        )
    }
}
