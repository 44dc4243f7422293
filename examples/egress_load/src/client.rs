//! The load, and how long it takes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::servers::{BYTE, SINK, SOURCE};
use crate::{Servers, dns};

/// What is carried each way, in bytes, by all flows together.
const VOLUME: u64 = 256 << 20;
const FLOWS: u64 = 16;
/// Connections made by sixteen threads, and one after the other.
const CONNECTIONS: usize = 3200;
const IN_TURN: usize = 1000;
const QUERIES: u16 = 10_000;
/// Queries that wait for their answers at a time.
const WAITING: u16 = 16;
const PATIENCE: Duration = Duration::from_secs(2);
const PIECE: usize = 256 << 10;

/// Seconds, but for the latencies, by name.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Measures, and prints the figures as JSON.
pub(crate) fn run(servers: &Servers, resolver: Option<SocketAddr>) -> Result<()> {
    let figures = serde_json::to_string(&measure(servers, resolver)?)?;
    Ok(writeln!(std::io::stdout(), "{figures}")?)
}

/// Holds so many connections that say nothing; says a line when they are there.
pub(crate) fn hold(servers: &Servers, resolver: Option<SocketAddr>, count: usize) -> Result<()> {
    let sink = at(servers, resolver, "sink.host", SINK)?;
    let connections = (0..count).map(|_| TcpStream::connect(sink));
    let held = connections.collect::<Result<Vec<_>, _>>()?;
    writeln!(std::io::stdout(), "{}", held.len())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Where a server is.
fn at(
    servers: &Servers,
    resolver: Option<SocketAddr>,
    name: &str,
    port: u16,
) -> Result<SocketAddr> {
    let address = match servers {
        Servers::At(address) => IpAddr::from(*address),
        Servers::Names => resolve(resolver.context("names need a resolver")?, name)?,
    };
    Ok(SocketAddr::from((address, port)))
}

fn measure(servers: &Servers, resolver: Option<SocketAddr>) -> Result<Figures> {
    let at = |name, port| at(servers, resolver, name, port);
    let (sink, source, byte) = (
        at("sink.host", SINK)?,
        at("source.host", SOURCE)?,
        at("byte.host", BYTE)?,
    );
    let mut figures = Figures::new();
    // A network that fails at one thing may be good at another: its figure is then missing.
    let mut add = |name: String, figure: Result<f64>| match figure {
        Ok(figure) => drop(figures.insert(name, figure)),
        Err(error) => eprintln!("egress_load: {name}: {error:#}"),
    };
    for flows in [1, FLOWS] {
        let each = VOLUME / flows;
        add(format!("up {flows}"), together(flows, || up(sink, each)));
        let seconds = together(flows, || down(source, each));
        add(format!("down {flows}"), seconds);
    }
    let each = CONNECTIONS / 16;
    let seconds = together(16, || (0..each).try_for_each(|_| first_byte(byte)));
    add("connections".into(), seconds);
    let latencies = latencies(byte)?;
    for (name, index) in [("p50", IN_TURN / 2), ("p99", IN_TURN * 99 / 100)] {
        let latency = latencies.get(index).copied().unwrap_or_default();
        add(name.into(), Ok(latency.as_secs_f64() * 1e6));
    }
    if let Some(resolver) = resolver {
        let name = match servers {
            Servers::Names => "byte.host",
            Servers::At(_) => "byte.example",
        };
        add("dns".into(), queries(resolver, name));
    }
    Ok(figures)
}

/// How long connections, one after the other, took to their first byte, the shortest first.
fn latencies(byte: SocketAddr) -> Result<Vec<Duration>> {
    let one = |_| -> Result<Duration> {
        let begin = Instant::now();
        first_byte(byte)?;
        Ok(begin.elapsed())
    };
    let mut latencies = (0..IN_TURN).map(one).collect::<Result<Vec<_>>>()?;
    latencies.sort_unstable();
    Ok(latencies)
}

/// Seconds that so many threads take.
fn together(threads: u64, work: impl Fn() -> Result<()> + Sync) -> Result<f64> {
    let begin = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().try_for_each(|thread| {
            let Ok(done) = thread.join() else {
                bail!("a thread panicked")
            };
            done
        })
    })?;
    Ok(begin.elapsed().as_secs_f64())
}

fn up(to: SocketAddr, len: u64) -> Result<()> {
    let mut stream = TcpStream::connect(to)?;
    let piece = vec![0xa5; PIECE];
    let mut left = len;
    while left > 0 {
        let len = usize::try_from(left)?.min(PIECE);
        stream.write_all(piece.get(..len).unwrap_or_default())?;
        left -= len as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn down(from: SocketAddr, len: u64) -> Result<()> {
    let mut stream = TcpStream::connect(from)?;
    stream.write_all(&len.to_le_bytes())?;
    let mut piece = vec![0; PIECE];
    let mut got = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            more => got += more as u64,
        }
    }
    ensure!(got == len, "{got} bytes came of {len}");
    Ok(())
}

fn first_byte(from: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(from)?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

fn socket(resolver: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(resolver)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn resolve(resolver: SocketAddr, name: &str) -> Result<IpAddr> {
    let socket = socket(resolver)?;
    socket.send(&dns::query(1, name).context("no name")?)?;
    let mut buffer = [0; 1500];
    let len = socket.recv(&mut buffer)?;
    let address = dns::address(buffer.get(..len).unwrap_or_default());
    Ok(address
        .with_context(|| format!("{name} does not resolve"))?
        .into())
}

/// Seconds for all queries. One that is lost is not asked again, and fails it.
fn queries(resolver: SocketAddr, name: &str) -> Result<f64> {
    let socket = socket(resolver)?;
    let query = dns::query(0, name).context("no name")?;
    let send = |id: u16| {
        let mut query = query.clone();
        for (to, from) in query.iter_mut().zip(id.to_be_bytes()) {
            *to = from;
        }
        socket.send(&query)
    };
    let begin = Instant::now();
    let mut buffer = [0; 1500];
    let mut sent = 0;
    for answered in 0..QUERIES {
        while sent < QUERIES && sent - answered < WAITING {
            send(sent)?;
            sent += 1;
        }
        let len = socket.recv(&mut buffer).context("an answer is missing")?;
        let answer = buffer.get(..len).unwrap_or_default();
        ensure!(dns::address(answer).is_some(), "an answer without address");
    }
    Ok(begin.elapsed().as_secs_f64())
}
