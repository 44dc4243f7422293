//! From a request's bytes to a [`Request`].

use std::ffi::CStr;

use zerocopy::FromBytes;

use super::fault::{ParseError, Refusal};
use super::flags::{FallocateMode, InitFlags, OpenFlags, RenameMode, XattrMode};
use super::name::{Name, Target, XattrName};
use super::opcode::Opcode;
use super::operation::{Forgets, Operation};
use super::wire;

/// One request, fully checked.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The id to answer to.
    pub unique: u64,
    /// The node that is asked about.
    pub node: u64,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// Bytes in front of a WRITE's content.
pub const BEFORE_CONTENT: usize = size_of::<wire::InHeader>() + size_of::<wire::WriteIn>();

/// Whether the request that begins so is one whose content [`parse_without`] may do without: a WRITE.
pub fn has_content(beginning: &[u8]) -> bool {
    wire::InHeader::read_from_prefix(beginning)
        .is_ok_and(|(header, _)| header.opcode == Opcode::Write as u32)
}

/// Parses exactly one request.
///
/// # Errors
/// [`ParseError`] says what is wrong and, where a reply is possible, to whom and with what to reply.
pub fn parse(bytes: &[u8]) -> Result<Request<'_>, ParseError> {
    parse_without(bytes, 0)
}

/// Parses exactly one request of which only the beginning is here; `left` bytes follow, which must be a WRITE's content.
///
/// # Errors
/// As [`parse()`].
pub fn parse_without(bytes: &[u8], left: usize) -> Result<Request<'_>, ParseError> {
    let (header, body) = wire::InHeader::read_from_prefix(bytes)
        .map_err(|_| ParseError::NoHeader { len: bytes.len() })?;
    let refused = |refusal| ParseError::Refused {
        unique: header.unique,
        opcode: header.opcode,
        refusal,
    };
    if usize::try_from(header.len).ok() != bytes.len().checked_add(left) {
        return Err(refused(Refusal::Length));
    }
    if header.total_extlen != 0 {
        return Err(refused(Refusal::Extension));
    }
    let opcode = Opcode::from_number(header.opcode).ok_or_else(|| refused(Refusal::Unknown))?;
    let operation = operation(opcode, Body { bytes: body, left }).map_err(refused)?;
    Ok(Request {
        unique: header.unique,
        node: header.nodeid,
        operation,
    })
}

fn operation(opcode: Opcode, mut body: Body<'_>) -> Result<Operation<'_>, Refusal> {
    let operation = match opcode {
        Opcode::Bmap
        | Opcode::Poll
        | Opcode::NotifyReply
        | Opcode::SetupMapping
        | Opcode::RemoveMapping => return Ok(Operation::Unsupported),
        Opcode::Ioctl => return Ok(Operation::Ioctl),
        Opcode::Init => init(&mut body)?,
        Opcode::Destroy => Operation::Destroy,
        Opcode::Forget => Operation::Forget {
            lookups: body.take::<wire::ForgetIn>()?.nlookup,
        },
        Opcode::BatchForget => batch_forget(&mut body)?,
        Opcode::Interrupt => Operation::Interrupt {
            unique: body.take::<wire::InterruptIn>()?.unique,
        },
        Opcode::StatFs => Operation::StatFs,
        Opcode::SyncFs => body.take::<wire::SyncFsIn>().map(|_| Operation::SyncFs)?,
        Opcode::GetAttr
        | Opcode::Statx
        | Opcode::SetAttr
        | Opcode::Access
        | Opcode::GetXattr
        | Opcode::SetXattr
        | Opcode::ListXattr
        | Opcode::RemoveXattr => about_a_node(opcode, &mut body)?,
        Opcode::Lookup
        | Opcode::ReadLink
        | Opcode::Symlink
        | Opcode::MkNod
        | Opcode::MkDir
        | Opcode::Unlink
        | Opcode::RmDir
        | Opcode::Rename
        | Opcode::Rename2
        | Opcode::Link => about_a_name(opcode, &mut body)?,
        Opcode::Open | Opcode::Create | Opcode::TmpFile | Opcode::OpenDir => {
            opening(opcode, &mut body)?
        }
        Opcode::Read
        | Opcode::Write
        | Opcode::ReadDir
        | Opcode::ReadDirPlus
        | Opcode::CopyFileRange => transfer(opcode, &mut body)?,
        _ => about_a_handle(opcode, &mut body)?,
    };
    // What follows an operation's end was meant for some other version of it; guessing which would be a second parser.
    body.end().map(|()| operation)
}

fn init<'a>(body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    let init: wire::InitIn = body.take()?;
    let high = if body.bytes.is_empty() {
        0
    } else {
        body.take::<wire::InitInExt>()?.flags2
    };
    let mut flags = InitFlags::from_halves(init.flags, 0);
    if flags.contains(InitFlags::INIT_EXT) {
        flags = InitFlags::from_halves(init.flags, high);
    }
    Ok(Operation::Init {
        major: init.major,
        minor: init.minor,
        max_readahead: init.max_readahead,
        flags,
    })
}

fn batch_forget<'a>(body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    let head: wire::BatchForgetIn = body.take()?;
    let count = usize::try_from(head.count).map_err(|_| Refusal::Truncated)?;
    let len = count
        .checked_mul(size_of::<wire::ForgetOne>())
        .ok_or(Refusal::Truncated)?;
    Ok(Operation::BatchForget {
        forgets: Forgets(body.bytes(len)?),
    })
}

fn about_a_node<'a>(opcode: Opcode, body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    Ok(match opcode {
        Opcode::GetAttr => body.take::<wire::GetAttrIn>().map(|_| Operation::GetAttr)?,
        Opcode::Statx => body.take::<wire::StatxIn>().map(|_| Operation::Statx)?,
        Opcode::SetAttr => Operation::SetAttr {
            changes: body.take()?,
        },
        Opcode::Access => Operation::Access {
            mask: body.take::<wire::AccessIn>()?.mask,
        },
        Opcode::GetXattr => {
            let size = body.take::<wire::GetXattrIn>()?.size;
            Operation::GetXattr {
                name: body.xattr_name()?,
                size,
            }
        }
        Opcode::ListXattr => Operation::ListXattr {
            size: body.take::<wire::GetXattrIn>()?.size,
        },
        Opcode::SetXattr => set_xattr(body)?,
        Opcode::RemoveXattr => Operation::RemoveXattr {
            name: body.xattr_name()?,
        },
        _ => return Err(Refusal::Unknown),
    })
}

fn set_xattr<'a>(body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    let head: wire::SetXattrIn = body.take()?;
    let mode = XattrMode::from_bits(head.flags).ok_or(Refusal::Flags)?;
    let name = body.xattr_name()?;
    Ok(Operation::SetXattr {
        name,
        value: body.sized(head.size)?,
        mode,
    })
}

fn about_a_name<'a>(opcode: Opcode, body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    Ok(match opcode {
        Opcode::Lookup => Operation::Lookup { name: body.name()? },
        Opcode::ReadLink => Operation::ReadLink,
        Opcode::Symlink => Operation::Symlink {
            name: body.name()?,
            target: Target::new(body.text()?)?,
        },
        Opcode::MkNod => {
            let head: wire::MkNodIn = body.take()?;
            Operation::MkNod {
                name: body.name()?,
                mode: head.mode,
            }
        }
        Opcode::MkDir => {
            let head: wire::MkDirIn = body.take()?;
            Operation::MkDir {
                name: body.name()?,
                mode: head.mode,
            }
        }
        Opcode::Unlink => Operation::Unlink { name: body.name()? },
        Opcode::RmDir => Operation::RmDir { name: body.name()? },
        Opcode::Rename => {
            let head: wire::RenameIn = body.take()?;
            rename(body, head.newdir, RenameMode::empty())?
        }
        Opcode::Rename2 => {
            let head: wire::Rename2In = body.take()?;
            rename(
                body,
                head.newdir,
                RenameMode::from_bits(head.flags).ok_or(Refusal::Flags)?,
            )?
        }
        Opcode::Link => {
            let head: wire::LinkIn = body.take()?;
            Operation::Link {
                node: head.oldnodeid,
                name: body.name()?,
            }
        }
        _ => return Err(Refusal::Unknown),
    })
}

fn rename<'a>(
    body: &mut Body<'a>,
    new_parent: u64,
    mode: RenameMode,
) -> Result<Operation<'a>, Refusal> {
    Ok(Operation::Rename {
        name: body.name()?,
        new_parent,
        new_name: body.name()?,
        mode,
    })
}

fn opening<'a>(opcode: Opcode, body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    Ok(match opcode {
        Opcode::Open => Operation::Open {
            flags: OpenFlags::from_request(body.take::<wire::OpenIn>()?.flags),
        },
        Opcode::OpenDir => body.take::<wire::OpenIn>().map(|_| Operation::OpenDir)?,
        Opcode::Create => {
            let head: wire::CreateIn = body.take()?;
            Operation::Create {
                name: body.name()?,
                flags: OpenFlags::from_request(head.flags),
                mode: head.mode,
            }
        }
        Opcode::TmpFile => {
            let head: wire::CreateIn = body.take()?;
            // The kernel sends the name "/" here, which means nothing.
            body.text()?;
            Operation::TmpFile {
                flags: OpenFlags::from_request(head.flags),
                mode: head.mode,
            }
        }
        _ => return Err(Refusal::Unknown),
    })
}

fn transfer<'a>(opcode: Opcode, body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    Ok(match opcode {
        Opcode::Read => {
            let read: wire::ReadIn = body.take()?;
            Operation::Read {
                fh: read.fh,
                offset: read.offset,
                size: read.size,
            }
        }
        Opcode::ReadDir | Opcode::ReadDirPlus => {
            let read: wire::ReadIn = body.take()?;
            let plus = opcode == Opcode::ReadDirPlus;
            Operation::ReadDir {
                fh: read.fh,
                offset: read.offset,
                size: read.size,
                plus,
            }
        }
        Opcode::Write => {
            let write: wire::WriteIn = body.take()?;
            Operation::Write {
                fh: write.fh,
                offset: write.offset,
                size: body.content(write.size)?,
            }
        }
        Opcode::CopyFileRange => Operation::CopyFileRange { copy: body.take()? },
        _ => return Err(Refusal::Unknown),
    })
}

fn about_a_handle<'a>(opcode: Opcode, body: &mut Body<'a>) -> Result<Operation<'a>, Refusal> {
    Ok(match opcode {
        Opcode::Flush => {
            let flush: wire::FlushIn = body.take()?;
            Operation::Flush {
                fh: flush.fh,
                lock_owner: flush.lock_owner,
            }
        }
        Opcode::Release => Operation::Release {
            fh: body.take::<wire::ReleaseIn>()?.fh,
        },
        Opcode::ReleaseDir => Operation::ReleaseDir {
            fh: body.take::<wire::ReleaseIn>()?.fh,
        },
        Opcode::Fsync | Opcode::FsyncDir => fsync(opcode, &body.take()?),
        Opcode::Fallocate => fallocate(&body.take()?),
        Opcode::Lseek => {
            let seek: wire::LseekIn = body.take()?;
            Operation::Lseek {
                fh: seek.fh,
                offset: seek.offset,
                whence: seek.whence,
            }
        }
        Opcode::GetLk => Operation::GetLk { lock: body.take()? },
        Opcode::SetLk => Operation::SetLk {
            lock: body.take()?,
            wait: false,
        },
        Opcode::SetLkW => Operation::SetLk {
            lock: body.take()?,
            wait: true,
        },
        _ => return Err(Refusal::Unknown),
    })
}

fn fsync<'a>(opcode: Opcode, sync: &wire::FsyncIn) -> Operation<'a> {
    let (fh, data_only) = (sync.fh, sync.fsync_flags & 1 != 0);
    match opcode {
        Opcode::FsyncDir => Operation::FsyncDir { fh, data_only },
        _ => Operation::Fsync { fh, data_only },
    }
}

fn fallocate<'a>(request: &wire::FallocateIn) -> Operation<'a> {
    Operation::Fallocate {
        fh: request.fh,
        offset: request.offset,
        length: request.length,
        mode: FallocateMode::from_bits(request.mode),
    }
}

/// What is left of a request.
struct Body<'a> {
    bytes: &'a [u8],
    /// Bytes behind those, which are not here.
    left: usize,
}

impl<'a> Body<'a> {
    fn take<T: FromBytes>(&mut self) -> Result<T, Refusal> {
        let (value, rest) = T::read_from_prefix(self.bytes).map_err(|_| Refusal::Truncated)?;
        self.bytes = rest;
        Ok(value)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Refusal::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Passes over content, be it here or not; gives its size.
    fn content(&mut self, size: u32) -> Result<u32, Refusal> {
        let len = usize::try_from(size).map_err(|_| Refusal::Truncated)?;
        let here = len.min(self.bytes.len());
        self.bytes(here)?;
        let elsewhere = len.saturating_sub(here);
        self.left = self.left.checked_sub(elsewhere).ok_or(Refusal::Truncated)?;
        Ok(size)
    }

    fn sized(&mut self, size: u32) -> Result<&'a [u8], Refusal> {
        self.bytes(usize::try_from(size).map_err(|_| Refusal::Truncated)?)
    }

    fn text(&mut self) -> Result<&'a CStr, Refusal> {
        let text = CStr::from_bytes_until_nul(self.bytes).map_err(|_| Refusal::Truncated)?;
        self.bytes(text.to_bytes_with_nul().len())?;
        Ok(text)
    }

    fn name(&mut self) -> Result<Name<'a>, Refusal> {
        self.text().and_then(Name::new)
    }

    fn xattr_name(&mut self) -> Result<XattrName<'a>, Refusal> {
        self.text().and_then(XattrName::new)
    }

    fn end(&self) -> Result<(), Refusal> {
        if self.bytes.is_empty() && self.left == 0 {
            Ok(())
        } else {
            Err(Refusal::Trailing)
        }
    }
}
