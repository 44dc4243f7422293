//! Servers on loopback, and a resolver, that count what reaches them.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use netproxy::HostName;
use netproxy::dial::Resolver;

/// What a server of TLS says first here: a record of no handshake, so that nobody takes what it sends back for one.
pub(crate) const TLS_GREETING: &[u8] = &[21, 3, 3, 0, 2, 1, 0];

/// A server that sends back what it gets.
pub(crate) struct Sink {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self::greeting(b"")
    }

    /// One that says this before it sends back anything.
    pub(crate) fn greeting(says: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, bytes) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (seen, len) = (Arc::clone(&connections), Arc::clone(&bytes));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                seen.fetch_add(1, Ordering::SeqCst);
                let len = Arc::clone(&len);
                std::thread::spawn(move || echo(stream, says, &len));
            }
        });
        Self {
            address,
            connections,
            bytes,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections and bytes so far.
    pub(crate) fn seen(&self) -> (usize, usize) {
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.connections), load(&self.bytes))
    }
}

fn echo(mut stream: TcpStream, mut says: &[u8], seen: &AtomicUsize) {
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        seen.fetch_add(len, Ordering::SeqCst);
        let greeted = stream.write_all(std::mem::take(&mut says));
        if greeted.is_err() || stream.write_all(&piece[..len]).is_err() {
            return;
        }
    }
}

/// A request as a server without any tolerance reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// In lower case, as they came.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|header| header.0 == name);
        named.map(|header| header.1.as_str()).collect()
    }
}

/// An HTTP server that takes nothing but what is well-formed, and remembers all of it.
pub(crate) struct Origin {
    address: SocketAddr,
    bytes: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Result<Seen, String>>>>,
}

impl Origin {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (bytes, requests) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<_>>::default());
        let (len, seen) = (Arc::clone(&bytes), Arc::clone(&requests));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (len, seen) = (Arc::clone(&len), Arc::clone(&seen));
                std::thread::spawn(move || serve(Reader::new(stream, len), &seen));
            }
        });
        Self {
            address,
            bytes,
            requests,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    /// What came so far; an error is what was no request.
    pub(crate) fn requests(&self) -> Vec<Result<Seen, String>> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut reader: Reader, seen: &Mutex<Vec<Result<Seen, String>>>) {
    loop {
        let request = match reader.request() {
            Ok(Some(request)) => Ok(request),
            Ok(None) => return,
            Err(why) => Err(why),
        };
        let is_good = request.is_ok();
        seen.lock().unwrap().push(request);
        if !is_good || reader.answer().is_err() {
            return;
        }
    }
}

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    count: Arc<AtomicUsize>,
}

impl Reader {
    fn new(stream: TcpStream, count: Arc<AtomicUsize>) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            count,
        }
    }

    fn answer(&mut self) -> io::Result<()> {
        self.stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    fn request(&mut self) -> Result<Option<Seen>, String> {
        let Some(first) = self.line()? else {
            return Ok(None);
        };
        let parts: Vec<&str> = first.split(' ').collect();
        let [method, target, "HTTP/1.1"] = parts[..] else {
            return Err(format!("the line {first:?}"));
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let mut headers = Vec::new();
        loop {
            let line = self.line()?.ok_or("an end within a head")?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
            if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
                return Err(format!("the header {line:?}"));
            }
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let mut request = Seen {
            method,
            target,
            headers,
            body: Vec::new(),
        };
        request.body = self.body(&request)?;
        Ok(Some(request))
    }

    fn body(&mut self, request: &Seen) -> Result<Vec<u8>, String> {
        let lengths = request.all("content-length");
        let codings = request.all("transfer-encoding");
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(Vec::new()),
            ([length], []) => {
                let is_plain = length.bytes().all(|byte| byte.is_ascii_digit());
                let length = length.parse().ok().filter(|_| is_plain);
                self.bytes(length.ok_or("a length that is no number")?)
            }
            ([], ["chunked"]) => self.chunks(),
            _ => Err(format!("lengths {lengths:?} and codings {codings:?}")),
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?.ok_or("an end within chunks")?;
            let length = usize::from_str_radix(&line, 16)
                .map_err(|_| format!("the length of a chunk {line:?}"))?;
            body.extend(self.bytes(length)?);
            let end = self.line()?;
            if end.as_deref() != Some("") {
                return Err(format!("{end:?} behind a chunk"));
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }

    /// A line that ends in both of its characters, without them.
    fn line(&mut self) -> Result<Option<String>, String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line)
                    .map(Some)
                    .map_err(|_| "a line that is no text".to_owned());
            }
            if !self.more() {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(format!("an end behind {} bytes", self.buffer.len())),
                };
            }
        }
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>, String> {
        while self.buffer.len() < len {
            if !self.more() {
                return Err("an end within a body".to_owned());
            }
        }
        Ok(self.buffer.drain(..len).collect())
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 4096];
        let Ok(len @ 1..) = self.stream.read(&mut piece) else {
            return false;
        };
        self.count.fetch_add(len, Ordering::SeqCst);
        self.buffer.extend_from_slice(&piece[..len]);
        true
    }
}

/// Says for every name what it was told to say, and counts.
#[derive(Default)]
pub(crate) struct Answers {
    addresses: Mutex<Vec<IpAddr>>,
    asked: Mutex<Vec<String>>,
}

impl Answers {
    pub(crate) fn answer(&self, addresses: &[IpAddr]) {
        *self.addresses.lock().unwrap() = addresses.to_vec();
    }

    pub(crate) fn queries(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// The resolver of a proxy.
pub(crate) struct Counting(pub(crate) Arc<Answers>);

impl Resolver for Counting {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        self.0.asked.lock().unwrap().push(name.to_string());
        Ok(self.0.addresses.lock().unwrap().clone())
    }
}
