//! What a bare guest's accesses reach: a record of them, and the host's end of a few ports.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::arch::x86_64::asm::Program;
use crate::{DoorbellSpace, Stop, VmIo};

/// Why a case did not pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The backend lacks something that the contract leaves open.
    Skip(String),
    /// The backend breaks the contract.
    Broken(String),
}

/// Ports that mean something to a [`Probe`]; all others are just recorded.
pub mod port {
    /// A write ends the guest: [`POWER_OFF`] or [`RESET`].
    pub const DONE: u16 = 0xf0;
    /// Written to [`DONE`]: power off.
    pub const POWER_OFF: u32 = 1;
    /// Written to [`DONE`]: reset.
    pub const RESET: u32 = 2;
    /// An exception's vector is written here.
    pub const EXCEPTION: u16 = 0xf1;
    /// Reads give 0, 1, 2, ...
    pub const SEQUENCE: u16 = 0xf2;
    /// Gate `n` is port `GATES + n`: reads give 0 until the host opens it.
    pub const GATES: u16 = 0x100;
    /// How many gates there are.
    pub const GATE_COUNT: u16 = 16;
    /// Nothing special: for programs to write to.
    pub const PLAIN: u16 = 0x10;
}

/// The guest's half of a gate.
pub trait Gates {
    /// Waits until the host opens gate `gate`.
    fn gate(&mut self, gate: u16) -> &mut Self;
}

impl Gates for Program {
    fn gate(&mut self, gate: u16) -> &mut Self {
        self.wait_port(port::GATES + gate)
    }
}

/// An access that came out of the guest.
#[derive(Clone, Eq, PartialEq)]
pub struct Touch {
    /// Memory or ports.
    pub space: DoorbellSpace,
    /// Where.
    pub address: u64,
    /// The bytes written; those given for a read.
    pub bytes: Vec<u8>,
    /// It was a write.
    pub write: bool,
}

impl fmt::Debug for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.write { "write" } else { "read" };
        let (space, address) = (self.space, self.address);
        write!(f, "{verb} {space:?} {address:#x} {:02x?}", self.bytes)
    }
}

#[derive(Default)]
struct Record {
    touches: Vec<Touch>,
    sequence: u64,
    reached: BTreeSet<u16>,
    open: BTreeSet<u16>,
}

type Done = Arc<dyn Fn(Stop) + Send + Sync>;

/// Records a guest's accesses and lets a case wait for them.
#[derive(Default)]
pub struct Probe {
    record: Mutex<Record>,
    changed: Condvar,
    done: Mutex<Option<Done>>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// How long a case waits for its guest; less than the watchdog, so that the message is better.
const PATIENCE: Duration = Duration::from_secs(30);

impl Probe {
    /// What is called when the guest asks for its end; the last call counts.
    pub fn on_done(&self, done: impl Fn(Stop) + Send + Sync + 'static) {
        *self.done() = Some(Arc::new(done));
    }

    fn done(&self) -> MutexGuard<'_, Option<Done>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All accesses so far but those to gates and the end, in their order.
    #[must_use]
    pub fn touches(&self) -> Vec<Touch> {
        self.record().touches.clone()
    }

    /// The bytes of all writes to `port`.
    #[must_use]
    pub fn written(&self, port: u16) -> Vec<u8> {
        let of_port = |touch: &&Touch| {
            touch.write && (touch.space, touch.address) == (DoorbellSpace::Pio, port.into())
        };
        let record = self.record();
        let bytes = record.touches.iter().filter(of_port);
        bytes.flat_map(|touch| touch.bytes.clone()).collect()
    }

    /// Waits until the guest asks for gate `gate`.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_gate(&self, gate: u16) -> Result<(), Failure> {
        self.wait(&format!("the guest at gate {gate}"), |record| {
            record.reached.contains(&gate)
        })
    }

    /// Lets the guest through gate `gate`.
    pub fn open_gate(&self, gate: u16) {
        self.record().open.insert(gate);
    }

    /// Waits for `count` bytes written to `port`.
    ///
    /// # Errors
    /// They do not come.
    pub fn wait_written(&self, port: u16, count: usize) -> Result<(), Failure> {
        let of_port = |touch: &&Touch| {
            touch.write && (touch.space, touch.address) == (DoorbellSpace::Pio, port.into())
        };
        self.wait(&format!("{count} bytes at port {port:#x}"), |record| {
            let written = record.touches.iter().filter(of_port);
            written.map(|touch| touch.bytes.len()).sum::<usize>() >= count
        })
    }

    fn wait(&self, what: &str, ready: impl Fn(&Record) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let mut record = self.record();
        while !ready(&record) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last = record
                    .touches
                    .last_chunk::<8>()
                    .map_or(&*record.touches, |t| t);
                let message = format!("waited for {what}; saw at last {last:?}");
                return Err(Failure::Broken(message));
            }
            let waited = self.changed.wait_timeout(record, left);
            record = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn push(&self, space: DoorbellSpace, address: u64, bytes: &[u8], write: bool) {
        self.record().touches.push(Touch {
            space,
            address,
            bytes: bytes.to_vec(),
            write,
        });
        self.changed.notify_all();
    }

    /// What a read of `port` gives, when it is one with a meaning.
    fn answer(&self, port: u16) -> Option<u64> {
        let mut record = self.record();
        if port == port::SEQUENCE {
            record.sequence += 1;
            return Some(record.sequence - 1);
        }
        let gate = port.checked_sub(port::GATES)?;
        if gate >= port::GATE_COUNT {
            return None;
        }
        if record.reached.insert(gate) {
            self.changed.notify_all();
        }
        Some(record.open.contains(&gate).into())
    }
}

/// What a read of plain memory or a plain port gives: each address its own byte.
#[must_use]
pub(super) fn pattern(address: u64) -> u8 {
    address.to_le_bytes()[0] ^ 0xa5
}

fn fill(address: u64, data: &mut [u8]) {
    for (place, byte) in (address..).zip(data) {
        *byte = pattern(place);
    }
}

impl VmIo for Probe {
    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        fill(address, data);
        self.push(DoorbellSpace::Mmio, address, data, false);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.push(DoorbellSpace::Mmio, address, data, true);
    }

    fn pio_read(&self, port: u16, data: &mut [u8]) {
        match self.answer(port) {
            Some(value) => {
                for (byte, answer) in data.iter_mut().zip(value.to_le_bytes()) {
                    *byte = answer;
                }
            }
            None => {
                fill(port.into(), data);
                self.push(DoorbellSpace::Pio, port.into(), data, false);
            }
        }
    }

    fn pio_write(&self, port: u16, data: &[u8]) {
        if port != port::DONE {
            return self.push(DoorbellSpace::Pio, port.into(), data, true);
        }
        let reset = data.first().copied().map(u32::from) == Some(port::RESET);
        let done = self.done().clone();
        if let Some(done) = done {
            done(if reset { Stop::Reset } else { Stop::PowerOff });
        }
    }
}
