//! What a guest sends, byte by byte: nothing of the crate's own parsers is in it.

use std::net::Ipv4Addr;

pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(crate) const GUEST_MAC: [u8; 6] = [2, 0xcf, 0, 0, 0, 2];
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0xcf, 0, 0, 0, 1];
/// From here on ports are of the guest's own stack.
const OWN_PORTS: u16 = 40_000;

pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;
pub(crate) const FIN: u8 = 1;
pub(crate) const PSH: u8 = 8;
pub(crate) const URG: u8 = 32;

pub(crate) fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, content: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), content].concat()
}

/// From the guest to the gateway.
pub(crate) fn frame(kind: u16, content: &[u8]) -> Vec<u8> {
    ethernet(GATEWAY_MAC, GUEST_MAC, kind, content)
}

/// An IPv4 packet whose header `change` changes before it is summed.
pub(crate) fn packet(
    to: Ipv4Addr,
    protocol: u8,
    content: &[u8],
    change: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let len = u16::try_from(20 + content.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend(len.to_be_bytes());
    header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    header.extend(GUEST.octets());
    header.extend(to.octets());
    change(&mut header);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], content].concat()
}

/// A frame with an IPv4 packet.
pub(crate) fn ipv4(to: Ipv4Addr, protocol: u8, content: &[u8]) -> Vec<u8> {
    frame(0x0800, &packet(to, protocol, content, |_| {}))
}

/// The Internet's sum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|two| u32::from(two[0]) << 8 | u32::from(*two.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0)
}

pub(crate) fn udp(from: u16, to: u16, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(8 + content.len()).unwrap_or(u16::MAX);
    let words = [from, to, len, 0].map(u16::to_be_bytes).concat();
    [&words, content].concat()
}

pub(crate) fn icmp(kind: u8, code: u8, content: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], content].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A segment of TCP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tcp<'a> {
    pub(crate) from: u16,
    pub(crate) to: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) flags: u8,
    pub(crate) urgent: u16,
    pub(crate) options: &'a [u8],
    pub(crate) content: &'a [u8],
}

impl Tcp<'_> {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut segment = [self.from, self.to].map(u16::to_be_bytes).concat();
        segment.extend(self.sequence.to_be_bytes());
        segment.extend(self.acknowledged.to_be_bytes());
        let words = u8::try_from(5 + self.options.len() / 4).unwrap_or(15);
        segment.extend([words << 4, self.flags, 0xff, 0xff, 0, 0]);
        segment.extend(self.urgent.to_be_bytes());
        segment.extend(self.options);
        segment.extend(self.content);
        segment
    }

    /// The frame, with both sums right.
    pub(crate) fn frame(&self, to: Ipv4Addr) -> Vec<u8> {
        let mut segment = self.bytes();
        let len = u16::try_from(segment.len()).unwrap_or(0);
        let pseudo = [
            &GUEST.octets()[..],
            &to.octets(),
            &[0, 6],
            &len.to_be_bytes(),
        ]
        .concat();
        let sum = checksum(&[&pseudo, &segment[..]].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        ipv4(to, 6, &segment)
    }
}

pub(crate) fn arp(operation: u8, from: ([u8; 6], Ipv4Addr), to: Ipv4Addr) -> Vec<u8> {
    let mut content = vec![0, 1, 8, 0, 6, 4, 0, operation];
    content.extend(from.0);
    content.extend(from.1.octets());
    content.extend([0; 6]);
    content.extend(to.octets());
    ethernet([0xff; 6], GUEST_MAC, 0x0806, &content)
}

/// An echo request to the gateway.
pub(crate) fn ping(number: u16) -> Vec<u8> {
    let content = [[0x77, 0x77], number.to_be_bytes()].concat();
    ipv4(GATEWAY, 1, &icmp(8, 0, &content))
}

pub(crate) fn is_pong(frame: &[u8], number: u16) -> bool {
    let expected = [[0x77, 0x77], number.to_be_bytes()].concat();
    frame.get(23) == Some(&1) && frame.get(34) == Some(&0) && frame.get(38..42) == Some(&expected)
}

/// Whether a frame is of a connection of the guest's own stack.
pub(crate) fn is_of_stack(frame: &[u8]) -> bool {
    let port = frame.get(36..38).map(|port| [port[0], port[1]]);
    frame.get(23) == Some(&6) && port.map(u16::from_be_bytes) >= Some(OWN_PORTS)
}

pub(crate) fn is_segment_to(frame: &[u8], port: u16) -> bool {
    frame.get(23) == Some(&6) && frame.get(36..38) == Some(&port.to_be_bytes())
}

pub(crate) fn is_reset(frame: &[u8]) -> bool {
    frame.get(23) == Some(&6) && frame.get(47).is_some_and(|flags| flags & RST != 0)
}

pub(crate) fn to_resolver(from: u16, query: &[u8]) -> Vec<u8> {
    ipv4(GATEWAY, 17, &udp(from, 53, query))
}

/// The message of a DNS answer to this port.
pub(crate) fn answer_to(frame: &[u8], port: u16) -> Option<Vec<u8>> {
    let is_it = frame.get(23) == Some(&17)
        && frame.get(34..36) == Some(&[0, 53])
        && frame.get(36..38) == Some(&port.to_be_bytes());
    let answer = frame.get(42..).filter(|answer| answer.len() >= 12)?;
    is_it.then(|| answer.to_vec())
}

/// The status of each response in what a server said.
pub(crate) fn statuses(bytes: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(bytes);
    let heads = text.split("HTTP/1.").skip(1);
    heads
        .map(|head| {
            head.get(2..5)
                .and_then(|code| code.parse().ok())
                .unwrap_or(0)
        })
        .collect()
}

/// A number of so many bytes, and as many bytes as it says.
pub(crate) fn sized<const LEN: usize>(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [&len[4 - LEN..], content].concat()
}

pub(crate) fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &sized::<2>(content)[..]].concat()
}

/// The extension that names the server (RFC 6066, section 3).
pub(crate) fn sni(name: &str) -> Vec<u8> {
    sni_list(&[(0, name.as_bytes())])
}

pub(crate) fn sni_list(names: &[(u8, &[u8])]) -> Vec<u8> {
    let entries: Vec<u8> = names
        .iter()
        .flat_map(|(kind, name)| [&[*kind], &sized::<2>(name)[..]].concat())
        .collect();
    extension(0, &sized::<2>(&entries))
}

/// A client's first message of TLS 1.3, without its record.
pub(crate) fn hello_message(first: &[Vec<u8>]) -> Vec<u8> {
    let mut extensions = first.concat();
    extensions.extend(extension(10, &sized::<2>(&[0, 29])));
    extensions.extend(extension(13, &sized::<2>(&[4, 3, 8, 4])));
    extensions.extend(extension(43, &sized::<1>(&[3, 4])));
    extensions.extend(extension(
        51,
        &sized::<2>(&[&[0, 29], &sized::<2>(&[9; 32])[..]].concat()),
    ));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized::<1>(&[]));
    body.extend(sized::<2>(&[0x13, 1, 0x13, 2, 0xc0, 0x2b]));
    body.extend(sized::<1>(&[0]));
    body.extend(sized::<2>(&extensions));
    [&[1], &sized::<3>(&body)[..]].concat()
}

pub(crate) fn record(kind: u8, version: [u8; 2], content: &[u8]) -> Vec<u8> {
    [&[kind], &version[..], &sized::<2>(content)].concat()
}

/// A client's first message with these extensions before the usual ones, in one record.
pub(crate) fn hello(first: &[Vec<u8>]) -> Vec<u8> {
    record(22, [3, 1], &hello_message(first))
}
