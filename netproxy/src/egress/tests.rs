//! A guest without a machine against the whole crate, with a gate that lets everything through to one server on loopback.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy does not know `all(test, unix)`"
)]

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::rc::Rc;
use std::thread::JoinHandle;

use super::{EgressError, Gate, GuestNetwork, serve};
use crate::frame::DroppedFrame;
use crate::gateway::Network;
use crate::link::Offloads;
use crate::relay::{Meter, relay, reset};
use crate::stack::{GuestStream, MAX_CONNECTIONS, MAX_OPENING};
use crate::testkit::{self, End, Guest};

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
        if relay(&guest, &mut upstream, &Meter::default())
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
    guest_on(Network::default(), server)
}

fn guest_on(network: Network, server: SocketAddr) -> (Guest, Egress) {
    testkit::guest_on(network, async move |link| {
        let dropped = RefCell::default();
        let gate = Rc::new(ToServer { server, dropped });
        let end = serve(
            link,
            &GuestNetwork::new(Network::default()),
            Rc::clone(&gate),
        )
        .await;
        let dropped = gate.dropped.borrow().clone();
        (end, dropped)
    })
    .unwrap()
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
fn a_guest_may_have_short_packets() {
    for mtu in [576, 68] {
        let network = Network {
            mtu: mtu.try_into().unwrap(),
            ..Network::default()
        };
        let (mut guest, _egress) = guest_on(network, server(echo));
        let connection = guest.connect(ANYWHERE);
        assert!(guest.is_connected(connection));
        let sent = pattern(100_000);
        assert!(guest.send(connection, &sent));
        guest.finish(connection);
        guest.keep_frames(false);
        let (received, end) = guest.receive_all(connection);
        assert!(received == sent && end == Some(End::Finished), "{mtu}");
    }
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

#[test]
fn another_driver_begins_anew_whatever_is_under_way() {
    let (mut guest, _egress) = guest(server(|mut stream| {
        // Until the guest has gone.
        while stream.write_all(&[7; 1 << 16]).is_ok() {}
    }));
    let connection = guest.connect(ANYWHERE);
    assert_eq!(guest.receive(connection, 1).first(), Some(&7));
    // Much is on its way to the guest, and it takes none of it.
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(guest.send_raw(&Offloads::default().emit()));
    std::thread::sleep(std::time::Duration::from_millis(100));
    let other = guest.connect(ANYWHERE);
    assert!(guest.is_connected(other));
    assert_eq!(guest.receive(other, 1).first(), Some(&7));
}

/// Holds every connection, and takes none.
struct Holds(RefCell<Vec<GuestStream>>);

impl Gate for Holds {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        self.0.borrow_mut().push(guest);
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

#[test]
fn a_flood_of_attempts_is_held_up_to_the_cap() {
    let (mut guest, egress) = testkit::guest(async |link| {
        let gate = Rc::new(Holds(RefCell::default()));
        // The guest goes in the midst of it.
        drop(
            serve(
                link,
                &GuestNetwork::new(Network::default()),
                Rc::clone(&gate),
            )
            .await,
        );
        gate.0.borrow().len()
    })
    .unwrap();
    for port in 1..=u16::try_from(4 * MAX_OPENING).unwrap() {
        guest.connect(SocketAddrV4::new(*ANYWHERE.ip(), port));
        if port % 64 == 0 {
            guest.turn();
        }
    }
    guest.turn();
    drop(guest);
    assert_eq!(egress.join().unwrap(), MAX_OPENING);
}

/// Takes every connection, and holds it.
struct Takes(RefCell<Vec<GuestStream>>);

impl Gate for Takes {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        guest.accept();
        self.0.borrow_mut().push(guest);
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

#[test]
fn no_more_connections_are_held_than_the_cap() {
    let (mut guest, egress) = testkit::guest(async |link| {
        let gate = Rc::new(Takes(RefCell::default()));
        // The guest goes in the midst of it.
        drop(
            serve(
                link,
                &GuestNetwork::new(Network::default()),
                Rc::clone(&gate),
            )
            .await,
        );
        gate.0.borrow().len()
    })
    .unwrap();
    for port in 1..=u16::try_from(MAX_CONNECTIONS).unwrap() {
        let connection = guest.connect(SocketAddrV4::new(*ANYWHERE.ip(), port));
        assert!(guest.is_connected(connection), "{port}");
    }
    // One beyond is refused at once.
    let last = guest.connect(SocketAddrV4::new(*ANYWHERE.ip(), 60_000));
    assert!(!guest.is_connected(last));
    drop(guest);
    assert_eq!(egress.join().unwrap(), MAX_CONNECTIONS);
}
