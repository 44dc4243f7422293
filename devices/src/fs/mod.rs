//! The file system device (virtio 1.3, section 5.11): FUSE requests of the guest, handed to a server.
//!
//! The device carries bytes; it knows nothing of FUSE. A [`FsBackend`] reads a request where the
//! driver laid it out and writes the reply where the driver wants it. Each request queue has a
//! thread of its own, because a request may wait for the host's disk. Not offered: notifications
//! (`VIRTIO_FS_F_NOTIFICATION`) and the DAX window.

mod device;
#[cfg(test)]
mod tests;
pub mod wire;

pub use device::{Fs, FsBackend, FsError, MAX_REQUEST_QUEUES};
