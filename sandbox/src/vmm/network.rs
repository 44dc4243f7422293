//! The guest's wire: frames between the network device and the egress worker, over one socket, and another one after that worker has ended and was
//! started again.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use devices::net::{self, NetPort};
use devices::virtio::{Reader, Ready, Sources};
use netproxy::link::{self, LENGTH_LEN, LONGEST_RECORD};

use crate::host::receive_descriptor;

/// Room for what waits in each direction: several of the longest frames, so that one call carries many.
const BUFFER_LEN: usize = 4 * (LENGTH_LEN + LONGEST_RECORD);
/// Bytes of `struct virtio_net_hdr` that go over the wire.
const OFFLOAD_LEN: usize = net::wire::OFFLOAD_LEN;

/// The network device's end of the socket.
#[derive(Debug)]
pub(super) struct Wire {
    /// `None` between two egress workers.
    socket: Option<UnixStream>,
    /// Where the sockets to them come from.
    sockets: UnixStream,
    /// Records for the egress worker, of which the first `sent` bytes are gone.
    out: Vec<u8>,
    sent: usize,
    /// What came from it, in `received` of `buffer`; where the oldest frame is in it.
    buffer: Vec<u8>,
    received: Range<usize>,
    front: Option<Range<usize>>,
}

impl Wire {
    /// Over the socket to an egress worker that has come over `sockets`, and over the next one when that is cut.
    ///
    /// # Errors
    /// None has come, or the host's.
    pub(super) fn new(sockets: UnixStream) -> io::Result<Self> {
        sockets.set_nonblocking(true)?;
        let socket = next_socket(&sockets)?;
        Ok(Self {
            socket: Some(socket.ok_or(io::ErrorKind::NotConnected)?),
            sockets,
            out: Vec::new(),
            sent: 0,
            buffer: vec![0; BUFFER_LEN],
            received: 0..0,
            front: None,
        })
    }

    /// Finds the next frame in what came. False: there is no whole one.
    fn find(&mut self) -> io::Result<bool> {
        let bytes = self.buffer.get(self.received.clone()).unwrap_or_default();
        let Some((record, _)) = link::split_raw(bytes).map_err(io::Error::other)? else {
            return Ok(false);
        };
        let begin = self.received.start + LENGTH_LEN;
        let end = begin + record.len();
        self.received.start = end;
        self.front = Some(begin..end);
        Ok(true)
    }

    /// Reads more behind what came. False: there is no more now.
    fn read(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.received.clone(), 0);
        self.received = 0..self.received.len();
        let room = self.buffer.get_mut(self.received.end..).unwrap_or_default();
        let mut socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        match socket.read(room) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                self.received.end += len;
                Ok(true)
            }
            Err(error) if is_for_later(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl NetPort for Wire {
    fn started(&mut self, offloads: net::Offloads) -> io::Result<()> {
        let net::Offloads {
            checksum,
            segmentation,
        } = offloads;
        let offloads = link::Offloads {
            checksum,
            segmentation,
        };
        self.out.extend_from_slice(&offloads.emit());
        Ok(())
    }

    fn watch(
        &self,
        sources: &mut dyn Sources,
        token: u32,
        interest: Ready,
        is_new: bool,
    ) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        if is_new {
            sources.add_fd(token, socket.as_fd(), interest)
        } else {
            sources.modify_fd(token, socket.as_fd(), interest)
        }
    }

    fn has_room(&self) -> bool {
        self.out.len() + LENGTH_LEN + LONGEST_RECORD <= BUFFER_LEN
    }

    fn send(&mut self, offload: [u8; OFFLOAD_LEN], frame: &mut Reader<'_>) {
        let len = OFFLOAD_LEN + frame.remaining();
        self.out
            .extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        self.out.extend_from_slice(&offload);
        let at = self.out.len();
        self.out.resize(at + frame.remaining(), 0);
        frame.read(self.out.get_mut(at..).unwrap_or_default());
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        while let Some(rest @ [_, ..]) = self.out.get(self.sent..) {
            match socket.write(rest) {
                Ok(len) => self.sent += len,
                Err(error) if is_for_later(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }

    fn fill(&mut self) -> io::Result<bool> {
        Ok(self.front.is_some() || self.find()? || (self.read()? && self.find()?))
    }

    fn front(&self) -> Option<&[u8]> {
        self.buffer.get(self.front.clone()?)
    }

    fn pop(&mut self) {
        self.front = None;
    }

    fn cut(&mut self, sources: &mut dyn Sources, token: u32, is_new: bool) -> io::Result<()> {
        if let Some(socket) = self.let_go()
            && !is_new
        {
            // It is in none if it was cut before it was watched.
            let _ = sources.remove_fd(socket.as_fd());
        }
        self.out.clear();
        self.sent = 0;
        self.received = 0..0;
        self.front = None;
        sources.add_fd(token, self.sockets.as_fd(), Ready::READ)
    }

    fn mend(&mut self, sources: &mut dyn Sources) -> io::Result<bool> {
        self.socket = match next_socket(&self.sockets) {
            Ok(None) => return Ok(false),
            Ok(socket) => socket,
            Err(error) => {
                sources.remove_fd(self.sockets.as_fd())?;
                return Err(error);
            }
        };
        sources.remove_fd(self.sockets.as_fd())?;
        Ok(true)
    }
}

impl Wire {
    /// Ends what is there. The egress worker learns it at once, whoever else holds the socket.
    fn let_go(&mut self) -> Option<UnixStream> {
        let socket = self.socket.take()?;
        let _ = socket.shutdown(Shutdown::Both);
        Some(socket)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.let_go());
    }
}

/// The next socket to an egress worker. `None`: it has not come yet.
fn next_socket(sockets: &UnixStream) -> io::Result<Option<UnixStream>> {
    match receive_descriptor(sockets) {
        Ok(descriptor) => {
            let socket = UnixStream::from(descriptor);
            socket.set_nonblocking(true)?;
            Ok(Some(socket))
        }
        Err(error) if is_for_later(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;

    use crate::host::send_descriptor;

    fn another(sockets: &UnixStream) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        send_descriptor(sockets, &near).unwrap();
        far
    }

    fn pair() -> (Wire, UnixStream) {
        let (sockets, ours) = UnixStream::pair().unwrap();
        let far = another(&ours);
        (Wire::new(sockets).unwrap(), far)
    }

    /// What a loop is asked for.
    #[derive(Default)]
    struct Asked(Vec<&'static str>);

    impl Sources for Asked {
        fn add_event(&mut self, _: u32, _: &hv_core::Event) -> io::Result<()> {
            self.0.push("add event");
            Ok(())
        }

        fn remove_event(&mut self, _: u32) -> io::Result<()> {
            self.0.push("remove event");
            Ok(())
        }

        fn add_fd(&mut self, _: u32, _: BorrowedFd<'_>, _: Ready) -> io::Result<()> {
            self.0.push("add");
            Ok(())
        }

        fn modify_fd(&mut self, _: u32, _: BorrowedFd<'_>, _: Ready) -> io::Result<()> {
            self.0.push("modify");
            Ok(())
        }

        fn remove_fd(&mut self, _: BorrowedFd<'_>) -> io::Result<()> {
            self.0.push("remove");
            Ok(())
        }
    }

    #[test]
    fn another_socket_begins_with_nothing_of_the_one_before() {
        let (sockets, ours) = UnixStream::pair().unwrap();
        let mut far = another(&ours);
        let mut wire = Wire::new(sockets).unwrap();
        let offloads = net::Offloads::default();
        wire.started(offloads).unwrap();
        far.write_all(&record(1, 24)[..10]).unwrap();
        assert!(!wire.fill().unwrap());
        drop(far);
        assert!(wire.fill().is_err());
        let mut asked = Asked::default();
        wire.cut(&mut asked, 0, false).unwrap();
        assert!(!wire.mend(&mut asked).unwrap());
        assert!(wire.flush().is_err() && wire.fill().is_err());
        let mut far = another(&ours);
        assert!(wire.mend(&mut asked).unwrap());
        assert_eq!(asked.0, ["remove", "add", "remove"]);
        far.write_all(&record(2, 24)).unwrap();
        assert!(wire.fill().unwrap());
        assert_eq!(wire.front().unwrap(), [2; 24]);
        wire.started(offloads).unwrap();
        assert!(wire.flush().unwrap());
        let mut got = [0; 100];
        assert_eq!(far.read(&mut got).unwrap(), offloads_record().len());
        // Nobody is left who could give another.
        drop((far, ours));
        wire.cut(&mut asked, 0, false).unwrap();
        assert!(wire.mend(&mut asked).is_err());
    }

    fn offloads_record() -> Vec<u8> {
        let offloads = link::Offloads {
            checksum: false,
            segmentation: false,
        };
        offloads.emit().to_vec()
    }

    fn record(byte: u8, len: usize) -> Vec<u8> {
        let mut record = u32::try_from(len).unwrap().to_le_bytes().to_vec();
        record.resize(LENGTH_LEN + len, byte);
        record
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let sent: Vec<Vec<u8>> = [(1, 24), (2, LONGEST_RECORD), (3, 10), (4, 1500)]
            .map(|(byte, len)| record(byte, len))
            .to_vec();
        for cut in [1, 3, 7, 1000, 30_000] {
            let (mut wire, mut far) = pair();
            let mut got = Vec::new();
            for piece in sent.concat().chunks(cut) {
                far.write_all(piece).unwrap();
                while wire.fill().unwrap() {
                    got.push(wire.front().unwrap().to_vec());
                    wire.pop();
                }
            }
            let frames: Vec<_> = sent
                .iter()
                .map(|record| record[LENGTH_LEN..].to_vec())
                .collect();
            assert!(got == frames, "in pieces of {cut}");
        }
    }

    #[test]
    fn what_is_no_record_cuts_the_wire() {
        let (mut wire, mut far) = pair();
        far.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(wire.fill().is_err());
        let (mut wire, far) = pair();
        drop(far);
        assert!(wire.fill().is_err());
    }

    #[test]
    fn what_is_not_taken_is_kept_until_it_is() {
        let (mut wire, mut far) = pair();
        let offloads = net::Offloads {
            checksum: true,
            segmentation: true,
        };
        let mut all = Vec::new();
        while wire.has_room() {
            wire.started(offloads).unwrap();
            all.extend([4, 0, 0, 0, 3, 0, 0, 0]);
        }
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        while !wire.flush().unwrap() {
            let len = far.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..len]);
        }
        while let Ok(len @ 1..) = far.read(&mut piece) {
            got.extend_from_slice(&piece[..len]);
        }
        assert!(got == all);
    }
}
