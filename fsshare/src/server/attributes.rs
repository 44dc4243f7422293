//! What the guest is told of a node, and what it may change of it.

use std::time::Duration;

use super::Server;
use super::inodes::Inode;
use crate::abi::{SetAttrFlags, wire};
use crate::errno::Errno;
use crate::host::{AccessMode, Attributes, Kind, Layer, NewTime, Time, Watch, upper_number};

/// Nanoseconds of a second.
const SECOND: u32 = 1_000_000_000;
/// `STATX_BASIC_STATS`: all that `stat` tells.
const BASIC: u32 = 0x7ff;
/// `STATX_BTIME`: the time of creation.
const BIRTH: u32 = 0x800;

impl Server {
    /// GETATTR.
    pub(super) fn get_attributes(&self, node: u64) -> Result<wire::AttrOut, Errno> {
        Ok(self.attr_out(&self.inodes.attributes(&self.host, node)?))
    }

    /// STATX.
    pub(super) fn get_statx(&self, node: u64) -> Result<wire::StatxOut, Errno> {
        let attributes = self.inodes.attributes(&self.host, node)?;
        let (attr_valid, attr_valid_nsec) = self.validity(self.cache.attributes);
        Ok(wire::StatxOut {
            attr_valid,
            attr_valid_nsec,
            stat: self.statx(&attributes),
            ..wire::StatxOut::default()
        })
    }

    /// SETATTR. What is refused is refused before anything is changed.
    pub(super) fn set_attributes(
        &self,
        node: u64,
        changes: &wire::SetAttrIn,
    ) -> Result<wire::AttrOut, Errno> {
        let inode = self.node(node)?;
        inode.may_change_attributes()?;
        let valid = SetAttrFlags::from_bits_truncate(changes.valid);
        let given = |flag, id| valid.contains(flag).then_some(id);
        let (uid, gid) = (
            given(SetAttrFlags::UID, changes.uid),
            given(SetAttrFlags::GID, changes.gid),
        );
        self.owners.change(&inode.node.attributes()?, uid, gid)?;
        let (accessed, modified) = new_times(valid, changes)?;
        if valid.contains(SetAttrFlags::SIZE) {
            inode.may_change()?;
        }
        if valid.intersects(SetAttrFlags::SIZE | SetAttrFlags::MODE) {
            self.note_node(&inode);
        }
        let inode = self.own(inode)?;
        if valid.contains(SetAttrFlags::SIZE) {
            self.truncate(&inode, valid, changes)?;
        }
        if valid.contains(SetAttrFlags::MODE) {
            self.host.set_mode(&inode.node, changes.mode)?;
        } else if valid
            .intersects(SetAttrFlags::UID | SetAttrFlags::GID | SetAttrFlags::KILL_SUIDGID)
        {
            self.host.drop_privilege_bits(&inode.node)?;
        }
        if (accessed, modified) != (NewTime::Keep, NewTime::Keep) {
            inode.node.set_times(accessed, modified)?;
        }
        Ok(self.attr_out(&inode.node.attributes()?))
    }

    fn truncate(
        &self,
        inode: &Inode,
        valid: SetAttrFlags,
        changes: &wire::SetAttrIn,
    ) -> Result<(), Errno> {
        i64::try_from(changes.size).map_err(|_| Errno::EFBIG)?;
        self.host.drop_privilege_bits(&inode.node)?;
        if valid.contains(SetAttrFlags::FH) {
            let open = self.files.get(changes.fh, inode.id)?;
            return self.resize(inode, &open.object, changes.size);
        }
        let (file, _) = self.host.open(&inode.node, AccessMode::WRITE)?;
        self.resize(inode, &file, changes.size)
    }

    /// ACCESS.
    pub(super) fn access(&self, node: u64, mask: u32) -> Result<(), Errno> {
        self.host.may_access(&self.node(node)?.node, mask)
    }

    /// What a lookup gives that finds the share itself in the directory above all shares.
    pub(super) fn top(&self) -> Result<wire::EntryOut, Errno> {
        let id = self.inodes.root_id();
        let attributes = self.inodes.attributes(&self.host, id)?;
        let mut entry = self.entry_out(id, &attributes, None);
        entry.attr.flags = wire::ATTR_SUBMOUNT;
        Ok(entry)
    }

    /// The reply that gives the guest a node, found in that directory if it has a name.
    pub(super) fn entry_out(
        &self,
        nodeid: u64,
        attributes: &Attributes,
        parent: Option<&Inode>,
    ) -> wire::EntryOut {
        let differs = self.cache.names != self.cache.git_names;
        let names = match parent {
            _ if self.inodes.goes_by_its_last_name(attributes) => Duration::ZERO,
            Some(parent) if differs && self.inodes.is_gits(parent.id) => self.cache.git_names,
            _ => self.cache.names,
        };
        let (entry_valid, entry_valid_nsec) = self.validity(names);
        let (attr_valid, attr_valid_nsec) = self.validity(self.cache.attributes);
        wire::EntryOut {
            nodeid,
            generation: 0,
            entry_valid,
            attr_valid,
            entry_valid_nsec,
            attr_valid_nsec,
            attr: self.attr(attributes),
        }
    }

    /// The reply that says for how long there is nothing of a name.
    pub(super) fn absent(&self) -> wire::EntryOut {
        let (entry_valid, entry_valid_nsec) = self.validity(self.cache.absence);
        wire::EntryOut {
            entry_valid,
            entry_valid_nsec,
            ..wire::EntryOut::default()
        }
    }

    /// How long the guest may trust what it is told: not at all while the host changes something.
    fn validity(&self, usually: Duration) -> (u64, u32) {
        if !usually.is_zero() && self.watch.as_ref().is_some_and(Watch::sees_changes) {
            return (0, 0);
        }
        (usually.as_secs(), usually.subsec_nanos())
    }

    fn attr_out(&self, attributes: &Attributes) -> wire::AttrOut {
        let (attr_valid, attr_valid_nsec) = self.validity(self.cache.attributes);
        wire::AttrOut {
            attr_valid,
            attr_valid_nsec,
            dummy: 0,
            attr: self.attr(attributes),
        }
    }

    fn attr(&self, attributes: &Attributes) -> wire::Attr {
        let (uid, gid) = self.owners.shown(attributes);
        wire::Attr {
            ino: number(attributes),
            size: attributes.size,
            blocks: attributes.blocks,
            atime: attributes.accessed.seconds.cast_unsigned(),
            mtime: attributes.modified.seconds.cast_unsigned(),
            ctime: attributes.changed.seconds.cast_unsigned(),
            atimensec: attributes.accessed.nanos,
            mtimensec: attributes.modified.nanos,
            ctimensec: attributes.changed.nanos,
            mode: attributes.mode,
            nlink: attributes.links,
            uid,
            gid,
            rdev: 0,
            blksize: attributes.io_size,
            flags: 0,
        }
    }

    fn statx(&self, attributes: &Attributes) -> wire::Statx {
        let (uid, gid) = self.owners.shown(attributes);
        wire::Statx {
            mask: if attributes.born.is_some() {
                BASIC | BIRTH
            } else {
                BASIC
            },
            blksize: attributes.io_size,
            nlink: attributes.links,
            uid,
            gid,
            mode: u16::try_from(attributes.mode).unwrap_or(0),
            ino: number(attributes),
            size: attributes.size,
            blocks: attributes.blocks,
            atime: sx_time(attributes.accessed),
            btime: sx_time(attributes.born.unwrap_or_default()),
            ctime: sx_time(attributes.changed),
            mtime: sx_time(attributes.modified),
            ..wire::Statx::default()
        }
    }
}

/// The inode number that the guest is told.
fn number(attributes: &Attributes) -> u64 {
    match attributes.layer {
        // A directory keeps its number when it is copied up, or whoever walks through it would lose his way.
        Layer::Upper if attributes.kind() != Kind::Directory => {
            upper_number(attributes.identity.inode)
        }
        _ => attributes.identity.inode,
    }
}

fn sx_time(time: Time) -> wire::SxTime {
    wire::SxTime {
        tv_sec: time.seconds,
        tv_nsec: time.nanos,
        reserved: 0,
    }
}

fn new_times(valid: SetAttrFlags, changes: &wire::SetAttrIn) -> Result<(NewTime, NewTime), Errno> {
    let one = |set, now, seconds: u64, nanos| match (valid.contains(set), valid.contains(now)) {
        (_, true) => Ok(NewTime::Now),
        (false, false) => Ok(NewTime::Keep),
        (true, false) if nanos < SECOND => Ok(NewTime::At(Time {
            seconds: seconds.cast_signed(),
            nanos,
        })),
        (true, false) => Err(Errno::EINVAL),
    };
    Ok((
        one(
            SetAttrFlags::ATIME,
            SetAttrFlags::ATIME_NOW,
            changes.atime,
            changes.atimensec,
        )?,
        one(
            SetAttrFlags::MTIME,
            SetAttrFlags::MTIME_NOW,
            changes.mtime,
            changes.mtimensec,
        )?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_sign() {
        let changes = wire::SetAttrIn {
            atime: (-2_i64).cast_unsigned(),
            atimensec: 3,
            ..wire::SetAttrIn::default()
        };
        let expected = NewTime::At(Time {
            seconds: -2,
            nanos: 3,
        });
        assert_eq!(
            new_times(SetAttrFlags::ATIME, &changes),
            Ok((expected, NewTime::Keep))
        );
    }

    #[test]
    fn now_wins_over_a_given_time_and_a_second_has_a_billion_nanoseconds() {
        let changes = wire::SetAttrIn {
            mtimensec: SECOND,
            ..wire::SetAttrIn::default()
        };
        let both = SetAttrFlags::MTIME | SetAttrFlags::MTIME_NOW;
        assert_eq!(new_times(both, &changes), Ok((NewTime::Keep, NewTime::Now)));
        assert_eq!(new_times(SetAttrFlags::MTIME, &changes), Err(Errno::EINVAL));
        assert_eq!(
            new_times(SetAttrFlags::ATIME, &changes).map(|times| times.1),
            Ok(NewTime::Keep)
        );
    }
}
