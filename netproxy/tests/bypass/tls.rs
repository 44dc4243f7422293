//! First messages of TLS to a name that is allowed, on its port for TLS: nothing is carried unless they are for that name, and for it alone.

use crate::bench::Bench;
use crate::craft::{extension, hello, hello_message, record, sized, sni, sni_list};
use crate::table::{Attack, Technique, Verdict, in_every_state};

const V10: [u8; 2] = [3, 1];

/// The server's name in a hello: what is not the connection's own, in this one spelling.
const NAMES: [(&str, &str, &str); 25] = [
    ("H06", "another allowed name", "rebind.example"),
    ("H06", "another name", "evil.host"),
    ("H06", "a name below", "x.a.host"),
    ("H06", "the name above", "host"),
    ("P06", "the name with something before", "xa.host"),
    ("P06", "the name with something behind", "a.host.evil.test"),
    ("P04", "NUL behind", "a.host\0"),
    ("P04", "NUL and another name behind", "a.host\0.evil.test"),
    ("P04", "another name and NUL before", "evil.test\0a.host"),
    ("P04", "a space", "a.host "),
    ("P04", "a space before", " a.host"),
    ("P04", "CR LF", "a.host\r\n"),
    ("P04", "a port", "a.host:443"),
    ("P04", "a user", "evil@a.host"),
    ("P04", "a percent escape", "a%2ehost"),
    ("P04", "a slash", "a.host/"),
    ("P04", "two dots behind", "a.host.."),
    ("P04", "a dot before", ".a.host"),
    ("P04", "two dots within", "a..host"),
    ("D07", "a full-width letter", "\u{ff41}.host"),
    ("D07", "an ideographic full stop", "a\u{3002}host"),
    ("P06", "a star", "*.host"),
    ("H06", "an IPv4 address", "127.0.0.1"),
    ("H06", "an IPv6 address", "::1"),
    ("P02", "an address as a number", "2130706433"),
];

fn names() -> Vec<Technique> {
    NAMES
        .into_iter()
        .map(|(row, name, text)| {
            let pieces = vec![hello(&[sni(text)])];
            let name = format!("TLS for: {name}");
            Technique::new(row, name, Attack::Say(443, pieces), Verdict::Reset)
        })
        .collect()
}

type Row = (&'static str, &'static str, Vec<u8>);

/// What names no server, or more than one.
#[rustfmt::skip] // one row a line
fn unclear() -> Vec<Row> {
    let own = || sni("a.host");
    let named = |list: &[(u8, &[u8])]| hello(&[sni_list(list)]);
    let outer = [
        &[0, 0, 1, 0, 1, 7],
        &sized::<2>(&[5; 32])[..],
        &sized::<2>(&[6; 100]),
    ]
    .concat();
    let behind = [
        &sized::<2>(&[&[0], &sized::<2>(b"a.host")[..]].concat())[..],
        b"evil",
    ]
    .concat();
    let no_null = [&sized::<2>(
        &[
            &[1],
            &sized::<2>(b"evil.host")[..],
            &[0],
            &sized::<2>(b"a.host"),
        ]
        .concat(),
    )[..]]
    .concat();
    vec![
        ("H06", "no name", hello(&[])),
        ("H06", "an empty name", named(&[(0, b"")])),
        ("H06", "an empty list of names", hello(&[extension(0, &sized::<2>(&[]))])),
        ("H06", "an empty extension for names", hello(&[extension(0, &[])])),
        ("H06", "two names, the right one first", named(&[(0, b"a.host"), (0, b"evil.host")])),
        ("H06", "two names, the right one last", named(&[(0, b"evil.host"), (0, b"a.host")])),
        ("H06", "the right name twice", named(&[(0, b"a.host"), (0, b"a.host")])),
        ("H06", "a name and one of an unknown kind", named(&[(0, b"a.host"), (1, b"evil.host")])),
        ("H06", "one of an unknown kind and a name", hello(&[extension(0, &no_null)])),
        ("H06", "a name of an unknown kind alone", named(&[(7, b"a.host")])),
        ("H06", "bytes behind the names", hello(&[extension(0, &behind)])),
        ("H06", "two extensions for names, the right one first", hello(&[own(), sni("evil.host")])),
        ("H06", "two extensions for names, the right one last", hello(&[sni("evil.host"), own()])),
        ("T07", "an encrypted hello within", hello(&[own(), extension(0xfe0d, &outer)])),
        ("T07", "an encrypted hello before the name", hello(&[extension(0xfe0d, &outer), own()])),
        ("T07", "the inner one of an encrypted hello", hello(&[own(), extension(0xfe0d, &[1])])),
        ("T07", "an encrypted name, as drafts had it", hello(&[own(), extension(0xffce, &outer)])),
        ("T07", "extensions of an encrypted hello outside of it", hello(&[own(), extension(0xfd00, &[2, 0, 10])])),
    ]
}

/// What is no hello, or not in the form of one.
#[rustfmt::skip] // one row a line
fn malformed() -> Vec<Row> {
    let message = hello_message(&[sni("a.host")]);
    let split = message.len() / 2;
    let with_between = |kind: u8, content: &[u8]| {
        let between = record(kind, V10, content);
        [
            record(22, V10, &message[..split]),
            between,
            record(22, V10, &message[split..]),
        ]
        .concat()
    };
    let evil = hello_message(&[sni("evil.host")]);
    let longer = |message: &[u8], by: u8| {
        let mut longer = message.to_vec();
        longer[3] = longer[3].wrapping_add(by);
        longer
    };
    let v2 = [&[0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10][..], &[1; 37]].concat();
    vec![
        ("T06", "SSL 2", v2),
        ("T06", "an alert first", [record(21, V10, &[1, 0]), hello(&[sni("a.host")])].concat()),
        ("T06", "a change of ciphers first", [record(20, V10, &[1]), hello(&[sni("a.host")])].concat()),
        ("T06", "data first", [record(23, V10, b"x"), hello(&[sni("a.host")])].concat()),
        ("T06", "an alert within", with_between(21, &[1, 0])),
        ("T06", "data within", with_between(23, b"x")),
        ("T06", "a heartbeat within", with_between(24, &[1, 0, 4])),
        ("T06", "an empty record first", [record(22, V10, &[]), hello(&[sni("a.host")])].concat()),
        ("T06", "a record over 16 KiB", record(22, V10, &[&message, &vec![0; 17000][..]].concat())),
        ("T06", "a hello longer than its record", record(22, V10, &longer(&message, 1))),
        ("T06", "a hello shorter than its record", record(22, V10, &[&message[..], b"x"].concat())),
        ("T06", "two hellos in one record, the right one first", record(22, V10, &[&message[..], &evil].concat())),
        ("T06", "two hellos in one record, the right one last", record(22, V10, &[&evil[..], &message].concat())),
        ("T06", "a server's hello", record(22, V10, &[&[2], &message[1..]].concat())),
        ("T06", "a request for a hello", record(22, V10, &[0, 0, 0, 0])),
        ("T06", "a hello without extensions", record(22, V10, &[&[1], &sized::<3>(&[&[3, 3], &[7; 32][..], &[0, 0, 2, 0x13, 1, 1, 0]].concat())[..]] .concat())),
        ("T06", "a record of version 0.0", record(22, [0, 0], &message[..8])),
        ("T06", "a hello of 64 KiB and more", record(22, V10, &[1, 1, 0, 0])),
        ("T06", "a hello of 16 MiB", record(22, V10, &[1, 0xff, 0xff, 0xff])),
        ("T06", "a hello that is cut", hello(&[sni("a.host")])[..60].to_vec()),
        ("T06", "a record that is cut in its header", vec![22, 3, 1]),
        ("T07", "HTTP", b"GET / HTTP/1.1\r\nHost: a.host\r\n\r\n".to_vec()),
        ("T07", "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("T07", "SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("T07", "SMTP and STARTTLS", b"EHLO x\r\nSTARTTLS\r\n".to_vec()),
        ("T07", "PostgreSQL asking for TLS", vec![0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f]),
        ("T07", "SOCKS 5", vec![5, 1, 0]),
        ("T07", "SOCKS 4", vec![4, 1, 0, 80, 127, 0, 0, 1, 0]),
        ("T07", "a proxy's header", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec()),
        ("T07", "a proxy's header, binary", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec()),
        ("H05", "CONNECT", b"CONNECT evil.host:443 HTTP/1.1\r\nHost: evil.host\r\n\r\n".to_vec()),
    ]
}

/// What is for the right name, in whatever pieces: it is carried as it came.
#[rustfmt::skip] // one row a line
fn allowed() -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
    let message = hello_message(&[sni("a.host")]);
    let whole = hello(&[sni("a.host")]);
    let records = |size: usize| -> Vec<u8> {
        let pieces = message.chunks(size);
        pieces.flat_map(|piece| record(22, V10, piece)).collect()
    };
    let long = [sni("a.host"), extension(21, &vec![0; 17_000])];
    let long: Vec<u8> = hello_message(&long)
        .chunks(16_000)
        .flat_map(|piece| record(22, V10, piece))
        .collect();
    vec![
        ("T06", "in one segment", vec![whole.clone()]),
        ("T06", "each byte a segment", whole.chunks(1).map(<[u8]>::to_vec).collect()),
        ("T06", "cut within the name", vec![whole[..65].to_vec(), whole[65..].to_vec()]),
        ("T06", "each byte a record", vec![records(1)]),
        ("T06", "records of seven bytes", vec![records(7)]),
        ("T06", "longer than a record", vec![long]),
        ("H06", "in capitals", vec![hello(&[sni("A.HOST")])]),
        ("H06", "with a dot behind", vec![hello(&[sni("a.host.")])]),
        ("T06", "a record of SSL 3", vec![record(22, [3, 0], &message)]),
        ("T06", "with the reserved extensions of clients that probe", vec![hello(&[extension(0x0a0a, &[]), sni("a.host"), extension(0x1a1a, &[0])])]),
    ]
}

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let mut all = names();
    for (row, name, bytes) in unclear().into_iter().chain(malformed()) {
        let name = format!("TLS: {name}");
        all.push(Technique::new(
            row,
            name,
            Attack::Say(443, vec![bytes]),
            Verdict::Reset,
        ));
    }
    for (row, name, pieces) in allowed() {
        let name = format!("TLS that is allowed: {name}");
        all.push(Technique::new(
            row,
            name,
            Attack::Say(443, pieces),
            Verdict::Carried,
        ));
    }
    all
}

in_every_state!(techniques);
