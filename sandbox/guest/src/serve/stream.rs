//! The pipes (or the terminal) between an exec and the connection, each with its credit window.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use super::poller::{Source, Token, Trigger};
use super::{Io, ServeError};
use crate::protocol::{Event, Id, MAX_DATA, Octets, ReceiveWindow, SendWindow, Stream};

/// Most bytes still taken from a terminal after its process ended, when something else keeps it open and writes on. More
/// than the kernel buffers, so nothing that the process itself wrote is lost.
const TERMINAL_REST: u64 = 256 * 1024;

/// The byte that means end of file on a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// From a process to the host.
#[derive(Debug)]
pub(crate) struct OutputPipe {
    id: Id,
    stream: Stream,
    fd: Option<OwnedFd>,
    watched: Option<Trigger>,
    window: SendWindow,
    /// Once the process has ended: how much of what is in the pipe may be its own.
    rest: Option<u64>,
}

impl OutputPipe {
    pub(crate) fn new(id: Id, stream: Stream, fd: Option<OwnedFd>) -> Self {
        Self {
            id,
            stream,
            fd,
            watched: None,
            window: SendWindow::default(),
            rest: None,
        }
    }

    /// Announces the end of a stream that does not exist, or begins to watch it.
    pub(crate) fn start(&mut self, io: &mut Io) -> Result<(), ServeError> {
        if self.fd.is_none() {
            self.announce_end(io)
        } else {
            self.rewatch(io)
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.fd.is_none()
    }

    pub(crate) fn grant(&mut self, bytes: u32, io: &mut Io) -> Result<(), ServeError> {
        self.window.grant(bytes).map_err(ServeError::Credit)?;
        self.rewatch(io)
    }

    pub(crate) fn terminal(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// The process has ended: from now on only what it can have written is delivered, by [`drain`](Self::drain). A background
    /// process that holds the pipe open, or fills it for ever, delays the report no further.
    pub(crate) fn process_ended(&mut self, terminal: bool) {
        let Some(fd) = &self.fd else { return };
        let buffered = rustix::io::ioctl_fionread(fd).unwrap_or(0);
        self.rest = Some(if terminal { TERMINAL_REST } else { buffered });
    }

    /// Whether [`drain`](Self::drain) would get on if the link had room: the process has ended and there is credit, or need of none.
    pub(crate) fn can_drain(&self) -> bool {
        let is_empty = self.rest == Some(0);
        self.fd.is_some() && self.rest.is_some() && (is_empty || self.window.credit() > 0)
    }

    /// Moves what the ended process left, up to the end of the stream, as far as credit and link allow.
    pub(crate) fn drain(&mut self, io: &mut Io) -> Result<(), ServeError> {
        while self.can_drain() && io.link.has_room() && self.pump(io)? {}
        Ok(())
    }

    /// Moves one piece from the process to the host; says whether to come again at once.
    pub(crate) fn pump(&mut self, io: &mut Io) -> Result<bool, ServeError> {
        let Some(fd) = &self.fd else { return Ok(false) };
        if self.rest == Some(0) {
            return self.end(io);
        }
        let Some(space @ [_, ..]) = io.scratch.get_mut(..self.allowed()) else {
            return self.rewatch(io).map(|()| false);
        };
        match rustix::io::read(fd, &mut *space) {
            Ok(len @ 1..) => {
                let bytes = Octets::from(space.get(..len).unwrap_or_default());
                self.sent(len, bytes, io)
            }
            Err(Errno::INTR) => Ok(true),
            Err(Errno::AGAIN) if self.rest.is_none() => Ok(false),
            Err(Errno::IO) if self.rest.is_none() => self.left_alone(io),
            // End of file; `EIO` is how a terminal says it; nothing else can be read from it either way.
            _ => self.end(io),
        }
    }

    fn allowed(&self) -> usize {
        let rest = self
            .rest
            .and_then(|rest| usize::try_from(rest).ok())
            .unwrap_or(usize::MAX);
        self.window.credit().min(rest).min(MAX_DATA)
    }

    fn sent(&mut self, len: usize, bytes: Octets, io: &mut Io) -> Result<bool, ServeError> {
        self.window.take(len);
        if let Some(rest) = &mut self.rest {
            *rest = rest.saturating_sub(u64::try_from(len).unwrap_or(u64::MAX));
        }
        io.link.send(&Event::Output {
            id: self.id,
            stream: self.stream,
            bytes,
        })?;
        if self.rest == Some(0) {
            return self.end(io);
        }
        if self.watched == Some(Trigger::Change) {
            self.watch(Some(Trigger::Ready), io)?;
        }
        self.rewatch(io)?;
        Ok(self.window.credit() > 0)
    }

    /// The process has closed its terminal but lives: it may open it again, and closing our side would hang up on it. Until
    /// something changes the terminal reports this without end.
    fn left_alone(&mut self, io: &mut Io) -> Result<bool, ServeError> {
        if self.watched == Some(Trigger::Ready) {
            self.watch(Some(Trigger::Change), io)?;
        }
        Ok(false)
    }

    fn end(&mut self, io: &mut Io) -> Result<bool, ServeError> {
        if let Some(fd) = self.fd.take() {
            io.poller.unwatch(fd.as_fd());
            self.announce_end(io)?;
        }
        Ok(false)
    }

    fn announce_end(&self, io: &mut Io) -> Result<(), ServeError> {
        io.link.send(&Event::OutputEnd {
            id: self.id,
            stream: self.stream,
        })
    }

    /// Watched exactly while there is credit to send what comes: a closed pipe would otherwise report for ever.
    fn rewatch(&mut self, io: &mut Io) -> Result<(), ServeError> {
        match (self.watched, self.window.credit() > 0) {
            (None, true) => self.watch(Some(Trigger::Ready), io),
            (Some(_), false) => self.watch(None, io),
            _ => Ok(()),
        }
    }

    fn watch(&mut self, wanted: Option<Trigger>, io: &mut Io) -> Result<(), ServeError> {
        let Some(fd) = &self.fd else { return Ok(()) };
        if self.watched.is_some() {
            io.poller.unwatch(fd.as_fd());
        }
        self.watched = wanted;
        wanted.map_or(Ok(()), |trigger| {
            io.poller
                .watch(fd.as_fd(), self.token(), trigger)
                .map_err(ServeError::System)
        })
    }

    fn token(&self) -> Token {
        let source = match self.stream {
            Stream::Stdout => Source::Stdout,
            Stream::Stderr => Source::Stderr,
        };
        Token {
            id: self.id,
            source,
        }
    }
}

/// From the host to a process.
#[derive(Debug)]
pub(crate) struct InputPipe {
    id: Id,
    fd: Option<OwnedFd>,
    terminal: bool,
    watched: bool,
    window: ReceiveWindow,
    /// At most [`crate::protocol::WINDOW`] bytes, by the credit.
    pending: VecDeque<u8>,
    ending: bool,
}

impl InputPipe {
    pub(crate) fn new(id: Id, fd: Option<OwnedFd>, terminal: bool) -> Self {
        let (window, pending) = (ReceiveWindow::default(), VecDeque::new());
        Self {
            id,
            fd,
            terminal,
            watched: false,
            window,
            pending,
            ending: false,
        }
    }

    /// Takes bytes from the host and passes on what the process has room for.
    pub(crate) fn receive(&mut self, bytes: &[u8], io: &mut Io) -> Result<(), ServeError> {
        self.window
            .receive(bytes.len())
            .map_err(ServeError::Credit)?;
        if self.fd.is_none() || self.ending {
            return self.consumed(bytes.len(), io);
        }
        self.pending.extend(bytes);
        self.flush(io)
    }

    /// The host has no more.
    pub(crate) fn end(&mut self, io: &mut Io) -> Result<(), ServeError> {
        if self.terminal && !self.ending {
            self.pending.push_back(END_OF_TRANSMISSION);
        }
        self.ending = true;
        self.flush(io)
    }

    /// Writes pending bytes until the pipe is full.
    pub(crate) fn flush(&mut self, io: &mut Io) -> Result<(), ServeError> {
        while let (Some(fd), (front @ [_, ..], _)) = (&self.fd, self.pending.as_slices()) {
            match rustix::io::write(fd, front) {
                Ok(len) => {
                    self.pending.drain(..len);
                    self.consumed(len, io)?;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => self.refused(io)?,
            }
        }
        if self.ending && self.pending.is_empty() {
            self.close(io);
        }
        self.rewatch(io)
    }

    /// The process is gone or its terminal is: nothing reads any more.
    pub(crate) fn close(&mut self, io: &Io) {
        if let Some(fd) = self.fd.take() {
            io.poller.unwatch(fd.as_fd());
        }
        self.watched = false;
    }

    fn refused(&mut self, io: &mut Io) -> Result<(), ServeError> {
        self.close(io);
        let dropped = std::mem::take(&mut self.pending).len();
        self.consumed(dropped, io)?;
        io.link.send(&Event::InputClosed { id: self.id })
    }

    fn consumed(&mut self, len: usize, io: &mut Io) -> Result<(), ServeError> {
        self.window.consume(len);
        match self.window.take_grant() {
            Some(bytes) => io.link.send(&Event::InputCredit { id: self.id, bytes }),
            None => Ok(()),
        }
    }

    fn rewatch(&mut self, io: &mut Io) -> Result<(), ServeError> {
        let Some(fd) = &self.fd else { return Ok(()) };
        let wanted = !self.pending.is_empty();
        let token = Token {
            id: self.id,
            source: Source::Stdin,
        };
        match (self.watched, wanted) {
            (false, true) => io
                .poller
                .watch(fd.as_fd(), token, Trigger::Ready)
                .map_err(ServeError::System)?,
            (true, false) => io.poller.unwatch(fd.as_fd()),
            _ => {}
        }
        self.watched = wanted;
        Ok(())
    }
}
