//! Starting, ending, signalling.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::*;

#[tokio::test]
async fn what_a_command_writes_and_returns() {
    let (client, _server) = guest().await;
    let output = output(&client, sh("echo out; echo err >&2; exit 7")).await;
    assert_eq!(
        output,
        Output {
            status: ExitStatus::Code(7),
            stdout: b"out\n".into(),
            stderr: b"err\n".into()
        }
    );
    assert!(!output.success());
}

#[tokio::test]
async fn every_exit_code_and_signal_comes_back() {
    let (client, _server) = guest().await;
    for code in [0, 1, 126, 127, 255] {
        assert_eq!(
            output(&client, sh(&format!("exit {code}"))).await.status,
            ExitStatus::Code(code)
        );
    }
    for signal in [1, 2, 9, 15] {
        assert_eq!(
            output(&client, sh(&format!("kill -{signal} $$; sleep 100")))
                .await
                .status,
            ExitStatus::Signal(signal)
        );
    }
}

#[tokio::test]
async fn refusals_have_their_reason() {
    let (client, _server) = guest().await;
    let cases = [
        (ExecSpec::new("no-such-program-here"), ExecFailure::NotFound),
        (ExecSpec::new("/no/such/program"), ExecFailure::NotFound),
        (ExecSpec::new("/etc/passwd"), ExecFailure::NotExecutable),
        (ExecSpec::new("/tmp"), ExecFailure::NotExecutable),
        (
            sh("true").directory("/no/such/directory"),
            ExecFailure::NoSuchDirectory,
        ),
        (
            sh("true").directory("/etc/passwd"),
            ExecFailure::NoSuchDirectory,
        ),
        (sh("true").user("no-such-user"), ExecFailure::NoSuchUser),
        (sh("true").arg("nul\0inside"), ExecFailure::Other(22)),
    ];
    for (spec, reason) in cases {
        let error = client.exec(spec.clone()).await.unwrap_err();
        assert!(
            matches!(error, AgentError::Refused(found) if found == reason),
            "{spec:?}: {error:?}"
        );
        assert_eq!(error.fault(), hv_core::Fault::Caller);
    }
    assert!(
        output(&client, sh("true")).await.success(),
        "and the guest goes on"
    );
}

#[tokio::test]
async fn a_script_without_its_interpreter_is_not_found() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    client
        .write_file(
            script.as_os_str().as_encoded_bytes(),
            0o755,
            b"#!/no/such/interpreter\n",
        )
        .await
        .unwrap();
    let error = client.exec(ExecSpec::new(&script)).await.unwrap_err();
    assert!(
        matches!(error, AgentError::Refused(ExecFailure::NotFound)),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_environment_is_layered_and_the_directory_set() {
    let (client, _server) = guest().await;
    let spec = sh("echo $CONFIGURED $BOTH $OWN $LANG ${TERM-none}; pwd")
        .env("BOTH", "exec")
        .env("OWN", "a b")
        .directory("/usr");
    assert_eq!(
        stdout(&client, spec).await,
        "yes exec a b C.UTF-8 none\n/usr\n"
    );
    let inherited = stdout(&client, ExecSpec::new("env")).await;
    assert!(
        !inherited.contains("CARGO"),
        "the guest program's own environment stays with it: {inherited}"
    );
}

#[tokio::test]
async fn the_standard_streams_are_all_that_a_process_inherits() {
    let (client, _server) = guest().await;
    let list = "ls /proc/self/fd | wc -l";
    // What this test program got from its own parent and cannot close goes through to every child.
    let plain = std::process::Command::new("sh")
        .args(["-c", list])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert_eq!(stdout(&client, sh(list)).await.as_bytes(), plain.stdout);
    assert_eq!(
        stdout(
            &client,
            sh("ps -o pid= -o pgid= -o sid= -p $$ | xargs -n1 | uniq | wc -l")
        )
        .await
        .trim(),
        "1",
        "a session of its own"
    );
}

#[tokio::test]
async fn another_user_is_taken_on_whole() {
    if std::fs::metadata("/proc/self")
        .is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0)
    {
        // Past the harness's capture.
        let skip = b"SKIP another_user_is_taken_on_whole: only root can become somebody else\n";
        std::io::Write::write_all(&mut std::io::stderr(), skip).unwrap();
        return;
    }
    let (client, _server) = guest().await;
    assert_eq!(
        stdout(&client, sh("id -u; id -g; id -G").user("1234:2345")).await,
        "1234\n2345\n2345\n"
    );
    assert_eq!(
        stdout(&client, sh("id -u; id -g").user("1234")).await,
        "1234\n1234\n"
    );
    assert_eq!(
        stdout(&client, sh("id -un; echo $USER").user("nobody")).await,
        "nobody\nnobody\n"
    );
}

#[tokio::test]
async fn a_signal_reaches_the_group() {
    let (client, _server) = guest().await;
    let mut process = client
        .exec(sh(
            "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
        ))
        .await
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "ready");
    process.signal(15).await.unwrap();
    assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "got");
    assert_eq!(within(process.wait()).await.unwrap(), ExitStatus::Code(3));
    assert_eq!(
        process.wait().await.unwrap(),
        ExitStatus::Code(3),
        "and it can be asked again"
    );
    process.signal(15).await.unwrap();
    for bad in [0, -1, 32, 64, 1000] {
        assert!(
            matches!(process.signal(bad).await, Err(AgentError::NoSuchSignal(signal)) if signal == bad)
        );
    }
}

#[tokio::test]
async fn a_kill_takes_the_children_along() {
    let (client, _server) = guest().await;
    let mut process = client.exec(sh("sleep 1000 & echo $!; wait")).await.unwrap();
    let child = BufReader::new(process.stdout.take().unwrap())
        .lines()
        .next_line()
        .await
        .unwrap()
        .unwrap();
    process.kill().await.unwrap();
    assert_eq!(within(process.wait()).await.unwrap(), ExitStatus::Signal(9));
    gone(child.parse().unwrap()).await;
}

#[tokio::test]
async fn a_dropped_process_is_killed_and_a_detached_one_is_not() {
    let (client, _server) = guest().await;
    let dropped = client.exec(sh("sleep 1000")).await.unwrap();
    let pid = dropped.pid();
    assert!(is_running(pid));
    drop(dropped);
    gone(pid).await;

    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!("yes | head -c 3000000; echo done > {}", mark.display());
    client.exec(sh(&script)).await.unwrap().detach();
    within(async {
        while std::fs::read(&mark).unwrap_or_default().is_empty() {
            client.ping().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_no_process() {
    let (client, _server) = guest().await;
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("pid");
    let spec = sh(&format!("echo $$ > {}; sleep 1000", mark.display()));
    // Polled once: the request is on its way, the answer is not there.
    let mut call = Box::pin(client.exec(spec));
    tokio::select! { biased; _ = &mut call => panic!("it cannot be answered yet"), () = std::future::ready(()) => {} }
    drop(call);
    client.ping().await.unwrap();
    // The kill came right behind the start: either the script never got to its mark, or it is dead by now.
    if let Ok(pid) = std::fs::read_to_string(&mark)
        .unwrap_or_default()
        .trim()
        .parse()
    {
        gone(pid).await;
    }
}

#[tokio::test]
async fn two_hundred_at_once() {
    let (client, _server) = guest().await;
    let one = |number: usize| {
        let client = client.clone();
        async move {
            stdout(
                &client,
                sh(&format!("read line < /dev/null; echo {number}")),
            )
            .await
        }
    };
    let tasks: Vec<_> = (0..200).map(|number| tokio::spawn(one(number))).collect();
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(within(task).await.unwrap(), format!("{number}\n"));
    }
}

#[tokio::test]
async fn a_terminal_has_a_size_that_can_change() {
    let (client, _server) = guest().await;
    let spec = sh(
        "test -t 0 && test -t 2 && echo $TERM; stty size; read line; stty size; echo err >&2; tty > /dev/null && exit 5",
    );
    let mut process = client
        .exec(spec.terminal(TerminalSize {
            rows: 24,
            columns: 80,
        }))
        .await
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(
        within(lines.next_line()).await.unwrap().unwrap(),
        "xterm-256color"
    );
    assert_eq!(within(lines.next_line()).await.unwrap().unwrap(), "24 80");
    process
        .resize(TerminalSize {
            rows: 50,
            columns: 132,
        })
        .await
        .unwrap();
    tokio::io::AsyncWriteExt::write_all(process.stdin.as_mut().unwrap(), b"go\n")
        .await
        .unwrap();
    let mut rest = String::new();
    within(lines.into_inner().read_to_string(&mut rest))
        .await
        .unwrap();
    assert_eq!(
        rest, "go\r\n50 132\r\nerr\r\n",
        "the echo, the new size, and standard error in the same place"
    );
    assert_eq!(process.wait().await.unwrap(), ExitStatus::Code(5));
}

#[tokio::test]
async fn the_end_of_input_is_a_key_on_a_terminal() {
    let (client, _server) = guest().await;
    let spec = ExecSpec::new("cat").terminal(TerminalSize {
        rows: 24,
        columns: 80,
    });
    let mut process = client.exec(spec).await.unwrap();
    drop(process.stdin.take());
    assert_eq!(within(process.wait()).await.unwrap(), ExitStatus::Code(0));
}

#[tokio::test]
async fn a_terminal_that_nobody_has_open_is_still_there() {
    let (client, _server) = guest().await;
    let script = "exec <&- >&- 2>&-; sleep 0.3; echo again >/dev/tty; sleep 0.3; exit 7";
    let terminal = sh(script).terminal(TerminalSize {
        rows: 24,
        columns: 80,
    });
    assert_eq!(
        output(&client, terminal).await,
        Output {
            status: ExitStatus::Code(7),
            stdout: b"again\r\n".into(),
            stderr: vec![],
        }
    );
}

#[tokio::test]
async fn shutdown_ends_what_runs() {
    let (client, server) = guest().await;
    let mut polite = client
        .exec(sh("trap 'exit 9' TERM; echo; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    let mut stubborn = client
        .exec(sh("trap '' TERM; echo; while :; do sleep 0.01; done"))
        .await
        .unwrap();
    for process in [&mut polite, &mut stubborn] {
        process.stdout.as_mut().unwrap().read_u8().await.unwrap();
    }
    within(client.shutdown(Duration::from_millis(300)))
        .await
        .unwrap();
    assert_eq!(polite.wait().await.unwrap(), ExitStatus::Code(9));
    assert_eq!(stubborn.wait().await.unwrap(), ExitStatus::Signal(9));
    assert_eq!(server.join().unwrap().unwrap(), Ending::Shutdown);
    assert!(client.exec(sh("true")).await.unwrap_err().is_gone());
    assert!(client.ping().await.unwrap_err().is_gone());
}

#[tokio::test]
async fn without_handles_the_connection_ends_and_so_does_every_process() {
    let (client, server) = guest().await;
    let process = client.exec(sh("sleep 1000")).await.unwrap();
    let pid = process.pid();
    drop(client);
    assert!(is_running(pid), "a process is a handle too");
    process.detach();
    let ending = tokio::task::spawn_blocking(move || server.join().unwrap());
    assert_eq!(within(ending).await.unwrap().unwrap(), Ending::HostGone);
    gone(pid).await;
}

#[tokio::test]
async fn a_failed_configuration_is_told() {
    let (stream, _server) = start_server();
    let client = AgentClient::connect(stream).await.unwrap();
    let mounts = vec![Mount {
        tag: "work".into(),
        entry: None,
        path: "/w".into(),
        read_only: false,
    }];
    let error = client
        .configure(Configure {
            mounts,
            ..Configure::default()
        })
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("work") && error.to_string().contains("19"),
        "{error}"
    );
}
