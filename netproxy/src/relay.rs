//! Bytes between the guest's end of a connection and the other side's, without a look at them.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::quota::{Lease, Limit, Spent, Tally};
use crate::stack::GuestStream;

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the guest.
    pub sent: u64,
    /// To the guest.
    pub received: u64,
}

/// Counts what goes each way on a connection, and ends it where the quota of a rule does. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Meter(Rc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    carried: Cell<Carried>,
    /// Whose bytes they are now: at most the user's rule and the repository's.
    charged: RefCell<Vec<Rc<Tally>>>,
    /// For each rule that has let something of the connection through.
    leases: RefCell<Vec<Lease>>,
    spent: RefCell<Option<Spent>>,
    told: Notify,
}

impl Meter {
    /// What has gone so far.
    #[must_use]
    pub fn carried(&self) -> Carried {
        self.0.carried.get()
    }

    /// Counts the connection for these rules, and its bytes from now on.
    ///
    /// # Errors
    ///
    /// One of the rules allows no more connections, or no more bytes.
    pub(crate) fn charge(&self, tallies: Vec<Rc<Tally>>) -> Result<(), Spent> {
        let mut leases = self.0.leases.borrow_mut();
        let before = leases.len();
        for tally in &tallies {
            if leases.iter().any(|lease| lease.is_of(tally)) {
                continue;
            }
            match Lease::take(tally) {
                Ok(lease) => leases.push(lease),
                Err(spent) => {
                    leases.truncate(before);
                    return Err(spent);
                }
            }
        }
        drop(leases);
        self.0.charged.replace(tallies);
        Ok(())
    }

    /// The quota that ended the connection.
    pub(crate) fn spent(&self) -> Option<Spent> {
        self.0.spent.borrow().clone()
    }

    /// Resolves when a quota has ended the connection.
    pub(crate) async fn until_spent(&self) -> Spent {
        loop {
            let told = self.0.told.notified();
            if let Some(spent) = self.spent() {
                return spent;
            }
            told.await;
        }
    }

    pub(crate) fn count(&self, way: Limit, len: u64) {
        let mut carried = self.0.carried.get();
        let count = match way {
            Limit::SentBytes => &mut carried.sent,
            _ => &mut carried.received,
        };
        *count = count.saturating_add(len);
        self.0.carried.set(carried);
        let charged = self.0.charged.borrow();
        charged.iter().for_each(|tally| tally.count_bytes(way, len));
    }

    /// How many of `len` bytes may go.
    pub(crate) fn room(&self, way: Limit, len: usize) -> usize {
        let charged = self.0.charged.borrow();
        let left = charged.iter().filter_map(|tally| tally.left(way)).min();
        left.map_or(len, |left| {
            len.min(usize::try_from(left).unwrap_or(usize::MAX))
        })
    }

    /// There is more than may go.
    pub(crate) fn exceed(&self, way: Limit) -> io::Error {
        let charged = self.0.charged.borrow();
        let full = charged.iter().find(|tally| tally.left(way) == Some(0));
        self.0.spent.replace(full.map(|tally| tally.spent(way)));
        self.0.told.notify_waiters();
        io::ErrorKind::QuotaExceeded.into()
    }
}

/// Carries what either side says to the other until both have ended, each direction by itself. `meter` counts on the way, and not a byte more is
/// carried than it has room for.
///
/// # Errors
///
/// One side broke, or there was more than `meter` has room for; both are to be broken.
pub async fn relay(guest: &GuestStream, upstream: &mut TcpStream, meter: &Meter) -> io::Result<()> {
    let (reader, mut writer) = upstream.split();
    let up = async {
        while send(guest, writer.as_ref(), meter).await?.is_some() {}
        writer.shutdown().await
    };
    let down = async {
        while receive(guest, reader.as_ref(), meter).await?.is_some() {}
        guest.close();
        io::Result::Ok(())
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// Carries what the guest sent as far as it is taken. `None`: it sends no more.
async fn send(guest: &GuestStream, upstream: &TcpStream, meter: &Meter) -> io::Result<Option<()>> {
    let write = |bytes: &mut [u8]| {
        let room = meter.room(Limit::SentBytes, bytes.len());
        let done = match bytes.get(..room) {
            Some([]) if !bytes.is_empty() => Err(meter.exceed(Limit::SentBytes)),
            fits => upstream.try_write(fits.unwrap_or_default()),
        };
        moved(done, Limit::SentBytes, meter)
    };
    let done = poll_fn(|cx| guest.poll_take(cx, write)).await?;
    match done {
        None => Ok(None),
        Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            upstream.writable().await.map(Some)
        }
        Some(done) => done.map(|_| Some(())),
    }
}

/// Carries what the other side sent as far as there is room. `None`: it sends no more.
pub(crate) async fn receive(
    guest: &GuestStream,
    upstream: &TcpStream,
    meter: &Meter,
) -> io::Result<Option<()>> {
    if meter.room(Limit::ReceivedBytes, 1) == 0 {
        // Its end may still go.
        return match upstream.peek(&mut [0]).await? {
            0 => Ok(None),
            _ => Err(meter.exceed(Limit::ReceivedBytes)),
        };
    }
    let read = |room: &mut [u8]| {
        let most = meter.room(Limit::ReceivedBytes, room.len());
        let done = match room.get_mut(..most) {
            // Another connection of the rule took it meanwhile.
            Some([]) | None => Err(io::ErrorKind::WouldBlock.into()),
            Some(room) => upstream.try_read(room),
        };
        moved(done, Limit::ReceivedBytes, meter)
    };
    match poll_fn(|cx| guest.poll_give(cx, read)).await? {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            upstream.readable().await.map(Some)
        }
        Ok(0) => Ok(None),
        done => done.map(|_| Some(())),
    }
}

/// What a call moved: counted, once for the buffer, and once for who asked.
fn moved(done: io::Result<usize>, way: Limit, meter: &Meter) -> (usize, io::Result<usize>) {
    let len = *done.as_ref().unwrap_or(&0);
    meter.count(way, count(len));
    (len, done)
}

/// A connection to the other side of which every byte is counted, and not one goes for which there is no room.
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

    fn exceed(&self, way: Limit) -> io::Error {
        reset(&self.stream);
        self.meter.exceed(way)
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let wanted = buffer.remaining();
        let room = this.meter.room(Limit::ReceivedBytes, wanted);
        // Without room it is looked whether there is a byte more, or the end.
        let mut one = [0];
        let mut into = match room {
            0 => ReadBuf::new(&mut one),
            room => ReadBuf::new(buffer.initialize_unfilled_to(room)),
        };
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut into))?;
        let len = into.filled().len();
        if room == 0 && wanted > 0 && len > 0 {
            return Poll::Ready(Err(this.exceed(Limit::ReceivedBytes)));
        }
        if room > 0 {
            buffer.advance(len);
            this.meter.count(Limit::ReceivedBytes, count(len));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let room = this.meter.room(Limit::SentBytes, bytes.len());
        let fits = bytes.get(..room).unwrap_or_default();
        if fits.is_empty() && !bytes.is_empty() {
            return Poll::Ready(Err(this.exceed(Limit::SentBytes)));
        }
        let len = ready!(Pin::new(&mut this.stream).poll_write(cx, fits))?;
        this.meter.count(Limit::SentBytes, count(len));
        Poll::Ready(Ok(len))
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

/// Breaks a connection so that its other side learns it by a reset.
pub fn reset(upstream: &TcpStream) {
    // Fails only where the connection is gone already.
    let _ = upstream.set_zero_linger();
}
