//! What an overlay would need of this system. There is none without it, so nothing here is ever asked for.

use super::File;
use super::os;
use crate::abi::Name;
use crate::errno::Errno;

#[expect(clippy::unused_self, reason = "Linux can")]
impl os::Host {
    /// Makes a FIFO, which stands for something and is never opened.
    pub(crate) fn make_fifo(&self, _parent: &os::Node, _name: Name<'_>) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Sets the permission bits of a directory that is to be [opaque](super::Attributes::is_opaque).
    pub(crate) fn set_opaque_mode(&self, _directory: &os::Node, _mode: u32) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}

#[expect(clippy::unused_self, reason = "Linux can")]
impl File {
    /// Gives an empty file the first `size` bytes of `source`.
    pub(crate) fn copy_from(&self, _source: &Self, _size: u64) -> Result<(), Errno> {
        Err(Errno::EOPNOTSUPP)
    }
}
