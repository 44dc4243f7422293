//! What a guest connects to, on loopback.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;

use crate::dns;

/// Takes everything, and says a byte at its end.
pub(crate) const SINK: u16 = 7001;
/// Is told how much it is to give (eight bytes, little endian), and gives it.
pub(crate) const SOURCE: u16 = 7002;
/// Says a byte and ends.
pub(crate) const BYTE: u16 = 7003;

const PIECE: usize = 256 << 10;

/// Starts all, each for as long as this process lives.
pub(crate) fn start() -> io::Result<()> {
    tcp(SINK, |mut stream| {
        let mut buffer = vec![0; PIECE];
        while stream.read(&mut buffer)? > 0 {}
        stream.write_all(b"!")
    })?;
    tcp(SOURCE, |mut stream| {
        let mut wanted = [0; 8];
        stream.read_exact(&mut wanted)?;
        let mut left = u64::from_le_bytes(wanted);
        let piece = vec![0x5a; PIECE];
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            stream.write_all(piece.get(..len).unwrap_or_default())?;
            left = left.saturating_sub(len as u64);
        }
        Ok(())
    })?;
    tcp(BYTE, |mut stream| stream.write_all(b"!"))?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = dns::answer(buffer.get(..len).unwrap_or_default()) {
                // Who does not listen any more needs no answer.
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

fn tcp(port: u16, serve: fn(TcpStream) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // A client that goes away is measured by itself.
            thread::spawn(move || drop(serve(stream)));
        }
    });
    Ok(())
}
