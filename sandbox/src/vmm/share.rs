//! Joins the share's server to the file system device.

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use devices::fs::FsBackend;
use devices::virtio::{Reader, Writer};
use fsshare::transfer::{self, FileReply};
use fsshare::{Config, Error, Limits, Owner, Rules, Server};

use crate::plan::SharePlan;

/// A share as the device sees it.
#[derive(Debug)]
pub(super) struct Share {
    root: OwnedFd,
    read_only: bool,
    owner: Owner,
    rules: Rules,
    limits: Limits,
    /// Replaced when the guest's driver starts over. `None` only when that failed.
    server: RwLock<Option<Server>>,
}

impl Share {
    /// A share of the directory `root`, one of `shares` in this process.
    pub(super) fn new(
        root: OwnedFd,
        plan: &SharePlan,
        rules: Rules,
        shares: usize,
    ) -> Result<Self, Error> {
        let owner = Owner {
            uid: plan.owner.0,
            gid: plan.owner.1,
        };
        let share = Self {
            root,
            read_only: plan.read_only,
            owner,
            rules,
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
            rules: self.rules.clone(),
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
