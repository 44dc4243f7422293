//! Bytes between the guest's end of a connection and the other side's, without a look at them.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;

use crate::stack::GuestStream;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the guest.
    pub sent: u64,
    /// To the guest.
    pub received: u64,
}

/// Counts what goes each way on a connection. Clones count the same one.
#[derive(Clone, Debug, Default)]
pub struct Meter(Rc<Cell<Carried>>);

impl Meter {
    /// What has gone so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.0.get()
    }

    fn count(&self, way: Way, len: u64) {
        let mut carried = self.0.get();
        let count = match way {
            Way::Sent => &mut carried.sent,
            Way::Received => &mut carried.received,
        };
        *count = count.saturating_add(len);
        self.0.set(carried);
    }
}

/// Seen from the guest.
#[derive(Clone, Copy, Debug)]
enum Way {
    Sent,
    Received,
}

/// Carries what either side says to the other until both have ended, each direction by itself. `meter` counts on the way.
///
/// # Errors
///
/// One side broke; the other is to be broken too.
pub async fn relay(guest: &GuestStream, upstream: &mut TcpStream, meter: &Meter) -> io::Result<()> {
    let (reader, mut writer) = upstream.split();
    let up = async {
        while let Some(len) = send(guest, writer.as_ref()).await? {
            meter.count(Way::Sent, len);
        }
        writer.shutdown().await
    };
    let down = async {
        while let Some(len) = receive(guest, reader.as_ref()).await? {
            meter.count(Way::Received, len);
        }
        guest.close();
        io::Result::Ok(())
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// A connection to the other side of which every byte is counted.
#[derive(Debug)]
pub struct Metered {
    stream: TcpStream,
    meter: Meter,
}

impl Metered {
    /// Counts with `meter` what goes over `stream`.
    #[must_use]
    pub const fn new(stream: TcpStream, meter: Meter) -> Self {
        Self { stream, meter }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let done = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let len = buffer.filled().len().saturating_sub(before);
        this.meter.count(Way::Received, count(len));
        done
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(len)) = &done {
            this.meter.count(Way::Sent, count(*len));
        }
        done
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Carries what the guest sent as far as it is taken. `None`: it sends no more.
async fn send(guest: &GuestStream, upstream: &TcpStream) -> io::Result<Option<u64>> {
    let done = poll_fn(|cx| guest.poll_take(cx, |bytes| moved(upstream.try_write(bytes)))).await?;
    match done {
        None => Ok(None),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            upstream.writable().await.map(|()| Some(0))
        }
        Some(done) => done.map(Some),
    }
}

/// Carries what the other side sent as far as there is room. `None`: it sends no more.
async fn receive(guest: &GuestStream, upstream: &TcpStream) -> io::Result<Option<u64>> {
    let done = poll_fn(|cx| guest.poll_give(cx, |room| moved(upstream.try_read(room)))).await?;
    match done {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            upstream.readable().await.map(|()| Some(0))
        }
        Ok(0) => Ok(None),
        done => done.map(Some),
    }
}

/// What a call moved, once for the buffer and once for the count.
fn moved(done: io::Result<usize>) -> (usize, io::Result<u64>) {
    let len = *done.as_ref().unwrap_or(&0);
    (len, done.map(count))
}

/// Breaks a connection so that its other side learns it by a reset.
pub fn reset(upstream: &TcpStream) {
    // Fails only where the connection is gone already.
    let _ = upstream.set_zero_linger();
}
