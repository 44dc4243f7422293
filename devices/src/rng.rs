//! The entropy device (virtio 1.3 section 5.4): fills whatever the driver offers with random bytes.
//!
//! One queue, no features, no configuration. A request gets at most [`MAX_REQUEST`] bytes, however
//! large its buffers are, and nothing is ever allocated by its size.

use std::io;

use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

use crate::virtio::{
    Broken, Context, Model, Parked, RunEnv, Service, StartError, VirtioDevice, Worker, Writer,
    read_config_bytes,
};

/// Bytes that one request is filled with at most.
pub const MAX_REQUEST: usize = 4096;

/// Bytes that the source is asked for at once.
const CHUNK: usize = 256;

const QUEUE_SIZE: u16 = 64;

/// Where random bytes come from.
pub trait EntropySource: Send + 'static {
    /// Fills `data` with bytes that are fit to seed a guest's cryptography. Must not block for long.
    ///
    /// # Errors
    /// The host gives none; the device then stops.
    fn fill(&mut self, data: &mut [u8]) -> io::Result<()>;
}

/// The operating system's generator, on Linux and macOS. On Windows the caller brings a source.
#[cfg(any(target_os = "linux", target_os = "macos"))]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

#[cfg(any(target_os = "linux", target_os = "macos"))]
impl EntropySource for OsEntropy {
    fn fill(&mut self, data: &mut [u8]) -> io::Result<()> {
        crate::sys::entropy(data)
    }
}

/// The entropy device.
#[derive(Debug)]
pub struct Rng<E>(Parked<Filler<E>>);

impl<E: EntropySource> Rng<E> {
    /// A device that hands out the bytes of `source`.
    #[must_use]
    pub fn new(source: E) -> Self {
        Self(Parked::new(Filler(source)))
    }
}

impl<E: EntropySource> VirtioDevice for Rng<E> {
    fn model(&self) -> Model {
        Model {
            id: VIRTIO_ID_RNG,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
            config_len: 0,
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&[], offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.0.start("virtio-rng", env)
    }
}

#[derive(Debug)]
struct Filler<E>(E);

impl<E: EntropySource> Filler<E> {
    fn fill(&mut self, writer: &mut Writer<'_>) -> io::Result<()> {
        let mut left = writer.available().min(MAX_REQUEST);
        let mut chunk = [0; CHUNK];
        while left > 0 {
            let (part, _) = chunk.split_at_mut(left.min(CHUNK));
            self.0.fill(part)?;
            left -= writer.write(part);
        }
        Ok(())
    }
}

impl<E: EntropySource> Service for Filler<E> {
    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        let Some(queue) = context.queues.get(index) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            let mut writer = chain.writer();
            self.fill(&mut writer)?;
            let written = writer.written();
            chain.finish(written)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
