//! Our standard streams, connected to those of a command in the guest.

use std::io;

use sandbox::agent::{AgentError, InputWriter};
use sandbox::{ExitStatus, Process};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;
use crate::terminal;

/// Connects our streams to the command's until it has ended and all is printed. An output that cannot be written ends the
/// command: its handle is dropped.
pub(crate) async fn connect(mut process: Process, tty: bool) -> Result<ExitStatus, Failure> {
    let input = process.stdin.take().map(|input| tokio::spawn(feed(input)));
    let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
    let ended = tokio::try_join!(
        drain(stdout, tokio::io::stdout(), "standard output"),
        drain(stderr, tokio::io::stderr(), "standard error"),
        // Not an error here: what has arrived is printed even when the guest has gone.
        async { Ok(end_of(&mut process, tty).await) },
    );
    if let Some(input) = input {
        input.abort();
    }
    let ((), (), status) = ended?;
    Ok(status?)
}

/// Waits for the command's end; until then its terminal has the size of ours.
async fn end_of(process: &mut Process, tty: bool) -> Result<ExitStatus, AgentError> {
    let mut sizes = SizeChanges::new(tty);
    loop {
        tokio::select! {
            status = process.wait() => return status,
            () = sizes.next() => {}
        }
        // It fails when the guest has gone, which the wait tells as well.
        drop(process.resize(terminal::size()).await);
    }
}

/// Changes of our terminal's size, which the command's has to follow.
struct SizeChanges(Option<Signal>);

impl SizeChanges {
    fn new(tty: bool) -> Self {
        Self(
            tty.then(|| signal(SignalKind::window_change()).ok())
                .flatten(),
        )
    }

    async fn next(&mut self) {
        match &mut self.0 {
            Some(changes) => drop(changes.recv().await),
            None => std::future::pending().await,
        }
    }
}

async fn feed(mut input: InputWriter) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = stdin.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        if input.write_all(bytes).await.is_err() || input.flush().await.is_err() {
            return; // The command closed its standard input.
        }
    }
    // The command may have closed it already.
    drop(input.shutdown().await);
}

async fn drain(
    from: Option<impl AsyncRead + Unpin>,
    to: impl AsyncWrite + Unpin,
    name: &'static str,
) -> Result<(), Failure> {
    match from {
        Some(from) => copy(from, to)
            .await
            .map_err(|error| Failure::Output(name, error)),
        None => Ok(()),
    }
}

/// Copies to the end of `from`. Only `to` can fail: why no more came is told by the command's end.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; 32 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        to.write_all(bytes).await?;
        to.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    /// A stream on which nothing works.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(ErrorKind::ConnectionAborted.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(ErrorKind::StorageFull.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn output_that_cannot_be_written_ends_the_copy() {
        let failure = drain(Some(tokio::io::repeat(b'y')), Broken, "standard output").await;
        assert!(
            matches!(&failure, Err(Failure::Output("standard output", error)) if error.kind() == ErrorKind::StorageFull),
            "{failure:?}"
        );
    }

    #[tokio::test]
    async fn what_came_before_the_guest_went_is_written() {
        let mut written = Vec::new();
        let from = b"last words".chain(Broken);
        assert!(drain(Some(from), &mut written, "any").await.is_ok());
        assert_eq!(written, b"last words");
    }
}
