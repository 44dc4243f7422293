//! Where changes are neither kept apart nor told: overlays are made of FIFOs, set-user-id and exchanged names, and on macOS and Windows one of these is missing.

use std::io;

use crate::errno::Errno;
use crate::handle::OwnedHandle;
use crate::host::{Attributes, Over};

/// There are none.
#[derive(Debug)]
pub(crate) enum Journal {}

impl Journal {
    pub(crate) fn new(_file: OwnedHandle) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn note(&self, _path: &[u8], _present: Option<&Attributes>) {
        match *self {}
    }

    pub(crate) fn note_emptied(&self, _path: &[u8]) {
        match *self {}
    }

    pub(crate) fn note_moved(&self, _from: &[u8], _to: &[u8], _is_exchange: bool) {
        match *self {}
    }
}

/// There are none.
#[derive(Debug)]
pub(crate) enum Origins {}

impl Origins {
    pub(crate) fn record(&self, _path: &[u8], _attributes: &Attributes) -> Result<(), Errno> {
        match *self {}
    }
}

/// Refuses to keep changes apart.
pub(crate) fn open(_directory: &OwnedHandle, _root: &OwnedHandle) -> io::Result<(Over, Origins)> {
    Err(io::ErrorKind::Unsupported.into())
}
