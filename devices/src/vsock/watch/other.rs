//! Hosts whose event loop cannot wait for streams yet: the device is refused when it is made.

use std::io;

use hv_core::Event;

use crate::virtio::worker::Sources;
use crate::vsock::muxer::Muxer;

/// There is none.
pub(in crate::vsock) enum Watch {}

impl Watch {
    pub(in crate::vsock) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(in crate::vsock) fn begin(&mut self, _: &Event, _: &mut dyn Sources) -> io::Result<()> {
        match *self {}
    }

    pub(in crate::vsock) fn update(
        &mut self,
        _: &mut Muxer,
        _: &mut dyn Sources,
    ) -> io::Result<()> {
        match *self {}
    }
}
