use std::cell::Cell;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::*;

struct Addresses(Vec<IpAddr>);

impl Resolver for Addresses {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        Ok(self.0.clone())
    }
}

/// Answers with another address each time.
struct Flips(Cell<usize>, [IpAddr; 2]);

impl Resolver for Flips {
    async fn resolve(&self, _: &HostName) -> io::Result<Vec<IpAddr>> {
        let turn = self.0.replace(self.0.get() + 1);
        Ok(vec![self.1[turn % 2]])
    }
}

/// Only this address may be dialled.
struct Only(IpAddr);

impl AddressFilter for Only {
    type Refusal = &'static str;

    fn check(&self, address: IpAddr) -> Result<(), &'static str> {
        if address == self.0 {
            Ok(())
        } else {
            Err("another")
        }
    }
}

/// All of them may.
struct Any;

impl AddressFilter for Any {
    type Refusal = &'static str;

    fn check(&self, _: IpAddr) -> Result<(), &'static str> {
        Ok(())
    }
}

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, last).into()
}

fn name() -> HostName {
    HostName::parse("a.example").unwrap()
}

fn run<R>(test: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

#[test]
fn families_take_turns() {
    let v6 = |last| IpAddr::from(Ipv6Addr::new(1, 0, 0, 0, 0, 0, 0, last));
    for (given, order) in [
        (vec![], vec![]),
        (vec![v4(1), v4(2)], vec![v4(1), v4(2)]),
        (vec![v4(1), v4(2), v6(1)], vec![v4(1), v6(1), v4(2)]),
        (
            vec![v6(1), v6(2), v6(3), v4(1)],
            vec![v6(1), v4(1), v6(2), v6(3)],
        ),
    ] {
        assert_eq!(interleaved(&given), order);
    }
}

#[test]
fn only_what_passes_the_filter_is_dialled() {
    run(async {
        let listener = TcpListener::bind((v4(1), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // The others would answer too: it is all one host.
        let elsewhere = TcpListener::bind((v4(2), port)).await.unwrap();
        let addresses = Addresses(vec![v4(2), v4(1), v4(3)]);
        let stream = dial(&name(), port, &addresses, &Only(v4(1))).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), v4(1));
        let nothing = timeout(Duration::from_millis(50), elsewhere.accept()).await;
        assert!(nothing.is_err(), "a refused address was dialled");
        let refused = dial(&name(), port, &Addresses(vec![v4(2), v4(3)]), &Only(v4(1))).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "127.0.0.2 may not be dialled: another"
        );
        let nothing = dial(&name(), port, &Addresses(vec![]), &Any).await;
        assert!(matches!(nothing, Err(DialError::Unresolved(_))));
    });
}

#[test]
fn the_address_that_was_checked_is_the_one_that_is_dialled() {
    run(async {
        let listener = TcpListener::bind((v4(1), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let sink = TcpListener::bind((v4(2), port)).await.unwrap();
        let flips = Flips(Cell::new(0), [v4(1), v4(2)]);
        for turn in 0..100 {
            let dialled = dial(&name(), port, &flips, &Only(v4(1))).await;
            assert_eq!(dialled.is_ok(), turn % 2 == 0);
        }
        assert!(
            timeout(Duration::from_millis(50), sink.accept())
                .await
                .is_err()
        );
    });
}

#[test]
fn a_dead_address_does_not_hold_up_the_next() {
    run(async {
        let listener = TcpListener::bind((v4(1), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Nobody listens there: refused at once, and the next is tried at once.
        let dialled = dial(&name(), port, &Addresses(vec![v4(9), v4(1)]), &Any).await;
        assert_eq!(dialled.unwrap().peer_addr().unwrap().ip(), v4(1));
        let refused = dial(&name(), port, &Addresses(vec![v4(8), v4(9)]), &Any).await;
        assert!(
            matches!(refused, Err(DialError::Unreachable(_))),
            "{refused:?}"
        );
    });
}

#[test]
fn no_more_addresses_are_looked_at_than_the_cap() {
    let many: Vec<IpAddr> = (0..10_000_u32)
        .map(|n| Ipv4Addr::from_bits(n).into())
        .collect();
    assert_eq!(permitted(&many, &Any).unwrap().len(), MAX_ADDRESSES);
}
