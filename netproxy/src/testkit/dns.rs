//! A question of a guest's to its resolver, and the answer, byte by byte: nothing of the crate's own parser is in it.

use std::net::Ipv4Addr;

use crate::gateway::Network;

const HEADERS_LEN: usize = 14 + 20 + 8;

/// A question for the address of a name, with recursion wanted.
pub(super) fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// A datagram of the guest's to the gateway, in its frame, without checksums.
pub(super) fn datagram(network: &Network, from: u16, to: u16, content: &[u8]) -> Vec<u8> {
    let len = |headers: usize| {
        u16::try_from(headers + content.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes()
    };
    let mut frame = [network.gateway_hardware.0, network.guest_hardware.0].concat();
    frame.extend_from_slice(&[8, 0, 0x45, 0]);
    frame.extend_from_slice(&len(28));
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&network.guest.octets());
    frame.extend_from_slice(&network.gateway.octets());
    for word in [from.to_be_bytes(), to.to_be_bytes(), len(8), [0, 0]] {
        frame.extend_from_slice(&word);
    }
    frame.extend_from_slice(content);
    frame
}

/// Whether a frame is a datagram from a resolver to this port.
pub(super) fn is_answer(frame: &[u8], to: u16) -> bool {
    frame.get(23) == Some(&17)
        && frame.get(34..38) == Some(&[0, 53, to.to_be_bytes()[0], to.to_be_bytes()[1]])
}

/// The address in the one record of an answer, which is at its end.
pub(super) fn address(frame: &[u8]) -> Option<Ipv4Addr> {
    let answer = frame.get(HEADERS_LEN..)?;
    let has_one = answer.get(6..8) == Some(&[0, 1]);
    let octets: [u8; 4] = *answer.last_chunk()?;
    has_one.then(|| octets.into())
}
