//! A name server, byte by byte, that answers well or badly as the first label of a name says.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use crate::outside;

/// Most records of one address each that the longest message has room for.
const MOST_RECORDS: u16 = 4000;

/// A question: where it ends in the query, its name in lower case, and whether it is for addresses of IPv4.
struct Question {
    end: usize,
    name: String,
    is_v4: bool,
}

fn question(query: &[u8]) -> Option<Question> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*query.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = query.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        at += len;
    }
    let kind = query.get(at..at + 2)?;
    Some(Question {
        end: at + 4,
        name: labels.join("."),
        is_v4: kind == [0, 1],
    })
}

/// `flags` and the counts of a head, and the question.
fn head(query: &[u8], question: &Question, flags: [u8; 2], answers: u16) -> Vec<u8> {
    let mut reply = query[..2].to_vec();
    reply.extend_from_slice(&flags);
    reply.extend_from_slice(&[0, 1]);
    reply.extend_from_slice(&answers.to_be_bytes());
    reply.extend_from_slice(&[0; 4]);
    reply.extend_from_slice(&query[12..question.end]);
    reply
}

/// A record of the name that was asked for, which lives for an hour.
fn record(kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).unwrap().to_be_bytes();
    let mut record = vec![0xc0, 12, 0, kind, 0, 1, 0, 0, 14, 16];
    record.extend_from_slice(&len);
    record.extend_from_slice(data);
    record
}

fn with_addresses(query: &[u8], question: &Question, all: &[Ipv4Addr]) -> Vec<u8> {
    let addresses: &[Ipv4Addr] = if question.is_v4 { all } else { &[] };
    let count = u16::try_from(addresses.len()).unwrap();
    let mut reply = head(query, question, [0x85, 0x80], count);
    for address in addresses {
        reply.extend_from_slice(&record(1, &address.octets()));
    }
    reply
}

/// As many addresses as a message holds: private ones, and one at the end that is a server's.
fn many() -> Vec<Ipv4Addr> {
    let private = |n: u16| Ipv4Addr::from(0x0a00_0000 | u32::from(n));
    let mut all: Vec<Ipv4Addr> = (1..MOST_RECORDS).map(private).collect();
    all.push(outside::GOOD);
    all
}

/// What is answered to a query that came in a datagram, or not.
fn answer(query: &[u8], in_datagram: bool) -> Option<Vec<u8>> {
    let question = question(query)?;
    let good = with_addresses(query, &question, &[outside::GOOD]);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        Some(bytes)
    };
    let cname = |to: &[u8]| {
        let mut bytes = head(query, &question, [0x85, 0x80], 1);
        bytes.extend_from_slice(&record(5, to));
        Some(bytes)
    };
    match question.name.split('.').next()? {
        "dead" => None,
        "slow" => {
            thread::sleep(Duration::from_secs(3));
            Some(good)
        }
        "many" | "truncated" if in_datagram => Some(head(query, &question, [0x87, 0x80], 0)),
        "many" => Some(with_addresses(query, &question, &many())),
        // In a stream, the connection ends without an answer.
        "truncated" => None,
        "other-id" => changed(&|bytes| bytes[0] ^= 0xff),
        "other-question" => changed(&|bytes| bytes[13] ^= 1),
        "no-answer-bit" => changed(&|bytes| bytes[2] &= 0x7f),
        "short" => changed(&|bytes| bytes.truncate(11)),
        "more-records" => changed(&|bytes| bytes[6..8].copy_from_slice(&[0xff, 0xff])),
        "loop" => cname(&[0xc0, 12]),
        // A name whose end is a pointer to itself.
        "pointer" => {
            let at = 0xc000_u16 | u16::try_from(question.end + 12).unwrap();
            cname(&at.to_be_bytes())
        }
        "noise" => Some(
            (0..500_u16)
                .map(|n| (n * 73 % 251).to_be_bytes()[1])
                .collect(),
        ),
        "nothing" => Some(head(query, &question, [0x85, 0x83], 0)),
        "fails" => Some(head(query, &question, [0x85, 0x82], 0)),
        "private" => Some(with_addresses(query, &question, &[[10, 1, 2, 3].into()])),
        "loopback" => Some(with_addresses(query, &question, &[Ipv4Addr::LOCALHOST])),
        // The host's own, when it has come there.
        "moved" => Some(with_addresses(query, &question, &[[45, 80, 7, 2].into()])),
        name => {
            let address = outside::origin(name).unwrap_or(outside::GOOD);
            Some(with_addresses(query, &question, &[address]))
        }
    }
}

/// Serves for ever, each query on a thread.
pub(crate) fn serve(at: SocketAddr) {
    let socket = UdpSocket::bind(at).unwrap();
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || streamed(stream));
        }
    });
    thread::spawn(move || {
        let mut query = [0; 4096];
        loop {
            // A route that is gone for a while is an error of the socket's.
            let Ok((len, from)) = socket.recv_from(&mut query) else {
                continue;
            };
            let (query, socket) = (query[..len].to_vec(), socket.try_clone().unwrap());
            thread::spawn(move || {
                if let Some(reply) = answer(&query, true) {
                    drop(socket.send_to(&reply, from));
                }
            });
        }
    });
}

fn streamed(mut stream: std::net::TcpStream) -> Option<()> {
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut query).ok()?;
        let reply = answer(&query, false)?;
        let len = u16::try_from(reply.len()).ok()?;
        stream
            .write_all(&[&len.to_be_bytes(), &reply[..]].concat())
            .ok()?;
    }
}
