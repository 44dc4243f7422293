//! What is outside of the host: a process in a network namespace that answers at the addresses of its servers, well or badly.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::dns;

/// No documentation ranges, which the worker refuses: these look like anybody's.
pub(crate) const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(45, 81, 0, 53);
pub(crate) const GOOD: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 10);

/// After which one of them answers. Longer than the guest's side may leave anything unacknowledged.
pub(crate) const LATE: Duration = Duration::from_secs(75);

/// What a server does with a connection.
type Manner = fn(TcpStream) -> std::io::Result<()>;

/// The servers, by the first label of their names; one without a manner refuses, and what has no route is never answered.
const SERVERS: &[(&str, Ipv4Addr, Option<Manner>)] = &[
    ("good", GOOD, Some(good)),
    ("refuses", Ipv4Addr::new(93, 184, 216, 20), None),
    ("unreachable", Ipv4Addr::new(93, 184, 216, 21), None),
    ("mute", Ipv4Addr::new(93, 184, 216, 22), Some(mute)),
    ("late", Ipv4Addr::new(93, 184, 216, 30), Some(late)),
    ("resets", Ipv4Addr::new(93, 184, 216, 23), Some(resets)),
    ("headers", Ipv4Addr::new(93, 184, 216, 24), Some(headers)),
    ("interim", Ipv4Addr::new(93, 184, 216, 25), Some(interim)),
    ("header", Ipv4Addr::new(93, 184, 216, 26), Some(header)),
    ("body", Ipv4Addr::new(93, 184, 216, 27), Some(body)),
    ("babbles", Ipv4Addr::new(93, 184, 216, 28), Some(babbles)),
    (
        "resets-at-once",
        Ipv4Addr::new(93, 184, 216, 29),
        Some(resets_at_once),
    ),
];

/// To which nothing is answered, not even that nobody is there.
pub(crate) const UNREACHABLE: &str = "93.184.216.21";

pub(crate) fn origin(label: &str) -> Option<Ipv4Addr> {
    let servers = SERVERS.iter();
    let mut found = servers.filter_map(|(name, at, _)| (*name == label).then_some(*at));
    found.next()
}

/// Waits for the routes, a line on standard input, and serves until that ends. Says a line when it does.
pub(crate) fn serve() {
    println!("is there");
    let mut lines = std::io::stdin().lines();
    drop(lines.next());
    dns::serve(SocketAddr::from((NAME_SERVER, 53)));
    for (_, at, manner) in SERVERS {
        let Some(manner) = manner else { continue };
        let listener = TcpListener::bind((*at, 80)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A side that broke off ends it.
                thread::spawn(move || drop(manner(stream)));
            }
        });
    }
    println!("serves");
    lines.for_each(drop);
}

/// The head of a request: its first line.
fn asked(stream: &TcpStream) -> std::io::Result<String> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    Ok(first)
}

/// `GET /N` gets N bytes, of which each is known by its place.
fn good(mut stream: TcpStream) -> std::io::Result<()> {
    let first = asked(&stream)?;
    let path = first.split(' ').nth(1).unwrap_or_default();
    let len: usize = path.trim_start_matches('/').parse().unwrap_or(7);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&content(len))
}

/// What [`good`] sends.
pub(crate) fn content(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 31 % 251).to_le_bytes()[0])
        .collect()
}

fn mute(mut stream: TcpStream) -> std::io::Result<()> {
    stream.read_to_end(&mut Vec::new()).map(drop)
}

fn late(mut stream: TcpStream) -> std::io::Result<()> {
    asked(&stream)?;
    thread::sleep(LATE);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
}

/// Closing what has not been read is a reset.
fn resets_at_once(stream: TcpStream) -> std::io::Result<()> {
    stream.peek(&mut [0])?;
    drop(stream);
    Ok(())
}

fn resets(mut stream: TcpStream) -> std::io::Result<()> {
    stream.peek(&mut [0])?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
    stream.write_all(&content(1000))?;
    // What is on its way is to arrive.
    thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Says `begin`, and then `more` for ever.
fn endless(mut stream: TcpStream, begin: &[u8], more: &[u8]) -> std::io::Result<()> {
    asked(&stream)?;
    stream.write_all(begin)?;
    let more = more.repeat(100);
    loop {
        stream.write_all(&more)?;
    }
}

fn headers(stream: TcpStream) -> std::io::Result<()> {
    endless(stream, b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n")
}

fn header(stream: TcpStream) -> std::io::Result<()> {
    endless(stream, b"HTTP/1.1 200 OK\r\nX-Long: ", b"and more")
}

fn interim(stream: TcpStream) -> std::io::Result<()> {
    endless(
        stream,
        b"",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    )
}

fn body(stream: TcpStream) -> std::io::Result<()> {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 8 * 128, "and more".repeat(128));
    endless(stream, head, chunk.as_bytes())
}

fn babbles(stream: TcpStream) -> std::io::Result<()> {
    endless(stream, b"", b"\x00\xff\x0d no http \x0a")
}
