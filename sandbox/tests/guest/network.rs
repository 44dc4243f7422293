//! The guest's network, with servers on the host's loopback as services: what is outside cannot be had in a test.

use std::fs::File;
use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sandbox::audit::{Digest, Lines};
use sandbox::policy::learn::{Learner, Wildcards};
use sandbox::policy::{ABILITIES, Policy, is_public};
use sandbox::{ExecSpec, NetworkPolicy, Sandbox};

use crate::fixture::{Fixture, cases};

cases!(Guest:
    what_policy_allows_is_reached_and_nothing_else,
    content_arrives_whole_both_ways,
    both_workers_are_confined,
    another_policy_decides_from_then_on,
    audit_mode_lets_through_and_its_log_becomes_a_policy,
    published_ports_reach_the_guest_and_nothing_else_does,
    somebody_is_asked_about_what_no_rule_allows,
    without_the_egress_worker_there_is_no_network_until_another,
);

/// A server that answers every request of HTTP with `hello`.
fn web() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                let answer =
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n";
                drop(stream.write_all(answer));
            });
        }
    });
    Ok(address)
}

/// A server that sends back what it gets.
fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                drop(std::io::copy(&mut &stream, &mut &stream));
            });
        }
    });
    Ok(address)
}

fn service(name: &str, address: SocketAddr, scheme: &str, port: u16) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nscheme = \"{scheme}\"\nports = [{port}]\n"
    )
}

async fn start(fixture: &Fixture, policy: &str) -> Result<Sandbox> {
    let policy = NetworkPolicy::new().sandbox("test", policy);
    Ok(fixture.small().network(policy).start().await?)
}

/// What a script wrote, and its exit status.
async fn shell(sandbox: &Sandbox, script: &str) -> Result<(String, Option<i32>)> {
    let output = sandbox
        .output(ExecSpec::new("bash").args(["-c", script]))
        .await?;
    let text = [output.stdout, output.stderr].concat();
    let code = match output.status {
        sandbox::ExitStatus::Code(code) => Some(code),
        _ => None,
    };
    Ok((String::from_utf8_lossy(&text).trim_end().to_owned(), code))
}

async fn what_policy_allows_is_reached_and_nothing_else(fixture: &Fixture) -> Result<()> {
    let address = web()?;
    let policy = service("web.host", address, "http", 80)
        + "[[deny]]\nhost = \"web.host\"\nscheme = \"http\"\npaths = [\"/secret/**\"]\n";
    let sandbox = start(fixture, &policy).await?;
    for (script, expected, code) in [
        ("curl -sS http://web.host/x", "hello", 0),
        (
            "curl -sS -o /dev/null -w '%{http_code}' http://web.host/secret/x",
            "403",
            0,
        ),
        (
            "curl -sS -o /dev/null -w '%{http_code}' -H 'Host: other.host' http://web.host/",
            "421",
            0,
        ),
        // By the proxy at the gateway the same.
        (
            "curl -sS -x http://100.64.0.1:3128 http://web.host/x",
            "hello",
            0,
        ),
        (
            "curl -sS -p -x http://100.64.0.1:3128 http://web.host/x",
            "hello",
            0,
        ),
        (
            "curl -sS -o /dev/null -w '%{http_code}' -x http://100.64.0.1:3128 http://web.host/secret/x",
            "403",
            0,
        ),
        (
            "curl -s -o /dev/null -w '%{http_connect}' -x http://100.64.0.1:3128 https://example.com/",
            "403",
            56,
        ),
        (
            "RES_OPTIONS=use-vc getent hosts web.host | cut -c 1-7",
            "198.18.",
            0,
        ),
        // Not resolved; refused at once; no way around by an address.
        ("timeout 20 getent hosts example.com", "", 2),
        ("timeout 20 curl -s http://web.host:81/", "", 7),
        ("timeout 20 curl -s http://1.1.1.1/", "", 7),
        ("timeout 20 curl -s http://169.254.169.254/", "", 7),
        ("timeout 20 curl -s http://127.0.0.1/", "", 7),
        (
            "timeout 20 python3 -c 'import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.sendto(b\"x\", (\"8.8.8.8\", 53)); s.recv(1)' 2>/dev/null",
            "",
            1,
        ),
        ("ip -6 route show default", "", 0),
    ] {
        let (text, status) = shell(&sandbox, script).await?;
        ensure!(
            (&*text, status) == (expected, Some(code)),
            "{script}: {text:?} {status:?}"
        );
    }
    let port = address.port();
    let (text, _) = shell(
        &sandbox,
        &format!("curl -s http://100.64.0.1:{port}/; echo $?"),
    )
    .await?;
    ensure!(text == "7", "the host's own port by the gateway: {text}");
    let denied: Vec<String> = sandbox.denied().iter().map(ToString::to_string).collect();
    for expected in [
        "example.com: ",
        "web.host:80 GET /secret/x: ",
        "1.1.1.1:80: ",
        "169.254.169.254:80: ",
    ] {
        let is_told = denied.iter().any(|line| line.starts_with(expected));
        ensure!(is_told, "{expected} is not among {denied:?}");
    }
    ensure!(sandbox.problems().is_empty(), "{:?}", sandbox.problems());
    sandbox.stop().await?;
    Ok(())
}

/// A service is what a test can reach; that the repository's policy leaves it out, only audit mode lets pass.
async fn audit_mode_lets_through_and_its_log_becomes_a_policy(fixture: &Fixture) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("net.log");
    let service = service("web.host", web()?, "http", 80);
    let policy = NetworkPolicy::new()
        .sandbox("test", format!("mode = \"audit\"\n{service}"))
        .repository("repository", "[[allow]]\nhost = \"x.example\"\n")
        .audit_log(&log);
    let sandbox = fixture.small().network(policy).start().await?;
    for (script, expected, code) in [
        ("curl -sS http://web.host/x", "hello", 0),
        ("getent hosts any.example | cut -c 1-7", "198.18.", 0),
        ("timeout 20 getent hosts any.internal", "", 2),
        ("timeout 20 curl -s http://169.254.169.254/", "", 7),
        ("timeout 20 curl -s http://1.1.1.1/", "", 7),
    ] {
        let (text, status) = shell(&sandbox, script).await?;
        ensure!(
            (&*text, status) == (expected, Some(code)),
            "{script}: {text:?} {status:?}"
        );
    }
    let told: Vec<String> = sandbox
        .would_be_denied()
        .iter()
        .map(ToString::to_string)
        .collect();
    let expected = "web.host:80 GET /x: the repository's policy does not allow it";
    ensure!(told == [expected], "{told:?}");
    sandbox.kill();
    sandbox.wait().await;
    ensure!(
        sandbox.audit_problem().is_none(),
        "{:?}",
        sandbox.audit_problem()
    );

    let mut learner = Learner::new(Policy::default(), ABILITIES, is_public)?;
    let mut lines = Lines::new(BufReader::new(File::open(&log)?), Some(Digest::default()));
    while let Some(line) = lines.read()? {
        learner.learn(line);
    }
    let learned = learner.finish(Wildcards::Never)?;
    let hosts: Vec<&str> = learned
        .rules()
        .iter()
        .map(|rule| &*rule.allow.host)
        .collect();
    ensure!(hosts == ["web.host"], "{learned}");
    Ok(())
}

async fn content_arrives_whole_both_ways(fixture: &Fixture) -> Result<()> {
    let sandbox = start(fixture, &service("echo.host", echo()?, "tcp", 7)).await?;
    let program = "
import hashlib, socket, threading
sent, got = hashlib.sha256(), hashlib.sha256()
stream = socket.create_connection(('echo.host', 7))
def send():
    for n in range(256):
        piece = bytes([n, n ^ 85]) * 16384
        sent.update(piece)
        stream.sendall(piece)
    stream.shutdown(socket.SHUT_WR)
thread = threading.Thread(target=send)
thread.start()
total = 0
while piece := stream.recv(65536):
    got.update(piece)
    total += len(piece)
thread.join()
print(total, sent.digest() == got.digest())
";
    let output = sandbox
        .output(ExecSpec::new("python3").args(["-c", program]))
        .await?;
    let text = String::from_utf8_lossy(&output.stdout)
        .trim_end()
        .to_owned();
    ensure!(
        text == "8388608 True",
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    sandbox.stop().await?;
    Ok(())
}

async fn another_policy_decides_from_then_on(fixture: &Fixture) -> Result<()> {
    let (web, echo) = (
        service("web.host", web()?, "http", 80),
        service("echo.host", echo()?, "tcp", 7),
    );
    let sandbox = start(fixture, &web).await?;
    let replace = |text: &str| sandbox.replace_policy(NetworkPolicy::new().sandbox("test", text));
    let get = "timeout 20 curl -sS http://web.host/ 2>/dev/null";
    ensure!(shell(&sandbox, get).await? == ("hello".into(), Some(0)));
    // One that is none changes nothing.
    let refused = replace("[[allow]]\nhost = \"*\"\n").await;
    ensure!(refused.is_err(), "{refused:?}");
    ensure!(shell(&sandbox, get).await? == ("hello".into(), Some(0)));

    replace(&[&*web, &*echo].concat()).await?;
    let hold = "python3 -c 'import socket, sys
stream = socket.create_connection((\"echo.host\", 7))
stream.sendall(b\"x\")
print(stream.recv(1), flush=True)
try:
    print(stream.recv(1))
except ConnectionResetError:
    print(\"reset\")'";
    let held = shell(&sandbox, hold);
    let deny = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        replace(&web).await
    };
    let ((text, _), ()) = tokio::try_join!(held, async { Ok(deny.await?) })?;
    ensure!(text == "b'x'\nreset", "what is denied ends: {text}");
    let (_, code) = shell(&sandbox, "timeout 20 getent hosts echo.host").await?;
    ensure!(code == Some(2), "{code:?}");
    ensure!(shell(&sandbox, get).await? == ("hello".into(), Some(0)));
    replace("").await?;
    let (_, code) = shell(&sandbox, get).await?;
    ensure!(code == Some(6), "nothing resolves: {code:?}");
    sandbox.stop().await?;

    let without = fixture.small().start().await?;
    let refused = without.replace_policy(NetworkPolicy::new()).await;
    ensure!(refused.is_err(), "it has no network");
    without.stop().await?;
    Ok(())
}

/// Ends the egress worker, and waits until that is told.
async fn kill_network(sandbox: &Sandbox) -> Result<String> {
    let id = sandbox
        .egress_worker_id()
        .context("there is no egress worker")?;
    let id = rustix::process::Pid::from_raw(i32::try_from(id)?).context("no process id")?;
    rustix::process::kill_process(id, rustix::process::Signal::KILL)?;
    Ok(tokio::time::timeout(Duration::from_secs(20), sandbox.network_ended()).await?)
}

async fn without_the_egress_worker_there_is_no_network_until_another(
    fixture: &Fixture,
) -> Result<()> {
    let address = web()?;
    let sandbox = start(fixture, &service("web.host", address, "http", 80)).await?;
    let (text, _) = shell(&sandbox, "curl -sS http://web.host/").await?;
    ensure!(text == "hello", "{text}");
    let first = sandbox.egress_worker_id();
    let why = kill_network(&sandbox).await?;
    ensure!(why.contains("signal: 9"), "{why}");
    let problems = sandbox.problems();
    let is_told = problems.iter().any(|line| line.starts_with("network: "));
    ensure!(is_told, "{problems:?}");
    let (text, code) = shell(&sandbox, "timeout 60 curl -sS -m 20 http://web.host/").await?;
    ensure!(code != Some(0) && !text.contains("hello"), "{text}");
    let policy = NetworkPolicy::new().sandbox("test", service("other.host", address, "http", 80));
    sandbox.restart_network().await?;
    ensure!(sandbox.egress_worker_id() != first, "it is the same");
    // It decides by what it decided before.
    let (text, _) = shell(&sandbox, "timeout 60 curl -sS http://web.host/").await?;
    ensure!(text == "hello", "after the restart: {text}");
    kill_network(&sandbox).await?;
    // What comes while there is none decides when there is one again.
    sandbox.replace_policy(policy).await?;
    sandbox.restart_network().await?;
    sandbox.restart_network().await?;
    let (text, code) = shell(&sandbox, "timeout 60 curl -sS http://web.host/").await?;
    ensure!(
        code != Some(0) && !text.contains("hello"),
        "a policy that was replaced is back: {text}"
    );
    let (text, _) = shell(&sandbox, "timeout 60 curl -sS http://other.host/").await?;
    ensure!(text == "hello", "{text}");
    sandbox.stop().await?;
    Ok(())
}

/// What a server in the guest says, if it does.
fn fetch(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut all = String::new();
    stream.read_to_string(&mut all)?;
    Ok(all)
}

async fn published_ports_reach_the_guest_and_nothing_else_does(fixture: &Fixture) -> Result<()> {
    let any = "127.0.0.1:0".parse()?;
    let builder = fixture.small().network(NetworkPolicy::new());
    let sandbox = builder.publish(any, 8080).start().await?;
    let &[first] = sandbox.published() else {
        anyhow::bail!("{:?}", sandbox.published())
    };
    // Nobody listens there yet.
    let early = tokio::task::spawn_blocking(move || fetch(first)).await?;
    ensure!(early.is_err(), "{early:?}");
    let serve = "mkdir -p /tmp/w && cd /tmp/w && echo it is the guest > index.html && \
                 (python3 -m http.server 8080 >/dev/null 2>&1 & python3 -m http.server 8081 >/dev/null 2>&1 &) ; \
                 for i in $(seq 600); do (echo > /dev/tcp/127.0.0.1/8080 && echo > /dev/tcp/127.0.0.1/8081) 2>/dev/null && echo up && exit; sleep 0.1; done";
    let (text, _) = shell(&sandbox, serve).await?;
    ensure!(text == "up", "{text}");
    let text = tokio::task::spawn_blocking(move || fetch(first)).await??;
    ensure!(text.ends_with("it is the guest\n"), "{text}");
    let second = sandbox.publish(any, 8081).await?;
    let taken = sandbox.publish(second, 8081).await;
    ensure!(
        matches!(taken, Err(sandbox::Error::Host { .. })),
        "{taken:?}"
    );
    let everywhere = sandbox.publish("0.0.0.0:0".parse()?, 8081).await;
    ensure!(
        matches!(everywhere, Err(sandbox::Error::Config(_))),
        "{everywhere:?}"
    );
    let text = tokio::task::spawn_blocking(move || fetch(second)).await??;
    ensure!(text.ends_with("it is the guest\n"), "{text}");
    // Nothing of it is a way out.
    let (text, _) = shell(
        &sandbox,
        &format!("curl -s -m 20 http://100.64.0.1:{}/; echo $?", first.port()),
    )
    .await?;
    ensure!(text == "7", "the host's end by the gateway: {text}");
    // What comes between two workers waits.
    kill_network(&sandbox).await?;
    let waiting = tokio::task::spawn_blocking(move || fetch(second));
    sandbox.restart_network().await?;
    let text = waiting.await??;
    ensure!(text.ends_with("it is the guest\n"), "{text}");
    sandbox.stop().await?;
    Ok(())
}

async fn both_workers_are_confined(fixture: &Fixture) -> Result<()> {
    let sandbox = start(fixture, &service("web.host", web()?, "http", 80)).await?;
    for worker in [sandbox.worker_id(), sandbox.egress_worker_id()] {
        let worker = worker.context("a worker is missing")?;
        let tasks = std::fs::read_dir(format!("/proc/{worker}/task"))?;
        let mut threads = 0;
        for task in tasks {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            for line in [
                "Seccomp:\t2",
                "NoNewPrivs:\t1",
                "CapEff:\t0000000000000000",
                "CapPrm:\t0000000000000000",
                "CapInh:\t0000000000000000",
                "CapBnd:\t0000000000000000",
                "CapAmb:\t0000000000000000",
            ] {
                ensure!(status.contains(line), "{line} is not of {status}");
            }
            threads += 1;
        }
        ensure!(threads > 1, "{worker} has {threads} threads");
        let limits = std::fs::read_to_string(format!("/proc/{worker}/limits"))?;
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        let is_none = core.is_some_and(|line| line.split_whitespace().nth(4) == Some("0"));
        ensure!(is_none, "{core:?}");
    }
    sandbox.stop().await?;
    Ok(())
}

/// What is allowed then is not resolved, since nothing outside can be had in a test; what is denied is not even looked up.
async fn somebody_is_asked_about_what_no_rule_allows(fixture: &Fixture) -> Result<()> {
    let denied = "[[deny]]\nhost = \"evil.example.com\"\n";
    let sandbox = start(fixture, denied).await?;
    let attempt = |name: &'static str| {
        let sandbox = &sandbox;
        async move { shell(sandbox, &format!("timeout 100 curl -sS https://{name}/")).await }
    };
    let (text, code) = attempt("a.example.com").await?;
    ensure!(code == Some(6), "nobody is asked yet: {text}");
    let (tell, mut questions) = tokio::sync::mpsc::unbounded_channel();
    let ask = move |question| drop(tell.send(question));
    sandbox.on_denied(ask).await?;
    let reasons = |sandbox: &Sandbox, name: &str| -> Vec<String> {
        let denied = sandbox.denied().into_iter();
        let of = denied.filter(|denied| denied.destination == format!("{name}:443"));
        of.map(|denied| denied.reason).collect()
    };
    let no_rule = "no rule allows this host";
    let (text, code) = attempt("evil.example.com").await?;
    ensure!(
        code == Some(6),
        "what a rule denies is not asked about: {text}"
    );
    let ask = async { questions.recv().await.context("no question") };
    let (question, denied) = tokio::join!(
        async {
            let question = ask.await?;
            ensure!(
                question.denied().destination == "a.example.com:443",
                "{question:?}"
            );
            let rule = question.denied().rule.clone();
            ensure!(
                rule.as_deref() == Some("allow = [{ host = \"a.example.com\" }]"),
                "{rule:?}"
            );
            question.deny()?;
            Ok(())
        },
        attempt("a.example.com")
    );
    question?;
    ensure!(denied?.1 == Some(7), "refused at once");
    ensure!(
        reasons(&sandbox, "a.example.com") == [no_rule],
        "{:?}",
        sandbox.denied()
    );
    let answer = async {
        let question = questions.recv().await.context("no question")?;
        question.allow_always()?;
        anyhow::Ok(())
    };
    let (answered, first) = tokio::join!(answer, attempt("b.example.com"));
    answered?;
    let second = attempt("b.example.com").await?;
    ensure!(first?.1 == Some(7) && second.1 == Some(7), "{second:?}");
    let why = reasons(&sandbox, "b.example.com");
    let is_looked_up = !why.is_empty() && why.iter().all(|why| why != no_rule);
    ensure!(is_looked_up, "{why:?}");
    ensure!(questions.try_recv().is_err(), "a question too many");
    sandbox.stop().await?;
    Ok(())
}
