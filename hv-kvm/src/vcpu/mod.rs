//! One vCPU: made on its thread, run, and taken apart.

mod run;
mod snapshot;

use std::sync::Arc;

use hv_core::arch::x86_64::cpuid::{VcpuPlace, guest_entries};
use hv_core::arch::x86_64::{self, MsrValue, msr};
use hv_core::{Exit, HvError, Kick, Registers, Result, Vcpu, VcpuSeed, VcpuState, VmIo};
use kvm_bindings::{KVM_CAP_ENFORCE_PV_FEATURE_CPUID, kvm_enable_cap};
use kvm_ioctls::VcpuFd;

use crate::kick::{KickState, RunPage};
use crate::vm::Vm;
use crate::{failed, state};

pub(crate) struct KvmSeed {
    vm: Arc<Vm>,
    place: VcpuPlace,
    kick: Arc<KickState>,
}

impl KvmSeed {
    pub(crate) fn new(vm: Arc<Vm>, index: u32, count: u32) -> Self {
        Self {
            vm,
            place: VcpuPlace { index, count },
            kick: Arc::new(KickState::new()),
        }
    }
}

impl VcpuSeed for KvmSeed {
    fn kick(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick) as Arc<dyn Kick>
    }

    fn bind(self: Box<Self>) -> Result<Box<dyn Vcpu>> {
        let fd = self
            .vm
            .fd
            .create_vcpu(self.place.index.into())
            .map_err(failed("KVM_CREATE_VCPU"))?;
        if self.vm.host.enforces_features {
            enforce_features(&fd)?;
        }
        let cpuid = state::cpuid_table(&guest_entries(&self.vm.host.cpuid, self.place))?;
        fd.set_cpuid2(&cpuid).map_err(failed("KVM_SET_CPUID2"))?;
        let page = self.kick.bind(&fd)?;
        let vcpu = KvmVcpu {
            fd,
            vm: self.vm,
            kick: self.kick,
            page,
        };
        vcpu.set_msrs(&msr::at_boot())?;
        Ok(Box::new(vcpu))
    }
}

/// Without it, KVM serves features that CPUID hides, such as writing steal time into guest memory.
fn enforce_features(fd: &VcpuFd) -> Result<()> {
    let enforce = kvm_enable_cap {
        cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
        args: [1, 0, 0, 0],
        ..kvm_enable_cap::default()
    };
    fd.enable_cap(&enforce)
        .map_err(failed("KVM_CAP_ENFORCE_PV_FEATURE_CPUID"))
}

pub(crate) struct KvmVcpu {
    fd: VcpuFd,
    /// A vCPU's descriptor keeps the VM alive in the kernel; this keeps the VM's memory alive.
    vm: Arc<Vm>,
    kick: Arc<KickState>,
    page: Arc<RunPage>,
}

impl Drop for KvmVcpu {
    fn drop(&mut self) {
        self.kick.release();
    }
}

impl KvmVcpu {
    fn set_msrs(&self, msrs: &[MsrValue]) -> Result<()> {
        let table = state::msr_table(msrs)?;
        match self.fd.set_msrs(&table) {
            Ok(count) if count == msrs.len() => Ok(()),
            Ok(_) => Err(HvError::invalid(
                "KVM_SET_MSRS: a register or value it does not take",
            )),
            Err(error) => Err(failed("KVM_SET_MSRS")(error)),
        }
    }

    fn get_registers(&self) -> Result<x86_64::Registers> {
        let general = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        let system = self.fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?;
        Ok(x86_64::Registers {
            general: state::general_from(&general),
            system: state::system_from(&system),
        })
    }

    fn put_registers(&self, registers: &x86_64::Registers) -> Result<()> {
        self.fd
            .set_sregs(&state::system_to(&registers.system))
            .map_err(failed("KVM_SET_SREGS"))?;
        self.fd
            .set_regs(&state::general_to(&registers.general))
            .map_err(failed("KVM_SET_REGS"))
    }
}

impl Vcpu for KvmVcpu {
    fn run(&mut self, io: &dyn VmIo) -> Result<Exit> {
        let kick = Arc::clone(&self.kick);
        let _inside = kick.enter();
        loop {
            if let Some(exit) = self.step(io)? {
                return Ok(exit);
            }
        }
    }

    fn registers(&self) -> Result<Registers> {
        Ok(Registers::X86_64(Box::new(self.get_registers()?)))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<()> {
        match registers {
            Registers::X86_64(registers) => self.put_registers(registers),
            _ => Err(HvError::invalid("set registers of another architecture")),
        }
    }

    fn save(&mut self) -> Result<VcpuState> {
        Ok(VcpuState::X86_64(Box::new(self.take_snapshot()?)))
    }

    fn load(&mut self, state: &VcpuState) -> Result<()> {
        match state {
            VcpuState::X86_64(state) => self.put_snapshot(state),
            _ => Err(HvError::invalid("load state of another architecture")),
        }
    }

    fn translate(&self, address: u64) -> Result<Option<u64>> {
        let answer = self.fd.translate_gva(address);
        let answer = answer.map_err(failed("KVM_TRANSLATE"))?;
        Ok((answer.valid != 0).then_some(answer.physical_address))
    }
}
