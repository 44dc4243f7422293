//! Shared by the tests of the queue: a ring of the mock driver and a queue on it.

mod buffers;
mod chains;
#[cfg(target_os = "linux")]
mod oracle;
mod ring;

use hv_core::{Event, RamRange};

use super::*;
use crate::testkit::{Descriptor, Ring};
use crate::virtio::IrqLine;

/// End of the RAM at 0; the next begins at twice that.
const RAM: u64 = 1 << 20;

/// Free RAM for buffers.
const BUFFER: u64 = RAM / 2;

fn ram() -> GuestRam {
    let range = |start| RamRange { start, size: RAM };
    GuestRam::new(&[range(0), range(2 * RAM)]).unwrap()
}

/// A ring, what is needed to make a queue on it, and the line of its interrupts.
struct Bench {
    ram: GuestRam,
    ring: Ring,
    state: QueueState,
    interrupt: Interrupt,
    line: Event,
}

impl Bench {
    fn new(size: u16) -> Self {
        let ram = ram();
        let ring = Ring::new(&ram, 0x1000, size);
        let line = Event::new().unwrap();
        let state = QueueState {
            size,
            ready: true,
            descriptors: ring.descriptors,
            available: ring.available,
            used: ring.used,
            ..QueueState::default()
        };
        Self {
            ram,
            ring,
            state,
            interrupt: Interrupt::new(IrqLine::Event(line.clone())),
            line,
        }
    }

    fn queue(&self) -> LiveQueue {
        LiveQueue::new(&self.ram, self.state, &self.interrupt).unwrap()
    }

    /// Makes `count` chains of one writable buffer available.
    fn push(&mut self, count: u16) {
        for _ in 0..count {
            let head = self.ring.next_avail % self.ring.size;
            self.ring.set_descriptor(head, writable(8));
            self.ring.push(head);
        }
    }
}

fn writable(len: u32) -> Descriptor {
    Descriptor {
        address: BUFFER,
        len,
        flags: Descriptor::WRITE,
        next: 0,
    }
}

fn readable(len: u32) -> Descriptor {
    Descriptor {
        flags: 0,
        ..writable(len)
    }
}

/// The buffers of the chain at `head`, as (address, length, writable).
fn walk(
    ram: &GuestRam,
    state: &QueueState,
    head: u16,
) -> Result<Vec<(u64, u32, bool)>, QueueError> {
    let mut buffers = Buffers::default();
    buffers.walk(ram, state, head)?;
    let (readable, writable) = (buffers.readable().0, buffers.writable().0);
    let parts = [(readable, false), (writable, true)];
    let list = parts
        .iter()
        .flat_map(|(segments, write)| segments.iter().map(|s| (s.address, s.len, *write)));
    Ok(list.collect())
}
