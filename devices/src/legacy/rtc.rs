//! The MC146818 real-time clock of a PC, at ports 0x70 (index) and 0x71 (data).
//!
//! It shows the host's time of day in UTC and nothing else: writes to the time are ignored, there
//! are no alarms or periodic interrupts, and the CMOS bytes behind the clock read as zero.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

/// Where the clock takes the time from.
pub type Clock = Box<dyn Fn() -> SystemTime + Send + Sync>;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_D: u8 = 0x0d;

/// 32,768 Hz time base, 1,024 Hz rate, no update in progress: an update here takes no time.
const STATUS_A_VALUE: u8 = 0x26;
/// Valid RAM and time: the battery never runs out.
const STATUS_D_VALUE: u8 = 0x80;
/// Hours count to 24 rather than twice to 12.
const B_24_HOURS: u8 = 1 << 1;
/// Values are binary rather than binary-coded decimal.
const B_BINARY: u8 = 1 << 2;
/// In 12-hour mode the top bit of the hours is "afternoon".
const AFTERNOON: u8 = 1 << 7;
/// The top bit of the index port masks NMIs; it is not part of the index.
const INDEX_MASK: u8 = 0x7f;

#[derive(Clone, Copy, Debug)]
struct Registers {
    index: u8,
    status_b: u8,
}

/// The clock's two ports.
pub struct Rtc {
    clock: Clock,
    registers: Mutex<Registers>,
}

impl Rtc {
    /// Bytes that the ports take on a bus: index, data.
    pub const LEN: u64 = 2;
    /// Where the century is; the FADT's `CENTURY`.
    pub const CENTURY: u8 = 0x32;

    /// A clock that shows `clock`, in BCD and 24 hours until the guest chooses otherwise.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let registers = Registers {
            index: 0,
            status_b: B_24_HOURS,
        };
        Self {
            clock,
            registers: Mutex::new(registers),
        }
    }

    /// A clock that shows the host's time.
    #[must_use]
    pub fn host_time() -> Self {
        Self::new(Box::new(SystemTime::now))
    }

    fn register(&self, registers: Registers) -> u8 {
        let shown = |value: u32| encode(value, registers.status_b);
        let time = || Civil::from(&(self.clock)());
        match registers.index {
            SECONDS => shown(time().second),
            MINUTES => shown(time().minute),
            HOURS => hours(time().hour, registers.status_b),
            WEEKDAY => shown(time().weekday),
            DAY => shown(time().day),
            MONTH => shown(time().month),
            YEAR => shown(time().year % 100),
            Self::CENTURY => shown(time().year / 100),
            STATUS_A => STATUS_A_VALUE,
            STATUS_B => registers.status_b,
            STATUS_D => STATUS_D_VALUE,
            _ => 0,
        }
    }
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = *self
            .registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        data.fill(0xff);
        if let ([value], 1) = (data, offset) {
            *value = self.register(registers);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let &[value] = data else { return };
        let mut registers = self
            .registers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match (offset, registers.index) {
            (0, _) => registers.index = value & INDEX_MASK,
            (1, STATUS_B) => registers.status_b = value & (B_24_HOURS | B_BINARY),
            _ => {}
        }
    }
}

impl fmt::Debug for Rtc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rtc")
            .field("registers", &self.registers)
            .finish_non_exhaustive()
    }
}

/// A value below 100 as the guest asked to see it.
fn encode(value: u32, status_b: u8) -> u8 {
    let coded = if status_b & B_BINARY == 0 {
        ((value / 10) << 4) | (value % 10)
    } else {
        value
    };
    u8::try_from(coded).unwrap_or(0)
}

fn hours(hour: u32, status_b: u8) -> u8 {
    if status_b & B_24_HOURS != 0 {
        return encode(hour, status_b);
    }
    let half = if hour >= 12 { AFTERNOON } else { 0 };
    let shown = if hour.is_multiple_of(12) {
        12
    } else {
        hour % 12
    };
    encode(shown, status_b) | half
}

/// A moment in UTC in the Gregorian calendar.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Civil {
    pub(super) year: u32,
    pub(super) month: u32,
    pub(super) day: u32,
    /// 1 is Sunday.
    pub(super) weekday: u32,
    pub(super) hour: u32,
    pub(super) minute: u32,
    pub(super) second: u32,
}

impl From<&SystemTime> for Civil {
    /// Times before 1970 show as 1970 and times after 9999 as 9999, which the clock cannot show.
    fn from(time: &SystemTime) -> Self {
        const LAST_SECOND: u64 = 253_402_300_799;
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
            .min(LAST_SECOND);
        let part = |value: u64| u32::try_from(value).unwrap_or(0);
        let (year, month, day) = date(part(seconds / 86_400));
        Self {
            year,
            month,
            day,
            weekday: part((seconds / 86_400 + 4) % 7 + 1),
            hour: part(seconds / 3600 % 24),
            minute: part(seconds / 60 % 60),
            second: part(seconds % 60),
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Counted in years that begin in March, so that the leap day is a year's last.
fn date(days: u32) -> (u32, u32, u32) {
    const DAYS_TO_1970: u32 = 719_468; // from 0000-03-01
    const DAYS_IN_400_YEARS: u32 = 146_097;
    let days = days + DAYS_TO_1970;
    let era = days / DAYS_IN_400_YEARS;
    let of_era = days % DAYS_IN_400_YEARS;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u32::from(month <= 2);
    (year, month, day)
}
