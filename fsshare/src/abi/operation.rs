//! A request's content as types.

use zerocopy::FromBytes;

use super::flags::{FallocateMode, InitFlags, OpenFlags, RenameMode, XattrMode};
use super::name::{Name, Target, XattrName};
use super::wire;

/// What a request asks for, with everything that it needs, validated as far as bytes alone can tell.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "fields carry the protocol's names, which `wire` documents"
)]
pub enum Operation<'a> {
    /// Opens the session.
    Init {
        minor: u32,
        major: u32,
        max_readahead: u32,
        flags: InitFlags,
    },
    /// Ends the session.
    Destroy,
    /// Finds a name in a directory.
    Lookup { name: Name<'a> },
    /// Gives back lookups of the request's node.
    Forget { lookups: u64 },
    /// Gives back lookups of many nodes.
    BatchForget { forgets: Forgets<'a> },
    /// Reads attributes.
    GetAttr,
    /// Reads attributes, creation time included.
    Statx,
    /// Changes attributes.
    SetAttr { changes: wire::SetAttrIn },
    /// Reads a symbolic link.
    ReadLink,
    /// Makes a symbolic link.
    Symlink { name: Name<'a>, target: Target<'a> },
    /// Makes a node of the type in `mode`.
    MkNod { name: Name<'a>, mode: u32 },
    /// Makes a directory.
    MkDir { name: Name<'a>, mode: u32 },
    /// Removes a name that is not a directory's.
    Unlink { name: Name<'a> },
    /// Removes an empty directory.
    RmDir { name: Name<'a> },
    /// Moves a node (RENAME and RENAME2).
    Rename {
        name: Name<'a>,
        new_parent: u64,
        new_name: Name<'a>,
        mode: RenameMode,
    },
    /// Gives `node` another name.
    Link { node: u64, name: Name<'a> },
    /// Opens a file.
    Open { flags: OpenFlags },
    /// Makes a file and opens it.
    Create {
        name: Name<'a>,
        flags: OpenFlags,
        mode: u32,
    },
    /// Makes a file without a name and opens it.
    TmpFile { flags: OpenFlags, mode: u32 },
    /// Reads from a file.
    Read { fh: u64, offset: u64, size: u32 },
    /// Writes to a file: the last `size` bytes of the request.
    Write { fh: u64, offset: u64, size: u32 },
    /// One of a file's descriptors was closed.
    Flush { fh: u64, lock_owner: u64 },
    /// Closes a file for good.
    Release { fh: u64 },
    /// Makes a file durable.
    Fsync { fh: u64, data_only: bool },
    /// Opens a directory.
    OpenDir,
    /// Lists a directory from the cookie `offset` on; `plus` looks each entry up.
    ReadDir {
        fh: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    /// Closes a directory.
    ReleaseDir { fh: u64 },
    /// Makes a directory durable.
    FsyncDir { fh: u64, data_only: bool },
    /// Tells sizes of the file system.
    StatFs,
    /// Asks for permission.
    Access { mask: u32 },
    /// Reserves or frees space in a file. `None` stands for a mode that is not supported.
    Fallocate {
        fh: u64,
        offset: u64,
        length: u64,
        mode: Option<FallocateMode>,
    },
    /// Finds data or a hole.
    Lseek { fh: u64, offset: u64, whence: u32 },
    /// Copies between two files.
    CopyFileRange { copy: wire::CopyFileRangeIn },
    /// Reads an extended attribute; a `size` of 0 asks for its length.
    GetXattr { name: XattrName<'a>, size: u32 },
    /// Sets an extended attribute.
    SetXattr {
        name: XattrName<'a>,
        value: &'a [u8],
        mode: XattrMode,
    },
    /// Lists extended attributes; a `size` of 0 asks for the list's length.
    ListXattr { size: u32 },
    /// Removes an extended attribute.
    RemoveXattr { name: XattrName<'a> },
    /// Asks who holds a lock.
    GetLk { lock: wire::LockIn },
    /// Takes or gives up a lock; `wait` is SETLKW.
    SetLk { lock: wire::LockIn, wait: bool },
    /// Makes the whole share durable.
    SyncFs,
    /// Nobody waits for this request any more.
    Interrupt { unique: u64 },
    /// Device control, which no node of a share has.
    Ioctl,
    /// Known, and never offered: BMAP, POLL, NOTIFY_REPLY, DAX mappings.
    Unsupported,
}

impl Operation<'_> {
    /// Whether a client waits for a reply.
    pub fn is_answered(&self) -> bool {
        !matches!(
            self,
            Self::Forget { .. } | Self::BatchForget { .. } | Self::Interrupt { .. }
        )
    }

    /// Whether it would change the tree: content, names, attributes or space. Locks, flushes and syncs do not.
    ///
    /// There is no wildcard here, so a new operation must say which it is.
    pub fn changes(&self) -> bool {
        match self {
            Self::SetAttr { .. }
            | Self::Symlink { .. }
            | Self::MkNod { .. }
            | Self::MkDir { .. }
            | Self::Unlink { .. }
            | Self::RmDir { .. }
            | Self::Rename { .. }
            | Self::Link { .. }
            | Self::Create { .. }
            | Self::TmpFile { .. }
            | Self::Write { .. }
            | Self::Fallocate { .. }
            | Self::CopyFileRange { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. } => true,
            Self::Open { flags } => flags.changes(),
            Self::Access { mask } => mask & 2 != 0,
            Self::Init { .. }
            | Self::Destroy
            | Self::Lookup { .. }
            | Self::Forget { .. }
            | Self::BatchForget { .. }
            | Self::GetAttr
            | Self::Statx
            | Self::ReadLink
            | Self::Read { .. }
            | Self::Flush { .. }
            | Self::Release { .. }
            | Self::Fsync { .. }
            | Self::OpenDir
            | Self::ReadDir { .. }
            | Self::ReleaseDir { .. }
            | Self::FsyncDir { .. }
            | Self::StatFs
            | Self::Lseek { .. }
            | Self::GetXattr { .. }
            | Self::ListXattr { .. }
            | Self::GetLk { .. }
            | Self::SetLk { .. }
            | Self::SyncFs
            | Self::Interrupt { .. }
            | Self::Ioctl
            | Self::Unsupported => false,
        }
    }
}

/// The list that BATCH_FORGET carries; its length was checked against its count.
#[derive(Clone, Copy, Debug)]
pub struct Forgets<'a>(pub(super) &'a [u8]);

impl Iterator for Forgets<'_> {
    type Item = wire::ForgetOne;

    fn next(&mut self) -> Option<Self::Item> {
        let (one, rest) = wire::ForgetOne::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(one)
    }
}
