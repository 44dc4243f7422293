//! Cofferdam on KVM.
