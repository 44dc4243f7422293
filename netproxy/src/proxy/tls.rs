//! TLS that nobody reads: its first message is known to be for the right name, and a second one must be, too.
//!
//! A server of TLS 1.3 may ask for another first message (`HelloRetryRequest`, RFC 8446, section 4.1.4). Clients say the same name again; a server
//! may go by whatever the second one says. So nothing of the guest's is carried behind its first message before the server has said whether it
//! wants another.

use std::future::poll_fn;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{FIRST_BYTES_LIMIT, Why};
use crate::first_bytes::{FirstBytes, LONGEST_HELLO, hello_len, recognise};
use crate::quota::Limit;
use crate::relay::{Meter, receive};
use crate::stack::GuestStream;

/// A record's header, a message's, a version, and the random number by which a server's first message is a request for another.
const TO_RANDOM: usize = 5 + 4 + 2;
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];
const CHANGE_CIPHERS: u8 = 20;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const RECORD_HEADER: usize = 5;

/// Why nothing more is carried.
pub(super) enum Ended {
    /// A side broke off, or said nothing for too long.
    Broken,
    /// The second message is none that may be carried.
    Refused(Why),
}

/// Carries the first message, and the second if the server asks for one and `is_right` says that it is for the same name. What follows is anybody's.
///
/// # Errors
///
/// The second one is not, a side broke off, or `meter` has no room for more.
pub(super) async fn begin(
    guest: &GuestStream,
    upstream: &mut TcpStream,
    meter: &Meter,
    is_right: impl Fn(FirstBytes) -> Result<(), Why>,
) -> Result<(), Ended> {
    let first = peek(guest, hello_len).await?;
    forward(guest, upstream, meter, first).await?;
    if !is_asked_again(guest, upstream, meter).await? {
        return Ok(());
    }
    // The guest needs the whole of the answer before it says anything.
    let (reader, mut writer) = upstream.split();
    let again = async {
        loop {
            match peek(guest, next).await? {
                Next::Record(len) => forward(guest, &mut writer, meter, len).await?,
                Next::Hello(seen) => return is_right(seen).map_err(Ended::Refused),
            }
        }
    };
    let answer = async {
        while receive(guest, reader.as_ref(), meter).await?.is_some() {}
        // Its end is seen again when all is carried.
        std::future::pending::<io::Result<()>>().await
    };
    tokio::select! {
        biased;
        done = again => done,
        done = answer => done.map_err(broken),
    }
}

/// What may come before a second message: what tells middleboxes that ciphers change, and data that was sent ahead.
enum Next {
    Record(usize),
    Hello(FirstBytes),
}

fn next(bytes: &[u8]) -> Option<Next> {
    let &[kind, _, _, high, low] = bytes.first_chunk::<RECORD_HEADER>()?;
    match kind {
        CHANGE_CIPHERS | DATA => {
            let len = u16::from_be_bytes([high, low]);
            Some(Next::Record(RECORD_HEADER + usize::from(len)))
        }
        _ if bytes.len() > LONGEST_HELLO => Some(Next::Hello(FirstBytes::Unknown)),
        _ => recognise(bytes).map(Next::Hello),
    }
}

/// Looks at what the guest sent until `look` has seen enough.
async fn peek<R>(guest: &GuestStream, look: impl FnMut(&[u8]) -> Option<R>) -> Result<R, Ended> {
    match timeout(FIRST_BYTES_LIMIT, guest.peek(look)).await {
        Ok(Ok(Some(seen))) => Ok(seen),
        Ok(Ok(None) | Err(_)) | Err(_) => Err(Ended::Broken),
    }
}

/// Carries `len` bytes from the guest.
async fn forward(
    guest: &GuestStream,
    upstream: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    mut len: usize,
) -> Result<(), Ended> {
    while len > 0 {
        let taken = poll_fn(|cx| {
            guest.poll_take(cx, |bytes| {
                let room = meter.room(Limit::SentBytes, len.min(bytes.len()));
                let taken = bytes.get(..room).unwrap_or_default().to_vec();
                meter.count(Limit::SentBytes, count(room));
                (taken.len(), taken)
            })
        });
        let Ok(Ok(Some(taken))) = timeout(FIRST_BYTES_LIMIT, taken).await else {
            return Err(Ended::Broken);
        };
        if meter.room(Limit::SentBytes, 1) == 0 && taken.is_empty() {
            return Err(broken(meter.exceed(Limit::SentBytes)));
        }
        len -= taken.len();
        upstream.write_all(&taken).await.map_err(broken)?;
    }
    Ok(())
}

/// Carries the beginning of the server's answer, and says whether it may be a request for another first message.
async fn is_asked_again(
    guest: &GuestStream,
    upstream: &mut TcpStream,
    meter: &Meter,
) -> Result<bool, Ended> {
    let mut answer = [0; TO_RANDOM + RETRY.len()];
    let mut len = 0;
    // Alerts are shorter; they are no request, and the server ends behind them.
    while len < answer.len()
        && answer
            .first()
            .is_none_or(|kind| len == 0 || *kind == HANDSHAKE)
    {
        let room = answer.get_mut(len..).unwrap_or_default();
        let read = timeout(FIRST_BYTES_LIMIT, upstream.read(room)).await;
        match read.map_err(|_| Ended::Broken)?.map_err(broken)? {
            0 => break,
            read => len += read,
        }
    }
    let mut rest = answer.get(..len).unwrap_or_default();
    while !rest.is_empty() {
        let given = poll_fn(|cx| {
            guest.poll_give(cx, |room| {
                let len = meter.room(Limit::ReceivedBytes, room.len().min(rest.len()));
                meter.count(Limit::ReceivedBytes, count(len));
                if let (Some(to), Some(from)) = (room.get_mut(..len), rest.get(..len)) {
                    to.copy_from_slice(from);
                }
                (len, len)
            })
        });
        let given = given.await.map_err(broken)?;
        if meter.room(Limit::ReceivedBytes, 1) == 0 && given == 0 {
            return Err(broken(meter.exceed(Limit::ReceivedBytes)));
        }
        rest = rest.get(given..).unwrap_or_default();
    }
    // What does not hold the number where it belongs, because its record is too short, may hold it in several.
    let [kind, _, _, high, low, ..] = answer;
    let is_short = usize::from(u16::from_be_bytes([high, low])) < answer.len() - RECORD_HEADER;
    let is_retry = answer.get(TO_RANDOM..) == Some(&RETRY);
    Ok(kind == HANDSHAKE && (is_retry || is_short))
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn broken(_: io::Error) -> Ended {
    Ended::Broken
}
