//! Any frames of a guest's, and nearly good ones, to the egress worker with a policy that allows nothing: nobody is asked and nothing dialled.
#![no_main]

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use cofferdam_fuzz::Input;
use cofferdam_fuzz::net::{self, Segment};
use libfuzzer_sys::fuzz_target;
use netproxy::dial::Resolver;
use netproxy::policy::{Abilities, Decision, Engine, Layers};
use netproxy::proxy::{Denial, Flow, Observer, Proxy};
use netproxy::relay::Carried;
use netproxy::{DroppedFrame, HostAddresses, HostName};

const GATEWAY: [u8; 4] = [100, 64, 0, 1];

struct Nobody;

impl Resolver for Nobody {
    async fn resolve(&self, name: &HostName) -> io::Result<Vec<IpAddr>> {
        panic!("{name} is asked for")
    }
}

/// Counts what goes nowhere, and knows nothing that goes anywhere.
struct Counts(Rc<Cell<usize>>);

impl Observer for Counts {
    fn denied(&self, _: &Denial) {}

    fn audited(&self, _: &Denial) {}

    fn opened(&self, flow: &Flow) {
        panic!("{} was reached", flow.destination)
    }

    fn requested(&self, _: &Flow, _: (&str, &str), _: &Decision<'_>) {}

    fn ended(&self, _: &Flow, _: Carried, _: Duration) {}

    fn dropped(&self, _: DroppedFrame) {
        self.0.set(self.0.get() + 1);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let abilities = Abilities {
        intercepts_tls: false,
    };
    let engine = Engine::compile(&Layers::default(), abilities, |_| true).expect("no rules");
    let own = || -> io::Result<HostAddresses> { panic!("something is to be dialled") };
    let dropped = Rc::new(Cell::new(0));
    let observer = Box::new(Counts(Rc::clone(&dropped)));
    let proxy = Rc::new(Proxy::new(engine, Nobody, Box::new(own), observer));
    let mut input = Input::new(bytes);
    let served = net::run(proxy, async |guest| {
        let (mut sent, mut answered) = (0, 0);
        for _ in 0..64 {
            if input.is_empty() {
                break;
            }
            let count = 1 + input.below(4);
            for _ in 0..count {
                guest.send(&frame(&mut input));
            }
            sent += count;
            answered += guest.frames().await.len();
            // A refused connection is reset once, and a frame that went nowhere is not answered.
            assert!(answered + dropped.get() <= sent, "{answered} of {sent}");
        }
    });
    served.expect("whole records");
});

/// A frame that is good, but for a byte or two.
fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u8();
    let mut frame = match kind & 7 {
        0 => return input.blob().to_vec(),
        1 => net::frame(0x0806, &arp(input)),
        2 => net::frame(0x0800, &net::ipv4(to(input), input.u8(), input.blob())),
        3 => {
            let message = [&[input.choose(&[8, 0, 3, 13]), 0, 0, 0], input.blob()].concat();
            net::frame(0x0800, &net::ipv4(to(input), 1, &message))
        }
        4 => {
            let port = input.choose(&[53, 67, 443, 5353, 0]);
            let datagram = net::udp(input.u16(), port, input.blob());
            net::frame(0x0800, &net::ipv4(to(input), 17, &datagram))
        }
        5 => net::frame(input.u16(), input.blob()),
        _ => net::frame(0x0800, &net::ipv4(to(input), 6, &segment(input))),
    };
    for _ in 0..(kind >> 3 & 3) {
        let at = usize::from(input.u8()) % frame.len();
        frame[at] = input.u8();
    }
    frame
}

fn to(input: &mut Input<'_>) -> [u8; 4] {
    match input.below(4) {
        0 => input.array(),
        1 => [198, 18, 0, input.u8()],
        _ => GATEWAY,
    }
}

fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, input.u8() & 3, 2, 0xcf, 0, 0, 0, 2];
    message.extend([100, 64, 0, 2]);
    message.extend(input.array::<6>());
    message.extend(to(input));
    message
}

fn segment(input: &mut Input<'_>) -> Vec<u8> {
    let options = input.blob();
    let options = &options[..options.len().min(40) / 4 * 4];
    Segment {
        from: 1 + u16::from(input.u8() & 3),
        to: 1 + u16::from(input.u8() & 3),
        sequence: input.u32(),
        acknowledged: input.u32(),
        flags: input.u8(),
        window: input.u16(),
        urgent: input.u16(),
        options,
        content: input.blob(),
    }
    .bytes()
}
