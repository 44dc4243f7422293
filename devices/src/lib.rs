//! Cofferdam's virtual devices.
//!
//! Everything a guest can reach beside its RAM: the [`bus`] that its MMIO and port accesses go
//! through, [`virtio`] (split queues, the MMIO transport, the device threads) and the devices
//! themselves. The crate speaks to the hypervisor through `hv-core` and to the world through
//! traits that the machine builder implements: it opens no path, dials nothing and knows no policy.
//!
//! All guest input is hostile. Ring contents are copied out once, checked, then used; a driver
//! that breaks the rules gets its device put into `DEVICE_NEEDS_RESET`, never a panic of the host.

pub mod block;
pub mod bus;
pub mod console;
pub mod fs;
pub mod legacy;
pub mod net;
pub mod rng;
pub mod sys;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod virtio;
pub mod vsock;
