use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

use netproxy::audit::{Event, Verdict, verify};
use netproxy::policy::Scheme;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::collector::{self, Got, Manner};
use super::*;
use crate::audit::{AuditLog, Digest};
use crate::host::audit::{AuditState, AuditWriter, prepare};

/// A log in `folder` that is exported to `collector`.
fn start(folder: &Path, collector: SocketAddr) -> (AuditWriter, AuditState) {
    start_at(folder, &format!("http://{collector}/v1/logs"))
}

fn start_at(folder: &Path, url: &str) -> (AuditWriter, AuditState) {
    let log = AuditLog::new(folder.join("log")).sandbox("box");
    AuditWriter::start(prepare(&log.export_to(url), "host").unwrap()).unwrap()
}

fn request(number: u64) -> Record {
    Record {
        time: 1_234_567_890_123,
        event: Event::Request,
        flow: Some(number),
        host: Some("a.example".into()),
        port: Some(80),
        scheme: Some(Scheme::Http),
        address: Some("192.0.2.1:8080".parse().unwrap()),
        request: Some(("GET".into(), "/x?q=".into())),
        verdict: Some(Verdict::Allow),
        rule: Some("host = \"a.example\"".into()),
        from: Some("p.toml:1".into()),
        ..Record::lost(0, 0)
    }
}

/// Writes so many records, and says how many lines the file then has.
async fn write_all(records: u64, folder: &Path, writer: AuditWriter, state: &AuditState) -> u64 {
    for number in 1..=records {
        writer.write(request(number)).await;
    }
    drop(writer);
    state.closed().await;
    assert_eq!(state.problem(), None);
    let text = fs::read(folder.join("log")).unwrap();
    verify(&*text, Some(Digest::default())).unwrap().lines
}

fn logs(got: &Receiver<Got>) -> Vec<LogRecord> {
    got.try_iter()
        .flat_map(|got| got.request.resource_logs)
        .flat_map(|resource| resource.scope_logs)
        .flat_map(|scope| scope.log_records)
        .collect()
}

/// The attributes of a record as text, by their names.
fn attributes(log: &LogRecord) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    log.attributes
        .iter()
        .map(|it| {
            let value = it.value.as_ref().and_then(|value| value.value.as_ref());
            (&*it.key, text(value.unwrap()))
        })
        .collect()
}

fn body(log: &LogRecord) -> &str {
    match log.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_record_arrives_once_in_order_with_the_digest_of_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let (address, got) = collector::start(Manner::Takes);
    let (writer, state) = start(folder.path(), address);
    assert_eq!(write_all(1500, folder.path(), writer, &state).await, 1500);
    state.exported().await;
    assert_eq!(state.export_problem(), None);
    let logs = logs(&got);
    let uids: Vec<String> = logs
        .iter()
        .map(|log| attributes(log)["log.record.uid"].clone())
        .collect();
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines = text.lines();
    let digests: Vec<String> = lines
        .map(|line| Digest::of(line.as_bytes()).to_string())
        .collect();
    assert_eq!(uids, digests);
}

#[tokio::test]
async fn a_record_is_told_in_the_words_of_the_conventions() {
    let folder = tempfile::tempdir().unwrap();
    let (address, got) = collector::start(Manner::Takes);
    let (writer, state) = start(folder.path(), address);
    write_all(1, folder.path(), writer, &state).await;
    state.exported().await;
    let got = got.try_recv().unwrap();
    assert_eq!(got.head.first().unwrap(), "POST /v1/logs HTTP/1.1");
    let is_protobuf =
        |line: &String| line.eq_ignore_ascii_case("content-type: application/x-protobuf");
    assert!(got.head.iter().any(is_protobuf), "{:?}", got.head);
    let resource = &got.request.resource_logs[0];
    let scope = &resource.scope_logs[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "cofferdam");
    let log = &scope.log_records[0];
    assert_eq!(log.time_unix_nano, 1_234_567_890_123_000_000);
    assert_eq!(log.event_name, "cofferdam.network.request");
    assert_eq!(body(log), "a request was let through");
    assert_eq!((log.severity_number, &*log.severity_text), (9, "INFO"));
    let mut attributes = attributes(log);
    attributes.remove("log.record.uid").unwrap();
    let expected = [
        ("cofferdam.flow", "1"),
        ("cofferdam.rule", "host = \"a.example\""),
        ("cofferdam.rule.from", "p.toml:1"),
        ("cofferdam.sandbox", "box"),
        ("cofferdam.scheme", "http"),
        ("cofferdam.verdict", "allow"),
        ("http.request.method", "GET"),
        ("network.peer.address", "192.0.2.1"),
        ("network.peer.port", "8080"),
        ("network.transport", "tcp"),
        ("network.type", "ipv4"),
        ("server.address", "a.example"),
        ("server.port", "80"),
        ("url.path", "/x"),
        ("url.query", "q="),
        ("url.scheme", "http"),
    ];
    let expected = expected.map(|(name, value)| (name, value.to_owned()));
    assert_eq!(attributes, BTreeMap::from(expected));
}

#[tokio::test]
async fn each_event_has_its_name_and_weight() {
    let folder = tempfile::tempdir().unwrap();
    let (address, got) = collector::start(Manner::Takes);
    let (writer, state) = start(folder.path(), address);
    let ended = Event::Ended {
        sent: 1,
        received: u64::MAX,
        ms: 3,
    };
    for (event, verdict) in [
        (Event::Opened, Some(Verdict::Allow)),
        (Event::Opened, Some(Verdict::Audit)),
        (ended, None),
        (Event::Denied, Some(Verdict::Deny)),
        (Event::Lost { records: 7 }, None),
    ] {
        let record = Record {
            event,
            verdict,
            ..request(1)
        };
        writer.write(record).await;
    }
    drop(writer);
    state.exported().await;
    let logs = logs(&got);
    let told: Vec<_> = logs
        .iter()
        .map(|log| (&*log.event_name, &*log.severity_text))
        .collect();
    let expected = [
        ("cofferdam.network.opened", "INFO"),
        ("cofferdam.network.opened", "WARN"),
        ("cofferdam.network.ended", "INFO"),
        ("cofferdam.network.denied", "WARN"),
        ("cofferdam.network.lost", "ERROR"),
    ];
    assert_eq!(told, expected);
    let ended = attributes(&logs[2]);
    let numbers =
        ["sent", "received", "duration_ms"].map(|it| &*ended[&*format!("cofferdam.{it}")]);
    assert_eq!(numbers, ["1", "9223372036854775807", "3"]);
    assert_eq!(attributes(&logs[4])["cofferdam.records"], "7");
}

#[tokio::test]
async fn what_a_guest_wrote_is_a_bounded_value_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (address, got) = collector::start(Manner::Takes);
    let (writer, state) = start(folder.path(), address);
    let long = |text: &str| text.repeat(100_000);
    writer
        .write(Record {
            time: u64::MAX,
            host: Some(long("\u{1b}[2J")),
            request: Some((long("X"), format!("/{}", long("\0ü\n")))),
            reason: Some(long("r")),
            rule: Some(long("u")),
            from: Some(long("f")),
            ..request(1)
        })
        .await;
    drop(writer);
    state.exported().await;
    let logs = logs(&got);
    let [log] = &*logs else {
        panic!("{}", logs.len());
    };
    assert_eq!(log.event_name, "cofferdam.network.request");
    assert_eq!(body(log), "a request was let through");
    let attributes = attributes(log);
    for (name, longest) in [
        ("server.address", 300),
        ("http.request.method_original", 300),
        ("url.path", 1024),
        ("cofferdam.reason", 300),
        ("cofferdam.rule", 1024),
        ("cofferdam.rule.from", 300),
    ] {
        let length = attributes[name].len();
        assert!(
            (longest - 3..=longest).contains(&length),
            "{name}: {length}"
        );
    }
    assert_eq!(attributes["http.request.method"], "_OTHER");
}

#[tokio::test]
async fn a_collector_that_fails_costs_the_file_nothing_and_is_counted() {
    for (manner, lost, why) in [
        (Manner::Fails(500), 600, "status code: 500"),
        (Manner::Fails(302), 600, "status code: 302"),
        (Manner::Rejects(5), 10, "did not take them: too [31m old"),
        (Manner::Rejects(i64::MAX), 600, "did not take them"),
        (Manner::Rejects(-1), 0, ""),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (address, _got) = collector::start(manner);
        let (writer, state) = start(folder.path(), address);
        // Two batches of the SDK's usual size, or three where the first does not wait for the second.
        assert_eq!(write_all(600, folder.path(), writer, &state).await, 600);
        state.exported().await;
        let problem = state.export_problem().unwrap_or_default();
        assert!(problem.contains(why), "{problem}");
        let told = problem.split(' ').next().unwrap().parse().unwrap_or(0);
        match manner {
            Manner::Rejects(5) => assert!(told % 5 == 0 && told >= lost, "{problem}"),
            _ => assert_eq!(told, lost, "{problem}"),
        }
    }
}

#[tokio::test]
async fn nobody_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let (writer, state) = start(folder.path(), address.unwrap());
    assert_eq!(write_all(3, folder.path(), writer, &state).await, 3);
    state.exported().await;
    let problem = state.export_problem().unwrap();
    assert!(
        problem.starts_with("3 records of the audit log"),
        "{problem}"
    );
    assert!(problem.contains("refused"), "{problem}");
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_the_file_nor_the_end_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let (address, got) = collector::start(Manner::Hangs);
    let (writer, state) = start(folder.path(), address);
    let begin = Instant::now();
    let records = 2 * MAX_WAITING;
    assert_eq!(
        write_all(records, folder.path(), writer, &state).await,
        records
    );
    let written = begin.elapsed();
    assert!(written < FLUSH_LIMIT, "{written:?}");
    // What finds no room is known at once.
    let problem = state.export_problem().unwrap();
    let told =
        format!("{MAX_WAITING} records of the audit log were not exported: they came faster");
    assert!(problem.starts_with(&told), "{problem}");
    state.exported().await;
    let ended = begin.elapsed();
    assert!(
        ended < written + FLUSH_LIMIT + Duration::from_secs(3),
        "{ended:?}"
    );
    let problem = state.export_problem().unwrap();
    assert!(
        problem.starts_with(&format!("{records} records")),
        "{problem}"
    );
    // The one request that was under way.
    assert_eq!(got.try_iter().count(), 1);
}

#[test]
fn nothing_is_sent_after_the_time_for_the_end() {
    let (address, got) = collector::start(Manner::Takes);
    let asked = Export::To(format!("http://{address}/"));
    let ready = Ready::open(&asked, "box").unwrap().unwrap();
    let tally = ready.tally();
    let exporting = ready.start();
    tally.lock().until = Some(Instant::now());
    exporting.export(&request(1), None);
    assert!(exporting.provider.force_flush().is_err());
    assert!(got.try_recv().is_err());
    assert!(tally.problem().unwrap().starts_with("1 records"));
}

#[test]
fn how_many_are_missing_is_told_with_the_next_that_can_be() {
    let tally = Tally::default();
    for _ in 0..MAX_WAITING {
        assert_eq!(tally.admit(), Some(0));
    }
    assert_eq!((tally.admit(), tally.admit()), (None, None));
    tally.settle(10, 4, "why");
    assert_eq!(tally.admit(), Some(6));
    assert_eq!(
        tally.problem().unwrap(),
        "6 records of the audit log were not exported: why"
    );
}

/// What a collector's certificate is, for which the key beside it is.
const CERTIFICATE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/host/audit/export/testdata/collector.pem"
);

/// A collector over TLS.
fn start_over_tls() -> (SocketAddr, Receiver<Got>) {
    let certificate = CertificateDer::from_pem_file(CERTIFICATE).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/collector.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    collector::start_over(Manner::Takes, move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        Box::new(StreamOwned::new(connection, stream))
    })
}

#[test]
fn over_tls_only_a_collector_that_is_trusted_gets_records() {
    for (certificate, is_trusted) in [(Some(CERTIFICATE), true), (None, false)] {
        let (address, got) = start_over_tls();
        let asked = Export::To(format!("https://{address}/v1/logs"));
        let is_certificate = |name: &str| name == "OTEL_EXPORTER_OTLP_CERTIFICATE";
        let place = Place::of(&asked, |name| {
            let value = certificate.filter(|_| is_certificate(name));
            value.map(str::to_owned)
        });
        let tally = Tally::default();
        let exporting = Ready {
            exporter: Exporter::new(place.unwrap().unwrap(), tally.clone()).unwrap(),
            tally: tally.clone(),
            sandbox: "box".into(),
        };
        let exporting = exporting.start();
        exporting.export(&request(1), None);
        exporting.finish();
        assert_eq!(logs(&got).len(), usize::from(is_trusted));
        let problem = tally.problem();
        let is_told = problem.is_some_and(|it| it.contains("UnknownIssuer"));
        assert_eq!(is_told, !is_trusted);
    }
}

/// The variables are read by the exporter itself, and a test cannot set its own: it starts the next one in a process that has them.
#[test]
fn the_variables_hold() {
    let (address, got) = collector::start(Manner::Takes);
    let child = "host::audit::export::tests::exports_as_the_variables_say";
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--quiet"])
        .stdout(Stdio::null())
        .env(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            format!("http://{address}/at"),
        )
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=one,x-other=two")
        .env("OTEL_SERVICE_NAME", "ours")
        .env("OTEL_RESOURCE_ATTRIBUTES", "host.name=here")
        .status();
    assert!(status.unwrap().success());
    let got = got.try_recv().unwrap();
    assert_eq!(got.head.first().unwrap(), "POST /at/v1/logs HTTP/1.1");
    for header in ["x-key: one", "x-other: two"] {
        assert!(got.head.iter().any(|it| it == header), "{:?}", got.head);
    }
    let resource = got.request.resource_logs[0].resource.as_ref().unwrap();
    let attributes = format!("{:?}", resource.attributes);
    assert!(attributes.contains("\"ours\"") && attributes.contains("\"here\""));
}

#[test]
#[ignore = "the_variables_hold starts it, with a collector"]
fn exports_as_the_variables_say() {
    let ready = Ready::open(&Export::AsEnvironmentSays, "box");
    let ready = ready.unwrap().unwrap();
    let tally = ready.tally();
    let exporting = ready.start();
    exporting.export(&request(1), None);
    exporting.finish();
    assert_eq!(tally.problem(), None);
}
