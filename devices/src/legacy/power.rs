//! Power-off and reset.
//!
//! [`PowerControl`] has the registers of hardware-reduced ACPI (ACPI 6.5, sections 4.8.3.6 and
//! 4.8.3.7): sleep control, sleep status and reset. [`ResetLine`] is the reset command of the
//! keyboard controller, which x86 guests fall back to when ACPI is off.

use std::fmt;
use std::sync::Arc;

use crate::bus::BusDevice;

/// What a guest's request to stop reaches. Called on a vCPU thread; must not block.
pub trait PowerSwitch: Send + Sync {
    /// The guest powered itself off.
    fn power_off(&self);
    /// The guest asked to be reset.
    fn reset(&self);
}

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// Sleep control, sleep status and reset register, one byte each.
///
/// The offsets and values are what the machine must put in its FADT and `\_S5` package.
pub struct PowerControl {
    switch: Arc<dyn PowerSwitch>,
}

impl PowerControl {
    /// Bytes that the registers take on a bus.
    pub const LEN: u64 = 3;
    /// Offset of `SLEEP_CONTROL_REG`.
    pub const SLEEP_CONTROL: u64 = 0;
    /// Offset of `SLEEP_STATUS_REG`. It reads as zero: this machine never wakes from sleep.
    pub const SLEEP_STATUS: u64 = 1;
    /// Offset of `RESET_REG`.
    pub const RESET: u64 = 2;
    /// `RESET_VALUE`: what resets when it is written to the reset register.
    pub const RESET_VALUE: u8 = 1;
    /// The `SLP_TYPx` value of S5 (soft off), the only sleeping state.
    pub const SLEEP_TYPE_S5: u8 = 5;

    /// Registers that act on `switch`.
    #[must_use]
    pub fn new(switch: Arc<dyn PowerSwitch>) -> Self {
        Self { switch }
    }

    fn sleep(&self, value: u8) {
        let kind = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        if value & SLEEP_ENABLE != 0 && kind == Self::SLEEP_TYPE_S5 {
            self.switch.power_off();
        }
    }
}

impl BusDevice for PowerControl {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[value] = data else { return };
        match offset {
            Self::SLEEP_CONTROL => self.sleep(value),
            Self::RESET if value == Self::RESET_VALUE => self.switch.reset(),
            _ => {}
        }
    }
}

impl fmt::Debug for PowerControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PowerControl")
    }
}

/// The command port of a keyboard controller that is not there but can pulse the reset line.
///
/// One byte, at port 0x64.
pub struct ResetLine {
    switch: Arc<dyn PowerSwitch>,
}

impl ResetLine {
    /// Bytes that the port takes on a bus.
    pub const LEN: u64 = 1;
    /// "Pulse output line 0", which is wired to the processor's reset.
    const PULSE_RESET: u8 = 0xfe;
    /// Output buffer always full, input buffer always empty: a driver that looks for a keyboard
    /// gives up after a few reads instead of waiting for answers, and one that is about to reset
    /// the machine sees that the command port takes bytes.
    const STATUS: u8 = 0x01;

    /// A port that acts on `switch`.
    #[must_use]
    pub fn new(switch: Arc<dyn PowerSwitch>) -> Self {
        Self { switch }
    }
}

impl BusDevice for ResetLine {
    fn read(&self, _offset: u64, data: &mut [u8]) {
        data.fill(Self::STATUS);
    }

    fn write(&self, _offset: u64, data: &[u8]) {
        if data == [Self::PULSE_RESET] {
            self.switch.reset();
        }
    }
}

impl fmt::Debug for ResetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetLine")
    }
}
