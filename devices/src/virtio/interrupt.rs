//! From a device to its driver: interrupt status bits and the edge that makes the driver look.
//!
//! Interrupts are edge-triggered (virtio 1.3 section 4.2.2: `InterruptStatus` and `InterruptACK`).
//! Every new bit gives an edge, even when the bit was set already: a driver that has read the status
//! but not yet the ring would miss the buffer otherwise. A bit that remains after an
//! acknowledgement gives an edge again, because the guest saw only one for both.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hv_core::{Event, Partition};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};

/// An interrupt line of a VM, as one device sees it.
#[derive(Clone)]
pub enum IrqLine {
    /// The hypervisor turns a signal into an edge ([`hv_core::EventIrqs`]).
    Event(Event),
    /// We raise and lower the line ([`hv_core::IrqChip::pulse`]).
    Pulse {
        /// The VM.
        partition: Arc<dyn Partition>,
        /// Its line.
        line: u32,
    },
}

impl IrqLine {
    /// Gives an edge.
    pub(crate) fn raise(&self) {
        match self {
            Self::Event(event) => event.signal(),
            // The line was checked when the device was connected; a hypervisor that refuses now is
            // about to end the VM, and a device thread has nobody to tell.
            Self::Pulse { partition, line } => drop(partition.irq().pulse(*line)),
        }
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(event) => f.debug_tuple("Event").field(event).finish(),
            Self::Pulse { line, .. } => f.debug_struct("Pulse").field("line", line).finish(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Shared {
    line: IrqLine,
    /// Held for an edge: one that begins before another has ended would be none, and the driver may have looked in between.
    edge: Mutex<()>,
    status: AtomicU32,
    generation: AtomicU32,
    needs_reset: AtomicBool,
    failure: Mutex<Option<String>>,
    listener: Mutex<Option<Listener>>,
}

/// Who is told of a device's first failure.
struct Listener(Box<dyn FnOnce(&str) + Send>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}

/// A device's way to its driver. Clones are handles on the same one; any thread may use it.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<Shared>);

impl Interrupt {
    /// A way over `line` with nothing pending.
    #[must_use]
    pub fn new(line: IrqLine) -> Self {
        Self(Arc::new(Shared {
            line,
            edge: Mutex::new(()),
            status: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            failure: Mutex::new(None),
            listener: Mutex::new(None),
        }))
    }

    /// The device put buffers into a used ring.
    pub fn used_buffer(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// A field of the device's configuration space changed. Call it after the change. (If several changed at once, a driver could read old and
    /// new ones together and find the same generation.)
    pub fn config_changed(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// The device cannot go on until the driver resets it (virtio 1.3 section 2.1.2); `cause` is
    /// kept for the host's report.
    pub fn needs_reset(&self, cause: &dyn std::error::Error) {
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        let listener = lock(&self.0.listener).take();
        if let Some(Listener(tell)) = listener {
            tell(&text);
        }
        *lock(&self.0.failure) = Some(text);
        self.0.needs_reset.store(true, Ordering::Release);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Why the device last needed a reset.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.0.failure).clone()
    }

    /// Tells `listener` why the device first needs a reset; later failures, which a guest can bring about as often as it
    /// likes, are not told. Replaces an earlier listener.
    pub fn on_failure(&self, listener: impl FnOnce(&str) + Send + 'static) {
        *lock(&self.0.listener) = Some(Listener(Box::new(listener)));
    }

    fn raise(&self, bits: u32) {
        self.0.status.fetch_or(bits, Ordering::AcqRel);
        self.edge();
    }

    fn edge(&self) {
        let _whole = lock(&self.0.edge);
        self.0.line.raise();
    }

    /// `InterruptStatus`.
    pub(crate) fn status(&self) -> u32 {
        self.0.status.load(Ordering::Acquire)
    }

    /// `InterruptACK`.
    pub(crate) fn acknowledge(&self, bits: u32) {
        let before = self.0.status.fetch_and(!bits, Ordering::AcqRel);
        if before & bits != 0 && before & !bits != 0 {
            self.edge();
        }
    }

    /// `ConfigGeneration`.
    pub(crate) fn generation(&self) -> u32 {
        self.0.generation.load(Ordering::Acquire)
    }

    pub(crate) fn wants_reset(&self) -> bool {
        self.0.needs_reset.load(Ordering::Acquire)
    }

    /// The driver reset the device. The generation goes on: a configuration read across a reset
    /// must not look unchanged.
    pub(crate) fn reset(&self) {
        let Shared {
            line: _,
            edge: _,
            status,
            generation: _,
            needs_reset,
            failure: _,
            listener: _,
        } = &*self.0;
        status.store(0, Ordering::Release);
        needs_reset.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt() -> (Interrupt, Event) {
        let event = Event::new().unwrap();
        (Interrupt::new(IrqLine::Event(event.clone())), event)
    }

    #[test]
    fn every_new_bit_gives_an_edge() {
        let (interrupt, line) = interrupt();
        interrupt.used_buffer();
        assert!(line.take());
        interrupt.used_buffer();
        assert!(line.take(), "the driver may have read the status already");
        assert_eq!(interrupt.status(), 1);
    }

    #[test]
    fn a_bit_left_by_an_acknowledgement_gives_another_edge() {
        let (interrupt, line) = interrupt();
        interrupt.used_buffer();
        interrupt.config_changed();
        assert!(line.take());
        interrupt.acknowledge(1);
        assert!(line.take());
        assert_eq!(interrupt.status(), 2);
        interrupt.acknowledge(2);
        assert!(!line.take());
        interrupt.acknowledge(u32::MAX);
        assert!(!line.take(), "nothing was pending");
    }

    #[test]
    fn reset_clears_status_but_not_the_generation() {
        let (interrupt, _line) = interrupt();
        interrupt.config_changed();
        interrupt.needs_reset(&std::io::Error::other("bad ring"));
        assert!(interrupt.wants_reset());
        interrupt.reset();
        assert_eq!((interrupt.status(), interrupt.generation()), (0, 1));
        assert!(!interrupt.wants_reset());
        assert_eq!(interrupt.failure().as_deref(), Some("bad ring"));
    }
}
