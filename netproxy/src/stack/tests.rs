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

/// A segment of the guest's on the connection of [`syn`]: the same ports, with these flags and the acknowledgement of everything up to here.
fn segment(flags: u8, sequence: u8, acknowledged: u32) -> Vec<u8> {
    let mut frame = syn();
    frame[14 + 20 + 7] = sequence;
    frame[14 + 20 + 8..14 + 20 + 12].copy_from_slice(&acknowledged.to_be_bytes());
    frame[14 + 20 + 13] = flags;
    frame
}

/// The last segment that waits for the guest: its sequence number and flags.
fn sent(stack: &Stack) -> Option<(u32, u8)> {
    let mut last = None;
    let all = stack.flush(|records| {
        let mut rest = records;
        while let Ok(Some((Record::Frame(frame), behind))) = link::split(rest) {
            let bytes = frame.get(14 + 20 + 4..14 + 20 + 8).unwrap();
            let sequence = u32::from_be_bytes(bytes.try_into().unwrap());
            last = Some((sequence, frame[14 + 20 + 13]));
            rest = behind;
        }
        Ok::<_, ()>(records.len())
    });
    all.unwrap();
    last
}

/// Programs give up by closing; their kernel forgets the connection, and says so only when it hears of it again.
#[test]
fn a_silent_guest_is_left_alone_and_one_that_sends_no_more_is_asked_whether_it_is_there() {
    const ACK: u8 = 0x10;
    const ACK_AND_FIN: u8 = 0x11;
    const RST: u8 = 4;
    // What the guest says first, and to each question; how many there are in ten minutes; whether the connection is there then.
    let cases = [
        (ACK, ACK, 0..1, true),
        (ACK_AND_FIN, ACK, 15..21, true),
        (ACK_AND_FIN, RST, 1..2, false),
    ];
    for (first, answer, expected, stays) in cases {
        let stack = Stack::new(Network::default());
        let begin = Instant::now();
        let Ok(Some(Request::Connection(held))) = stack.receive(&syn(), begin) else {
            panic!("no connection")
        };
        held.accept();
        stack.send_due(begin);
        let near = sent(&stack).unwrap().0 + 1;
        stack.receive(&segment(first, 10, near), begin).unwrap();
        stack.send_due(begin);
        sent(&stack);
        let mut asked = 0;
        for second in 1..600 {
            let now = begin + Duration::from_secs(second);
            stack.send_due(now);
            if sent(&stack).is_some() {
                asked += 1;
                let answer = segment(answer, 11, near);
                stack.receive(&answer, now).unwrap();
            }
        }
        assert!(expected.contains(&asked), "{first:#x} {answer:#x}: {asked}");
        if first == ACK {
            // However long it was silent, its end is no reset.
            held.close();
            stack.send_due(begin + Duration::from_secs(600));
            assert_eq!(sent(&stack), Some((near, ACK_AND_FIN)));
        }
        let is_there = |slot: &Slot| !slot.connection.is_over();
        let is_there = stack.inner.borrow().connections.values().any(is_there);
        assert_eq!(is_there, stays, "{first:#x} {answer:#x}");
        drop(held);
    }
}
