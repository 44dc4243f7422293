//! Locks, where they are the host's.
//!
//! A `flock` belongs to an open file in the guest as on the host, so it is taken on the open file itself. A record lock belongs to
//! an *owner* in the guest, a process more or less, which may have the file open many times or share one open file with
//! another. So each owner gets its own open file on the host, and loses it, and with it its locks, at FLUSH.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Server;
use super::budget::Place;
use super::config::LockPolicy;
use super::inodes::Inode;
use crate::abi::wire;
use crate::errno::Errno;
use crate::host::{AccessMode, File, LockRequest};

/// The file that an owner's record locks belong to.
#[derive(Debug)]
pub(super) struct LockFile {
    file: File,
    _place: Place,
}

/// The owners of record locks on one node.
pub(super) type LockOwners = HashMap<u64, LockFile>;

/// Bit of `lk_flags`: a `flock`.
const FLOCK: u32 = 1;

impl Server {
    /// GETLK.
    pub(super) fn get_lock(
        &self,
        node: u64,
        asked: &wire::LockIn,
    ) -> Result<wire::FileLock, Errno> {
        let request = self.lock_request(asked)?;
        let open = self.files.get(asked.fh, node)?;
        let (start, end) = (asked.lock.start, asked.lock.end);
        let held = match open.inode.lock_owners().get(&asked.owner) {
            Some(own) => own.file.record_lock_in_the_way(request, start, end)?,
            None => self
                .lock_file(&open.inode)?
                .file
                .record_lock_in_the_way(request, start, end)?,
        };
        let (kind, start, end) = held.map_or((LockRequest::Release, start, end), |held| held);
        // The holder is a process of the host, or a guest's that the host knows nothing of: no number would be right.
        Ok(wire::FileLock {
            start,
            end,
            kind: number_of(kind),
            pid: 0,
        })
    }

    /// SETLK and SETLKW, which never waits either: see [`LockPolicy::Host`].
    pub(super) fn set_lock(&self, node: u64, asked: &wire::LockIn) -> Result<(), Errno> {
        let request = self.lock_request(asked)?;
        let open = self.files.get(asked.fh, node)?;
        if asked.lk_flags & FLOCK != 0 {
            return open.object.flock(request);
        }
        let (start, end) = (asked.lock.start, asked.lock.end);
        let mut owners = open.inode.lock_owners();
        match owners.entry(asked.owner) {
            Entry::Occupied(own) => own.get().file.set_record_lock(request, start, end),
            Entry::Vacant(_) if request == LockRequest::Release => Ok(()),
            Entry::Vacant(place) => {
                let own = self.lock_file(&open.inode)?;
                own.file.set_record_lock(request, start, end)?;
                place.insert(own);
                Ok(())
            }
        }
    }

    fn lock_request(&self, asked: &wire::LockIn) -> Result<LockRequest, Errno> {
        if self.locks == LockPolicy::Guest {
            return Err(Errno::ENOSYS);
        }
        match asked.lock.kind {
            0 => Ok(LockRequest::Shared),
            1 => Ok(LockRequest::Exclusive),
            2 => Ok(LockRequest::Release),
            _ => Err(Errno::EINVAL),
        }
    }

    /// An open file for a new owner, for both kinds of lock if this process may write the file and the share lets it.
    fn lock_file(&self, inode: &Inode) -> Result<LockFile, Errno> {
        let place = self.handle_budget.take()?;
        let modes: &[_] = if self.read_only {
            &[AccessMode::READ]
        } else {
            &[AccessMode::BOTH, AccessMode::READ, AccessMode::WRITE]
        };
        let mut outcome = Err(Errno::EACCES);
        for mode in modes {
            outcome = self.host.open(&inode.node, *mode);
            if !matches!(outcome, Err(Errno::EACCES | Errno::EROFS)) {
                break;
            }
        }
        Ok(LockFile {
            file: outcome?.0,
            _place: place,
        })
    }
}

fn number_of(lock: LockRequest) -> u32 {
    match lock {
        LockRequest::Shared => 0,
        LockRequest::Exclusive => 1,
        LockRequest::Release => 2,
    }
}
