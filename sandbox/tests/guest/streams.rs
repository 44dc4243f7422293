//! Standard streams and terminals.

use anyhow::{Context as _, Result};
use sandbox::protocol::TerminalSize;
use sandbox::{ExecSpec, ExitStatus};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{Fixture, cases};

cases!(Guest:
    input_streams_to_output,
    input_ends,
    output_and_error_are_apart,
    output_is_whole_at_the_exit,
    terminal_and_its_size,
);

async fn input_streams_to_output(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let sent: Vec<u8> = (0..4 << 20)
        .map(|n: u32| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    let mut process = guest
        .sandbox
        .exec(ExecSpec::new("cat").piped_stdin())
        .await?;
    let mut input = process.stdin.take().context("no stdin")?;
    let mut output = process.stdout.take().context("no stdout")?;
    let mut received = Vec::new();
    // More than any buffer on the way: each direction must go on while the other waits.
    let write = async {
        input.write_all(&sent).await?;
        input.shutdown().await
    };
    tokio::try_join!(write, output.read_to_end(&mut received))?;
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "the bytes differ");
    assert_eq!(process.wait().await?, ExitStatus::Code(0));
    Ok(())
}

async fn input_ends(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let unasked = guest.answer("wc -c").await?;
    assert_eq!(unasked, "0");
    let process = guest
        .sandbox
        .exec(ExecSpec::new("wc").arg("-c").piped_stdin())
        .await?;
    // Collecting the output closes the input first.
    assert_eq!(process.output().await?.stdout, b"0\n");
    Ok(())
}

async fn output_and_error_are_apart(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let output = guest.shell("echo out; echo err >&2").await?;
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"out\n"[..], &b"err\n"[..])
    );
    Ok(())
}

async fn output_is_whole_at_the_exit(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let output = guest
        .shell("head -c 1000000 /dev/zero; echo end >&2; exit 3")
        .await?;
    assert_eq!(output.status, ExitStatus::Code(3));
    assert_eq!(
        (output.stdout.len(), output.stderr.as_slice()),
        (1_000_000, &b"end\n"[..])
    );
    Ok(())
}

async fn terminal_and_its_size(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let size = |rows, columns| TerminalSize { rows, columns };
    let script = guest.script("tty; stty size; read line; stty size; echo got $line");
    let mut process = guest.sandbox.exec(script.terminal(size(30, 100))).await?;
    let mut output = process.stdout.take().context("no output")?;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("30 100") {
        anyhow::ensure!(
            output.read_buf(&mut seen).await? > 0,
            "it ended: {}",
            seen.escape_ascii()
        );
    }
    process.resize(size(40, 120)).await?;
    let mut keyboard = process.stdin.take().context("no input")?;
    keyboard.write_all(b"typed\n").await?;
    output.read_to_end(&mut seen).await?;
    let seen = String::from_utf8_lossy(&seen);
    for part in ["/dev/pts/", "40 120", "got typed"] {
        assert!(seen.contains(part), "{part:?} is not in {seen:?}");
    }
    assert_eq!(process.wait().await?, ExitStatus::Code(0));
    Ok(())
}
