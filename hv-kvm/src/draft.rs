//! A VM between its creation and its first vCPU.

use std::sync::Arc;

use hv_core::{Draft, GuestRam, IrqPlan, Limits, Parts, Result, VcpuSeed, VmSpec};
use kvm_bindings::{KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE, kvm_enable_cap};
use kvm_ioctls::VmFd;

use crate::hypervisor::Host;
use crate::vcpu::KvmSeed;
use crate::vm::{KvmPartition, Vm};
use crate::{failed, irq, kick, slots};

pub(crate) struct KvmDraft {
    host: Arc<Host>,
    fd: VmFd,
    spec: VmSpec,
}

impl KvmDraft {
    pub(crate) fn new(host: Arc<Host>, fd: VmFd, spec: VmSpec) -> Result<Self> {
        kick::install_handler()?;
        fd.set_identity_map_address(slots::IDENTITY_MAP)
            .map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(slots::TSS)
            .map_err(failed("KVM_SET_TSS_ADDR"))?;
        disable_counters(&fd)?;
        Ok(Self { host, fd, spec })
    }
}

/// Switches the virtual performance counters off, where KVM has them: no guest is shown them.
fn disable_counters(vm: &VmFd) -> Result<()> {
    let offered = vm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    if offered <= 0 {
        return Ok(());
    }
    let mut request = kvm_enable_cap {
        cap: KVM_CAP_PMU_CAPABILITY,
        ..kvm_enable_cap::default()
    };
    request.args[0] = KVM_PMU_CAP_DISABLE.into();
    vm.enable_cap(&request)
        .map_err(failed("KVM_ENABLE_CAP KVM_CAP_PMU_CAPABILITY"))
}

impl Draft for KvmDraft {
    fn limits(&self) -> &Limits {
        self.host.limits()
    }

    fn finish(self: Box<Self>, ram: &GuestRam, irq: &IrqPlan) -> Result<Parts> {
        // Memory first: with the interrupt controller, newer kernels begin a grace period that nobody hurries, and whatever
        // waits for one after that, as each change of the memory does, waits for a tick of the host's clock.
        let vm = Arc::new(Vm::new(self.host, self.fd, ram.clone())?);
        irq::create(&vm.fd, irq)?;
        let seed = |index| Box::new(KvmSeed::new(Arc::clone(&vm), index, self.spec.vcpus));
        Ok(Parts {
            vcpus: (0..self.spec.vcpus)
                .map(|index| seed(index) as Box<dyn VcpuSeed>)
                .collect(),
            partition: Arc::new(KvmPartition(vm)),
        })
    }
}
