//! The register window of virtio over MMIO, version 2 (virtio 1.3 section 4.2.2).
//!
//! Registers answer 32-bit accesses at their own offset; anything else below the configuration
//! space reads as zeros and writes nothing. The configuration space answers any width at any offset.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hv_core::{Event, GuestRam};
use virtio_bindings::virtio_mmio as offsets;

use super::core::{Core, Half, Register, Request, RingPart};
use crate::bus::BusDevice;
use crate::virtio::{Interrupt, IrqLine, QueueSeat, RunEnv, StartError, VirtioDevice, Worker};

/// Bytes of a device's window.
pub const WINDOW_SIZE: u64 = 0x1000;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "COFF".
const VENDOR: u32 = 0x4646_4f43;

/// The device and what changes with its registers; only vCPU threads and the owner take the lock.
struct Inner {
    core: Core,
    device: Box<dyn VirtioDevice>,
    worker: Option<Box<dyn Worker>>,
    paused: bool,
}

/// A virtio device on a bus.
pub struct MmioTransport {
    inner: Mutex<Inner>,
    ram: GuestRam,
    interrupt: Interrupt,
    doorbells: Vec<Event>,
}

impl MmioTransport {
    /// Puts `device` behind registers; `line` is where its interrupts go.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        ram: &GuestRam,
        line: IrqLine,
    ) -> std::io::Result<Self> {
        let core = Core::new(device.model());
        let queues = core.queues();
        Ok(Self {
            doorbells: queues
                .iter()
                .map(|_| Event::new())
                .collect::<Result<_, _>>()?,
            inner: Mutex::new(Inner {
                core,
                device,
                worker: None,
                paused: false,
            }),
            ram: ram.clone(),
            interrupt: Interrupt::new(line),
        })
    }

    /// The doorbell of each queue: signalled by a 4-byte write of the queue's index to
    /// `QueueNotify` ([`MmioTransport::NOTIFY_OFFSET`]).
    #[must_use]
    pub fn doorbells(&self) -> &[Event] {
        &self.doorbells
    }

    /// Offset of the `QueueNotify` register in the window.
    pub const NOTIFY_OFFSET: u64 = offsets::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

    /// Stops the device where it is; no descriptor is in flight afterwards. Call it while no vCPU
    /// runs, for a pause, a snapshot or the end.
    pub fn pause(&self) {
        let mut inner = self.lock();
        inner.paused = true;
        inner.stop();
    }

    /// Lets it go on. Without effect when it was not paused.
    ///
    /// # Errors
    /// The host has no thread left. The device asks its driver for a reset then: a part of it may have run, and what it did is not to be
    /// done again.
    pub fn resume(&self) -> Result<(), StartError> {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.paused) || !inner.core.is_active() {
            return Ok(());
        }
        self.start(&mut inner)
            .inspect_err(|error| self.interrupt.needs_reset(error))
    }

    /// Why the device last asked its driver for a reset, for the host's report.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.interrupt.failure()
    }

    /// Tells `listener` why the device first asks its driver for a reset.
    pub fn on_failure(&self, listener: impl FnOnce(&str) + Send + 'static) {
        self.interrupt.on_failure(listener);
    }

    /// The queues of a device that is not running.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn queue_states(&self) -> Vec<crate::virtio::QueueState> {
        self.lock().core.queues()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(&self, inner: &mut Inner) -> Result<(), StartError> {
        if inner.worker.is_some() || inner.paused || self.interrupt.wants_reset() {
            return Ok(());
        }
        let states = inner.core.queues().into_iter();
        let seats = states.zip(self.doorbells.iter().cloned());
        let env = RunEnv {
            memory: self.ram.clone(),
            queues: seats
                .map(|(state, doorbell)| QueueSeat { state, doorbell })
                .collect(),
            features: inner.core.features(),
            interrupt: self.interrupt.clone(),
        };
        inner.worker = Some(inner.device.start(env)?);
        Ok(())
    }

    fn reset(&self, inner: &mut Inner) {
        inner.stop();
        inner.device.reset();
        inner.core.reset();
        self.interrupt.reset();
    }

    fn read_register(&self, offset: u32) -> u32 {
        use offsets as at;
        match offset {
            at::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            at::VIRTIO_MMIO_VERSION => VERSION,
            at::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            at::VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status(),
            at::VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.generation(),
            at::VIRTIO_MMIO_STATUS => self.status(),
            // There is no shared memory region: its length is all ones (section 4.2.2).
            at::VIRTIO_MMIO_SHM_LEN_LOW
            | at::VIRTIO_MMIO_SHM_LEN_HIGH
            | at::VIRTIO_MMIO_SHM_BASE_LOW
            | at::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => register(offset).map_or(0, |register| self.lock().core.read(register)),
        }
    }

    fn status(&self) -> u32 {
        let status = self.lock().core.read(Register::Status);
        if self.interrupt.wants_reset() {
            status | virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET
        } else {
            status
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        match offset {
            offsets::VIRTIO_MMIO_QUEUE_NOTIFY => self.notify(value),
            offsets::VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            _ => {
                if let Some(register) = register(offset) {
                    self.write_core(register, value);
                }
            }
        }
    }

    fn write_core(&self, register: Register, value: u32) {
        let inner = &mut *self.lock();
        match inner.core.write(register, value) {
            Request::Nothing => {}
            Request::Reset => self.reset(inner),
            Request::Start => {
                if let Err(error) = self.start(inner) {
                    self.interrupt.needs_reset(&error);
                }
            }
        }
    }

    /// A device that is not started looks at all its queues when it is, so this needs no lock.
    fn notify(&self, queue: u32) {
        let doorbell = usize::try_from(queue).ok();
        if let Some(doorbell) = doorbell.and_then(|index| self.doorbells.get(index)) {
            doorbell.signal();
        }
    }
}

impl Inner {
    fn stop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.core.keep(worker.stop());
        }
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(offsets::VIRTIO_MMIO_CONFIG)) {
            return self.lock().device.read_config(offset, data);
        }
        data.fill(0);
        if let (Ok(offset), Ok(word)) = (u32::try_from(offset), <&mut [u8; 4]>::try_from(data)) {
            *word = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(offsets::VIRTIO_MMIO_CONFIG)) {
            return self.lock().device.write_config(offset, data);
        }
        if let (Ok(offset), Ok(word)) = (u32::try_from(offset), <[u8; 4]>::try_from(data)) {
            self.write_register(offset, u32::from_le_bytes(word));
        }
    }
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("core", &self.lock().core)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}

/// The register of the state machine at `offset`.
const fn register(offset: u32) -> Option<Register> {
    use RingPart::{Available, Descriptors, Used};
    Some(match offset {
        offsets::VIRTIO_MMIO_DEVICE_ID => Register::DeviceId,
        offsets::VIRTIO_MMIO_DEVICE_FEATURES => Register::DeviceFeatures,
        offsets::VIRTIO_MMIO_DEVICE_FEATURES_SEL => Register::DeviceFeaturesSel,
        offsets::VIRTIO_MMIO_DRIVER_FEATURES => Register::DriverFeatures,
        offsets::VIRTIO_MMIO_DRIVER_FEATURES_SEL => Register::DriverFeaturesSel,
        offsets::VIRTIO_MMIO_QUEUE_SEL => Register::QueueSel,
        offsets::VIRTIO_MMIO_QUEUE_NUM_MAX => Register::QueueSizeMax,
        offsets::VIRTIO_MMIO_QUEUE_NUM => Register::QueueSize,
        offsets::VIRTIO_MMIO_QUEUE_READY => Register::QueueReady,
        offsets::VIRTIO_MMIO_STATUS => Register::Status,
        offsets::VIRTIO_MMIO_QUEUE_DESC_LOW => Register::QueueAddress(Descriptors, Half::Low),
        offsets::VIRTIO_MMIO_QUEUE_DESC_HIGH => Register::QueueAddress(Descriptors, Half::High),
        offsets::VIRTIO_MMIO_QUEUE_AVAIL_LOW => Register::QueueAddress(Available, Half::Low),
        offsets::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => Register::QueueAddress(Available, Half::High),
        offsets::VIRTIO_MMIO_QUEUE_USED_LOW => Register::QueueAddress(Used, Half::Low),
        offsets::VIRTIO_MMIO_QUEUE_USED_HIGH => Register::QueueAddress(Used, Half::High),
        _ => return None,
    })
}
