//! Joins the share's server to the file system device.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError, RwLock};

use devices::fs::FsBackend;
use devices::virtio::{Reader, Writer};
use fsshare::transfer;
use fsshare::{
    Config, Error, HardLinkPolicy, Limits, Observer, Owner, Quota, Reason, Rules, Server,
};

use crate::plan::SharePlan;
use crate::refusal::{Refusal, RefusalReason};
use crate::worker::Reporter;

/// What holds for all shares.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) rules: Rules,
    pub(super) hard_links: HardLinkPolicy,
    pub(super) quota: Quota,
}

/// A share as the device sees it.
#[derive(Debug)]
pub(super) struct Share {
    root: OwnedFd,
    read_only: bool,
    owner: Owner,
    policy: Policy,
    observer: Arc<dyn Observer>,
    limits: Limits,
    /// Replaced when the guest's driver starts over. `None` only when that failed.
    server: RwLock<Option<Server>>,
}

impl Share {
    /// A share of the directory `root`, one of `shares` in this process.
    pub(super) fn new(
        root: OwnedFd,
        plan: &SharePlan,
        policy: Policy,
        shares: usize,
        reporter: &Arc<Reporter>,
    ) -> Result<Self, Error> {
        let owner = Owner {
            uid: plan.owner.0,
            gid: plan.owner.1,
        };
        let share = Self {
            root,
            read_only: plan.read_only,
            owner,
            policy,
            observer: Arc::new(Told(Arc::clone(reporter))),
            limits: Limits {
                shares,
                ..Limits::default()
            },
            server: RwLock::new(None),
        };
        *share.server.write().unwrap_or_else(PoisonError::into_inner) = Some(share.serve()?);
        Ok(share)
    }

    fn serve(&self) -> Result<Server, Error> {
        let root = self.root.try_clone().map_err(Error::Root)?;
        let config = Config::new(root);
        Server::new(Config {
            read_only: self.read_only,
            owner: self.owner,
            rules: self.policy.rules.clone(),
            hard_links: self.policy.hard_links,
            quota: self.policy.quota,
            observer: Some(Arc::clone(&self.observer)),
            limits: self.limits,
            ..config
        })
    }
}

impl FsBackend for Share {
    fn handle(&self, request: &mut Reader<'_>, reply: &mut Writer<'_>) -> usize {
        let server = self.server.read().unwrap_or_else(PoisonError::into_inner);
        let served = server
            .as_ref()
            .map(|server| server.handle(&mut In(request), &mut Out(reply)));
        // A request that cannot be answered at all is one that no driver sends; it gets no reply.
        served.and_then(Result::ok).unwrap_or(0)
    }

    fn reset(&self) {
        let fresh = self.serve().ok();
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

/// Passes on to the host program what the guest was kept from.
#[derive(Debug)]
struct Told(Arc<Reporter>);

impl Observer for Told {
    fn refused(&self, refusal: &fsshare::Refusal) {
        let reason = match refusal.reason {
            Reason::Hidden => RefusalReason::Hidden,
            Reason::HardLink => RefusalReason::HardLink,
            _ => RefusalReason::Protected,
        };
        self.0.kept(Refusal {
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
}

struct Out<'a, 'b>(&'a mut Writer<'b>);

impl transfer::Writer for Out<'_, '_> {
    fn available(&self) -> usize {
        self.0.available()
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).map_err(io::Error::other)
    }
}
