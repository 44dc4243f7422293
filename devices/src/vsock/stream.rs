//! The host's end of a connection.

use std::io;
use std::net::Shutdown;

/// A byte stream that never blocks. `WouldBlock` means: wait for it to become ready.
///
/// On Unix, `unix_stream` makes one of a socket.
pub trait Stream: Send {
    /// Reads what is there; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or the stream is broken.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what fits.
    ///
    /// # Errors
    /// `WouldBlock`, or nobody reads the stream any more.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Closes one direction for good: after `Write` the reader sees the end, after `Read` the
    /// writer fails.
    fn shutdown(&mut self, how: Shutdown);

    /// What the event loop watches.
    #[cfg(unix)]
    fn descriptor(&self) -> std::os::fd::BorrowedFd<'_>;
}

#[cfg(unix)]
pub use unix::unix_stream;

#[cfg(unix)]
mod unix {
    use std::io::{self, Read as _, Write as _};
    use std::net::Shutdown;
    use std::os::fd::{AsFd as _, BorrowedFd};
    use std::os::unix::net::UnixStream;

    use super::Stream;

    /// A Unix socket as a [`Stream`]; it is made non-blocking.
    ///
    /// # Errors
    /// It is not open (caller).
    pub fn unix_stream(socket: UnixStream) -> io::Result<Box<dyn Stream>> {
        socket.set_nonblocking(true)?;
        Ok(Box::new(Unix(socket)))
    }

    struct Unix(UnixStream);

    impl Stream for Unix {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }

        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }

        fn shutdown(&mut self, how: Shutdown) {
            // It fails only when the other end is gone, which the next read or write will tell.
            drop(self.0.shutdown(how));
        }

        fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}
