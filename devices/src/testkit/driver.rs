//! A driver over the MMIO registers.

use std::time::{Duration, Instant};

use hv_core::{Event, GuestRam, RamRange};
use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_mmio as offsets;
use vm_memory::{Bytes as _, GuestAddress};

use super::{Descriptor, Ring, Used};
use crate::bus::BusDevice as _;
use crate::virtio::{IrqLine, MmioTransport, Model, QueueState, VirtioDevice};

/// How long a device may take before a test calls it hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// RAM below the hole.
const LOW: RamRange = RamRange {
    start: 0,
    size: 16 << 20,
};
/// RAM above it.
const HIGH: RamRange = RamRange {
    start: 32 << 20,
    size: 4 << 20,
};

/// What a device answered to a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response {
    /// Bytes that the device says it wrote.
    pub written: u32,
    /// The writable buffers, one after the other, written or not (they begin as `0xaa`).
    pub data: Vec<u8>,
}

/// A mock driver with one device.
#[derive(Debug)]
pub struct Driver {
    /// The device's registers.
    pub transport: MmioTransport,
    /// The guest's RAM: 16 MiB at 0 and 4 MiB at 32 MiB.
    pub ram: GuestRam,
    /// Signalled by the device's interrupts.
    pub line: Event,
    /// The queues that were set up, by index.
    pub rings: Vec<Ring>,
    model: Model,
    free: u64,
}

impl Driver {
    /// A guest with `device` and nothing done yet.
    #[must_use]
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        let ram = GuestRam::new(&[LOW, HIGH]).unwrap();
        let line = Event::new().unwrap();
        let model = device.model();
        let interrupt = IrqLine::Event(line.clone());
        Self {
            transport: MmioTransport::new(device, &ram, interrupt).unwrap(),
            ram,
            line,
            rings: Vec::new(),
            model,
            free: 0x1000,
        }
    }

    /// A guest whose driver has set `device` up with all its features and queues.
    #[must_use]
    pub fn running(device: Box<dyn VirtioDevice>) -> Self {
        let mut driver = Self::new(device);
        driver.init(u64::MAX);
        driver
    }

    /// What the device is.
    #[must_use]
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// The first address above the low RAM, where nothing is.
    pub const HOLE: u64 = LOW.size;

    /// Unused RAM, page-aligned. Never given back.
    pub fn alloc(&mut self, bytes: u64) -> u64 {
        let address = self.free;
        self.free = (address + bytes.max(1)).next_multiple_of(4096);
        assert!(self.free <= LOW.size, "the mock driver is out of RAM");
        address
    }

    /// Gives everything back that was allocated at `address` or after it.
    pub fn rewind(&mut self, address: u64) {
        self.free = address;
    }

    /// Reads a register.
    #[must_use]
    pub fn read(&self, offset: u32) -> u32 {
        let mut word = [0; 4];
        self.transport.read(u64::from(offset), &mut word);
        u32::from_le_bytes(word)
    }

    /// Writes a register.
    pub fn write(&self, offset: u32, value: u32) {
        self.transport
            .write(u64::from(offset), &value.to_le_bytes());
    }

    /// The status register.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.read(offsets::VIRTIO_MMIO_STATUS)
    }

    /// Adds bits to the status register.
    pub fn add_status(&self, bits: u32) {
        self.write(offsets::VIRTIO_MMIO_STATUS, self.status() | bits);
    }

    /// Whether the device asks for a reset.
    #[must_use]
    pub fn needs_reset(&self) -> bool {
        self.status() & config::VIRTIO_CONFIG_S_NEEDS_RESET != 0
    }

    /// Resets the device.
    pub fn reset(&self) {
        self.write(offsets::VIRTIO_MMIO_STATUS, 0);
    }

    /// The features that the device offers.
    #[must_use]
    pub fn offered(&self) -> u64 {
        let half = |select| {
            self.write(offsets::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            u64::from(self.read(offsets::VIRTIO_MMIO_DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Resets the device and chooses exactly `features`; false when it refuses them.
    #[must_use]
    pub fn negotiate(&self, features: u64) -> bool {
        self.reset();
        self.add_status(config::VIRTIO_CONFIG_S_ACKNOWLEDGE);
        self.add_status(config::VIRTIO_CONFIG_S_DRIVER);
        for (select, half) in [(0, features), (1, features >> 32)] {
            self.write(offsets::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            let half = u32::try_from(half & u64::from(u32::MAX)).unwrap();
            self.write(offsets::VIRTIO_MMIO_DRIVER_FEATURES, half);
        }
        self.add_status(config::VIRTIO_CONFIG_S_FEATURES_OK);
        self.status() & config::VIRTIO_CONFIG_S_FEATURES_OK != 0
    }

    /// Points queue `index` at `ring` and enables it.
    pub fn set_queue(&self, index: usize, ring: &Ring) {
        let low = |address: u64| u32::try_from(address & u64::from(u32::MAX)).unwrap();
        let high = |address: u64| u32::try_from(address >> 32).unwrap();
        self.write(
            offsets::VIRTIO_MMIO_QUEUE_SEL,
            u32::try_from(index).unwrap(),
        );
        for (offset, value) in [
            (offsets::VIRTIO_MMIO_QUEUE_NUM, u32::from(ring.size)),
            (offsets::VIRTIO_MMIO_QUEUE_DESC_LOW, low(ring.descriptors)),
            (offsets::VIRTIO_MMIO_QUEUE_DESC_HIGH, high(ring.descriptors)),
            (offsets::VIRTIO_MMIO_QUEUE_AVAIL_LOW, low(ring.available)),
            (offsets::VIRTIO_MMIO_QUEUE_AVAIL_HIGH, high(ring.available)),
            (offsets::VIRTIO_MMIO_QUEUE_USED_LOW, low(ring.used)),
            (offsets::VIRTIO_MMIO_QUEUE_USED_HIGH, high(ring.used)),
            (offsets::VIRTIO_MMIO_QUEUE_READY, 1),
        ] {
            self.write(offset, value);
        }
    }

    /// Gives every queue a new ring of its largest size.
    pub fn set_queues(&mut self) {
        self.rings.clear();
        for (index, size) in self.model.queue_sizes.clone().into_iter().enumerate() {
            let base = self.alloc(Ring::bytes(size));
            let ring = Ring::new(&self.ram, base, size);
            self.set_queue(index, &ring);
            self.rings.push(ring);
        }
    }

    /// The whole of section 3.1.1 with those of the offered features that are in `wanted`.
    pub fn init(&mut self, wanted: u64) {
        let accepted = self.negotiate(self.offered() & wanted);
        assert!(accepted, "the device refuses what it offers");
        self.set_queues();
        self.add_status(config::VIRTIO_CONFIG_S_DRIVER_OK);
    }

    /// Notifies a queue.
    pub fn kick(&self, index: usize) {
        let index = u32::try_from(index).unwrap();
        self.write(offsets::VIRTIO_MMIO_QUEUE_NOTIFY, index);
    }

    /// Returns when the device has looked at all queues as they were at the call, or cannot: a device
    /// that starts gives every queue a turn before it hears a doorbell.
    ///
    /// # Panics
    /// It takes too long.
    pub fn settle(&self) {
        self.transport.pause();
        self.transport.resume().unwrap();
        let begin = Instant::now();
        // A device may have several threads, each with queues of its own.
        for doorbell in self.transport.doorbells() {
            doorbell.signal();
            while self.is_running() && doorbell.take() {
                // It was not heard yet.
                doorbell.signal();
                assert!(begin.elapsed() < PATIENCE, "the device does not start");
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    fn is_running(&self) -> bool {
        self.status() & config::VIRTIO_CONFIG_S_DRIVER_OK != 0 && !self.needs_reset()
    }

    /// Every queue as the device has it; pauses and resumes it.
    #[must_use]
    pub fn queue_states(&self) -> Vec<QueueState> {
        self.transport.pause();
        let states = self.transport.queue_states();
        self.transport.resume().unwrap();
        states
    }

    /// Writes `chain` into the descriptor table from index `first` on, linked, and makes it
    /// available.
    pub fn push(&mut self, queue: usize, first: u16, chain: &[Descriptor]) {
        let ring = &mut self.rings[queue];
        for (index, descriptor) in (first..).zip(chain) {
            let last = usize::from(index - first) + 1 == chain.len();
            let next = if last { 0 } else { Descriptor::NEXT };
            ring.set_descriptor(
                index,
                Descriptor {
                    flags: descriptor.flags | next,
                    next: index + 1,
                    ..*descriptor
                },
            );
        }
        ring.push(first);
    }

    /// A readable buffer with `data`.
    pub fn readable(&mut self, data: &[u8]) -> Descriptor {
        let address = self.alloc(u64::try_from(data.len()).unwrap());
        self.ram.write_slice(data, GuestAddress(address)).unwrap();
        Descriptor {
            address,
            len: u32::try_from(data.len()).unwrap(),
            ..Descriptor::default()
        }
    }

    /// A writable buffer of `len` bytes `0xaa`.
    pub fn writable(&mut self, len: usize) -> Descriptor {
        Descriptor {
            flags: Descriptor::WRITE,
            ..self.readable(&vec![0xaa; len])
        }
    }

    /// The bytes of a buffer.
    #[must_use]
    pub fn bytes(&self, buffer: Descriptor) -> Vec<u8> {
        let mut data = vec![0; usize::try_from(buffer.len).unwrap()];
        self.ram
            .read_slice(&mut data, GuestAddress(buffer.address))
            .unwrap();
        data
    }

    /// Waits for the next used entry of a queue.
    ///
    /// # Panics
    /// The device asks for a reset, or takes too long.
    pub fn wait_used(&mut self, queue: usize) -> Used {
        let begin = Instant::now();
        loop {
            if let Some(used) = self.rings[queue].pop_used() {
                return used;
            }
            assert!(!self.needs_reset(), "{:?}", self.transport.failure());
            assert!(begin.elapsed() < PATIENCE, "no answer on queue {queue}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until the device asks for a reset.
    ///
    /// # Panics
    /// It takes too long.
    pub fn wait_needs_reset(&self) {
        let begin = Instant::now();
        while !self.needs_reset() {
            assert!(begin.elapsed() < PATIENCE, "the device accepts a bad ring");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Sends a request on a queue that has nothing else in flight, and waits for the answer.
    ///
    /// # Panics
    /// The device asks for a reset, takes too long or answers another chain.
    pub fn request(&mut self, queue: usize, out: &[&[u8]], room: &[usize]) -> Response {
        let free = self.free;
        let mut chain: Vec<_> = out.iter().map(|data| self.readable(data)).collect();
        let writable: Vec<_> = room.iter().map(|len| self.writable(*len)).collect();
        chain.extend(&writable);
        self.push(queue, 0, &chain);
        self.kick(queue);
        let used = self.wait_used(queue);
        assert_eq!(used.id, 0, "another chain came back");
        let data = writable.iter().flat_map(|buffer| self.bytes(*buffer));
        let data = data.collect();
        self.free = free;
        Response {
            written: used.len,
            data,
        }
    }
}
