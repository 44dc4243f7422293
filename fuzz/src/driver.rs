//! A driver at a device's registers: the honest part of a session, so that inputs are spent on what comes after it.

use std::collections::BTreeMap;

use devices::bus::BusDevice as _;
use devices::virtio::{IrqLine, MmioTransport, VirtioDevice};
use hv_core::{Event, GuestRam};

use crate::{Input, rings};

/// Registers of virtio over MMIO (virtio 1.3 section 4.2.2).
mod at {
    pub(super) const DRIVER_FEATURES: u64 = 0x20;
    pub(super) const DRIVER_FEATURES_SEL: u64 = 0x24;
    pub(super) const QUEUE_SEL: u64 = 0x30;
    pub(super) const QUEUE_NUM_MAX: u64 = 0x34;
    pub(super) const QUEUE_NUM: u64 = 0x38;
    pub(super) const QUEUE_READY: u64 = 0x44;
    pub(super) const STATUS: u64 = 0x70;
    pub(super) const ADDRESSES: [u64; 3] = [0x80, 0x90, 0xa0];
}

/// Feature bits that are the transport's: version 1; indirect descriptors and event indices.
const VERSION_1: u64 = 1 << 32;
const RING: u64 = 3 << 28;

/// `DRIVER_OK` of the status.
const DRIVER_OK: u32 = 4;
/// `DEVICE_NEEDS_RESET` of the status.
const NEEDS_RESET: u32 = 64;

/// A device behind its registers, with its rings in RAM.
#[derive(Debug)]
pub struct Driver {
    /// The registers.
    pub transport: MmioTransport,
    /// The guest's RAM.
    pub ram: GuestRam,
    /// Chains that were made available so far, of each queue.
    offered: BTreeMap<u64, u16>,
    /// Features and queues of the session.
    session: (u64, u64),
}

impl Driver {
    /// Connects `device`.
    ///
    /// # Panics
    /// The host has no descriptors.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let ram = rings::ram();
        let line = IrqLine::Event(Event::new().expect("a descriptor"));
        let transport = MmioTransport::new(device, &ram, line).expect("a descriptor");
        Self {
            transport,
            ram,
            offered: BTreeMap::new(),
            session: (0, 0),
        }
    }

    /// Resets the device, negotiates `features` (with ring features as its bits 28 and 29 say), sets up `queues` queues and
    /// starts it paused: call [`Driver::turn`] for it to run.
    pub fn start(&mut self, features: u64, queues: u64) {
        self.transport.pause();
        self.offered.clear();
        self.session = (features, queues);
        for status in [0, 1, 3] {
            self.write(at::STATUS, status);
        }
        let features = features & (RING | 0x00ff_ffff) | VERSION_1;
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(at::DRIVER_FEATURES_SEL, select);
            self.write(at::DRIVER_FEATURES, u32::try_from(half).unwrap_or(0));
        }
        self.write(at::STATUS, 11);
        (0..queues).for_each(|index| self.set_up_queue(index));
        self.write(at::STATUS, 15);
    }

    fn set_up_queue(&self, index: u64) {
        let place = rings::place(index);
        self.write(at::QUEUE_SEL, u32::try_from(index).unwrap_or(0));
        self.write(
            at::QUEUE_NUM,
            u32::from(place.size).min(self.read(at::QUEUE_NUM_MAX)),
        );
        for (register, address) in
            at::ADDRESSES
                .into_iter()
                .zip([place.descriptors, place.available, place.used])
        {
            self.write(register, u32::try_from(address).unwrap_or(0));
            self.write(register + 4, 0);
        }
        self.write(at::QUEUE_READY, 1);
    }

    /// Makes what `input` says available in queue `index`.
    pub fn offer(&mut self, index: u64, input: &mut Input<'_>) {
        let mut place = rings::place(index);
        let offered = self.offered.entry(index).or_default();
        place.next_avail = *offered;
        rings::offer(&self.ram, &place, input);
        let mut end = [0; 2];
        let _ = vm_memory::Bytes::read(
            &*self.ram,
            &mut end,
            vm_memory::GuestAddress(place.available + 2),
        );
        *offered = u16::from_le_bytes(end);
    }

    /// Makes well-formed chains available in queue `index`: of each, the bytes to read and the room to write.
    pub fn request(&mut self, index: u64, chains: &[(&[u8], u32)]) {
        let place = rings::place(index);
        let mut slot = 0;
        let mut heads = Vec::new();
        for (request, room) in chains.iter().take(usize::from(rings::SIZE / 2)) {
            let used = rings::good_chain(&self.ram, index, slot, request, *room);
            if used > 0 {
                heads.push(slot);
            }
            slot += used;
        }
        let offered = self.offered.entry(index).or_default();
        rings::publish(&self.ram, &place, *offered, &heads);
        *offered = offered.wrapping_add(u16::try_from(heads.len()).unwrap_or(0));
    }

    /// Lets the device look at every queue once. It is stopped afterwards, so what it did is complete. If a ring was broken,
    /// a new session begins.
    ///
    /// # Panics
    /// The host has no thread.
    pub fn turn(&mut self) {
        self.transport
            .resume()
            .expect("sound registers and a thread");
        self.wait_for_a_turn();
        self.transport.pause();
        if self.read(at::STATUS) & NEEDS_RESET != 0 {
            let (features, queues) = self.session;
            self.start(features, queues);
        }
    }

    /// A device that starts gives every queue a turn before it hears a doorbell, and a pause would
    /// cut that turn short. A broken device never hears its doorbell.
    fn wait_for_a_turn(&self) {
        for doorbell in self.transport.doorbells() {
            doorbell.signal();
            while self.read(at::STATUS) & (NEEDS_RESET | DRIVER_OK) == DRIVER_OK && doorbell.take()
            {
                doorbell.signal();
                std::thread::yield_now();
            }
        }
    }

    fn read(&self, offset: u64) -> u32 {
        let mut word = [0; 4];
        self.transport.read(offset, &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes a register.
    pub fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }
}
