use super::*;
use crate::link::{self, Record};

#[test]
fn a_new_driver_gets_whole_records() {
    let stack = Stack::new(Network::default());
    stack.answer_dns(5353, b"answer");
    // The link took a part of the record; then the driver starts again.
    let mut sent = Vec::new();
    stack
        .flush(|records| {
            sent.extend_from_slice(records.get(..5).unwrap());
            Ok::<_, ()>(5)
        })
        .unwrap();
    stack.start(Offloads::default());
    stack.answer_dns(5353, b"another");
    stack
        .flush(|records| {
            sent.extend_from_slice(records);
            Ok::<_, ()>(records.len())
        })
        .unwrap();
    let mut rest = sent.as_slice();
    for expected in [b"answer".as_slice(), b"another"] {
        let (record, behind) = link::split(rest).unwrap().unwrap();
        let Record::Frame(frame) = record else {
            panic!("{record:?}")
        };
        assert!(frame.ends_with(expected), "{frame:?}");
        rest = behind;
    }
    assert!(rest.is_empty());
}

/// A SYN of a guest's, to anywhere.
fn syn() -> Vec<u8> {
    let network = Network::default();
    let mut frame = [network.gateway_hardware.0, network.guest_hardware.0].concat();
    frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(network.guest.octets());
    frame.extend([198, 18, 0, 1, 0x27, 0x10, 0, 80]);
    frame.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

/// As a guest does when its server takes more than a second to be reached: the worker went round and round.
#[test]
fn a_repeated_syn_of_a_connection_that_is_not_accepted_yet_waits() {
    let stack = Stack::new(Network::default());
    let now = Instant::now();
    let Ok(Some(Request::Connection(held))) = stack.receive(&syn(), now) else {
        panic!("no connection")
    };
    assert!(stack.receive(&syn(), now).unwrap().is_none());
    // Returns, and has nothing to send.
    stack.send_due(now);
    assert_eq!(stack.waiting(), 0);
    held.accept();
    stack.send_due(now);
    assert_ne!(stack.waiting(), 0);
}

/// What works for an attempt goes on when the guest has given it up: a reset, or another driver, makes no room for more.
#[test]
fn attempts_that_are_given_up_count_as_long_as_somebody_works_for_them() {
    let mut reset = syn();
    // RST without ACK, behind the SYN.
    reset[14 + 20 + 13] = 4;
    reset[14 + 20 + 7] = 10;
    for restarts in [false, true] {
        let stack = Stack::new(Network::default());
        let now = Instant::now();
        let mut held = Vec::new();
        for _ in 0..4 * MAX_OPENING {
            if let Ok(Some(Request::Connection(guest))) = stack.receive(&syn(), now) {
                held.push(guest);
            }
            match restarts {
                true => stack.start(Offloads::default()),
                false => drop(stack.receive(&reset, now)),
            }
        }
        assert_eq!(held.len(), MAX_OPENING, "{restarts}");
        held.truncate(1);
        assert!(matches!(
            stack.receive(&syn(), now),
            Ok(Some(Request::Connection(_)))
        ));
    }
}
