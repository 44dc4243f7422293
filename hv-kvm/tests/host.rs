//! Ways to open KVM.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::fs::File;
use std::os::fd::OwnedFd;

use hv_core::conformance::{Verdict, cases, run};
use hv_core::{HvErrorKind, Hypervisor as _};
use hv_kvm::KvmHypervisor;

/// `/dev/kvm`, opened as a parent process would for a confined worker.
fn open() -> Option<OwnedFd> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    match opened {
        Ok(file) => Some(file.into()),
        Err(error) => {
            eprintln!("skipped: /dev/kvm: {error}");
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
    assert_eq!(run(case, std::sync::Arc::new(kvm)), Verdict::Passed);
}

#[test]
fn what_is_no_kvm_is_refused() {
    let file = File::options().read(true).write(true).open("/dev/null");
    let error = KvmHypervisor::from_fd(file.unwrap().into()).unwrap_err();
    assert_eq!(error.kind, HvErrorKind::Unsupported);
    assert_eq!(error.op, "KVM_GET_API_VERSION");
}
