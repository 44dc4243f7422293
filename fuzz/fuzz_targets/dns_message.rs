//! Queries to the resolver: what is answered is what was asked, and the policy is asked about the very name that the query has.
#![no_main]

use std::net::Ipv4Addr;

use cofferdam_fuzz::Input;
use libfuzzer_sys::fuzz_target;
use netproxy::HostName;
use netproxy::dns::{Answer, LONGEST_ANSWER, Zone, answer};

struct Recorder(Vec<HostName>);

impl Zone for Recorder {
    fn resolve(&mut self, name: &HostName) -> Answer {
        self.0.push(name.clone());
        match name.as_str().len() % 3 {
            0 => Answer::Denied,
            1 => Answer::Address(Ipv4Addr::new(198, 18, 0, 1)),
            _ => Answer::Unavailable,
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let query = query(&mut Input::new(bytes));
    let mut zone = Recorder(Vec::new());
    let answered = answer(&query, &mut zone);
    assert!(zone.0.len() <= 1);
    if let Some(name) = zone.0.first() {
        assert_eq!(name_of(&query), Some(name.as_str().to_owned()));
    }
    let Some(answered) = answered else {
        assert!(query.len() < 12 || query[2] & 0x80 != 0, "{query:?}");
        return;
    };
    assert!((12..=LONGEST_ANSWER).contains(&answered.len()));
    assert_eq!(answered[..2], query[..2], "another number");
    assert_eq!(
        answered[2] & 0xf8,
        query[2] & 0x78 | 0x80,
        "{:#x}",
        answered[2]
    );
    let questions = u16::from_be_bytes([answered[4], answered[5]]);
    let records = u16::from_be_bytes([answered[6], answered[7]]);
    assert!(questions <= 1 && records <= questions);
    if questions == 1 {
        let end = 12
            + query[12..]
                .iter()
                .position(|byte| *byte == 0)
                .map_or(0, |at| at + 5);
        // The name in the letters in which it was asked, and its type and class.
        let same = name_of(&query).is_none() || answered[12..].starts_with(&query[12..end]);
        assert!(same, "{query:?} {answered:?}");
    }
    // An answer is not answered again.
    assert_eq!(answer(&answered, &mut Recorder(Vec::new())), None);
});

/// The name of the first question, by a reader of its own: labels of what names of hosts have, and nothing else.
fn name_of(query: &[u8]) -> Option<String> {
    let mut rest = query.get(12..)?;
    let mut name = String::new();
    loop {
        let (len, behind) = rest.split_first()?;
        if *len == 0 {
            return Some(name);
        }
        let (label, behind) = behind.split_at_checked(usize::from(*len))?;
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
        if *len > 63 || !label.iter().all(is_host) {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_lowercase());
        rest = behind;
    }
}

/// A query that is good, but for what the input changes.
fn query(input: &mut Input<'_>) -> Vec<u8> {
    let kind = input.u8();
    if kind & 7 == 7 {
        return input.rest().to_vec();
    }
    let mut query = vec![input.u8(), input.u8(), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    if kind & 0x10 != 0 {
        let at = 2 + input.below(10);
        query[at] = input.u8();
    }
    for _ in 0..input.below(6) {
        let label = match input.below(4) {
            0 => input.blob(),
            1 => b"xn--bcher-kva",
            2 => b"WWW",
            _ => b"example",
        };
        query.push(if kind & 0xe0 == 0xe0 {
            input.u8()
        } else {
            u8::try_from(label.len()).unwrap_or(0)
        });
        query.extend(label);
    }
    if kind & 0xe0 == 0x60 {
        query.extend(input.array::<2>());
    } else {
        query.push(0);
    }
    query.extend([
        0,
        input.choose(&[1, 28, 65, 255, 16]),
        0,
        input.choose(&[1, 1, 1, 3]),
    ]);
    if kind & 8 != 0 {
        query[11] = 1;
        query.extend([0, 0, 41, 4, 0xd0, 0, input.u8() & 1, 0, 0]);
        let options = input.blob();
        query.extend([0, u8::try_from(options.len()).expect("a blob's")]);
        query.extend(options);
    }
    query
}
