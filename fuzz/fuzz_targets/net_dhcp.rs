//! DHCP messages: the guest is offered its own address by the gateway, or nothing.
#![no_main]

use std::rc::Rc;

use cofferdam_fuzz::Input;
use cofferdam_fuzz::net;
use libfuzzer_sys::fuzz_target;
use netproxy::egress::Gate;
use netproxy::gateway::Network;
use netproxy::{DroppedFrame, GuestStream};

struct Nothing;

impl Gate for Nothing {
    async fn connection(self: Rc<Self>, _: GuestStream) {
        panic!("a connection by DHCP")
    }

    fn dns(&self, _: &[u8]) -> Option<Vec<u8>> {
        panic!("a name by DHCP")
    }

    fn dropped(&self, _: DroppedFrame) {}
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let served = net::run(Rc::new(Nothing), async |guest| {
        for _ in 0..16 {
            if input.is_empty() {
                break;
            }
            let message = message(&mut input);
            let mut packet = net::ipv4([255; 4], 17, &net::udp(68, 67, &message));
            if input.u8() & 1 == 0 {
                packet[12..16].fill(0);
            }
            guest.send(&net::frame(0x0800, &packet));
            let answers = guest.frames().await;
            assert!(answers.len() <= 1);
            for answer in answers {
                check(&answer[42..], &message);
            }
        }
    });
    served.expect("whole records");
});

/// What an answer of the server's is (RFC 2131, section 2).
fn check(answer: &[u8], asked: &[u8]) {
    let network = Network::default();
    assert_eq!(answer[..3], [2, 1, 6]);
    assert_eq!(answer[4..8], asked[4..8], "another transaction");
    let address = &answer[16..20];
    assert!(address == network.guest.octets() || address == [0; 4]);
    assert_eq!(answer[28..34], network.guest_hardware.0);
    assert_eq!(answer[236..240], [0x63, 0x82, 0x53, 0x63]);
    let mut options = &answer[240..];
    let mut kinds = Vec::new();
    while let [kind, rest @ ..] = options {
        if *kind == 255 {
            break;
        }
        let (len, rest) = rest.split_first().expect("a length");
        let (content, rest) = rest.split_at(usize::from(*len));
        if matches!(kind, 3 | 6 | 54) {
            assert_eq!(content, network.gateway.octets(), "option {kind}");
        }
        kinds.push(*kind);
        options = rest;
    }
    assert!(kinds.contains(&53) && kinds.contains(&54), "{kinds:?}");
}

fn message(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u8();
    if kind & 7 == 7 {
        return input.rest().to_vec();
    }
    let mut message = vec![1 + (kind >> 7), 1, 6, 0];
    message.extend(input.array::<4>());
    message.resize(28, 0);
    message[10] = input.u8();
    message[12..16].copy_from_slice(&input.choose(&[[0; 4], [100, 64, 0, 2], [10, 0, 0, 1]]));
    message.extend(if kind & 0x18 == 0x18 {
        input.array()
    } else {
        Network::default().guest_hardware.0
    });
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, input.u8() & 15]);
    for _ in 0..input.below(8) {
        let other = input.u8();
        let kind = input.choose(&[0, 12, 50, 51, 54, 55, 57, 61, 82, 121, other]);
        let content = match kind {
            50 | 54 => &input.choose(&[[100, 64, 0, 2], [100, 64, 0, 1], [10, 0, 0, 1]])[..],
            _ => input.blob(),
        };
        message.push(kind);
        message.push(u8::try_from(content.len()).expect("a blob's"));
        message.extend(content);
    }
    if kind & 0x20 == 0 {
        message.push(255);
    }
    message
}
