//! A collector in the test: HTTP/1.1 on loopback, one connection at a time.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message as _;

/// What it does with a request.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// Takes it.
    Takes,
    /// Takes it but for so many records.
    Rejects(i64),
    /// Answers with this status.
    Fails(u16),
    /// Never answers.
    Hangs,
}

/// A request as it came.
pub(super) struct Got {
    /// Request line and headers.
    pub(super) head: Vec<String>,
    pub(super) request: ExportLogsServiceRequest,
}

/// Starts one. The requests come by the receiver, before they are answered.
pub(super) fn start(manner: Manner) -> (SocketAddr, Receiver<Got>) {
    start_over(manner, |stream| Box::new(stream))
}

pub(super) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// As [`start`], over what `wrap` makes of a connection.
pub(super) fn start_over(
    manner: Manner,
    wrap: impl Fn(TcpStream) -> Box<dyn Stream> + Send + 'static,
) -> (SocketAddr, Receiver<Got>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            serve(BufReader::new(wrap(stream.unwrap())), manner, &sender);
        }
    });
    (address, receiver)
}

/// Serves a connection to its end.
fn serve(mut stream: BufReader<Box<dyn Stream>>, manner: Manner, sender: &Sender<Got>) {
    while let Some(got) = read(&mut stream) {
        drop(sender.send(got));
        let (status, partial_success) = match manner {
            Manner::Takes => (200, None),
            Manner::Rejects(rejected_log_records) => {
                let error_message = "too \u{1b}[31m old".to_owned();
                let partial = ExportLogsPartialSuccess {
                    rejected_log_records,
                    error_message,
                };
                (200, Some(partial))
            }
            Manner::Fails(status) => (status, None),
            Manner::Hangs => loop {
                thread::park();
            },
        };
        let body = ExportLogsServiceResponse { partial_success }.encode_to_vec();
        let mut answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend(body);
        // Who asked may have gone.
        if stream.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

/// The next request; none, if the connection has ended.
fn read(stream: &mut BufReader<Box<dyn Stream>>) -> Option<Got> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap()];
    stream.read_exact(&mut body).ok()?;
    let request = ExportLogsServiceRequest::decode(&*body).unwrap();
    Some(Got { head, request })
}
