//! Reading and writing files for the host.

use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Io, ServeError, spawn::path};
use crate::protocol::{Event, Id, MAX_DATA, Octets, ReceiveWindow, SendWindow, Stream};

/// A file on its way to the host.
#[derive(Debug)]
pub(crate) struct Reading {
    id: Id,
    file: OwnedFd,
    offset: u64,
    limit: u64,
    moved: u64,
    window: SendWindow,
}

impl Reading {
    pub(crate) fn open(id: Id, name: &Octets, offset: u64, limit: u64) -> Result<Self, Errno> {
        let file = open_regular(name, OFlags::RDONLY, Mode::empty())?;
        Ok(Self {
            id,
            file,
            offset,
            limit,
            moved: 0,
            window: SendWindow::default(),
        })
    }

    pub(crate) fn grant(&mut self, bytes: u32) -> Result<(), ServeError> {
        self.window.grant(bytes).map_err(ServeError::Credit)
    }

    pub(crate) fn can_move(&self) -> bool {
        self.window.credit() > 0
    }

    /// Sends one piece; gives the result once there is nothing more to send.
    pub(crate) fn pump(&mut self, io: &mut Io) -> Result<Option<Result<u64, i32>>, ServeError> {
        let left = usize::try_from(self.limit - self.moved).unwrap_or(usize::MAX);
        let len = left.min(self.window.credit()).min(MAX_DATA);
        let Some(space @ [_, ..]) = io.scratch.get_mut(..len) else {
            return Ok((left == 0).then_some(Ok(self.moved)));
        };
        match rustix::io::pread(
            &self.file,
            &mut *space,
            self.offset.saturating_add(self.moved),
        ) {
            Ok(0) => Ok(Some(Ok(self.moved))),
            Ok(len) => {
                let bytes = Octets::from(space.get(..len).unwrap_or_default());
                self.window.take(len);
                self.moved = self
                    .moved
                    .saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
                io.link
                    .send(&Event::Output {
                        id: self.id,
                        stream: Stream::Stdout,
                        bytes,
                    })
                    .map(|()| None)
            }
            Err(Errno::INTR) => Ok(None),
            Err(errno) => Ok(Some(Err(errno.raw_os_error()))),
        }
    }
}

/// A file on its way from the host.
#[derive(Debug)]
pub(crate) struct Writing {
    file: File,
    moved: u64,
    window: ReceiveWindow,
}

impl Writing {
    pub(crate) fn open(name: &Octets, mode: u32) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = open_regular(name, flags, Mode::from_raw_mode(mode & 0o7777))?;
        Ok(Self {
            file: file.into(),
            moved: 0,
            window: ReceiveWindow::default(),
        })
    }

    /// Writes what came; gives the credit to grant, or the errno that ends the transfer.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Result<Option<u32>, i32>, ServeError> {
        self.window
            .receive(bytes.len())
            .map_err(ServeError::Credit)?;
        if let Err(error) = std::io::Write::write_all(&mut self.file, bytes) {
            return Ok(Err(error.raw_os_error().unwrap_or(libc::EIO)));
        }
        self.moved = self
            .moved
            .saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        self.window.consume(bytes.len());
        Ok(Ok(self.window.take_grant()))
    }

    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }
}

/// Opens a regular file and nothing else: a pipe or a device could block the whole program or never end.
fn open_regular(name: &Octets, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path(name), flags, mode)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::INVAL),
    }
}
