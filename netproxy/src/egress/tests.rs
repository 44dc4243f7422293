//! A guest without a machine against the whole crate, with a gate that lets everything through to one server on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy does not know `all(test, unix)`"
)]

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread::JoinHandle;

use super::{EgressError, Gate, serve};
use crate::frame::DroppedFrame;
use crate::gateway::Network;
use crate::relay::{Carried, relay, reset};
use crate::stack::GuestStream;
use crate::testkit::{End, Guest};

const ANYWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 80);

struct ToServer {
    server: SocketAddr,
    dropped: RefCell<Vec<DroppedFrame>>,
}

impl Gate for ToServer {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        let Ok(mut upstream) = tokio::net::TcpStream::connect(self.server).await else {
            return;
        };
        guest.accept();
        if relay(&guest, &mut upstream, &mut Carried::default())
            .await
            .is_err()
        {
            reset(&upstream);
        }
    }

    fn dns(&self, query: &[u8]) -> Option<Vec<u8>> {
        Some(query.iter().rev().copied().collect())
    }

    fn dropped(&self, why: DroppedFrame) {
        self.dropped.borrow_mut().push(why);
    }
}

type Egress = JoinHandle<(Result<(), EgressError>, Vec<DroppedFrame>)>;

/// A guest whose every connection goes to `server`.
fn guest(server: SocketAddr) -> (Guest, Egress) {
    let (near, far) = UnixStream::pair().unwrap();
    let egress = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            far.set_nonblocking(true).unwrap();
            let link = tokio::net::UnixStream::from_std(far).unwrap();
            let gate = Rc::new(ToServer {
                server,
                dropped: RefCell::default(),
            });
            let end = serve(link, Network::default(), Rc::clone(&gate)).await;
            let dropped = gate.dropped.borrow().clone();
            (end, dropped)
        })
    });
    (Guest::new(near, Network::default()).unwrap(), egress)
}

/// A server that treats its connections one after the other.
fn server(treat: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            treat(stream);
        }
    });
    address
}

fn echo(mut stream: TcpStream) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    stream.write_all(&all).unwrap();
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at * 31 % 251).unwrap())
        .collect()
}

#[test]
fn what_is_sent_comes_back_and_both_sides_end() {
    let (mut guest, egress) = guest(server(echo));
    for len in [0, 1, 1460, 100_000, 3_000_000] {
        let connection = guest.connect(ANYWHERE);
        assert!(guest.is_connected(connection));
        let sent = pattern(len);
        let (first, rest) = sent.split_at(len / 2);
        assert!(guest.send(connection, first));
        assert!(guest.send(connection, rest));
        guest.finish(connection);
        let (received, end) = guest.receive_all(connection);
        assert_eq!(received.len(), len);
        assert!(received == sent, "{len} bytes came back changed");
        assert_eq!(end, Some(End::Finished));
    }
    drop(guest);
    let (end, dropped) = egress.join().unwrap();
    end.unwrap();
    assert_eq!(dropped, []);
}

#[test]
fn the_server_may_end_first() {
    let (mut guest, _egress) = guest(server(|mut stream| {
        stream.write_all(b"hello").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"still here");
    }));
    let connection = guest.connect(ANYWHERE);
    assert_eq!(
        guest.receive_all(connection),
        (b"hello".to_vec(), Some(End::Finished))
    );
    assert!(guest.send(connection, b"still here"));
    guest.finish(connection);
}

#[test]
fn refusals_and_resets_reach_the_guest_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (mut lonely, _egress) = guest(nobody);
    let connection = lonely.connect(ANYWHERE);
    assert!(!lonely.is_connected(connection));
    let reset_it = |mut stream: TcpStream| {
        stream.write_all(b"a").unwrap();
        stream.read_exact(&mut [0]).unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    };
    let (mut guest, _egress) = guest(server(reset_it));
    let connection = guest.connect(ANYWHERE);
    assert_eq!(guest.receive(connection, 1), b"a");
    assert!(guest.send(connection, b"b"));
    assert_eq!(
        guest.receive_all(connection),
        (Vec::new(), Some(End::Reset))
    );
}

#[test]
fn a_guest_that_breaks_off_resets_the_server() {
    let (tell, told) = std::sync::mpsc::channel();
    let (mut guest, _egress) = guest(server(move |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        tell.send(stream.read(&mut byte).map_err(|error| error.kind()))
            .unwrap();
    }));
    let connection = guest.connect(ANYWHERE);
    assert!(guest.send(connection, b"a"));
    // The byte is to be there before the end is.
    std::thread::sleep(std::time::Duration::from_millis(50));
    guest.abort(connection);
    assert_eq!(
        told.recv().unwrap(),
        Err(std::io::ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_link_with_anything_but_records_ends() {
    let (mut guest, egress) = guest(server(echo));
    guest.send_raw(&u32::MAX.to_le_bytes());
    guest.until(|_| None::<()>);
    let (end, _) = egress.join().unwrap();
    assert!(matches!(end, Err(EgressError::Broken(_))), "{end:?}");
}
