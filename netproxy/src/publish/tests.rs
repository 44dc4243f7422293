//! Connections from the host to a guest without a machine.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking; clippy does not know `all(test, unix)`"
)]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpStream as HostStream};
use std::rc::Rc;
use std::sync::mpsc::channel;

use tokio::task::LocalSet;

use super::*;
use crate::egress::{Gate, serve};
use crate::frame::DroppedFrame;
use crate::gateway::Network;
use crate::stack::{GuestStream, MAX_CONNECTIONS};
use crate::testkit::{self, End, Guest};

const PORT: u16 = 3000;

/// Lets nothing out.
struct Closed;

impl Gate for Closed {
    async fn connection(self: Rc<Self>, guest: GuestStream) {
        drop(guest);
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

/// A guest whose port is published at an address of the host's.
fn guest() -> (Guest, SocketAddr) {
    let (tell, told) = channel();
    let (mut guest, _egress) = testkit::guest(async move |link| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        let network = GuestNetwork::new(Network::default());
        let serves = async {
            tokio::task::spawn_local(publish(listener, network.clone(), PORT));
            serve(link, &network, Rc::new(Closed)).await.unwrap();
        };
        LocalSet::new().run_until(serves).await;
    })
    .unwrap();
    // Its driver has started when something is answered: what came before that would be gone.
    let gateway = guest.network().gateway;
    let connection = guest.connect(SocketAddrV4::new(gateway, 9));
    assert!(!guest.is_connected(connection));
    (guest, told.recv().unwrap())
}

#[test]
fn what_the_host_says_reaches_the_guest_and_back() {
    let (mut guest, address) = guest();
    for len in [0, 1, 100_000, 3_000_000] {
        let sent: Vec<u8> = (0..len).map(|at| (at % 251).try_into().unwrap()).collect();
        let listening = guest.listen(PORT);
        let theirs = sent.clone();
        let host = std::thread::spawn(move || {
            let mut host = HostStream::connect(address).unwrap();
            host.write_all(&theirs).unwrap();
            host.shutdown(std::net::Shutdown::Write).unwrap();
            let mut all = Vec::new();
            host.read_to_end(&mut all).unwrap();
            all
        });
        assert!(guest.is_connected(listening));
        let gateway = guest.network().gateway;
        assert_eq!(guest.peer(listening), Some(gateway));
        let (all, end) = guest.receive_all(listening);
        assert!(all == sent && end == Some(End::Finished), "{len}");
        assert!(len == 0 || guest.send(listening, &all));
        guest.finish(listening);
        while !host.is_finished() {
            guest.turn();
        }
        assert!(host.join().unwrap() == sent, "{len}");
    }
}

#[test]
fn where_nobody_listens_the_host_is_reset() {
    let (mut guest, address) = guest();
    let host = std::thread::spawn(move || {
        let mut host = HostStream::connect(address).unwrap();
        host.read(&mut [0]).unwrap_err().kind()
    });
    while !host.is_finished() {
        guest.turn();
    }
    assert_eq!(host.join().unwrap(), ErrorKind::ConnectionReset);
}

#[test]
fn beyond_the_most_connections_the_host_is_reset_and_the_rest_go_on() {
    let (mut guest, address) = guest();
    let mut all = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let listening = guest.listen(PORT);
        let host = HostStream::connect(address).unwrap();
        assert!(guest.is_connected(listening));
        all.push((host, listening));
    }
    let mut beyond = HostStream::connect(address).unwrap();
    let end = beyond.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, ErrorKind::ConnectionReset);
    let (host, listening) = all.first_mut().unwrap();
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.receive(*listening, 10), b"still here");
}

#[test]
fn a_guest_begins_nothing_towards_the_host_by_it() {
    let (mut guest, address) = guest();
    let listening = guest.listen(PORT);
    let _host = HostStream::connect(address).unwrap();
    assert!(guest.is_connected(listening));
    let to = SocketAddrV4::new(guest.network().gateway, address.port());
    let connection = guest.connect(to);
    assert!(!guest.is_connected(connection));
}
