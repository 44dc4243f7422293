//! Commands: how they start, what they see, how they end.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use sandbox::agent::AgentError;
use sandbox::protocol::ExecFailure;
use sandbox::{Error, ExecSpec, ExitStatus};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fixture::{Fixture, Shared, cases};

const SIGTERM: i32 = 15;

cases!(Guest:
    exit_status,
    end_by_a_signal,
    signal_reaches_the_command,
    environment,
    directory,
    user,
    command_that_cannot_start,
    fifty_at_once,
    caller_sets_the_time_limit,
    orphans_are_reaped,
);

async fn exit_status(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    for code in [0, 1, 7, 255] {
        let output = guest.shell(&format!("exit {code}")).await?;
        assert_eq!(output.status, ExitStatus::Code(code));
    }
    Ok(())
}

async fn end_by_a_signal(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let output = guest.shell("echo before; kill -SEGV $$").await?;
    assert_eq!(output.status, ExitStatus::Signal(11));
    assert_eq!(output.stdout, b"before\n");
    Ok(())
}

async fn signal_reaches_the_command(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let mut process = guest
        .sandbox
        .exec(ExecSpec::new("sleep").arg("1000"))
        .await?;
    process.signal(SIGTERM).await?;
    assert_eq!(process.wait().await?, ExitStatus::Signal(SIGTERM));
    let refused = process.signal(64).await;
    assert!(matches!(refused, Err(AgentError::NoSuchSignal(64))));
    Ok(())
}

async fn environment(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let script = guest.script(r#"echo "$FROM_THE_SANDBOX,$MINE,$HOME,$USER""#);
    let output = guest.sandbox.output(script.env("MINE", "a b")).await?;
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "yes,a b,/root,root\n"
    );
    // Nothing of the host's environment comes along.
    let names = guest.answer("env | cut -d= -f1").await?;
    assert!(
        !names.contains("CARGO") && !names.contains("COFFERDAM"),
        "{names}"
    );
    Ok(())
}

async fn directory(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    for directory in ["/", "/usr/lib"] {
        let output = guest
            .sandbox
            .output(ExecSpec::new("pwd").directory(directory))
            .await?;
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim_end(),
            directory
        );
    }
    Ok(())
}

async fn user(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    for (user, expected) in [
        ("agent", "1000 1000 /home/agent\n"),
        ("1000:1000", "1000 1000 /home/agent\n"),
        ("root", "0 0 /root\n"),
    ] {
        let spec = ExecSpec::new("sh")
            .args(["-c", "echo $(id -u) $(id -g) $HOME"])
            .user(user);
        let output = guest.sandbox.output(spec).await?;
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{user}");
    }
    Ok(())
}

async fn command_that_cannot_start(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    for (spec, expected) in [
        (ExecSpec::new("no-such-program"), ExecFailure::NotFound),
        (ExecSpec::new("/no/such/program"), ExecFailure::NotFound),
        (ExecSpec::new("/etc/passwd"), ExecFailure::NotExecutable),
        (ExecSpec::new("/usr"), ExecFailure::NotExecutable),
        (
            ExecSpec::new("true").directory("/nowhere"),
            ExecFailure::NoSuchDirectory,
        ),
        (
            ExecSpec::new("true").user("nobody-here"),
            ExecFailure::NoSuchUser,
        ),
    ] {
        match guest.sandbox.exec(spec.clone()).await {
            Err(Error::Agent(AgentError::Refused(failure))) => {
                assert_eq!(failure, expected, "{spec:?}");
            }
            other => bail!("{spec:?}: {other:?}"),
        }
    }
    Ok(())
}

async fn fifty_at_once(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let mut running = JoinSet::new();
    for number in 0..50 {
        let guest = std::sync::Arc::clone(&guest);
        let script = format!("echo {number}; exit {number}");
        running.spawn(async move { (number, guest.shell(&script).await) });
    }
    while let Some(ended) = running.join_next().await {
        let (number, output) = ended?;
        let output = output?;
        assert_eq!(output.status, ExitStatus::Code(number));
        assert_eq!(output.stdout, format!("{number}\n").as_bytes());
    }
    Ok(())
}

async fn caller_sets_the_time_limit(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    let process = guest
        .sandbox
        .exec(ExecSpec::new("sleep").arg("1000"))
        .await?;
    let pid = process.pid();
    assert_eq!(
        guest.answer(&format!("cat /proc/{pid}/comm")).await?,
        "sleep"
    );
    // Giving up the call gives up the process.
    assert!(
        timeout(Duration::from_millis(50), process.output())
            .await
            .is_err()
    );
    until_gone(&guest, pid).await
}

async fn orphans_are_reaped(fixture: &Fixture) -> Result<()> {
    let guest = fixture.shared().await?;
    // The inner shell leaves its child to process 1.
    let pid = guest
        .answer("(sleep 0.1 >/dev/null 2>&1 & echo $!)")
        .await?;
    until_gone(&guest, pid.parse()?).await
}

/// Waits for a process of the guest to be gone, zombie and all.
async fn until_gone(guest: &Shared, pid: u32) -> Result<()> {
    for _ in 0..200 {
        if guest.shell(&format!("test -d /proc/{pid}")).await?.status != ExitStatus::Code(0) {
            return Ok(());
        }
        sleep(Duration::from_millis(50)).await;
    }
    ensure!(false, "process {pid} is still there");
    Ok(())
}
