//! The guest's console on its way to the host program.

use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use devices::bus::Bus;
use devices::console::{ConsoleSink, LossyWriter};

use crate::timeline::{Phase, monotonic_ns};
use crate::worker::Reporter;

/// What the guest's consoles (virtio and serial) have in common.
#[derive(Clone, Debug)]
pub(super) struct Console {
    stream: Arc<PipeWriter>,
    first: Arc<FirstByte>,
}

/// Tells the host program of the guest's first signs of life, once.
#[derive(Debug)]
struct FirstByte {
    seen: AtomicBool,
    bus: OnceLock<Arc<Bus>>,
    reporter: Arc<Reporter>,
}

impl Console {
    /// A console that writes to `stream` and never waits for its reader.
    pub(super) fn new(stream: OwnedFd, reporter: &Arc<Reporter>) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&stream, true)?;
        let stream = PipeWriter::from(stream);
        let first = FirstByte {
            seen: AtomicBool::new(false),
            bus: OnceLock::new(),
            reporter: Arc::clone(reporter),
        };
        Ok(Self {
            stream: Arc::new(stream),
            first: Arc::new(first),
        })
    }

    /// The bus is there: its first access can be told with the first byte.
    pub(super) fn watch(&self, bus: &Arc<Bus>) {
        // It is set once, by the one caller there is.
        drop(self.first.bus.set(Arc::clone(bus)));
    }

    /// A sink for one of the guest's consoles.
    pub(super) fn sink(&self) -> io::Result<Box<dyn ConsoleSink>> {
        let writer = LossyWriter::new(self.stream.try_clone()?);
        Ok(Box::new(Sink {
            writer,
            first: Arc::clone(&self.first),
        }))
    }
}

struct Sink {
    writer: LossyWriter<PipeWriter>,
    first: Arc<FirstByte>,
}

impl ConsoleSink for Sink {
    fn write(&mut self, bytes: &[u8]) {
        self.writer.write(bytes);
        self.first.came();
    }
}

impl FirstByte {
    fn came(&self) {
        if self.seen.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = monotonic_ns();
        self.reporter.phase_at(Phase::FirstByte, now);
        if let Some(at) = self.bus.get().and_then(|bus| bus.first_access()) {
            let ago = u64::try_from(at.elapsed().as_nanos()).unwrap_or(0);
            self.reporter
                .phase_at(Phase::FirstAccess, now.saturating_sub(ago));
        }
    }
}
