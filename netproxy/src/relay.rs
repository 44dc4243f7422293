//! Bytes between the guest's end of a connection and the other side's, without a look at them.

use std::future::poll_fn;
use std::io;

use tokio::io::AsyncWriteExt as _;
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

/// Carries what either side says to the other until both have ended, each direction by itself. `carried` counts on the way.
///
/// # Errors
///
/// One side broke; the other is to be broken too.
pub async fn relay(
    guest: &GuestStream,
    upstream: &mut TcpStream,
    carried: &mut Carried,
) -> io::Result<()> {
    let Carried { sent, received } = carried;
    let (reader, mut writer) = upstream.split();
    let up = async {
        while let Some(len) = send(guest, writer.as_ref()).await? {
            *sent = sent.saturating_add(len);
        }
        writer.shutdown().await
    };
    let down = async {
        while let Some(len) = receive(guest, reader.as_ref()).await? {
            *received = received.saturating_add(len);
        }
        guest.close();
        io::Result::Ok(())
    };
    tokio::try_join!(up, down).map(|_| ())
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
pub(crate) async fn receive(guest: &GuestStream, upstream: &TcpStream) -> io::Result<Option<u64>> {
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
    (len, done.map(|len| u64::try_from(len).unwrap_or(u64::MAX)))
}

/// Breaks a connection so that its other side learns it by a reset.
pub fn reset(upstream: &TcpStream) {
    // Fails only where the connection is gone already.
    let _ = upstream.set_zero_linger();
}
