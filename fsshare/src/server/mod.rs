//! The server: from a request to its reply.

mod attributes;
mod budget;
mod config;
mod copy_up;
mod directories;
mod error;
mod files;
mod growth;
mod guard;
mod handles;
mod inodes;
mod journal;
mod locks;
mod many;
mod names;
mod number;
mod owners;
mod passthrough;
mod quota;
mod refusals;
mod scratch;
mod session;
mod xattrs;

use std::sync::{Arc, RwLock};

pub use config::{CachePolicy, Config, HardLinkPolicy, Limits, LockPolicy, Owner};
pub use error::{Error, Fault};
pub use many::Shares;
pub use quota::Quota;
pub use refusals::{Observer, Reason, Refusal};

use self::budget::Budget;
use self::handles::{Directories, Files, Handles};
use self::inodes::{Inode, Inodes, Top};
use self::number::ShareNumber;
use self::owners::Owners;
#[cfg(feature = "fuse-mount")]
pub(crate) use self::passthrough::Backing;
use self::passthrough::Passthrough;
use self::quota::Usage;
use self::refusals::Refusals;
use self::scratch::{Answer, Pool, Scratch};
use self::session::Session;
use crate::abi::{Operation, Request, wire};
use crate::changes::{self, Journal, Origins};
use crate::errno::Errno;
use crate::handle::OwnedHandle;
use crate::host::{Host, LONGEST_XATTR, Node, Requirement, Watch};
use crate::rules::Rules;
use crate::transfer::{Reader, Writer};

/// Room for the structures around the content of the largest request: those of SETXATTR and SYMLINK are under 5 KiB.
const REQUEST_OVERHEAD: usize = 8 << 10;

/// One share, served to one guest.
///
/// All methods take `&self`; requests may be handled on any number of threads at once. Dropping it closes everything.
#[derive(Debug)]
pub struct Server {
    host: Host,
    session: Session,
    inodes: Inodes,
    files: Files,
    directories: Directories,
    /// Places for open files, open directories and lock owners.
    handle_budget: Budget,
    owners: Owners,
    passthrough: Passthrough,
    /// What the guest has added, if that is limited.
    usage: Option<Arc<Usage>>,
    read_only: bool,
    rules: Rules,
    refusals: Refusals,
    /// Who tells that the host's programs change something.
    watch: Option<Watch>,
    /// What the host had where the guest changed something, in an overlay.
    origins: Option<Origins>,
    /// What the host had there, without an overlay, if someone wants to know.
    journal: Option<Journal>,
    /// Who may run beside whom: see [`guard`].
    turns: RwLock<()>,
    cache: CachePolicy,
    locks: LockPolicy,
    /// Most bytes in one READ, WRITE or listing.
    max_transfer: u32,
    pool: Pool,
}

impl Server {
    /// Makes a server. It takes hold of all that it will need by path, so do this before the process is confined.
    ///
    /// # Errors
    /// [`Error::MaxWrite`], [`Error::Descriptors`], [`Error::Proc`] or [`Error::Root`].
    pub fn new(config: Config) -> Result<Self, Error> {
        Self::numbered(ShareNumber::default(), config)
    }

    fn numbered(number: ShareNumber, mut config: Config) -> Result<Self, Error> {
        if config.overlay.is_some() {
            // A lock on a file would stay with the host's when the guest's is copied up.
            config.locks = LockPolicy::Guest;
            // A directory that is in both trees takes two descriptors.
            config.limits.shares = config.limits.shares.max(1).saturating_mul(2);
        }
        let limits = checked(config.limits)?;
        let session = Session::new(&config);
        let Config {
            root,
            place,
            overlay,
            journal,
            read_only,
            rules,
            hard_links,
            observer,
            quota,
            owner,
            cache,
            locks,
            ..
        } = config;
        let usage = Usage::of(quota);
        let (host, root, origins) = open_tree(root, overlay.as_ref(), read_only)?;
        let journal = journal.filter(|_| origins.is_none()).map(Journal::new);
        let top = Top {
            state: rules.at(&place),
            is_gits: place.iter().any(|name| name == ".git"),
        };
        let inodes = Inodes::new(number, (root, top), &limits, hard_links, usage.clone())
            .map_err(|errno| Error::Root(errno.into()))?;
        Ok(Self {
            host,
            session,
            inodes,
            files: Handles::new(),
            directories: Handles::new(),
            handle_budget: Budget::new(limits.max_handles),
            passthrough: Passthrough::default(),
            usage,
            owners: Owners {
                host: Host::owner(),
                guest: owner,
            },
            read_only,
            rules,
            refusals: Refusals::to(observer),
            journal: journal.transpose().map_err(Error::Journal)?,
            watch: cache.watches_host.then(|| Watch::new(&place)).flatten(),
            origins,
            turns: RwLock::default(),
            cache,
            locks,
            max_transfer: limits.max_write,
            pool: Pool::default(),
        })
    }

    /// Lets the kernel that mounts this share read and write files itself, past this server. Not those of a read-only share: the kernel would
    /// leave times of access behind.
    #[cfg(feature = "fuse-mount")]
    pub(crate) fn pass_through_to(&mut self, kernel: Box<dyn Backing>) {
        // What is limited has to be counted here, and what is copied up is another file then.
        if !self.read_only && self.usage.is_none() && !self.host.is_overlay() {
            self.passthrough = Passthrough::to(kernel);
            self.session.offer_passthrough();
        }
    }

    /// Handles one request, which is all of `request`: does what it says, and writes the reply, if one is due, to `reply`. Returns the
    /// number of bytes written.
    ///
    /// Whatever is wrong with the request, short of its head, is told to the guest and is no error here.
    ///
    /// # Errors
    /// [`Error::Request`], [`Error::NoRoom`] or [`Error::Transfer`]: there is no reply. The server is as good as before.
    pub fn handle(&self, request: &mut dyn Reader, reply: &mut dyn Writer) -> Result<usize, Error> {
        let most = longest_request(self.max_transfer);
        self.pool
            .serve(request, most, reply, |parsed, content, scratch, reply| {
                self.answer(parsed, content, scratch, reply)
            })
    }

    /// Ends the session and lets go of everything that the guest held, as DESTROY does. For a transport whose driver went away
    /// without saying so; the next request must be INIT. Call it when no request is under way.
    pub fn reset(&self) {
        self.session.close();
        self.forget_everything();
    }

    /// Most bytes of content in one request or reply.
    #[must_use]
    pub fn longest_transfer(&self) -> usize {
        usize::try_from(self.max_transfer).unwrap_or(usize::MAX)
    }

    fn answer(
        &self,
        request: &Request<'_>,
        content: &mut dyn Reader,
        scratch: &mut Scratch,
        reply: &mut dyn Writer,
    ) -> Result<usize, Error> {
        scratch.reset(reply.available());
        let outcome = self.admit(&request.operation).and_then(|()| {
            let _turn = self.turn(request);
            let outcome = self.perform(request, content, scratch);
            outcome.inspect_err(|errno| self.tell_refused(request, *errno))
        });
        scratch.send(request.unique, outcome, reply)
    }

    /// The policy layer: whether this share does such a thing at all, whatever it is asked about.
    fn admit(&self, operation: &Operation<'_>) -> Result<(), Errno> {
        self.session.admit(operation)?;
        if !operation.changes() {
            return Ok(());
        }
        if self.read_only {
            return Err(Errno::EROFS);
        }
        if let Some(watch) = &self.watch {
            watch.expect_own();
        }
        Ok(())
    }

    /// Carries a request out; `content` is what of it was not parsed.
    fn perform(
        &self,
        request: &Request<'_>,
        content: &mut dyn Reader,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        let node = request.node;
        match request.operation {
            Operation::Init {
                major,
                minor,
                max_readahead,
                flags,
            } => {
                self.forget_everything();
                Ok(scratch.put(&self.session.open((major, minor), max_readahead, flags)?))
            }
            Operation::Destroy => {
                self.reset();
                Ok(Answer::Structures)
            }
            Operation::Forget { lookups } => {
                self.inodes.forget(node, lookups);
                Ok(Answer::Silence)
            }
            Operation::BatchForget { forgets } => {
                forgets.for_each(|one| self.inodes.forget(one.nodeid, one.nlookup));
                Ok(Answer::Silence)
            }
            // No request here ever waits, so there is nothing to interrupt.
            Operation::Interrupt { .. } => Ok(Answer::Silence),
            Operation::StatFs => Ok(scratch.put(&self.stat_fs(node)?)),
            Operation::SyncFs => done(if self.read_only {
                Ok(())
            } else {
                self.host.sync()
            }),
            Operation::GetAttr => Ok(scratch.put(&self.get_attributes(node)?)),
            Operation::Statx => Ok(scratch.put(&self.get_statx(node)?)),
            Operation::SetAttr { changes } => {
                Ok(scratch.put(&self.set_attributes(node, &changes)?))
            }
            Operation::Access { mask } => done(self.access(node, mask)),
            Operation::Ioctl => Err(Errno::ENOTTY),
            Operation::Unsupported => Err(Errno::ENOSYS),
            _ => self.perform_by_name(node, &request.operation, content, scratch),
        }
    }

    fn perform_by_name(
        &self,
        node: u64,
        operation: &Operation<'_>,
        content: &mut dyn Reader,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        match *operation {
            Operation::Lookup { name } => Ok(scratch.put(&self.lookup(node, name)?)),
            Operation::ReadLink => self.read_link(node, scratch),
            Operation::Symlink { name, target } => {
                Ok(scratch.put(&self.make_symlink(node, name, target)?))
            }
            Operation::MkNod { name, mode } => Ok(scratch.put(&self.make_node(node, name, mode)?)),
            Operation::MkDir { name, mode } => {
                Ok(scratch.put(&self.make_directory(node, name, mode)?))
            }
            Operation::Link { node: old, name } => Ok(scratch.put(&self.link(old, node, name)?)),
            Operation::Unlink { name } => done(self.unlink(node, name)),
            Operation::RmDir { name } => done(self.remove_directory(node, name)),
            Operation::Rename {
                name,
                new_parent,
                new_name,
                mode,
            } => done(self.rename((node, name), (new_parent, new_name), mode)),
            Operation::Create { name, flags, mode } => {
                let (entry, open) = self.create(node, name, flags, mode)?;
                scratch.put(&entry);
                Ok(scratch.put(&open))
            }
            Operation::TmpFile { flags, mode } => {
                let (entry, open) = self.create_unnamed(node, flags, mode)?;
                scratch.put(&entry);
                Ok(scratch.put(&open))
            }
            Operation::GetXattr { name, size } => self.get_xattr(node, name, size, scratch),
            Operation::SetXattr { name, value, mode } => {
                done(self.set_xattr(node, name, value, mode))
            }
            Operation::ListXattr { size } => self.list_xattrs(node, size, scratch),
            Operation::RemoveXattr { name } => done(self.remove_xattr(node, name)),
            _ => self.perform_by_handle(node, operation, content, scratch),
        }
    }

    fn perform_by_handle(
        &self,
        node: u64,
        operation: &Operation<'_>,
        content: &mut dyn Reader,
        scratch: &mut Scratch,
    ) -> Result<Answer, Errno> {
        match *operation {
            Operation::Open { flags } => Ok(scratch.put(&self.open(node, flags)?)),
            Operation::Read { fh, offset, size } => self
                .read(node, fh, (offset, size), scratch)
                .map(Answer::File),
            Operation::Write { fh, offset, size } => {
                Ok(scratch.put(&self.write(node, fh, (offset, size), content)?))
            }
            Operation::Flush { fh, lock_owner } => done(self.flush(node, fh, lock_owner)),
            Operation::Release { fh } => done(self.close(node, fh)),
            Operation::Fsync { fh, data_only } => done(self.sync_file(node, fh, data_only)),
            Operation::Fallocate {
                fh,
                offset,
                length,
                mode,
            } => done(self.allocate(node, fh, offset, length, mode)),
            Operation::Lseek { fh, offset, whence } => {
                Ok(scratch.put(&self.seek(node, fh, offset, whence)?))
            }
            Operation::CopyFileRange { copy } => Ok(scratch.put(&self.copy_range(node, &copy)?)),
            Operation::OpenDir => Ok(scratch.put(&self.open_directory(node)?)),
            Operation::ReadDir {
                fh,
                offset,
                size,
                plus,
            } => self.list(node, fh, offset, size, plus, scratch),
            Operation::ReleaseDir { fh } => done(self.directories.remove(fh, node)),
            Operation::FsyncDir { fh, data_only } => done(self.sync_directory(node, fh, data_only)),
            Operation::GetLk { lock } => Ok(scratch.put(&self.get_lock(node, &lock)?)),
            Operation::SetLk { lock, .. } => done(self.set_lock(node, &lock)),
            _ => Err(Errno::ENOSYS),
        }
    }

    /// The node with this number.
    fn node(&self, id: u64) -> Result<Arc<Inode>, Errno> {
        self.inodes.get(&self.host, id)
    }

    fn forget_everything(&self) {
        self.files.clear();
        self.passthrough.clear();
        self.directories.clear();
        self.inodes.clear();
    }

    fn stat_fs(&self, node: u64) -> Result<wire::StatFsOut, Errno> {
        let space = self.node(node)?.node.space()?;
        let (bytes, inodes) = match &self.usage {
            Some(usage) => usage.left(),
            None => (None, None),
        };
        let blocks = bytes.map_or(u64::MAX, |bytes| bytes / space.block_size.max(1));
        let inodes = inodes.unwrap_or(u64::MAX);
        let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Ok(wire::StatFsOut {
            blocks: space.blocks,
            bfree: space.free.min(blocks),
            bavail: space.available.min(blocks),
            files: space.inodes,
            ffree: space.inodes_free.min(inodes),
            bsize: narrow(space.io_size),
            namelen: narrow(space.longest_name),
            frsize: narrow(space.block_size),
            ..wire::StatFsOut::default()
        })
    }
}

/// Bytes of the longest request whose content has `max_transfer` at most.
fn longest_request(max_transfer: u32) -> usize {
    usize::try_from(max_transfer)
        .unwrap_or(usize::MAX)
        .max(LONGEST_XATTR)
        .saturating_add(REQUEST_OVERHEAD)
}

/// The answer of an operation that says no more than that it is done.
fn done(outcome: Result<(), Errno>) -> Result<Answer, Errno> {
    outcome.map(|()| Answer::Structures)
}

/// The tree at `root`, with another over it if there is a directory for that.
fn open_tree(
    root: OwnedHandle,
    overlay: Option<&OwnedHandle>,
    read_only: bool,
) -> Result<(Host, Node, Option<Origins>), Error> {
    let kept = overlay.map(|directory| changes::open(directory, &root));
    let (over, origins) = kept.transpose().map_err(Error::Overlay)?.unzip();
    let opened = Host::new(root, read_only, over);
    let (host, root) = opened.map_err(|(requirement, source)| match requirement {
        Requirement::Proc => Error::Proc(source),
        Requirement::Confinement => Error::Root(source),
        Requirement::Changes => Error::Overlay(source),
    })?;
    Ok((host, root, origins))
}

fn checked(limits: Limits) -> Result<Limits, Error> {
    if !(4096..=1 << 20).contains(&limits.max_write) || !limits.max_write.is_multiple_of(4096) {
        return Err(Error::MaxWrite(limits.max_write));
    }
    let descriptors = Host::descriptor_limit();
    limits.within(descriptors).ok_or(Error::Descriptors {
        limit: descriptors.unwrap_or(u64::MAX),
        shares: limits.shares,
    })
}
