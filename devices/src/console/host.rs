//! The host's ends of a port: where output goes and where input comes from.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hv_core::Event;

/// Takes a guest's output.
///
/// A guest can write without end, so a sink keeps a bounded amount, never blocks, and loses what is
/// beyond that; each sink says how it counts the loss. It is called on a device's thread, or on a
/// vCPU's for the serial port.
pub trait ConsoleSink: Send {
    /// Takes or loses all of `bytes`.
    fn write(&mut self, bytes: &[u8]);
}

/// Keeps the newest bytes of an output; clones are handles on the same log.
#[derive(Clone, Debug)]
pub struct LogRing(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    bytes: VecDeque<u8>,
    capacity: usize,
    lost: u64,
}

impl LogRing {
    /// An empty log that keeps up to `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self(Arc::new(Mutex::new(Ring {
            bytes: VecDeque::new(),
            capacity,
            lost: 0,
        })))
    }

    /// What is kept, oldest first. It is a guest's output as it came: escape it before it is shown
    /// on a terminal.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.ring().bytes.iter().copied().collect()
    }

    /// How many older bytes were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring().lost
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConsoleSink for LogRing {
    fn write(&mut self, bytes: &[u8]) {
        let mut ring = self.ring();
        let kept = bytes
            .get(bytes.len().saturating_sub(ring.capacity)..)
            .unwrap_or_default();
        let room = ring.capacity - kept.len();
        let surplus = ring.bytes.len().saturating_sub(room);
        ring.bytes.drain(..surplus);
        ring.bytes.extend(kept);
        ring.lost += count(surplus + bytes.len() - kept.len());
    }
}

/// Passes output on to a writer that does not block (a pipe, a socket) as far as it takes it.
pub struct LossyWriter<W> {
    writer: W,
    lost: u64,
}

impl<W: Write + Send> LossyWriter<W> {
    /// A sink that writes to `writer`, which must be non-blocking.
    pub fn new(writer: W) -> Self {
        Self { writer, lost: 0 }
    }

    /// Says how much was lost as soon as the writer takes bytes again. False: not yet.
    fn report_loss(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        let note = format!("\n[{} bytes of output were lost here]\n", self.lost);
        // All or nothing would need a buffer; half a note is still a sign that something is gone.
        let told = matches!(self.writer.write(note.as_bytes()), Ok(written) if written > 0);
        if told {
            self.lost = 0;
        }
        told
    }
}

impl<W: Write + Send> ConsoleSink for LossyWriter<W> {
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.report_loss() {
            match self.writer.write(bytes) {
                Ok(written) if written > 0 => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        self.lost += count(bytes.len());
    }
}

impl<W> fmt::Debug for LossyWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossyWriter")
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Most bytes of input that wait for the guest to read them.
pub const INPUT_BUFFER: usize = 64 * 1024;

/// Input for a port; clones are handles on the same buffer, for any thread.
#[derive(Clone, Debug)]
pub struct ConsoleInput {
    buffer: Arc<Mutex<VecDeque<u8>>>,
    wake: Event,
}

impl ConsoleInput {
    pub(super) fn new(wake: Event) -> Self {
        Self {
            buffer: Arc::default(),
            wake,
        }
    }

    /// Offers bytes to the guest. Returns how many were taken: the buffer holds [`INPUT_BUFFER`]. What
    /// the driver did not read when it resets the device is lost.
    #[must_use]
    pub fn write(&self, bytes: &[u8]) -> usize {
        let mut buffer = self.buffer();
        let taken = bytes.len().min(INPUT_BUFFER.saturating_sub(buffer.len()));
        buffer.extend(bytes.iter().take(taken));
        drop(buffer);
        self.wake.signal();
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buffer().is_empty()
    }

    /// Forgets what waits.
    pub(super) fn clear(&self) {
        self.buffer().clear();
    }

    /// Moves the oldest bytes to the start of `room` and says how many.
    pub(super) fn take(&self, room: &mut [u8]) -> usize {
        let mut buffer = self.buffer();
        let taken = room.len().min(buffer.len());
        room.iter_mut()
            .zip(buffer.drain(..taken))
            .for_each(|(to, from)| *to = from);
        taken
    }

    fn buffer(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
