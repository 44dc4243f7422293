//! DNS messages written and read by hand, so that the library does not judge itself.

/// `labels` joined by dots, on the wire.
pub(super) fn name(text: &str) -> Vec<u8> {
    let labels: Vec<&[u8]> = text.split('.').map(str::as_bytes).collect();
    name_of(if text.is_empty() { &[] } else { &labels })
}

pub(super) fn name_of(labels: &[&[u8]]) -> Vec<u8> {
    let mut wire = Vec::new();
    for label in labels {
        wire.push(u8::try_from(label.len()).unwrap());
        wire.extend_from_slice(label);
    }
    wire.push(0);
    wire
}

/// A query with this question and RD.
pub(super) fn query(name: &[u8], kind: u16, class: u16) -> Vec<u8> {
    let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(name);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&class.to_be_bytes());
    query
}

pub(super) fn ask(text: &str, kind: u16) -> Vec<u8> {
    query(&name(text), kind, 1)
}

pub(super) fn ask_labels(labels: &[&[u8]]) -> Vec<u8> {
    query(&name_of(labels), 1, 1)
}

/// The same query with one octet changed.
pub(super) fn with(mut query: Vec<u8>, offset: usize, octet: u8) -> Vec<u8> {
    query[offset] = octet;
    query
}

/// The same query with one more additional record.
pub(super) fn with_record(mut query: Vec<u8>, record: &[u8]) -> Vec<u8> {
    query[11] += 1;
    query.extend_from_slice(record);
    query
}

pub(super) fn with_opt(query: Vec<u8>, size: u16, version: u8, flags: u16, data: &[u8]) -> Vec<u8> {
    with_record(query, &opt(size, version, flags, data))
}

pub(super) fn opt(size: u16, version: u8, flags: u16, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 41];
    record.extend_from_slice(&size.to_be_bytes());
    record.extend_from_slice(&[0, version]);
    record.extend_from_slice(&flags.to_be_bytes());
    record.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    record.extend_from_slice(data);
    record
}

#[derive(Debug)]
pub(super) struct Record {
    /// Uncompressed.
    pub(super) name: Vec<u8>,
    pub(super) kind: u16,
    pub(super) class: u16,
    pub(super) ttl: u32,
    pub(super) data: Vec<u8>,
}

/// An answer, taken apart. It panics at whatever is not as it should be.
pub(super) struct Reply {
    /// As it is on the wire; empty without one.
    pub(super) question: Vec<u8>,
    pub(super) answers: Vec<Record>,
    pub(super) authorities: Vec<Record>,
    pub(super) opt: Option<Record>,
    /// With EDNS's part.
    pub(super) code: u16,
}

impl Reply {
    pub(super) fn parse(octets: &[u8]) -> Self {
        let count = |at: usize| u16::from_be_bytes([octets[at], octets[at + 1]]);
        let mut at = 12;
        if count(4) == 1 {
            read_name(octets, &mut at);
            at += 4;
        }
        assert!(count(4) <= 1);
        let question = octets[12..at].to_vec();
        let mut records = |count| (0..count).map(|_| read_record(octets, &mut at)).collect();
        let answers = records(count(6));
        let authorities = records(count(8));
        let mut additionals: Vec<Record> = records(count(10));
        assert_eq!(at, octets.len(), "nothing behind the message");
        let opt = additionals.pop();
        assert!(additionals.is_empty());
        assert!(
            opt.as_ref()
                .is_none_or(|opt| opt.kind == 41 && opt.name == [0])
        );
        let high = opt.as_ref().map_or(0, |opt| opt.ttl >> 24);
        let code = u16::from(octets[3] & 0x0f) | u16::try_from(high << 4).unwrap();
        Self {
            question,
            answers,
            authorities,
            opt,
            code,
        }
    }

    pub(super) fn asked_name(&self) -> &[u8] {
        &self.question[..self.question.len() - 4]
    }
}

fn read_record(octets: &[u8], at: &mut usize) -> Record {
    let name = read_name(octets, at);
    let fixed = &octets[*at..*at + 10];
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    *at += 10 + length;
    Record {
        name,
        kind: u16::from_be_bytes([fixed[0], fixed[1]]),
        class: u16::from_be_bytes([fixed[2], fixed[3]]),
        ttl: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
        data: octets[*at - length..*at].to_vec(),
    }
}

/// A name without compression; `at` is behind it afterwards. Pointers go backwards only.
fn read_name(octets: &[u8], at: &mut usize) -> Vec<u8> {
    let start = *at;
    let mut name = Vec::new();
    loop {
        let length = octets[*at];
        if length >= 0xc0 {
            let target = usize::from(u16::from_be_bytes([length & 0x3f, octets[*at + 1]]));
            assert!((12..start).contains(&target), "pointer to {target}");
            *at += 2;
            name.extend(read_name(octets, &mut { target }));
            return name;
        }
        assert!(length < 64);
        let end = *at + 1 + usize::from(length);
        name.extend_from_slice(&octets[*at..end]);
        *at = end;
        if length == 0 {
            return name;
        }
    }
}
