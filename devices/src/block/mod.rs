//! The block device (virtio 1.3 section 5.2): reads, writes, flushes, discards and zeroes a disk.
//!
//! Three layers: [`wire`] makes a checked [`Request`] of a driver's bytes, a [`BlockBackend`]
//! carries it out, this file ties them to a queue. Data goes between the host file and guest RAM
//! without a copy. A read-only disk refuses writes whatever the driver negotiated. A request that
//! is malformed or outside the disk is answered with an error status; only a broken ring stops the
//! device. There is no multi-queue, no cache-mode switch and no image format.

mod file;
#[cfg(test)]
mod tests;
pub mod wire;

use std::io;

use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use vm_memory::VolatileSlice;
use zerocopy::IntoBytes as _;

use crate::virtio::{
    Broken, Chain, Context, Model, Parked, QueueError, Reader, RunEnv, Service, StartError,
    VirtioDevice, Worker, Writer, read_config_bytes,
};
pub use file::{DiskAccess, DiskError, FileDisk};
use wire::{Config, Disk, ID_BYTES};
pub use wire::{Extent, Request, Status, Zeroes};

const QUEUE_SIZE: u16 = 256;

/// A disk. Extents and positions are inside it, in whole sectors; calls come from one thread.
pub trait BlockBackend: Send + 'static {
    /// Its size, a multiple of 512; never changes.
    fn bytes(&self) -> u64;

    /// Whether it refuses writes; never changes.
    fn read_only(&self) -> bool;

    /// Reads from byte `offset` on into `into`; may read less.
    ///
    /// # Errors
    /// The host failed; the driver sees an I/O error.
    fn read_at(&mut self, into: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Writes `from` at byte `offset`; may write less.
    ///
    /// # Errors
    /// The host failed; the driver sees an I/O error.
    fn write_at(&mut self, from: &[VolatileSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Makes all finished writes durable.
    ///
    /// # Errors
    /// The host failed; the driver sees an I/O error.
    fn flush(&mut self) -> io::Result<()>;

    /// The content of `extent` is no longer needed.
    ///
    /// # Errors
    /// The host failed; the driver sees an I/O error.
    fn discard(&mut self, extent: Extent) -> io::Result<()>;

    /// Makes `extent` read as zeros; its space may be given back if `may_unmap`.
    ///
    /// # Errors
    /// The host failed; the driver sees an I/O error.
    fn write_zeroes(&mut self, extent: Extent, may_unmap: bool) -> io::Result<()>;
}

/// The block device.
#[derive(Debug)]
pub struct Block<B> {
    service: Parked<Server<B>>,
    disk: Disk,
    config: Config,
}

impl<B: BlockBackend> Block<B> {
    /// A device for the disk of `backend`, which calls itself `id` (its first 20 bytes).
    #[must_use]
    pub fn new(backend: B, id: &str) -> Self {
        let disk = Disk {
            capacity: backend.bytes(),
            read_only: backend.read_only(),
        };
        let mut name = [0; ID_BYTES];
        for (to, from) in name.iter_mut().zip(id.bytes()) {
            *to = from;
        }
        Self {
            service: Parked::new(Server {
                backend,
                disk,
                id: name,
            }),
            disk,
            config: Config::new(disk, QUEUE_SIZE),
        }
    }
}

impl<B: BlockBackend> VirtioDevice for Block<B> {
    fn model(&self) -> Model {
        Model {
            id: VIRTIO_ID_BLOCK,
            features: wire::features(self.disk),
            queue_sizes: vec![QUEUE_SIZE],
            config_len: u32::try_from(size_of::<Config>()).unwrap_or_default(),
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(self.config.as_bytes(), offset, data);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        self.service.start("virtio-blk", env)
    }
}

#[derive(Debug)]
struct Server<B> {
    backend: B,
    disk: Disk,
    id: [u8; ID_BYTES],
}

impl<B: BlockBackend> Service for Server<B> {
    fn queue(&mut self, index: usize, context: &mut Context<'_>) -> Result<(), Broken> {
        // A driver without the flush command expects writes to be durable when they end.
        let write_through = context.features & 1 << VIRTIO_BLK_F_FLUSH == 0;
        let Some(queue) = context.queues.get(index) else {
            return Ok(());
        };
        while let Some(chain) = queue.pop()? {
            self.answer(chain, write_through)?;
        }
        Ok(())
    }
}

impl<B: BlockBackend> Server<B> {
    fn answer(&mut self, chain: Chain<'_>, write_through: bool) -> Result<(), QueueError> {
        let writer = chain.writer();
        let room = writer.available().saturating_sub(1);
        let Ok((mut data, mut last)) = writer.split_at(room) else {
            return chain.finish(0);
        };
        let status = self.serve(chain.reader(), &mut data, write_through);
        last.write(&[status as u8]);
        // The length counts what was written without a gap from the beginning (section 2.7.8.2).
        let gap = data.available() > 0;
        let written = if gap {
            data.written()
        } else {
            data.written() + last.written()
        };
        // Each request waits for the host: its driver should not wait for the whole turn.
        chain.finish_and_signal(written)
    }

    fn serve(&mut self, mut reader: Reader<'_>, data: &mut Writer<'_>, through: bool) -> Status {
        let request = match Request::parse(&mut reader, data.available(), self.disk) {
            Ok(request) => request,
            Err(status) => return status,
        };
        let writes = !matches!(request, Request::In(_) | Request::GetId | Request::Flush);
        let mut done = self.carry_out(&request, reader, data);
        if through && writes {
            done = done.and_then(|()| self.backend.flush());
        }
        done.map_or(Status::IoError, |()| Status::Ok)
    }

    fn carry_out(
        &mut self,
        request: &Request,
        mut from: Reader<'_>,
        into: &mut Writer<'_>,
    ) -> io::Result<()> {
        let backend = &mut self.backend;
        match request {
            Request::In(extent) => transfer(*extent, |offset, left| {
                into.fill_with(left, |slices| backend.read_at(slices, offset))
            }),
            Request::Out(extent) => transfer(*extent, |offset, left| {
                from.drain_with(left, |slices| backend.write_at(slices, offset))
            }),
            Request::Flush => backend.flush(),
            Request::GetId => {
                into.write(&self.id);
                Ok(())
            }
            Request::Discard(extents) => extents.iter().try_for_each(|e| backend.discard(*e)),
            Request::WriteZeroes(ranges) => ranges
                .iter()
                .try_for_each(|range| backend.write_zeroes(range.extent, range.may_unmap)),
        }
    }
}

/// Repeats `step` (position, bytes left) until all of `extent` is done.
fn transfer(
    extent: Extent,
    mut step: impl FnMut(u64, usize) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < extent.len {
        let left = usize::try_from(extent.len - done).unwrap_or(usize::MAX);
        match step(extent.offset + done, left)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += u64::try_from(count).unwrap_or(u64::MAX),
        }
    }
    Ok(())
}
