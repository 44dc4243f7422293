//! Output and input: complete, bounded, independent.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::protocol::WINDOW;

fn megabytes(count: usize) -> Vec<u8> {
    (0..count * 1024 * 1024)
        .map(|at| u8::try_from(at % 251).unwrap())
        .collect()
}

#[tokio::test]
async fn nothing_is_missing_at_exit() {
    let (client, _server) = guest().await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(stdout(&client, ExecSpec::new("seq").arg("1").arg("200000")).await == expected);
    for _ in 0..20 {
        assert_eq!(
            stdout(&client, sh("printf x; printf y >&2; exec printf z")).await,
            "xz"
        );
    }
}

#[tokio::test]
async fn nothing_is_missing_from_a_terminal_at_exit() {
    let (client, _server) = guest().await;
    let spec = ExecSpec::new("seq")
        .arg("1")
        .arg("20000")
        .terminal(TerminalSize {
            rows: 9,
            columns: 9,
        });
    let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    assert!(stdout(&client, spec).await == expected);
}

#[tokio::test]
async fn ten_megabytes_through_cat() {
    let (client, _server) = guest().await;
    let data = megabytes(10);
    let mut process = client
        .exec(ExecSpec::new("cat").piped_stdin())
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (
        process.stdin.take().unwrap(),
        process.stdout.take().unwrap(),
    );
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        stdin.write_all(&sent).await.unwrap();
        stdin.shutdown().await.unwrap();
        stdin.write_all(b"more").await.unwrap_err().kind()
    });
    let mut received = Vec::new();
    within(stdout.read_to_end(&mut received)).await.unwrap();
    assert!(received == data);
    assert_eq!(writer.await.unwrap(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Code(0));
}

#[tokio::test]
async fn input_waits_for_a_process_that_does_not_read() {
    let (client, _server) = guest().await;
    let mut process = client
        .exec(ExecSpec::new("sleep").arg("1000").piped_stdin())
        .await
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let data = megabytes(1);
    let mut written = 0;
    // Writes until a piece is not taken while a whole round trip passes.
    while let Some(len) = tokio::select! { biased; len = stdin.write(&data) => Some(len.unwrap()), () = three_pings(&client) => None }
    {
        written += len;
        assert!(written < data.len());
    }
    let pipe = 64 * 1024;
    assert!(
        (WINDOW as usize..=WINDOW as usize + pipe).contains(&written),
        "a window and what the pipe holds, not {written}"
    );
    process.kill().await.unwrap();
    assert_eq!(
        within(stdin.write_all(&data)).await.unwrap_err().kind(),
        std::io::ErrorKind::BrokenPipe
    );
}

async fn three_pings(client: &AgentClient) {
    for _ in 0..3 {
        client.ping().await.unwrap();
    }
}

#[tokio::test]
async fn input_that_nobody_takes_breaks_the_pipe() {
    let (client, _server) = guest().await;
    let mut process = client
        .exec(sh("exec 0<&-; echo closed; sleep 1000").piped_stdin())
        .await
        .unwrap();
    process.stdout.as_mut().unwrap().read_u8().await.unwrap();
    let error = within(process.stdin.as_mut().unwrap().write_all(&megabytes(2)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_stream_that_nobody_reads_stops_only_its_own_process() {
    let (client, _server) = guest().await;
    let mut flood = client.exec(sh("yes")).await.unwrap();
    let mut slow = flood.stdout.take().unwrap();
    slow.read_u8().await.unwrap();
    for number in 0..20 {
        assert_eq!(
            stdout(&client, sh(&format!("echo {number}"))).await,
            format!("{number}\n")
        );
    }
    // It goes on where it stopped, and the other stream of the same process is its own.
    let mut piece = vec![0; 3_000_001];
    within(slow.read_exact(&mut piece)).await.unwrap();
    assert!(piece.chunks(2).all(|line| b"\ny".starts_with(line)));
    flood.kill().await.unwrap();
    assert_eq!(
        within(async {
            drop(slow);
            flood.wait().await
        })
        .await
        .unwrap(),
        ExitStatus::Signal(9)
    );
}

#[tokio::test]
async fn output_that_nobody_wants_holds_nothing_up() {
    let (client, _server) = guest().await;
    let mut process = client
        .exec(sh(
            "head -c 5000000 /dev/zero; head -c 5000000 /dev/zero >&2; exit 4",
        ))
        .await
        .unwrap();
    let mut started = process.stdout.take().unwrap();
    started.read_u8().await.unwrap();
    drop(started);
    drop(process.stderr.take());
    assert_eq!(within(process.wait()).await.unwrap(), ExitStatus::Code(4));
}

#[tokio::test]
async fn a_background_process_does_not_delay_the_end() {
    let (client, _server) = guest().await;
    let quiet = output(&client, sh("echo before; sleep 1000 & echo $!")).await;
    assert_eq!(quiet.status, ExitStatus::Code(0));
    let text = String::from_utf8(quiet.stdout).unwrap();
    let pid = text
        .strip_prefix("before\n")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(is_running(pid), "it lives on");
    assert!(
        output(&client, sh(&format!("kill -9 {pid}")))
            .await
            .success()
    );

    let noisy = output(&client, sh("yes & echo $! >&2; exit 6")).await;
    assert_eq!(
        noisy.status,
        ExitStatus::Code(6),
        "even if it writes for ever"
    );
    gone(
        String::from_utf8(noisy.stderr)
            .unwrap()
            .trim()
            .parse()
            .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_stream_ends_when_it_is_closed_not_only_at_exit() {
    let (client, _server) = guest().await;
    let mut process = client
        .exec(sh("echo last; exec >&-; sleep 1000"))
        .await
        .unwrap();
    let mut text = String::new();
    within(process.stdout.as_mut().unwrap().read_to_string(&mut text))
        .await
        .unwrap();
    assert_eq!(text, "last\n");
}

#[tokio::test]
async fn more_than_can_be_held_is_an_error_and_kills() {
    let (client, _server) = guest().await;
    let process = client.exec(sh("yes")).await.unwrap();
    let pid = process.pid();
    let error = within(process.output()).await.unwrap_err();
    assert!(
        matches!(
            error,
            AgentError::TooLarge {
                limit: MAX_COLLECTED
            }
        ),
        "{error:?}"
    );
    gone(pid).await;
}
