//! The contract's suite on this host's `/dev/kvm`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

hv_core::conformance_tests!(hv_kvm::KvmHypervisor::new);
