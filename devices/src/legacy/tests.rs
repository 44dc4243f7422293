//! Tables for the legacy devices.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use hv_core::Event;

use super::rtc::Civil;
use super::*;
use crate::bus::BusDevice;
use crate::console::LogRing;
use crate::virtio::IrqLine;

fn read(device: &dyn BusDevice, offset: u64) -> u8 {
    let mut data = [0xaa];
    device.read(offset, &mut data);
    data[0]
}

#[derive(Default)]
struct Switch(Mutex<Vec<&'static str>>);

impl Switch {
    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl PowerSwitch for Switch {
    fn power_off(&self) {
        self.0.lock().unwrap().push("off");
    }

    fn reset(&self) {
        self.0.lock().unwrap().push("reset");
    }
}

#[test]
fn power_registers_act_on_exactly_their_values() {
    let switch = Arc::new(Switch::default());
    let power = PowerControl::new(Arc::clone(&switch) as Arc<dyn PowerSwitch>);
    for offset in 0..=4 {
        for value in 0..=u8::MAX {
            power.write(offset, &[value]);
            let s5 = value & 0b0011_1100 == 0b0011_0100;
            let expected: &[&str] = match offset {
                PowerControl::SLEEP_CONTROL if s5 => &["off"],
                PowerControl::RESET if value == PowerControl::RESET_VALUE => &["reset"],
                _ => &[],
            };
            assert_eq!(switch.take(), expected, "{value:#x} at {offset}");
        }
        assert_eq!(read(&power, offset), 0);
    }
    power.write(PowerControl::SLEEP_CONTROL, &[0x34, 0]);
    power.write(PowerControl::RESET, &[]);
    assert!(switch.take().is_empty(), "only single bytes count");
}

#[test]
fn the_keyboard_controller_knows_only_reset() {
    let switch = Arc::new(Switch::default());
    let line = ResetLine::new(Arc::clone(&switch) as Arc<dyn PowerSwitch>);
    for value in 0..=u8::MAX {
        line.write(0, &[value]);
        assert_eq!(
            switch.take().len(),
            usize::from(value == 0xfe),
            "{value:#x}"
        );
    }
    let status = read(&line, 0);
    assert_eq!(
        (status & 2, status & 1),
        (0, 1),
        "takes commands, never runs out of data"
    );
}

/// 2024-02-29 23:59:58 UTC, a Thursday.
const LEAP_DAY: u64 = 1_709_251_198;

fn rtc_at(seconds: u64) -> Rtc {
    Rtc::new(Box::new(move || UNIX_EPOCH + Duration::from_secs(seconds)))
}

fn cmos(rtc: &Rtc, register: u8) -> u8 {
    rtc.write(0, &[register]);
    read(rtc, 1)
}

#[test]
fn the_clock_shows_the_time_as_the_guest_asks() {
    let rtc = rtc_at(LEAP_DAY);
    let registers = [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32];
    for (status_b, expected) in [
        (0b010, [0x58, 0x59, 0x23, 5, 0x29, 2, 0x24, 0x20]),
        (0b110, [58, 59, 23, 5, 29, 2, 24, 20]),
        (0b000, [0x58, 0x59, 0x91, 5, 0x29, 2, 0x24, 0x20]),
        (0b100, [58, 59, 0x8b, 5, 29, 2, 24, 20]),
    ] {
        rtc.write(0, &[0x0b]);
        rtc.write(1, &[status_b | 0xf0]);
        assert_eq!(cmos(&rtc, 0x0b), status_b);
        assert_eq!(
            registers.map(|r| cmos(&rtc, r)),
            expected,
            "status B {status_b:#b}"
        );
    }
}

#[test]
fn midnight_and_noon_are_twelve_in_twelve_hour_mode() {
    for (hour, expected) in [(0, 12), (1, 1), (11, 11), (12, 0x80 | 12), (13, 0x81)] {
        let rtc = rtc_at(hour * 3600);
        rtc.write(0, &[0x0b]);
        rtc.write(1, &[0b100]);
        assert_eq!(cmos(&rtc, 0x04), expected, "{hour}:00");
    }
}

#[test]
fn the_clock_is_always_valid_and_takes_no_time() {
    let rtc = rtc_at(LEAP_DAY);
    assert_eq!(cmos(&rtc, 0x0a) & 0x80, 0, "no update in progress");
    assert_eq!(cmos(&rtc, 0x0d), 0x80, "valid");
    assert_eq!(cmos(&rtc, 0x0c), 0, "no interrupt");
    rtc.write(0, &[0x04]);
    rtc.write(1, &[0x11]);
    assert_eq!(cmos(&rtc, 0x04), 0x23, "the guest cannot set it");
    assert_eq!(
        cmos(&rtc, 0x80 | 0x04),
        0x23,
        "the NMI mask is not part of the index"
    );
    assert_eq!(read(&rtc, 0), 0xff, "the index cannot be read");
}

#[test]
fn the_calendar_is_right_on_its_edges() {
    for (seconds, expected) in [
        (0, (1970, 1, 1, 5)),
        (86_399, (1970, 1, 1, 5)),
        (951_782_400, (2000, 2, 29, 3)),
        (951_868_800, (2000, 3, 1, 4)),
        (LEAP_DAY + 2, (2024, 3, 1, 6)),
        (1_735_689_599, (2024, 12, 31, 3)),
        (4_107_542_400, (2100, 3, 1, 2)),
        (u64::MAX >> 2, (9999, 12, 31, 6)),
    ] {
        let time = Civil::from(&(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(
            (time.year, time.month, time.day, time.weekday),
            expected,
            "{seconds}"
        );
    }
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(Civil::from(&before).year, 1970);
}

#[test]
fn the_uart_sends_bytes_and_interrupts_when_asked() {
    let (line, log) = (Event::new().unwrap(), LogRing::new(64));
    let serial = Serial::new(IrqLine::Event(line.clone()), Box::new(log.clone()));
    assert_eq!(read(&serial, 5) & 0x60, 0x60, "ready to send");
    for byte in b"quiet" {
        serial.write(0, &[*byte]);
    }
    assert!(!line.take());
    serial.write(1, &[2]);
    serial.write(0, b"!");
    assert!(line.take());
    assert_eq!(log.snapshot(), b"quiet!");
}

#[test]
fn the_uart_survives_every_access() {
    let log = LogRing::new(16);
    let line = IrqLine::Event(Event::new().unwrap());
    let serial = Serial::new(line, Box::new(log.clone()));
    for offset in [0, 1, 2, 3, 4, 5, 6, 7, 8, 255, 256, u64::MAX] {
        for value in 0..=u8::MAX {
            serial.write(offset, &[value]);
            read(&serial, offset);
        }
        serial.write(offset, &[0; 8]);
        let mut wide = [0; 8];
        serial.read(offset, &mut wide);
        assert_eq!(wide, [0xff; 8], "wide reads find nothing at {offset}");
    }
    assert!(log.snapshot().len() <= 16);
}
