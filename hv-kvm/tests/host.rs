//! Ways to open KVM.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::fs::File;
use std::os::fd::OwnedFd;

use std::sync::Arc;

use hv_core::arch::x86_64::asm::{Program, Width};
use hv_core::conformance::{BareGuest, Probe, Verdict, cases, port, print_skip, run};
use hv_core::{HvErrorKind, Hypervisor as _, Outcome, Stop};
use hv_kvm::KvmHypervisor;
use kvm_bindings::KVM_CAP_ENFORCE_PV_FEATURE_CPUID;
use kvm_ioctls::Kvm;

/// `/dev/kvm`, opened as a parent process would for a confined worker.
fn open() -> Option<OwnedFd> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(file) => Some(file.into()),
        Err(error) => {
            print_skip("", &format!("/dev/kvm: {error}"));
            None
        }
    }
}

#[test]
fn a_descriptor_that_was_handed_over_does_as_well() {
    let Some(fd) = open() else { return };
    let kvm = KvmHypervisor::from_fd(fd).unwrap();
    assert_eq!(kvm.host().name, "kvm");
    assert!(kvm.host().max_vcpus >= 1);
    let case = cases().find(|case| case.name == "power_off").unwrap();
    assert_eq!(run(case, Arc::new(kvm)), Verdict::Passed);
}

#[test]
fn what_is_no_kvm_is_refused() {
    let file = File::options().read(true).write(true).open("/dev/null");
    let error = KvmHypervisor::from_fd(file.unwrap().into()).unwrap_err();
    assert_eq!(error.kind, HvErrorKind::Unsupported);
    assert_eq!(error.op, "KVM_GET_API_VERSION");
}

/// `MSR_KVM_STEAL_TIME`, `MSR_KVM_POLL_CONTROL` and others stand behind features that CPUID hides; a
/// zero turns each of them off, which a KVM that does not enforce CPUID takes.
#[test]
fn features_that_cpuid_hides_are_refused() {
    const STEAL_TIME: u32 = 0x4b56_4d03;
    const POLL_CONTROL: u32 = 0x4b56_4d05;
    const GENERAL_PROTECTION: u8 = 13;
    let Some(fd) = open() else { return };
    let enforce = KVM_CAP_ENFORCE_PV_FEATURE_CPUID.into();
    if !Kvm::new().is_ok_and(|kvm| kvm.check_extension_raw(enforce) > 0) {
        print_skip("", "this KVM has no KVM_CAP_ENFORCE_PV_FEATURE_CPUID");
        return;
    }
    let kvm = KvmHypervisor::from_fd(fd).unwrap();
    for msr in [STEAL_TIME, POLL_CONTROL] {
        let mut program = Program::new();
        program.write_msr(msr, 0);
        program.out(port::DONE, Width::W1, port::POWER_OFF).spin();
        let probe = Arc::new(Probe::default());
        let running = BareGuest::new(&program).start(&kvm, &probe).unwrap();
        assert_eq!(running.wait(), Outcome::Stopped(Stop::PowerOff));
        assert_eq!(
            probe.written(port::EXCEPTION),
            [GENERAL_PROTECTION],
            "{msr:#x}"
        );
    }
}
