//! Requests through the gate of plain HTTP: what reaches the server is well-formed for a reader without tolerance, for the right host, and was judged.
#![no_main]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use cofferdam_fuzz::Input;
use cofferdam_fuzz::net::{self, Far, Segment};
use libfuzzer_sys::fuzz_target;
use netproxy::egress::Gate;
use netproxy::http::{self, Authority, Connecting, Denied, Judge, Refused};
use netproxy::relay::{Meter, Metered};
use netproxy::{DroppedFrame, GuestStream, HostName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const TO: [u8; 4] = [198, 18, 0, 1];
const FIRST: u32 = 1000;
/// Method, target, and what it has of headers, in small letters.
type Request = (String, String, Vec<(String, String)>);

/// Lets GET and POST through, and nothing below `/secret`; the server is in the same thread.
#[derive(Default)]
struct Rules {
    judged: RefCell<Vec<(String, String)>>,
    seen: Rc<RefCell<Vec<Request>>>,
}

impl Judge for Rules {
    fn permit(&self, method: &str, path: &str) -> Result<(), Refused> {
        if path.starts_with("/secret") || !["GET", "POST"].contains(&method) {
            return Err(Refused::Policy(Denied {
                reason: String::new(),
                rule: None,
            }));
        }
        Ok(())
    }

    fn judge(&self, method: &str, path: &str) -> Result<(), Refused> {
        self.permit(method, path)?;
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        self.judged
            .borrow_mut()
            .push((method.to_owned(), path.to_owned()));
        Ok(())
    }

    fn misdirected(&self, _: &Refused) {}

    fn connect(&self) -> Connecting<'_> {
        Box::pin(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let near = TcpStream::connect(listener.local_addr()?).await?;
            let (far, _) = listener.accept().await?;
            tokio::task::spawn_local(serve(far, Rc::clone(&self.seen)));
            Ok(Metered::new(near, Meter::default()))
        })
    }
}

impl Gate for Rules {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let upstream = self.connect().await.expect("a server");
        guest.accept();
        let authority = Authority {
            name: HostName::parse("a.example").expect("a name"),
            port: 80,
        };
        // What went wrong is the guest's business.
        drop(http::serve(guest, upstream, authority, self, true).await);
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

async fn serve(mut stream: TcpStream, seen: Rc<RefCell<Vec<Request>>>) {
    let mut buffer = Vec::new();
    loop {
        while let Some((request, len)) = whole(&buffer) {
            buffer.drain(..len);
            seen.borrow_mut().push(request);
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
        match stream.read_buf(&mut buffer).await {
            Ok(1..) => {}
            // What is cut off is no request.
            _ => return,
        }
    }
}

/// The first request, if it is whole, and its length. Panics where a server could read it in two ways.
fn whole(bytes: &[u8]) -> Option<(Request, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    // Values may be of any bytes.
    let head = String::from_utf8_lossy(&bytes[..end]);
    let lines: Vec<&str> = head.split("\r\n").collect();
    assert!(
        !lines.iter().any(|line| line.contains(['\r', '\n', '\0'])),
        "{lines:?}"
    );
    let parts: Vec<&str> = lines[0].split(' ').collect();
    assert!(parts.len() == 3 && parts[2] == "HTTP/1.1", "{:?}", lines[0]);
    let header = |line: &&str| {
        let (name, value) = line.split_once(':').expect("a header");
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
        (name.to_lowercase(), value.trim().to_owned())
    };
    let headers: Vec<(String, String)> = lines[1..].iter().map(header).collect();
    let all = |wanted: &str| -> Vec<&str> {
        let found = headers.iter().filter(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str()).collect()
    };
    let body = &bytes[end + 4..];
    let len = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => 0,
        ([len], []) => len.parse().expect("a length"),
        ([], ["chunked"]) => chunks(body)?,
        other => panic!("two framings: {other:?}"),
    };
    let request = (parts[0].to_owned(), parts[1].to_owned(), headers);
    (body.len() >= len).then_some((request, end + 4 + len))
}

/// How many bytes the chunks are, when all are there.
fn chunks(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let end = body.get(at..)?.windows(2).position(|two| two == b"\r\n")?;
        let text = std::str::from_utf8(&body[at..at + end]).expect("a chunk's length");
        let len = usize::from_str_radix(text, 16).expect("a chunk's length");
        at += end + 2 + len;
        assert!(body.get(at..at + 2)? == b"\r\n", "a chunk's end");
        at += 2;
        if len == 0 {
            return Some(at);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let rules = Rc::new(Rules::default());
    let (pieces, gate) = (pieces(&mut input), Rc::clone(&rules));
    let served = net::run(gate, async |guest| {
        talk(&guest, &pieces).await;
    });
    served.expect("whole records");
    let judged = rules.judged.borrow();
    for (method, target, headers) in rules.seen.borrow().iter() {
        let hosts = headers.iter().filter(|(name, _)| name == "host");
        let hosts: Vec<&str> = hosts.map(|(_, value)| value.as_str()).collect();
        assert_eq!(hosts, ["a.example"]);
        let hops = [
            "connection",
            "upgrade",
            "te",
            "keep-alive",
            "proxy-authorization",
        ];
        assert!(
            headers
                .iter()
                .all(|(name, _)| !hops.contains(&name.as_str())),
            "{headers:?}"
        );
        let path = target.split('?').next().unwrap_or_default();
        let is_judged = judged.iter().any(|one| one.0 == *method && one.1 == path);
        assert!(is_judged, "{method} {target} was never judged");
    }
});

/// What a guest says, of parts of requests and of its own bytes.
fn pieces(input: &mut Input<'_>) -> Vec<Vec<u8>> {
    const PARTS: [&str; 44] = [
        "GET /x HTTP/1.1\r\nHost: a.example\r\n",
        "POST /x HTTP/1.1\r\nHost: a.example\r\n",
        "\r\n",
        "\r\n\r\n",
        "GET ",
        "POST ",
        "DELETE ",
        "CONNECT ",
        "/",
        "/secret/x",
        "/x?a=b",
        "http://a.example/x",
        "http://b.example/x",
        "*",
        "a.example:80",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: a.example\r\n",
        "Host: b.example\r\n",
        "Host: a.example",
        "Content-Length: 5\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: ",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: ",
        "chunked",
        "identity",
        "Connection: close\r\n",
        "Connection: upgrade, X-Hop\r\n",
        "Upgrade: h2c\r\n",
        "X-Original-URL: /secret\r\n",
        "X-HTTP-Method-Override: DELETE\r\n",
        "Expect: 100-continue\r\n",
        "TE: trailers\r\n",
        "0\r\n\r\n",
        "5\r\nhello\r\n",
        "5;a=b\r\n",
        "hello",
        " ",
        "\t",
        "\n",
        "\0",
        ":",
        ",",
    ];
    let mut pieces = Vec::new();
    for _ in 0..40 {
        if input.is_empty() {
            break;
        }
        let choice = input.below(PARTS.len() + 4);
        let part = PARTS
            .get(choice)
            .map_or_else(|| input.blob(), |part| part.as_bytes());
        match pieces.last_mut() {
            Some(last) if input.u8() & 7 != 0 => Vec::extend_from_slice(last, part),
            _ => pieces.push(part.to_vec()),
        }
    }
    pieces
}

async fn talk(guest: &Far, pieces: &[Vec<u8>]) {
    let (mut sequence, mut acknowledged, mut is_over) = (FIRST, 0_u32, false);
    let send = |sequence: u32, acknowledged: u32, flags: u8, content: &[u8]| {
        let segment = Segment {
            from: 1000,
            to: 80,
            sequence,
            acknowledged,
            flags,
            window: 0xffff,
            content,
            ..Segment::default()
        };
        guest.send(&net::frame(0x0800, &net::ipv4(TO, 6, &segment.bytes())));
    };
    send(FIRST - 1, 0, 2, b"");
    for round in 0..60 {
        for frame in guest.frames().await {
            let number = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            let content = frame.len() - 34 - usize::from(frame[46] >> 4) * 4;
            is_over |= frame[47] & 5 != 0;
            if frame[47] & 2 != 0 {
                acknowledged = number.wrapping_add(1);
                for piece in pieces.iter().flat_map(|piece| piece.chunks(1400)) {
                    send(sequence, acknowledged, 24, piece);
                    sequence += u32::try_from(piece.len()).expect("short");
                }
            } else if number == acknowledged {
                acknowledged = number.wrapping_add(u32::try_from(content).expect("short"));
                send(sequence, acknowledged, 16, b"");
            }
        }
        if is_over {
            return;
        }
        if round == 30 {
            send(sequence, acknowledged, 17, b"");
        }
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
}
