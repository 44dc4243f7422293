//! Changes of a file's size, counted against the quota if there is one.

use std::sync::MutexGuard;

use super::Server;
use super::inodes::Inode;
use super::quota::{Added, Charge};
use crate::errno::Errno;
use crate::host::{AccessMode, File};

/// A file may be about to grow: what that adds is counted, and its size is nobody else's to change.
#[derive(Debug)]
pub(super) struct Growth<'a> {
    inode: &'a Inode,
    before: u64,
    charge: Charge<'a>,
    _size: Option<MutexGuard<'a, ()>>,
}

impl Server {
    /// Before bytes are written up to `end`, or so many at the file's end. Nothing without a quota.
    pub(super) fn growth<'a>(
        &'a self,
        inode: &'a Inode,
        end: impl FnOnce(u64) -> u64,
    ) -> Result<Option<Growth<'a>>, Errno> {
        let Some(usage) = &self.usage else {
            return Ok(None);
        };
        let size = inode.size_lock();
        let before = inode.node.attributes()?.size;
        let bytes = end(before).saturating_sub(before);
        Ok(Some(Growth {
            inode,
            before,
            charge: usage.charge(Added { bytes, inodes: 0 })?,
            _size: size,
        }))
    }

    /// Cuts or extends a file.
    pub(super) fn resize(&self, inode: &Inode, file: &File, size: u64) -> Result<(), Errno> {
        let growth = self.growth(inode, |_| size)?;
        file.set_size(size)?;
        if let Some(growth) = growth {
            let less = growth.before.saturating_sub(size);
            growth.settle()?;
            self.give_back(Added {
                bytes: less,
                inodes: 0,
            });
        }
        Ok(())
    }

    /// Empties a file before it is opened, where that has to be counted; whether that was done.
    pub(super) fn empty(&self, inode: &Inode) -> Result<bool, Errno> {
        if self.usage.is_none() {
            return Ok(false);
        }
        let (file, _) = self.host.open(&inode.node, AccessMode::WRITE)?;
        self.resize(inode, &file, 0).map(|()| true)
    }

    /// Before a file, a directory or a link is made.
    pub(super) fn charge_inode(&self) -> Result<Charge<'_>, Errno> {
        match &self.usage {
            Some(usage) => usage.charge(Added::ONE_INODE),
            None => Ok(Charge::none()),
        }
    }

    fn give_back(&self, added: Added) {
        if let Some(usage) = &self.usage {
            usage.give_back(added);
        }
    }
}

impl Growth<'_> {
    /// It was written: what the file did not grow by is given back.
    pub(super) fn settle(self) -> Result<(), Errno> {
        let after = self.inode.node.attributes()?.size;
        self.charge.keep_bytes(after.saturating_sub(self.before));
        Ok(())
    }
}
