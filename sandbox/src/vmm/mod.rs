//! The machine: hypervisor, devices, share and kernel put together, and run to its end.
//!
//! This is the one place where the sibling crates meet. It runs in the confined vmm worker and
//! opens nothing: everything came with the plan.

mod console;
mod devices;
mod files;
mod network;
mod power;
mod share;

use std::fs::File;
use std::sync::Arc;

use hv_core::{
    CrashKind, Fault, GuestRam, HvError, Hypervisor as _, IrqPlan, MemoryError, Outcome, Parts,
    Registers, Stop, VcpuSet, VmIo, VmSpec,
};
use hv_kvm::KvmHypervisor;

use crate::boot::{self, BootError, BootSpec};
use crate::control::{MachineEnd, StartFailure};
use crate::plan::{Plan, Role};
use crate::timeline::Phase;
use crate::worker::Reporter;
use devices::Devices;
pub(crate) use files::Files;
use power::Power;

impl From<HvError> for StartFailure {
    fn from(error: HvError) -> Self {
        Self::new(error.fault(), error)
    }
}

impl From<MemoryError> for StartFailure {
    fn from(error: MemoryError) -> Self {
        Self::new(Fault::Host, error)
    }
}

impl From<BootError> for StartFailure {
    fn from(error: BootError) -> Self {
        let fault = match error {
            BootError::Read { .. } | BootError::Overlay { .. } => Fault::Host,
            // The kernel, the initial RAM file system or the settings.
            _ => Fault::Caller,
        };
        Self::new(fault, chain(&error))
    }
}

/// A message with its sources, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Builds the machine of `plan` and runs it to its end.
pub(crate) fn run(
    plan: &Plan,
    mut files: Files,
    reporter: &Arc<Reporter>,
) -> Result<MachineEnd, StartFailure> {
    let hypervisor = KvmHypervisor::from_fd(files.take(Role::Hypervisor)?)?;
    let ram = GuestRam::new(&boot::layout::ram_ranges(plan.memory))?;
    let draft = hypervisor.prepare(&VmSpec { vcpus: plan.vcpus })?;
    let Parts { partition, vcpus } = draft.finish(&ram, &IrqPlan::X86_64)?;
    let power = Arc::new(Power::default());
    let devices = Devices::build(plan, &mut files, &partition, &ram, &power, reporter)?;
    let kernel = File::from(files.take(Role::Kernel)?);
    let initrd = files.take_optional(Role::Initrd).map(File::from);
    let loaded = boot::load(
        &ram,
        &BootSpec {
            kernel: &kernel,
            initrd: initrd.as_ref(),
            command_line: &plan.command_line,
            vcpus: plan.vcpus,
            devices: &devices.announced,
            irq: partition.irq().layout(),
            serial: plan.serial,
        },
    )?;
    let io: Arc<dyn VmIo> = Arc::clone(&devices.bus) as Arc<dyn VmIo>;
    let vcpus = VcpuSet::start(vcpus, &io)?;
    power.connect(vcpus.stop_handle());
    let registers = Registers::X86_64(Box::new(loaded.registers));
    vcpus.with(0, move |vcpu| vcpu.set_registers(&registers))??;
    reporter.phase(Phase::Built);
    reporter.phase(Phase::VcpuEntered);
    vcpus.resume();
    let outcome = vcpus.wait();
    drop(vcpus);
    devices.stop();
    Ok(end(outcome))
}

fn end(outcome: Outcome) -> MachineEnd {
    match outcome {
        Outcome::Stopped(Stop::Reset) => MachineEnd::Reset,
        Outcome::Crashed(crash) if crash.kind == CrashKind::TripleFault => {
            MachineEnd::Crash("triple fault".into())
        }
        Outcome::Crashed(crash) => {
            MachineEnd::Crash(format!("{:?}, code {:#x}", crash.kind, crash.code))
        }
        Outcome::Failed(error) => MachineEnd::Hypervisor(error.to_string()),
        // Power-off; a cancelled set is one that the host program ends with this process.
        _ => MachineEnd::PowerOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::FaultCode;

    #[test]
    fn a_file_that_the_host_cannot_give_is_the_hosts_fault() {
        let read = BootError::Read {
            part: "the kernel",
            source: std::io::Error::other("a broken disk"),
        };
        let overlay = BootError::Overlay {
            part: "the kernel",
            source: MemoryError::Layout,
        };
        for (error, fault) in [
            (read, FaultCode::Host),
            (overlay, FaultCode::Host),
            (BootError::NotAKernel, FaultCode::Caller),
        ] {
            assert_eq!(StartFailure::from(error).fault, fault);
        }
    }
}
