//! `/dev/kvm`: what it can do, and the way to a VM.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use hv_core::arch::x86_64::cpuid::{CpuidEntry, address_bits};
use hv_core::{Arch, Draft, HostFacts, HvError, HvErrorKind, Hypervisor, Limits, Result, VmSpec};
use kvm_bindings::{KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm, VmFd};

use crate::draft::KvmDraft;
use crate::{failed, quirk, state, sys};

const API_VERSION: i32 = 12;

/// What this crate cannot do without.
const NEEDED: [(Cap, &str); 13] = [
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::SignalMsi, "KVM_CAP_SIGNAL_MSI"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
    (Cap::Xsave2, "KVM_CAP_XSAVE2"),
];

/// KVM on this host. Cheap to clone; a clone is a handle on the same open `/dev/kvm`.
#[derive(Clone, Debug)]
pub struct KvmHypervisor(Arc<Host>);

/// What is read of KVM once.
#[derive(Debug)]
pub(crate) struct Host {
    kvm: Kvm,
    facts: HostFacts,
    limits: Limits,
    /// The processor has extended control registers, which come with XSAVE.
    pub(crate) has_xcrs: bool,
    /// KVM can refuse the guest what CPUID does not show of its own features.
    pub(crate) enforces_features: bool,
    /// What KVM can show of CPUID on this processor.
    pub(crate) cpuid: Vec<CpuidEntry>,
}

impl KvmHypervisor {
    /// Opens `/dev/kvm` and checks that it can do what is needed.
    ///
    /// # Errors
    /// There is no `/dev/kvm`, this user may not open it, or it is too old; the error says which.
    pub fn new() -> Result<Self> {
        Kvm::new()
            .map_err(failed("open /dev/kvm"))
            .and_then(Self::check)
    }

    /// Uses a `/dev/kvm` that is open already, for a process that may not open it itself.
    ///
    /// # Errors
    /// It is not a KVM device, or it is too old.
    pub fn from_fd(kvm: OwnedFd) -> Result<Self> {
        Self::check(sys::kvm_from(kvm))
    }

    fn check(kvm: Kvm) -> Result<Self> {
        if kvm.get_api_version() != API_VERSION {
            return Err(HvError::new(
                "KVM_GET_API_VERSION",
                HvErrorKind::Unsupported,
            ));
        }
        let missing = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap));
        if let Some((_, name)) = missing {
            return Err(HvError::new(name, HvErrorKind::Unsupported));
        }
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(failed("KVM_GET_SUPPORTED_CPUID"))?;
        let mut cpuid = state::cpuid_entries(&cpuid);
        quirk::spare(&mut cpuid);
        Ok(Self(Arc::new(Host {
            facts: HostFacts {
                name: "kvm",
                arch: Arch::X86_64,
                max_vcpus: u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX),
            },
            limits: Limits {
                address_bits: address_bits(&cpuid),
                granule: 4096,
                max_mappings: kvm.get_nr_memslots(),
            },
            has_xcrs: kvm.check_extension(Cap::Xcrs),
            enforces_features: kvm.check_extension_raw(KVM_CAP_ENFORCE_PV_FEATURE_CPUID.into()) > 0,
            kvm,
            cpuid,
        })))
    }
}

impl Host {
    /// The registers that KVM says a vCPU keeps.
    pub(crate) fn listed_msrs(&self) -> Result<Vec<u32>> {
        self.kvm
            .get_msr_index_list()
            .map(|list| list.as_slice().to_vec())
            .map_err(failed("KVM_GET_MSR_INDEX_LIST"))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    fn create_vm(&self) -> Result<VmFd> {
        loop {
            match self.kvm.create_vm() {
                // The kernel waits for a grace period meanwhile, and a signal cuts that short.
                Err(error) if error.errno() == libc::EINTR => {}
                other => return other.map_err(failed("KVM_CREATE_VM")),
            }
        }
    }
}

impl Hypervisor for KvmHypervisor {
    fn host(&self) -> &HostFacts {
        &self.0.facts
    }

    fn prepare(&self, spec: &VmSpec) -> Result<Box<dyn Draft>> {
        if !(1..=self.0.facts.max_vcpus).contains(&spec.vcpus) {
            return Err(HvError::invalid("prepare: this number of vCPUs"));
        }
        let vm = self.0.create_vm()?;
        Ok(Box::new(KvmDraft::new(Arc::clone(&self.0), vm, *spec)?))
    }
}
