//! Conversations over TCP, in and out of order, cut and repeated: what is taken is what was sent, in its order and once, and the guest is answered the
//! same. A byte's value is its place in the stream, so that any other order shows.
#![no_main]

use std::cell::RefCell;
use std::rc::Rc;

use cofferdam_fuzz::Input;
use cofferdam_fuzz::net::{self, Far, Segment};
use libfuzzer_sys::fuzz_target;
use netproxy::egress::Gate;
use netproxy::{DroppedFrame, GuestStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const TO: [u8; 4] = [198, 18, 0, 1];
/// The guest's connections at a time: each has a port.
const GUESTS: usize = 3;
const LONGEST: usize = 4096;

/// Sends back what it takes, in pieces as the input says, when it accepts at all.
struct Echo {
    taken: RefCell<Vec<Vec<u8>>>,
    choices: RefCell<Vec<u8>>,
}

impl Gate for Echo {
    async fn connection(self: Rc<Self>, mut guest: GuestStream) {
        let choice = self.choices.borrow_mut().pop().unwrap_or(0);
        for _ in 0..choice & 3 {
            tokio::task::yield_now().await;
        }
        if choice & 12 == 12 {
            return;
        }
        guest.accept();
        let index = self.taken.borrow().len();
        self.taken.borrow_mut().push(Vec::new());
        let mut piece = vec![0; 1 + usize::from(choice)];
        while let Ok(len @ 1..) = guest.read(&mut piece).await {
            self.taken.borrow_mut()[index].extend_from_slice(&piece[..len]);
            if choice & 16 == 0 && guest.write_all(&piece[..len]).await.is_err() {
                return;
            }
        }
        guest.close();
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn dropped(&self, _: DroppedFrame) {}
}

/// One of the guest's connections, as it sees it.
#[derive(Clone, Default)]
struct Raw {
    first: u32,
    /// Where the other side's stream begins, and what of it came in order.
    begins: Option<u32>,
    heard: Vec<u8>,
    is_reset: bool,
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let choices = input.blob().iter().take(64).copied().collect();
    let gate = Rc::new(Echo {
        taken: RefCell::default(),
        choices: RefCell::new(choices),
    });
    let taken = Rc::clone(&gate);
    let served = net::run(gate, async |guest| {
        let mut all = vec![Raw::default(); GUESTS];
        for _ in 0..200 {
            if input.is_empty() {
                break;
            }
            step(&guest, &mut all, &mut input);
            hear(&guest, &mut all).await;
        }
    });
    served.expect("whole records");
    for stream in taken.taken.borrow().iter() {
        is_pattern(stream);
    }
});

/// What is at each place of every stream.
fn pattern(at: usize) -> u8 {
    u8::try_from(at * 7 % 251).expect("below 251")
}

fn is_pattern(stream: &[u8]) {
    assert!(stream.len() <= 2 * LONGEST);
    for (at, byte) in stream.iter().enumerate() {
        assert_eq!(*byte, pattern(at), "at {at}");
    }
}

fn step(guest: &Far, all: &mut [Raw], input: &mut Input<'_>) {
    let which = input.below(GUESTS);
    let raw = &mut all[which];
    let kind = input.u8();
    let options = input.choose(&[
        &[][..],
        &[2, 4, 0, 1],
        &[2, 4, 0, 0],
        &[3, 3, 14, 1],
        &[4, 2, 1, 1],
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
        &[5, 10, 0, 0, 0, 9, 0, 0, 0, 5, 1, 1],
    ]);
    let wild = kind & 0xe0 == 0xe0;
    let (offset, len) = (
        usize::from(input.u16()) % LONGEST,
        usize::from(input.u8()) * 8,
    );
    let content: Vec<u8> = (offset..offset + len).map(pattern).collect();
    let place = u32::try_from(offset).expect("short");
    let acknowledged = raw.begins.unwrap_or(0);
    let heard = u32::try_from(raw.heard.len()).expect("short");
    let mut segment = Segment {
        from: 100 + u16::try_from(which).expect("few"),
        to: 80,
        sequence: raw.first.wrapping_add(place),
        acknowledged: acknowledged.wrapping_add(heard),
        flags: ACK,
        window: if kind & 16 == 0 { 0xffff } else { input.u16() },
        urgent: u16::from(kind & 8),
        options: if wild { options } else { &[] },
        content: &content,
    };
    match kind & 7 {
        0 | 1 => {
            if kind & 8 != 0 || raw.begins.is_none() {
                let first = input.choose(&[1, 0, u32::MAX, u32::MAX - 1000, 1 << 31]);
                *raw = Raw {
                    first: first.wrapping_add(1),
                    ..Raw::default()
                };
            }
            segment.sequence = raw.first.wrapping_sub(1);
            segment.flags = SYN;
            segment.acknowledged = 0;
            segment.options = options;
            segment.content = &[];
        }
        2 => segment.content = &[],
        3 => segment.flags |= if wild { input.u8() } else { 1 },
        // A reset that is near enough ends it.
        4 if kind & 0x60 == 0x60 => segment.flags = RST | (kind & ACK),
        5 if wild => segment.acknowledged = input.u32(),
        _ => segment.flags |= 8,
    }
    guest.send(&net::frame(0x0800, &net::ipv4(TO, 6, &segment.bytes())));
}

async fn hear(guest: &Far, all: &mut [Raw]) {
    for frame in guest.frames().await {
        let port = usize::from(u16::from_be_bytes([frame[36], frame[37]]));
        let raw = &mut all[port - 100];
        let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
        let content = &frame[34 + usize::from(frame[46] >> 4) * 4..];
        let flags = frame[47];
        raw.is_reset |= flags & RST != 0;
        if flags & SYN != 0 {
            raw.begins = Some(sequence.wrapping_add(1));
            raw.heard.clear();
        }
        let Some(begins) = raw.begins else { continue };
        let at = usize::try_from(sequence.wrapping_sub(begins)).expect("64 bits");
        if !content.is_empty() && at == raw.heard.len() {
            raw.heard.extend_from_slice(content);
        }
    }
    for raw in all {
        is_pattern(&raw.heard);
    }
}
