//! Who owns what, in the guest's numbers.

use super::config::Owner;
use crate::errno::Errno;
use crate::host::Attributes;

/// The owner that the guest sees where the host's is nobody it knows.
const NOBODY: u32 = 65_534;

/// The mapping between the user that this process is and the user that the guest is to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners {
    pub(super) host: (u32, u32),
    pub(super) guest: Owner,
}

impl Owners {
    /// The owner and group that the guest sees.
    pub(super) fn shown(&self, attributes: &Attributes) -> (u32, u32) {
        let one = |host, ours, guest| if host == ours { guest } else { NOBODY };
        (
            one(attributes.uid, self.host.0, self.guest.uid),
            one(attributes.gid, self.host.1, self.guest.gid),
        )
    }

    /// Decides on a change of owner or group. What is allowed is what needs no change.
    pub(super) fn change(
        &self,
        attributes: &Attributes,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<(), Errno> {
        let shown = self.shown(attributes);
        let keeps =
            |new: Option<u32>, shown, guest| new.is_none_or(|new| new == shown || new == guest);
        if keeps(uid, shown.0, self.guest.uid) && keeps(gid, shown.1, self.guest.gid) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Identity, Layer, Time};

    const OWNERS: Owners = Owners {
        host: (1000, 1001),
        guest: Owner { uid: 7, gid: 8 },
    };

    fn owned_by(uid: u32, gid: u32) -> Attributes {
        Attributes {
            identity: Identity {
                device: (0, 0),
                inode: 1,
            },
            mode: 0o100_644,
            links: 1,
            uid,
            gid,
            size: 0,
            blocks: 0,
            io_size: 4096,
            accessed: Time::default(),
            modified: Time::default(),
            changed: Time::default(),
            born: None,
            layer: Layer::Only,
        }
    }

    #[test]
    fn the_hosts_user_appears_as_the_guests_and_everyone_else_as_nobody() {
        for (host, guest) in [
            ((1000, 1001), (7, 8)),
            ((1000, 0), (7, NOBODY)),
            ((0, 1001), (NOBODY, 8)),
            ((0, 0), (NOBODY, NOBODY)),
            // The guest's own numbers mean nothing on the host.
            ((7, 8), (NOBODY, NOBODY)),
        ] {
            assert_eq!(OWNERS.shown(&owned_by(host.0, host.1)), guest, "{host:?}");
        }
    }

    #[test]
    fn only_changes_that_change_nothing_are_allowed() {
        let ours = owned_by(1000, 1001);
        for (uid, gid, allowed) in [
            (None, None, true),
            (Some(7), Some(8), true),
            (Some(7), None, true),
            (Some(0), None, false),
            (None, Some(0), false),
            (Some(7), Some(1001), false),
            (Some(1000), Some(8), false),
            (Some(NOBODY), None, false),
        ] {
            assert_eq!(
                OWNERS.change(&ours, uid, gid).is_ok(),
                allowed,
                "{uid:?} {gid:?}"
            );
        }
        assert_eq!(
            OWNERS.change(&owned_by(5, 5), Some(NOBODY), Some(NOBODY)),
            Ok(())
        );
    }
}
