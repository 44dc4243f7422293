//! First bytes of a client: what they are taken for does not change with what follows, or with the pieces in which they come, and a name that is found
//! is in them.
#![no_main]

use cofferdam_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use netproxy::first_bytes::{FirstBytes, recognise};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let kind = input.u8();
    let said = match kind & 3 {
        0 => input.rest().to_vec(),
        _ => hello(kind, &mut input),
    };
    let whole = recognise(&said);
    if let Some(FirstBytes::Tls(name)) = &whole {
        // Without the records between its letters.
        let text: Vec<u8> = message(&said).iter().map(u8::to_ascii_lowercase).collect();
        let name = name.as_str().as_bytes();
        assert!(
            text.windows(name.len()).any(|part| part == name),
            "{whole:?}"
        );
        // Nothing within may be read by somebody else as another.
        let hidden = [[0xfe, 0x0d], [0xff, 0xce], [0xfd, 0]];
        let kinds = extensions(&message(&said));
        assert!(!kinds.iter().any(|kind| hidden.contains(kind)), "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == [0, 0]).count(), 1);
    }
    let step = 1 + said.len() / 64;
    let mut seen = None;
    for len in (0..=said.len()).step_by(step) {
        let now = recognise(&said[..len]);
        if seen.is_some() {
            assert_eq!(now, seen, "{len} of {}", said.len());
        }
        seen = now;
    }
    if seen.is_some() {
        assert_eq!(whole, seen);
    }
});

/// What records of a handshake hold, as far as they are whole.
fn message(mut records: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, _, _, high, low, rest @ ..] = records {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        records = &rest[len..];
    }
    message
}

/// The kinds of a hello's extensions, by a reader of its own.
fn extensions(message: &[u8]) -> Vec<[u8; 2]> {
    let len = |bytes: &[u8], at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let session = 38 + 1 + usize::from(message[38]);
    let ciphers = session + 2 + len(message, session);
    let compressions = ciphers + 1 + usize::from(message[ciphers]);
    let mut at = compressions + 2;
    let end = at + len(message, compressions);
    let mut kinds = Vec::new();
    while at < end {
        kinds.push([message[at], message[at + 1]]);
        at += 4 + len(message, at + 2);
    }
    kinds
}

fn sized(len_of_len: usize, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    [&len[4 - len_of_len..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &sized(2, content)[..]].concat()
}

/// A hello that is good, but for what the input changes.
fn hello(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let mut extensions = Vec::new();
    for _ in 0..input.below(6) {
        extensions.extend(match input.below(8) {
            0 | 1 => {
                let name = input.choose(&[
                    &b"a.example"[..],
                    b"B.EXAMPLE.",
                    b"127.0.0.1",
                    b"xn--bcher-kva.example",
                ]);
                extension(0, &sized(2, &[&[0], &sized(2, name)[..]].concat()))
            }
            2 => extension(
                0,
                &sized(
                    2,
                    &[&[input.u8() & 1], &sized(2, input.blob())[..]].concat(),
                ),
            ),
            3 => extension(0, input.blob()),
            4 => extension(
                input.choose(&[0xfe0d, 0xffce, 0xfd00, 0x0a0a]),
                input.blob(),
            ),
            5 => extension(43, &sized(1, &[3, 4, 3, 3])),
            6 => extension(16, &sized(2, &sized(1, b"h2"))),
            _ => extension(input.u16(), input.blob()),
        });
    }
    extensions.extend(extension(10, &sized(2, &[0, 29])));
    extensions.extend(extension(13, &sized(2, &[4, 3, 8, 4])));
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(sized(1, &[]));
    body.extend(sized(2, &[0x13, 1, 0xc0, 0x2b]));
    body.extend(sized(1, &[0]));
    body.extend(sized(2, &extensions));
    let mut message = [&[1], &sized(3, &body)[..]].concat();
    for _ in 0..kind >> 2 & 1 {
        let at = usize::from(input.u16()) % message.len();
        message[at] = input.u8();
    }
    let size = match kind >> 3 & 3 {
        0 | 1 => message.len(),
        _ => 1 + usize::from(input.u8()),
    };
    let mut records = Vec::new();
    for piece in message.chunks(size) {
        records.extend([22, 3, 1]);
        records.extend(sized(2, piece));
        if kind & 0xe0 == 0xe0 {
            records.extend(input.blob());
        }
    }
    records.extend(input.rest());
    records
}
