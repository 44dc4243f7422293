use std::io;
use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::policy::Scheme;

/// Files in memory, of which writes may fail.
#[derive(Default)]
struct Memory {
    files: Vec<Vec<u8>>,
    file: Vec<u8>,
    is_full: bool,
}

impl Store for &mut Memory {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.extend(line);
        Ok(())
    }

    fn len(&self) -> u64 {
        self.file.len().try_into().unwrap()
    }

    fn rotate(&mut self) -> io::Result<()> {
        let file = std::mem::take(&mut self.file);
        self.files.push(file);
        Ok(())
    }
}

fn record(text: &str) -> Record {
    Record {
        event: Event::Denied,
        flow: Some(1),
        host: Some(text.to_owned()),
        port: Some(443),
        scheme: Some(Scheme::Https),
        address: Some(SocketAddr::from(([192, 0, 2, 1], 443))),
        request: Some((text.to_owned(), text.to_owned())),
        verdict: Some(Verdict::Deny),
        reason: Some(text.to_owned()),
        rule: Some(text.to_owned()),
        from: Some(text.to_owned()),
        ..Record::lost(1_234_567_890_123, 0)
    }
}

/// A log of some records.
fn written(count: usize) -> (Vec<u8>, Digest) {
    let mut memory = Memory::default();
    let mut log = Log::new(&mut memory, Digest::default(), "box", u64::MAX);
    for number in 0..count {
        log.write(&record(&format!("{number}.example"))).unwrap();
    }
    let head = log.head();
    (memory.file, head)
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Whether who knows the head finds `log` to be another than the one with that head.
fn is_found(log: &[u8], head: Digest) -> bool {
    verify(log, Some(Digest::default())).map_or(true, |verified| verified.head != head)
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_line_says_what_happened() {
    let mut told = record("a.example");
    told.request = Some(("GET".into(), "/x?key=".into()));
    told.rule = None;
    told.from = None;
    told.reason = None;
    told.event = Event::Ended {
        sent: 1,
        received: 2,
        ms: 3,
    };
    let zeros = "0".repeat(64);
    assert_eq!(
        told.line(&Digest::default(), "box"),
        format!(
            "{{\"prev\":\"{zeros}\",\"time\":\"2009-02-13T23:31:30.123Z\",\"sandbox\":\"box\",\"event\":\"ended\",\"flow\":1,\
             \"host\":\"a.example\",\"port\":443,\"scheme\":\"https\",\"address\":\"192.0.2.1:443\",\"method\":\"GET\",\
             \"path\":\"/x?key=\",\"verdict\":\"deny\",\"sent\":1,\"received\":2,\"ms\":3}}"
        )
    );
    assert_eq!(Digest::parse(zeros.as_bytes()), Some(Digest::default()));
}

#[test]
fn a_digest_is_that_of_sha_256() {
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Digest::of(b"abc").to_string(), abc);
    assert_eq!(Digest::parse(abc.as_bytes()), Some(Digest::of(b"abc")));
    for text in [&abc[1..], &abc.to_uppercase(), &format!("{abc}00"), ""] {
        assert_eq!(Digest::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn the_longest_record_is_within_the_longest_line() {
    for text in [
        "\u{1}",
        "\u{7f}",
        "\u{202e}",
        "\u{e0041}",
        "\u{80}",
        "\"",
        "x",
    ] {
        let mut longest = record(&text.repeat(100_000));
        longest.event = Event::Ended {
            sent: u64::MAX,
            received: u64::MAX,
            ms: u64::MAX,
        };
        let line = longest.line(&Digest::default(), &text.repeat(1000));
        assert!(line.len() < MAX_LINE, "{} bytes of {text:?}", line.len());
        let line = format!("{line}\n");
        verify(line.as_bytes(), None).unwrap();
    }
    let host = read(&record(&"ü".repeat(1000)).line(&Digest::default(), ""));
    let host = host["host"].as_str().unwrap();
    assert!(
        host.ends_with("ü...") && host.len() <= LONGEST_TEXT,
        "{host}"
    );
}

#[test]
fn a_rotated_log_goes_on_where_it_was() {
    let mut memory = Memory::default();
    let mut log = Log::new(&mut memory, Digest::default(), "box", 2000);
    for number in 0..50 {
        log.write(&record(&number.to_string())).unwrap();
    }
    let head = log.head();
    let mut files = memory.files;
    files.push(memory.file);
    assert!(files.len() > 5);
    let (mut from, mut count) = (Digest::default(), 0);
    for file in &files {
        assert!(file.len() <= 2000);
        let verified = verify(&**file, Some(from)).unwrap();
        assert_eq!(verified.begin, from);
        (from, count) = (verified.head, count + verified.lines);
    }
    assert_eq!((from, count), (head, 50));
    // By itself each file is in order, and without the one between them two are not.
    verify(&*files[2], None).unwrap();
    let gap = [&*files[0], &*files[2]].concat();
    assert!(matches!(
        verify(&*gap, None).unwrap_err().fault,
        Fault::Follows
    ));
}

#[test]
fn what_cannot_be_written_is_counted() {
    let mut memory = Memory::default();
    let mut log = Log::new(&mut memory, Digest::default(), "box", u64::MAX);
    log.write(&record("first")).unwrap();
    log.store.is_full = true;
    for _ in 0..3 {
        assert!(log.write(&record("lost")).is_err());
    }
    assert!(log.write(&Record::lost(0, 4)).is_err());
    log.count_lost(2);
    assert_eq!(log.lost(), 9);
    log.store.is_full = false;
    log.write(&record("next")).unwrap();
    assert_eq!(log.lost(), 0);
    assert_eq!(verify(&*memory.file, None).unwrap().lines, 3);
    let text = String::from_utf8(memory.file).unwrap();
    let told = read(text.lines().nth(1).unwrap());
    assert_eq!(
        (&told["event"], &told["records"]),
        (&"lost".into(), &9.into())
    );
}

#[test]
fn who_reads_on_gets_the_lines_behind_one_that_does_not_fit() {
    let (log, _) = written(4);
    let whole = lines(&log);
    let broken = [whole[0], whole[2], whole[3], b"garbage\n", whole[3]].concat();
    let mut read = Lines::new(&*broken, Some(Digest::default()));
    let mut seen = Vec::new();
    loop {
        let fault = match read.read() {
            Ok(None) => break,
            Ok(Some(_)) => None,
            Err(broken) => Some((broken.line, broken.fault.to_string())),
        };
        seen.push((read.line().to_vec(), fault));
    }
    let line = |at: usize| whole[at].trim_ascii_end().to_vec();
    let follows = |line| Some((line, "it does not continue the line before it".to_owned()));
    let no_record = Some((4, "it is no record of an audit log".to_owned()));
    let expected = [
        (line(0), None),
        (line(2), follows(2)),
        (line(3), None),
        (b"garbage".to_vec(), no_record),
        (line(3), follows(5)),
    ];
    assert_eq!(seen, expected);
    assert_eq!(read.verified().lines, 5);
}

#[test]
fn a_verifier_says_which_line_it_is() {
    let (log, head) = written(4);
    let verified = verify(&*log, None).unwrap();
    assert_eq!((verified.lines, verified.head), (4, head));
    assert_eq!(verify(&b""[..], None).unwrap().head, Digest::default());
    let lines = lines(&log);
    let broken = |log: &[u8]| {
        let broken = verify(log, Some(Digest::default())).unwrap_err();
        (broken.line, broken.fault.to_string())
    };
    let follows = "it does not continue the line before it".to_owned();
    let no_record = "it is no record of an audit log".to_owned();
    assert_eq!(broken(&lines[1..].concat()), (1, follows.clone()));
    assert_eq!(broken(&[lines[0], lines[2]].concat()), (2, follows.clone()));
    assert_eq!(
        broken(&[lines[0], lines[1], lines[1]].concat()),
        (3, follows)
    );
    let cut = &log[..log.len() - 1];
    assert_eq!(broken(cut), (4, "its end is missing".to_owned()));
    assert_eq!(broken(&[lines[0], b"\n"].concat()), (2, no_record.clone()));
    let long = [lines[0], &vec![b'x'; MAX_LINE + 1]].concat();
    assert_eq!(broken(&long), (2, no_record.clone()));
    let prev = Digest::of(lines[0].trim_ascii_end());
    for bad in [
        format!("{{\"prev\":\"{prev}\",\"a\":\"\x1b\"}}\n"),
        format!("{{\"prev\":\"{prev}\"\n"),
        format!("{{\"prev\":\"{prev}\"}}\n"),
        format!("{{\"prev\":\"{prev}0\",\"a\":\"\"}}\n"),
    ] {
        assert_eq!(
            broken(&[lines[0], bad.as_bytes()].concat()),
            (2, no_record.clone()),
            "{bad}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_comes_back_and_nothing_raw_is_in_the_line(text in "\\PC{0,40}|.{0,40}|[\\x00-\\x20\"\\\\\u{202a}-\u{202e}\u{2066}-\u{2069}\u{feff}\u{10ffff}]{0,40}") {
        let line = record(&text).line(&Digest::default(), &text);
        prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        let value = read(&line);
        for key in ["sandbox", "host", "method", "path", "reason", "rule", "from"] {
            prop_assert_eq!(value[key].as_str(), Some(&*text));
        }
        prop_assert_eq!(value.as_object().unwrap().len(), 15);
    }

    #[test]
    fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), to: u8) {
        let (mut log, head) = written(5);
        let at = at.index(log.len());
        prop_assume!(log[at] != to);
        log[at] = to;
        prop_assert!(is_found(&log, head));
    }

    #[test]
    fn other_lines_or_another_order_are_found(order in vec(0..5_usize, 0..7)) {
        let (log, head) = written(5);
        prop_assume!(order != [0, 1, 2, 3, 4]);
        let lines = lines(&log);
        let other: Vec<u8> = order.iter().flat_map(|at| lines[*at]).copied().collect();
        prop_assert!(is_found(&other, head));
        // Without the head too, unless only the end is missing.
        let is_begin = order.iter().copied().eq(0..order.len());
        prop_assert_eq!(verify(&*other, Some(Digest::default())).is_ok(), is_begin);
    }

    #[test]
    fn whatever_is_read_ends_without_a_panic(bytes in vec(any::<u8>(), 0..300)) {
        let begin = bytes.starts_with(b"{\"prev\":\"");
        prop_assert!(begin || bytes.is_empty() || verify(&*bytes, None).is_err());
    }
}
