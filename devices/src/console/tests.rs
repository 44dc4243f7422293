//! The console through the mock driver.

use std::sync::{Arc, Mutex};

use super::device::Role;
use super::wire::{Event, MESSAGE_LEN, Message, config};
use super::*;
use crate::testkit::Driver;

const MULTIPORT: u64 = 1 << 1;
/// Bytes of a control buffer.
const ROOM: usize = 128;

crate::device_contract_tests!(|| two_ports(&LogRing::new(1024), &LogRing::new(1024)));

fn two_ports(first: &LogRing, second: &LogRing) -> Console {
    Console::new(vec![
        ConsolePort::console(Box::new(first.clone())),
        ConsolePort::named("log", Box::new(second.clone())),
    ])
    .unwrap()
}

fn message(port: u32, event: Event, value: u16) -> Message {
    Message {
        port,
        event: event.code(),
        value,
    }
}

/// Tells the device something, and returns its answers in order.
fn converse(driver: &mut Driver, says: Message, answers: usize) -> Vec<(Message, Vec<u8>)> {
    let (to_guest, from_guest) = (Role::ControlToGuest.queue(), Role::ControlFromGuest.queue());
    let buffers: Vec<_> = (0..answers).map(|_| driver.writable(ROOM)).collect();
    for (index, buffer) in (0..).zip(&buffers) {
        driver.push(to_guest, index, &[*buffer]);
    }
    driver.request(from_guest, &[&says.emit()], &[]);
    let answer = |buffer| {
        let len = usize::try_from(driver.wait_used(to_guest).len).unwrap();
        let bytes = driver.bytes(buffer);
        let head = Message::parse(bytes[..MESSAGE_LEN].try_into().unwrap());
        (head, bytes[MESSAGE_LEN..len].to_vec())
    };
    buffers.into_iter().map(answer).collect()
}

#[test]
fn messages_have_their_fields_in_place() {
    let bytes = [1, 2, 3, 4, 5, 6, 7, 8];
    let message = Message::parse(bytes);
    assert_eq!(
        message,
        Message {
            port: 0x0403_0201,
            event: 0x0605,
            value: 0x0807
        }
    );
    assert_eq!(message.emit(), bytes);
    for code in 0..=u16::MAX {
        assert_eq!(
            Event::from_code(code).map(Event::code),
            (code < 8).then_some(code)
        );
    }
    assert_eq!(config(0x0403_0201), [0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0]);
}

#[test]
fn queues_and_roles_are_one_to_one() {
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6].map(Role::of),
        [
            Role::Input(0),
            Role::Output(0),
            Role::ControlToGuest,
            Role::ControlFromGuest,
            Role::Input(1),
            Role::Output(1),
            Role::Input(2),
        ]
    );
    for queue in 0..100 {
        assert_eq!(Role::of(queue).queue(), queue);
    }
}

#[test]
fn impossible_ports_are_refused() {
    let named = |name: &str| ConsolePort::named(name, Box::new(LogRing::new(1)));
    let many: Vec<_> = (0..=MAX_PORTS).map(|_| named("x")).collect();
    assert!(matches!(Console::new(many), Err(ConsoleError::Ports(17))));
    assert!(matches!(
        Console::new(Vec::new()),
        Err(ConsoleError::Ports(0))
    ));
    for name in ["", &"x".repeat(65)] {
        assert!(matches!(
            Console::new(vec![named(name)]),
            Err(ConsoleError::Name(_))
        ));
    }
    assert!(Console::new(vec![named(&"x".repeat(64))]).is_ok());
}

#[test]
fn ports_are_introduced_one_after_the_other() {
    let mut driver = Driver::running(Box::new(two_ports(&LogRing::new(1), &LogRing::new(1))));
    let added = converse(&mut driver, message(0, Event::DeviceReady, 1), 2);
    let expected = [message(0, Event::PortAdd, 0), message(1, Event::PortAdd, 0)];
    assert_eq!(added, expected.map(|head| (head, Vec::new())));
    let console = converse(&mut driver, message(0, Event::PortReady, 1), 2);
    let expected = [
        message(0, Event::ConsolePort, 1),
        message(0, Event::PortOpen, 1),
    ];
    assert_eq!(console, expected.map(|head| (head, Vec::new())));
    let named = converse(&mut driver, message(1, Event::PortReady, 1), 2);
    assert_eq!(named[0], (message(1, Event::PortName, 0), b"log".to_vec()));
    assert_eq!(named[1], (message(1, Event::PortOpen, 1), Vec::new()));
}

#[test]
fn nonsense_on_the_control_queue_changes_nothing() {
    let mut driver = Driver::running(Box::new(two_ports(&LogRing::new(1), &LogRing::new(1))));
    let from_guest = Role::ControlFromGuest.queue();
    for event in (0..20).chain([u16::MAX]) {
        for port in [2, 3, 0x8000_0000, u32::MAX] {
            let says = Message {
                port,
                event,
                value: u16::from(event != 0),
            };
            driver.request(from_guest, &[&says.emit()], &[]);
        }
    }
    driver.request(from_guest, &[&[1, 2, 3]], &[]);
    driver.request(from_guest, &[&[0; 5000]], &[]);
    let added = converse(&mut driver, message(0, Event::DeviceReady, 1), 2);
    assert_eq!(
        added[0].0,
        message(0, Event::PortAdd, 0),
        "nothing else was waiting"
    );
}

#[test]
fn a_guest_that_asks_for_ever_and_a_small_buffer_make_nothing_grow() {
    let mut driver = Driver::running(Box::new(two_ports(&LogRing::new(1), &LogRing::new(1))));
    for _ in 0..1000 {
        let ready = message(0, Event::DeviceReady, 1).emit();
        driver.request(Role::ControlFromGuest.queue(), &[&ready], &[]);
    }
    let to_guest = Role::ControlToGuest.queue();
    let small = driver.request(to_guest, &[], &[MESSAGE_LEN - 1]);
    assert_eq!(small.written, 0);
    for port in 0..2 {
        let answer = driver.request(to_guest, &[], &[ROOM]);
        let head = Message::parse(answer.data[..MESSAGE_LEN].try_into().unwrap());
        assert_eq!(head, message(port, Event::PortAdd, 0));
    }
    let buffer = driver.writable(ROOM);
    driver.push(to_guest, 0, &[buffer]);
    driver.kick(to_guest);
    driver.settle();
    assert_eq!(
        driver.rings[to_guest].pop_used(),
        None,
        "each answer comes once"
    );
}

#[test]
fn output_reaches_the_sink_of_its_port() {
    let (first, second) = (LogRing::new(1024), LogRing::new(1024));
    let mut driver = Driver::running(Box::new(two_ports(&first, &second)));
    driver.request(
        Role::Output(0).queue(),
        &[b"kernel ", b"", b"speaking"],
        &[],
    );
    let long = vec![7; 10_000];
    driver.request(Role::Output(1).queue(), &[&long], &[16]);
    assert_eq!(first.snapshot(), b"kernel speaking");
    assert_eq!(
        (second.snapshot(), second.lost()),
        (vec![7; 1024], 10_000 - 1024)
    );
}

#[test]
fn a_driver_without_ports_has_a_plain_console() {
    let (first, second) = (LogRing::new(64), LogRing::new(64));
    let console = two_ports(&first, &second);
    let input = console.input(0).unwrap();
    assert!(console.input(2).is_none());
    let mut driver = Driver::new(Box::new(console));
    driver.init(!MULTIPORT);
    driver.request(Role::Output(0).queue(), &[b"plain"], &[]);
    assert_eq!(first.snapshot(), b"plain");
    assert_eq!(input.write(b"typed"), 5);
    let answer = driver.request(Role::Input(0).queue(), &[], &[16]);
    assert_eq!(&answer.data[..5], b"typed");
    assert_eq!(answer.written, 5);
}

#[test]
fn input_waits_until_the_port_is_open() {
    let console = two_ports(&LogRing::new(1), &LogRing::new(1));
    let input = console.input(1).unwrap();
    let mut driver = Driver::running(Box::new(console));
    let queue = Role::Input(1).queue();
    let buffer = driver.writable(16);
    driver.push(queue, 0, &[buffer]);
    driver.kick(queue);
    assert_eq!(input.write(b"early"), 5);
    driver.settle();
    assert_eq!(driver.rings[queue].pop_used(), None);
    let open = message(1, Event::PortOpen, 1).emit();
    driver.request(Role::ControlFromGuest.queue(), &[&open], &[]);
    assert_eq!(driver.wait_used(queue).len, 5);
    assert_eq!(&driver.bytes(buffer)[..5], b"early");

    driver.init(u64::MAX);
    assert_eq!(input.write(b"later"), 5);
    let buffer = driver.writable(16);
    driver.push(queue, 0, &[buffer]);
    driver.kick(queue);
    driver.settle();
    assert_eq!(
        driver.rings[queue].pop_used(),
        None,
        "a reset closes the port"
    );
}

#[test]
fn input_of_one_session_is_not_for_the_next() {
    let console = two_ports(&LogRing::new(1), &LogRing::new(1));
    let input = console.input(0).unwrap();
    let mut driver = Driver::running(Box::new(console));
    assert_eq!(input.write(b"a password"), 10);
    driver.settle();
    driver.init(u64::MAX);
    assert_eq!(input.write(b"new"), 3);
    let answer = driver.request(Role::Input(0).queue(), &[], &[16]);
    assert_eq!((answer.written, &answer.data[..3]), (3, &b"new"[..]));
}

#[test]
fn input_is_bounded_and_comes_in_order() {
    let console = two_ports(&LogRing::new(1), &LogRing::new(1));
    let input = console.input(0).unwrap();
    let bytes: Vec<u8> = (0..=250).cycle().take(INPUT_BUFFER + 10).collect();
    assert_eq!(input.write(&bytes), INPUT_BUFFER);
    assert_eq!(input.write(b"x"), 0);
    let mut driver = Driver::running(Box::new(console));
    let mut received: Vec<u8> = Vec::new();
    while received.len() < INPUT_BUFFER {
        let answer = driver.request(Role::Input(0).queue(), &[], &[1000, 2000]);
        received.extend(&answer.data[..usize::try_from(answer.written).unwrap()]);
    }
    assert_eq!(received, bytes[..INPUT_BUFFER]);
}

/// V10: 100 MB of output, of which a small ring is kept.
#[test]
fn a_flood_of_output_is_bounded() {
    let (first, second) = (LogRing::new(4096), LogRing::new(4096));
    let mut driver = Driver::running(Box::new(two_ports(&first, &second)));
    let queue = Role::Output(0).queue();
    let piece = driver.readable(&vec![b'x'; 1_000_000]);
    let size = driver.rings[queue].size;
    let (mut sent, mut back) = (0_u64, 0_u64);
    while back < 100 {
        while sent < 100 && sent - back < u64::from(size) {
            let index = u16::try_from(sent).unwrap() % size;
            driver.push(queue, index, &[piece]);
            sent += 1;
        }
        driver.kick(queue);
        driver.wait_used(queue);
        back += 1;
        if back == 50 {
            driver.request(Role::Output(1).queue(), &[b"still served"], &[]);
        }
    }
    assert_eq!(first.snapshot(), vec![b'x'; 4096]);
    assert_eq!(first.lost(), 100_000_000 - 4096);
    assert_eq!(second.snapshot(), b"still served");
}

#[test]
fn a_log_keeps_the_newest_bytes() {
    let log = LogRing::new(5);
    for (bytes, kept, lost) in [
        (&b"abc"[..], &b"abc"[..], 0),
        (b"", b"abc", 0),
        (b"de", b"abcde", 0),
        (b"f", b"bcdef", 1),
        (b"0123456789", b"56789", 11),
        (b"xyz", b"89xyz", 14),
    ] {
        log.clone().write(bytes);
        assert_eq!((log.snapshot().as_slice(), log.lost()), (kept, lost));
    }
    let mut nothing = LogRing::new(0);
    nothing.write(b"abc");
    assert_eq!((nothing.snapshot().len(), nothing.lost()), (0, 3));
}

/// A writer that takes so many bytes and then would block.
struct Narrow(Arc<Mutex<(usize, Vec<u8>)>>);

impl std::io::Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let (room, taken) = &mut *self.0.lock().unwrap();
        let len = bytes.len().min(*room);
        if len == 0 {
            return Err(std::io::ErrorKind::WouldBlock.into());
        }
        *room -= len;
        taken.extend(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_slow_reader_loses_output_and_is_told_how_much() {
    let state = Arc::new(Mutex::new((4, Vec::new())));
    let mut sink = LossyWriter::new(Narrow(Arc::clone(&state)));
    sink.write(b"abcdef");
    sink.write(b"ghi");
    state.lock().unwrap().0 = 1000;
    sink.write(b"jkl");
    sink.write(b"mno");
    let expected = "abcd\n[5 bytes of output were lost here]\njklmno";
    assert_eq!(state.lock().unwrap().1, expected.as_bytes());
}
