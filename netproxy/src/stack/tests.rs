use super::*;
use crate::link::{self, Record};

#[test]
fn a_new_driver_gets_whole_records() {
    let stack = Stack::new(Network::default());
    stack.answer_dns(5353, b"answer");
    // The link took a part of the record; then the driver starts again.
    let mut sent = Vec::new();
    stack
        .flush(|records| {
            sent.extend_from_slice(records.get(..5).unwrap());
            Ok::<_, ()>(5)
        })
        .unwrap();
    stack.start(Offloads::default());
    stack.answer_dns(5353, b"another");
    stack
        .flush(|records| {
            sent.extend_from_slice(records);
            Ok::<_, ()>(records.len())
        })
        .unwrap();
    let mut rest = sent.as_slice();
    for expected in [b"answer".as_slice(), b"another"] {
        let (record, behind) = link::split(rest).unwrap().unwrap();
        let Record::Frame(frame) = record else {
            panic!("{record:?}")
        };
        assert!(frame.ends_with(expected), "{frame:?}");
        rest = behind;
    }
    assert!(rest.is_empty());
}
