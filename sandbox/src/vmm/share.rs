//! Joins the shares' servers to the file system devices.

#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use devices::fs::FsBackend;
use devices::virtio::{Reader, Writer};
use fsshare::transfer::{self, FileReply};
use fsshare::{
    CachePolicy, Config, Error, HardLinkPolicy, Limits, Observer, Owner, Quota, Reason, Rules,
    Server, Shares,
};

use crate::config::ShareCache;
use crate::plan::SharePlan;
use crate::refusal::{Refusal, RefusalReason};
use crate::worker::Reporter;

/// What holds for all shares.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) rules: Rules,
    pub(super) hard_links: HardLinkPolicy,
    pub(super) quota: Quota,
    /// How many shares this process serves.
    pub(super) servers: usize,
    pub(super) observer: Arc<dyn Observer>,
}

/// The directories of a share. The host program's locks on them last as long as these descriptors: the server opens its own.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) root: OwnedFd,
    /// What takes the guest's changes, in an overlay.
    pub(super) changes: Option<OwnedFd>,
    /// Where it is written down what the guest changes in the directory itself.
    pub(super) journal: Option<OwnedFd>,
}

impl Places {
    fn config(&self, plan: &SharePlan, policy: &Policy) -> Result<Config, Error> {
        let root = self.root.try_clone().map_err(Error::Root)?;
        let changes = self.changes.as_ref().map(OwnedFd::try_clone);
        let journal = self.journal.as_ref().map(OwnedFd::try_clone);
        Ok(Config {
            place: PathBuf::from(OsStr::from_bytes(&plan.place)),
            read_only: plan.read_only,
            owner: Owner {
                uid: plan.owner.0,
                gid: plan.owner.1,
            },
            rules: policy.rules.clone(),
            hard_links: policy.hard_links,
            quota: policy.quota,
            observer: Some(Arc::clone(&policy.observer)),
            limits: Limits {
                shares: policy.servers,
                ..Limits::default()
            },
            journal: journal.transpose().map_err(Error::Root)?,
            overlay: changes.transpose().map_err(Error::Overlay)?,
            cache: match plan.cache {
                ShareCache::Auto => CachePolicy::auto(),
                ShareCache::Always => CachePolicy::always(),
                ShareCache::Never => CachePolicy::never(),
            },
            ..Config::new(root)
        })
    }
}

/// The shares of a device, as it sees them.
#[derive(Debug)]
pub(super) struct Backend {
    server: Served,
    _places: Vec<Places>,
}

#[derive(Debug)]
enum Served {
    /// The device's root is the share's.
    One(Box<Server>),
    /// The device's root has an entry for each.
    Many(Shares),
}

impl Backend {
    /// Serves these shares, of all that this process serves.
    pub(super) fn new(shares: Vec<(Places, &SharePlan)>, policy: &Policy) -> Result<Self, Error> {
        let configs = shares
            .iter()
            .map(|(places, plan)| places.config(plan, policy));
        let mut configs = configs.collect::<Result<Vec<_>, _>>()?;
        let server = match configs.pop() {
            Some(only) if configs.is_empty() => Served::One(Box::new(Server::new(only)?)),
            last => {
                configs.extend(last);
                Served::Many(Shares::new(configs)?)
            }
        };
        Ok(Self {
            server,
            _places: shares.into_iter().map(|(places, _)| places).collect(),
        })
    }
}

impl FsBackend for Backend {
    fn handle(&self, request: &mut Reader<'_>, reply: &mut Writer<'_>) -> usize {
        let (mut request, mut reply) = (In(request), Out(reply));
        let served = match &self.server {
            Served::One(server) => server.handle(&mut request, &mut reply),
            Served::Many(shares) => shares.handle(&mut request, &mut reply),
        };
        // A request that cannot be answered at all is one that no driver sends; it gets no reply.
        served.unwrap_or(0)
    }

    /// The servers stay the same, so that a driver that starts over has not used less of its quota.
    fn reset(&self) {
        match &self.server {
            Served::One(server) => server.reset(),
            Served::Many(shares) => shares.reset(),
        }
    }
}

/// Passes on to the host program what the guest was kept from.
#[derive(Debug)]
pub(super) struct Told(pub(super) Arc<Reporter>);

impl Observer for Told {
    fn refused(&self, refusal: &fsshare::Refusal) {
        let reason = match refusal.reason {
            Reason::Hidden => RefusalReason::Hidden,
            Reason::HardLink => RefusalReason::HardLink,
            _ => RefusalReason::Protected,
        };
        self.0.refused(Refusal {
            reason,
            path: refusal.path.clone(),
        });
    }
}

struct In<'a, 'b>(&'a mut Reader<'b>);

impl transfer::Reader for In<'_, '_> {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact(buffer).map_err(io::Error::other)
    }

    fn write_to_file(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        len: usize,
    ) -> io::Result<usize> {
        transfer::repeat(offset, len, |offset, left| {
            self.0.write_to_file(file, offset, left)
        })
    }
}

struct Out<'a, 'b>(&'a mut Writer<'b>);

impl transfer::Writer for Out<'_, '_> {
    fn available(&self) -> usize {
        self.0.available()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).map_err(io::Error::other)
    }

    fn send_file(&mut self, reply: &FileReply<'_>) -> io::Result<usize> {
        let mut place = self
            .0
            .reserve(FileReply::HEAD_LEN)
            .map_err(io::Error::other)?;
        let (head, len) =
            reply.read_by(|file, offset, left| self.0.read_from_file(file, offset, left));
        place.write_obj(&head).map_err(io::Error::other)?;
        Ok(FileReply::HEAD_LEN + len)
    }
}
