//! What the workers are told: plain data, validated before it is sent.
//!
//! A plan holds no path that the worker would open. Every file, directory and stream is opened by
//! the host program and handed over as a descriptor with a [`Role`].

use fsshare::{HardLinkPolicy, Quota, RuleError, Rules};
use netproxy::dial::UpstreamProxy;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::config::ShareCache;

/// Version of the plan's form; a worker refuses any other.
pub(crate) const PLAN_VERSION: u32 = 9;

/// Most bytes of an encoded plan.
pub(crate) const MAX_PLAN: usize = 64 * 1024;

/// Most descriptors that can go with a plan (what one `SCM_RIGHTS` message takes).
pub(crate) const MAX_DESCRIPTORS: usize = 250;

/// A machine to build.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// [`PLAN_VERSION`].
    pub(crate) version: u32,
    /// How many processors.
    pub(crate) vcpus: u32,
    /// Bytes of guest RAM.
    pub(crate) memory: u64,
    /// The kernel's command line.
    pub(crate) command_line: String,
    /// Whether there is a 16550 for a kernel without a virtio console.
    pub(crate) serial: bool,
    /// Which of the descriptors is what, in the order in which they are sent.
    pub(crate) roles: Vec<Role>,
    /// The shares, as [`Role::Share`] counts them.
    pub(crate) shares: Vec<SharePlan>,
    /// The devices on which they are.
    pub(crate) share_devices: Vec<ShareDevice>,
    /// The rules of all shares.
    pub(crate) rules: RulePlan,
}

/// What a worker is told first.
pub(crate) trait WorkerPlan: DeserializeOwned {
    /// [`PLAN_VERSION`] of who sent it.
    fn version(&self) -> u32;

    /// Which of the descriptors is what, in the order in which they are sent.
    fn roles(&self) -> &[Role];
}

impl WorkerPlan for Plan {
    fn version(&self) -> u32 {
        self.version
    }

    fn roles(&self) -> &[Role] {
        &self.roles
    }
}

/// A network to be: what the egress worker is told.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct EgressPlan {
    /// [`PLAN_VERSION`].
    pub(crate) version: u32,
    /// Which of the descriptors is what, in the order in which they are sent.
    pub(crate) roles: Vec<Role>,
    /// Whether every decision is to be told, for a log.
    pub(crate) audit: bool,
    /// By whom everything outside is reached.
    pub(crate) upstream: Option<UpstreamProxy>,
}

impl WorkerPlan for EgressPlan {
    fn version(&self) -> u32 {
        self.version
    }

    fn roles(&self) -> &[Role] {
        &self.roles
    }
}

/// Whose policy it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum PolicyLayer {
    /// The host user's, for all sandboxes.
    Global,
    /// This sandbox's.
    Sandbox,
    /// The repository's own, which may only tighten.
    Repository,
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// The host's hypervisor device.
    Hypervisor,
    /// The kernel file.
    Kernel,
    /// The initial RAM file system.
    Initrd,
    /// The root image, which the guest sees as its first disk, read-only.
    Root,
    /// The stream on which the guest's agent is reached.
    Agent,
    /// Where the guest's console goes.
    Console,
    /// For the vmm worker the socket over which those to egress workers come, one after the other; without it there is no network device. For the egress
    /// worker the socket to the vmm worker.
    Network,
    /// The socket over which the egress worker gets the listeners of published ports, one for each order.
    Listeners,
    /// The directory of the share with this number.
    Share(usize),
    /// The directory that takes the guest's changes to that share.
    Changes(usize),
    /// The file in which is written down what the guest changes in the directory itself.
    Journal(usize),
}

/// One directory tree that the guest may mount.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct SharePlan {
    /// The directory's path on the host, for rules that have begun above it. Nothing is opened by it.
    pub(crate) place: Vec<u8>,
    /// Every change is refused by the server.
    pub(crate) read_only: bool,
    /// For how long the guest may trust what it knows of it.
    pub(crate) cache: ShareCache,
    /// User and group of the guest to whom the host user's files belong there.
    pub(crate) owner: (u32, u32),
}

/// A file system device, and the shares on it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShareDevice {
    /// The name by which the guest mounts it.
    pub(crate) tag: String,
    /// The numbers of the shares. A single one is all that is on the device; of several, each is an entry of the device's root, the first `1`.
    pub(crate) shares: Vec<usize>,
}

impl ShareDevice {
    /// The devices of so many shares.
    ///
    /// The first share, which is the workspace, has a device to itself, and the others share one. For a share that is one of many, the guest's
    /// kernel asks before each write whether the file has capabilities (Linux sets `SB_NOSEC` for the root of a device only), so
    /// this is not for the directory that a guest works in.
    pub(crate) fn all_for(shares: usize) -> Vec<Self> {
        let device = |tag: &str, shares: std::ops::Range<usize>| Self {
            tag: tag.into(),
            shares: shares.collect(),
        };
        let devices = [
            device("workspace", 0..shares.min(1)),
            device("shares", 1..shares),
        ];
        let used = devices.into_iter().filter(|one| !one.shares.is_empty());
        used.collect()
    }

    /// The entry of the device's root that the share with this number is, unless it is all of the device; nothing if it is not on the device.
    pub(crate) fn entry(&self, share: usize) -> Option<Option<u32>> {
        let at = self.shares.iter().position(|one| *one == share)?;
        match self.shares.len() {
            1 => Some(None),
            _ => u32::try_from(at + 1).ok().map(Some),
        }
    }
}

/// Names in the shares that the guest does not see, or cannot change; patterns as in [`Rules`].
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct RulePlan {
    /// Whether [`Rules::usual`] hold.
    pub(crate) usual: bool,
    /// Further patterns of names that are hidden.
    pub(crate) hidden: Vec<String>,
    /// Further patterns of names that are protected.
    pub(crate) protected: Vec<String>,
    /// Whether files of several names may be changed: see [`HardLinkPolicy`].
    pub(crate) hard_links_writable: bool,
    /// Bytes that the guest may add to each share: see [`Quota`].
    pub(crate) quota_bytes: Option<u64>,
    /// Files, directories and symbolic links that it may add.
    pub(crate) quota_files: Option<u64>,
}

impl Default for RulePlan {
    fn default() -> Self {
        Self {
            usual: true,
            hidden: Vec::new(),
            protected: Vec::new(),
            hard_links_writable: false,
            quota_bytes: None,
            quota_files: None,
        }
    }
}

impl RulePlan {
    pub(crate) fn quota(&self) -> Quota {
        Quota {
            bytes: self.quota_bytes,
            inodes: self.quota_files,
        }
    }

    pub(crate) fn hard_links(&self) -> HardLinkPolicy {
        if self.hard_links_writable {
            HardLinkPolicy::Writable
        } else {
            HardLinkPolicy::ReadOnly
        }
    }

    /// The rules, if each pattern is one.
    pub(crate) fn rules(&self) -> Result<Rules, RuleError> {
        let mut rules = if self.usual {
            Rules::usual()
        } else {
            Rules::none()
        };
        for pattern in &self.hidden {
            rules.hide(pattern)?;
        }
        for pattern in &self.protected {
            rules.protect(pattern)?;
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_encoding() {
        let plan = Plan {
            version: PLAN_VERSION,
            vcpus: 2,
            memory: 512 << 20,
            command_line: "console=hvc0".into(),
            serial: true,
            roles: vec![Role::Hypervisor, Role::Share(0)],
            shares: vec![SharePlan {
                place: b"/srv/\xff".to_vec(),
                read_only: true,
                cache: ShareCache::Never,
                owner: (0, 0),
            }],
            share_devices: ShareDevice::all_for(1),
            rules: RulePlan {
                hidden: vec!["*.key".into()],
                ..RulePlan::default()
            },
        };
        let bytes = postcard::to_stdvec(&plan).unwrap();
        assert!(bytes.len() < MAX_PLAN);
        assert_eq!(postcard::from_bytes::<Plan>(&bytes).unwrap(), plan);
    }

    #[test]
    fn the_first_share_has_a_device_to_itself_and_the_others_have_one() {
        let devices = |count| -> Vec<Vec<usize>> {
            let devices = ShareDevice::all_for(count).into_iter();
            devices.map(|device| device.shares).collect()
        };
        assert!(devices(0).is_empty());
        assert_eq!(devices(1), [[0]]);
        assert_eq!(devices(2), [[0], [1]]);
        assert_eq!(devices(4), [vec![0], vec![1, 2, 3]]);
        assert_eq!(devices(200)[1].len(), 199);
        let all = ShareDevice::all_for(3);
        let entries = |share| all.iter().map(move |device| device.entry(share));
        assert_eq!(entries(0).collect::<Vec<_>>(), [Some(None), None]);
        assert_eq!(entries(2).collect::<Vec<_>>(), [None, Some(Some(2))]);
        assert_eq!(ShareDevice::all_for(2)[1].entry(1), Some(None));
    }
}
