//! The audit log on its way to an OpenTelemetry collector.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use sandbox::audit::Digest;

use crate::program::{Ended, coffer};

/// What is in the file is what the collector got; what cannot be exported to is refused before anything runs.
pub(crate) fn an_audit_log_is_exported() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (sender, requests) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // It ends with who has connected.
            drop(serve(stream, &sender));
        }
    });
    let place = tempfile::tempdir()?;
    let log = place.path().join("net.log");
    let run = |variables: &[(&str, &str)]| {
        let mut command = coffer(["run", "--allow", "a.example", "--audit-log"]);
        command.arg(&log).envs(variables.iter().copied());
        command.args(["--", "sh", "-c", "getent hosts b.example; true"]);
        Ended::of(&mut command)
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint);
    let ended = run(&[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")])?;
    ensure!(
        ended.status == 0 && !ended.stderr.contains("not exported"),
        "{ended:?}"
    );
    let got: Vec<(String, Vec<u8>)> = requests.try_iter().collect();
    let has = |text: &str| {
        let mut bodies = got.iter().map(|(_, body)| body.windows(text.len()));
        bodies.any(|mut windows| windows.any(|window| window == text.as_bytes()))
    };
    let lines = fs::read_to_string(&log)?;
    ensure!(lines.contains("b.example"), "{lines}");
    for line in lines.lines() {
        let digest = Digest::of(line.as_bytes()).to_string();
        ensure!(has(&digest), "the collector lacks {line}");
    }
    ensure!(has("cofferdam.network.denied") && has("b.example"));
    for (head, _) in &got {
        let is_ours = head.starts_with("POST /v1/logs ") && head.contains("x-key: secret");
        ensure!(is_ours, "{head}");
    }
    run(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])?
        .failed_with(125, "only http/protobuf is spoken")
}

/// Takes all requests of a connection: each one's head and body.
fn serve(stream: TcpStream, sender: &Sender<(String, Vec<u8>)>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(stream.read_line(&mut head)? > 0, "the connection has ended");
        }
        let length = head.to_lowercase();
        let length = length
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.context("no length")?.parse()?];
        stream.read_exact(&mut body)?;
        sender.send((head, body))?;
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.get_mut().write_all(answer)?;
    }
}
