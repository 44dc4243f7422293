//! Many shares in one session.
//!
//! A share's number is the uppermost byte of the number of each of its nodes ([`ShareNumber`]), so a request says itself whose it is. What is the
//! session's is done here; what is about the directory above the shares is answered by [`top`]; all else is the share's server's business, as if it
//! were alone: its nodes, handles, rules, limits and journals are not known outside of it.

mod top;

use super::config::Config;
use super::error::Error;
use super::number::ShareNumber;
use super::scratch::{Answer, Pool, Scratch};
use super::session::Session;
use super::{Server, longest_request};
use crate::abi::{InitFlags, MAJOR, Operation, ROOT_ID, Request, wire};
use crate::errno::Errno;
use crate::transfer::{Reader, Writer};

/// Several shares, served to one guest over one transport.
///
/// The root of what the guest mounts is a directory that holds nothing but the shares, each under its number: `1` is the first. The guest's kernel
/// makes each a file system of its own (`FUSE_SUBMOUNTS`, Linux 5.10), so that inode numbers of different trees cannot be mistaken for each other; one
/// that cannot do that is refused at INIT.
///
/// Each share has the settings of its own [`Config`], but for what is agreed on once a session:
///
/// * The guest holds written data back ([`CachePolicy::writeback`](super::CachePolicy::writeback)) if all shares allow it and none is read-only.
/// * Locks are the host's ([`LockPolicy::Host`](super::LockPolicy::Host)) if they are for all shares.
/// * [`Limits::max_write`](super::Limits::max_write) is the least of all.
///
/// Linux asks before each write to a share whether the file has capabilities (`GETXATTR`), unless the guest holds written data back: what it learns of
/// that at INIT it keeps for the root's file system only (`SB_NOSEC`; seen in 6.12). So a share that a guest writes much to is better served alone.
///
/// Nothing is moved, linked or copied from one share to another by the server (`EXDEV`).
///
/// All methods take `&self`; requests may be handled on any number of threads at once.
#[derive(Debug)]
pub struct Shares {
    /// The first has number 1.
    servers: Vec<Server>,
    session: Session,
    pool: Pool,
}

/// Who answers a request.
enum Answerer<'a> {
    /// The server of one share.
    Share(&'a Server),
    /// Whoever knows all of them.
    Session,
}

impl Shares {
    /// Most shares of one session.
    pub const MOST: usize = 255;

    /// Makes a server for each share, as [`Server::new`].
    ///
    /// # Errors
    /// As [`Server::new`]; [`Error::Shares`] if there is none or are more than [`Self::MOST`].
    pub fn new(configs: Vec<Config>) -> Result<Self, Error> {
        let count = configs.len();
        if !(1..=Self::MOST).contains(&count) {
            return Err(Error::Shares(count));
        }
        let servers = (1..=u8::MAX)
            .zip(configs)
            .map(|(number, config)| Server::numbered(ShareNumber(number), config))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            session: Session::of_many(servers.iter().map(|server| &server.session)),
            servers,
            pool: Pool::default(),
        })
    }

    /// Handles one request, as [`Server::handle`].
    ///
    /// # Errors
    /// As [`Server::handle`].
    pub fn handle(&self, request: &mut dyn Reader, reply: &mut dyn Writer) -> Result<usize, Error> {
        let most = longest_request(self.session.max_write());
        self.pool
            .serve(request, most, reply, |parsed, content, scratch, reply| {
                self.answer(parsed, content, scratch, reply)
            })
    }

    /// Ends the session and lets go of everything that the guest held, in all shares, as [`Server::reset`].
    pub fn reset(&self) {
        self.session.close();
        self.servers.iter().for_each(Server::reset);
    }

    fn answer(
        &self,
        request: &Request<'_>,
        content: &mut dyn Reader,
        scratch: &mut Scratch,
        reply: &mut dyn Writer,
    ) -> Result<usize, Error> {
        let admitted = self.session.admit(&request.operation);
        let outcome = match admitted.and_then(|()| self.answerer(request)) {
            Ok(Answerer::Share(server)) => return server.answer(request, content, scratch, reply),
            Ok(Answerer::Session) => {
                scratch.reset(reply.available());
                self.perform(request, scratch)
            }
            Err(errno) => Err(errno),
        };
        scratch.send(request.unique, outcome, reply)
    }

    fn answerer(&self, request: &Request<'_>) -> Result<Answerer<'_>, Errno> {
        if is_sessions(&request.operation) {
            return Ok(Answerer::Session);
        }
        let other = other_node(&request.operation).unwrap_or(request.node);
        if ShareNumber::of(other) != ShareNumber::of(request.node) {
            return Err(Errno::EXDEV);
        }
        match self.server(request.node) {
            Some(server) => Ok(Answerer::Share(server)),
            None if request.node == ROOT_ID => Ok(Answerer::Session),
            None => Err(Errno::ESTALE),
        }
    }

    /// The server of the share that the node with this number is of.
    fn server(&self, node: u64) -> Option<&Server> {
        let ShareNumber(number) = ShareNumber::of(node);
        self.servers.get(usize::from(number).checked_sub(1)?)
    }

    fn perform(&self, request: &Request<'_>, scratch: &mut Scratch) -> Result<Answer, Errno> {
        match request.operation {
            Operation::Init {
                major,
                minor,
                max_readahead,
                flags,
            } => Ok(scratch.put(&self.begin((major, minor), max_readahead, flags)?)),
            Operation::Destroy => {
                self.reset();
                Ok(Answer::Structures)
            }
            Operation::Forget { lookups } => {
                self.forget(request, request.node, lookups);
                Ok(Answer::Silence)
            }
            Operation::BatchForget { forgets } => {
                forgets.for_each(|one| self.forget(request, one.nodeid, one.nlookup));
                Ok(Answer::Silence)
            }
            Operation::Interrupt { .. } => Ok(Answer::Silence),
            _ => self.perform_at_top(&request.operation, scratch),
        }
    }

    /// INIT, for all shares at once.
    fn begin(
        &self,
        version: (u32, u32),
        max_readahead: u32,
        asked: InitFlags,
    ) -> Result<wire::InitOut, Errno> {
        self.reset();
        if version.0 == MAJOR && !asked.contains(InitFlags::SUBMOUNTS) {
            return Err(Errno::EPROTO);
        }
        let agreed = self.session.open(version, max_readahead, asked)?;
        for server in &self.servers {
            server.session.follow(&self.session);
        }
        Ok(agreed)
    }

    fn forget(&self, request: &Request<'_>, node: u64, lookups: u64) {
        if let Some(server) = self.server(node) {
            let _turn = server.turn(request);
            server.inodes.forget(node, lookups);
        }
    }
}

/// Whether it is about the session, or about nodes of any share.
fn is_sessions(operation: &Operation<'_>) -> bool {
    matches!(
        operation,
        Operation::Init { .. }
            | Operation::Destroy
            | Operation::Forget { .. }
            | Operation::BatchForget { .. }
            | Operation::Interrupt { .. }
    )
}

/// The second node of a request that is about two.
fn other_node(operation: &Operation<'_>) -> Option<u64> {
    match operation {
        Operation::Rename { new_parent, .. } => Some(*new_parent),
        Operation::Link { node, .. } => Some(*node),
        Operation::CopyFileRange { copy } => Some(copy.nodeid_out),
        _ => None,
    }
}
