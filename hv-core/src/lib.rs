//! The hypervisor contract.
