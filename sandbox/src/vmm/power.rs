//! The machine's power button and reset line.

use std::sync::OnceLock;

use devices::legacy::PowerSwitch;
use hv_core::{Stop, StopHandle};

/// Ends the vCPUs when the guest writes a power register. Made before the vCPUs are.
#[derive(Debug, Default)]
pub(super) struct Power(OnceLock<StopHandle>);

impl Power {
    /// From now on, these vCPUs are ended.
    pub(super) fn connect(&self, vcpus: StopHandle) {
        // It is set once, by the one caller there is.
        drop(self.0.set(vcpus));
    }

    fn stop(&self, stop: Stop) {
        if let Some(vcpus) = self.0.get() {
            vcpus.stop(stop);
        }
    }
}

impl PowerSwitch for Power {
    fn power_off(&self) {
        self.stop(Stop::PowerOff);
    }

    fn reset(&self) {
        self.stop(Stop::Reset);
    }
}
