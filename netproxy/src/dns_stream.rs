//! DNS over TCP at the gateway (RFC 7766): the same answers as over UDP, for who asks so.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::egress::Gate;
use crate::stack::GuestStream;

/// Most of these connections at a time.
pub(crate) const MAX_DNS_STREAMS: usize = 32;
/// How long a guest may take to ask, or to take an answer.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// Answers what the guest asks, one question after the other, until it ends or asks what is no question.
pub(crate) async fn serve<G: Gate>(gate: Rc<G>, mut guest: GuestStream) {
    guest.accept();
    while let Ok(Ok(Some(()))) = timeout(IDLE_LIMIT, answer(&*gate, &mut guest)).await {
        // A guest that asks much at once does not hold up what else it has.
        tokio::task::consume_budget().await;
    }
    guest.close();
}

/// Answers the next question. `None`: there is none.
async fn answer<G: Gate>(gate: &G, guest: &mut GuestStream) -> io::Result<Option<()>> {
    let len = guest.read_u16().await?;
    let mut query = vec![0; len.into()];
    guest.read_exact(&mut query).await?;
    let Some(answer) = gate.dns(&query) else {
        return Ok(None);
    };
    // Answers are short: this does not fail.
    let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
    let message = [&len.to_be_bytes(), answer.as_slice()].concat();
    guest.write_all(&message).await.map(Some)
}
