//! Segments by hand: what no stack of a guest's kernel would send.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::bench::{Bench, State};
use crate::craft::{self, ACK, FIN, GATEWAY, PSH, RST, SYN, Tcp, URG};
use crate::table::{Attack, Technique, Verdict, in_every_state};

type Script = fn(&mut Bench) -> Verdict;

/// Far enough from the end of the numbers.
const FIRST: u32 = 1_000_000;
const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nHost: a.host\r\n\r\n";
const DENIED: &[u8] = b"GET /secret/x HTTP/1.1\r\nHost: a.host\r\n\r\n";

/// The guest's end of a connection to a port of `a.host`, without a stack.
struct Raw<'b> {
    bench: &'b mut Bench,
    to: SocketAddrV4,
    from: u16,
    /// The first number behind the SYN.
    first: u32,
    /// What came from the other side.
    acknowledged: u32,
    heard: Vec<u8>,
    is_reset: bool,
    is_over: bool,
}

impl<'b> Raw<'b> {
    /// Sends a SYN and waits for its answer.
    fn open(bench: &'b mut Bench, port: u16, first: u32, syn: Tcp<'_>) -> Self {
        let mut raw = Self::start(bench, port, first, syn);
        assert!(
            raw.wait(|raw| raw.acknowledged != 0 || raw.is_reset),
            "no answer to a SYN"
        );
        raw
    }

    fn start(bench: &'b mut Bench, port: u16, first: u32, syn: Tcp<'_>) -> Self {
        let to = SocketAddrV4::new(bench.address_of("a.host"), port);
        // Of each connection its own.
        let from = bench.next_port();
        bench.guest.keep_frames(true);
        let mut raw = Self {
            bench,
            to,
            from,
            first,
            acknowledged: 0,
            heard: Vec::new(),
            is_reset: false,
            is_over: false,
        };
        let sequence = first.wrapping_sub(1);
        raw.segment(Tcp {
            sequence,
            flags: SYN | syn.flags,
            ..syn
        });
        raw
    }

    /// A whole connection, so far.
    fn connected(bench: &'b mut Bench, port: u16) -> Self {
        let mut raw = Self::open(bench, port, FIRST, Tcp::default());
        raw.send(0, b"");
        raw
    }

    fn segment(&mut self, segment: Tcp<'_>) {
        let segment = Tcp {
            from: self.from,
            to: self.to.port(),
            ..segment
        };
        self.bench.guest.send_frame(&segment.frame(*self.to.ip()));
        self.bench.guest.turn();
    }

    /// Content at `offset` of the stream.
    fn send(&mut self, offset: u32, content: &[u8]) {
        self.send_with(offset, content, PSH, 0);
    }

    fn send_with(&mut self, offset: u32, content: &[u8], flags: u8, urgent: u16) {
        self.segment(Tcp {
            sequence: self.first.wrapping_add(offset),
            acknowledged: self.acknowledged,
            flags: ACK | flags,
            urgent,
            content,
            ..Tcp::default()
        });
    }

    fn wait(&mut self, mut until: impl FnMut(&Self) -> bool) -> bool {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            self.hear();
            if until(self) {
                return true;
            }
            if std::time::Instant::now() > end {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_micros(200));
            self.bench.guest.turn();
        }
    }

    fn hear(&mut self) {
        for frame in self.bench.guest.frames() {
            let is_ours = frame.get(23) == Some(&6) && frame[36..38] == self.from.to_be_bytes();
            if !is_ours {
                continue;
            }
            let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]);
            let flags = frame[47];
            let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            let content = &frame[34 + usize::from(frame[46] >> 4) * 4..14 + len];
            self.is_reset |= flags & RST != 0;
            if flags & SYN != 0 {
                self.acknowledged = sequence.wrapping_add(1);
            }
            // Only what is next: the rest is sent again.
            if sequence == self.acknowledged {
                self.heard.extend_from_slice(content);
                self.acknowledged = sequence.wrapping_add(u32::try_from(content.len()).unwrap());
                self.is_over |= flags & FIN != 0;
            }
        }
    }

    /// How requests were answered, when nothing more comes.
    fn verdict(mut self, requests: usize) -> Verdict {
        self.wait(|raw| {
            let bodies = craft::statuses(&raw.heard).len();
            bodies >= requests && raw.heard.len() > 40 * requests || raw.is_reset || raw.is_over
        });
        let statuses = craft::statuses(&self.heard);
        // It is not to go on into the next technique.
        let acknowledged = self.acknowledged;
        for offset in [0, 40, 80] {
            let sequence = self.first.wrapping_add(offset);
            self.segment(Tcp {
                sequence,
                acknowledged,
                flags: RST | ACK,
                ..Tcp::default()
            });
        }
        self.bench.guest.keep_frames(false);
        match (self.is_reset, statuses.is_empty()) {
            (true, true) => Verdict::Reset,
            _ => Verdict::Status(statuses),
        }
    }

    /// As [`Self::verdict`] of something that must not be answered: it is looked at for a while.
    fn quiet(mut self) -> Verdict {
        let end = std::time::Instant::now() + std::time::Duration::from_millis(100);
        self.wait(|_| std::time::Instant::now() > end);
        let heard = self.heard.len();
        self.bench.guest.keep_frames(false);
        match (self.is_reset, heard) {
            (true, 0) => Verdict::Reset,
            (false, 0) => Verdict::Silence,
            _ => Verdict::Answered(heard),
        }
    }
}

const DATA_IN_SYN: Script = |bench| {
    let syn = Tcp {
        content: DENIED,
        ..Tcp::default()
    };
    let mut raw = Raw::open(bench, 80, FIRST, syn);
    raw.send(0, b"");
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const OVERLAP_LATER: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    // What is sent again says something else; it was judged by what was said first.
    raw.send(0, &REQUEST[..6]);
    raw.send(0, &DENIED[..20]);
    raw.send(6, &REQUEST[6..]);
    raw.verdict(1)
};

const OVERLAP_EARLIER: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    // The end comes first; then what closes the gap says it again, differently.
    raw.send(6, &REQUEST[6..]);
    raw.send(0, &DENIED[..12]);
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const OVERLAP_HOST: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    raw.send(0, &REQUEST[..23]);
    raw.send(23, b"b");
    raw.send(23, &REQUEST[23..]);
    raw.verdict(1)
};

const URGENT: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    // Some stacks take the urgent byte out of the stream: the path would be another.
    raw.send_with(0, &DENIED[..8], PSH | URG, 8);
    raw.send(8, &DENIED[8..]);
    raw.verdict(1)
};

const URGENT_NOTHING: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    raw.send_with(0, REQUEST, PSH | URG, 0xffff);
    raw.verdict(1)
};

const BACKWARDS: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    // The server has to see it in order, and whole.
    let pieces: Vec<(u32, &[u8])> = (0..).step_by(3).zip(DENIED.chunks(3)).collect();
    for (offset, piece) in pieces.into_iter().rev() {
        raw.send(offset, piece);
    }
    // What did not fit the table of gaps is sent again.
    raw.send(0, DENIED);
    raw.verdict(1)
};

const FAR_RESET: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    let sequence = raw.first.wrapping_sub(1 << 20);
    raw.segment(Tcp {
        sequence,
        flags: RST,
        ..Tcp::default()
    });
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const SYN_WITHIN: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    let acknowledged = raw.acknowledged;
    raw.segment(Tcp {
        sequence: 77,
        flags: SYN,
        ..Tcp::default()
    });
    raw.acknowledged = acknowledged;
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const SIMULTANEOUS: Script = |bench| {
    let mut raw = Raw::open(bench, 80, FIRST, Tcp::default());
    let (sequence, acknowledged) = (raw.first.wrapping_sub(1), raw.acknowledged);
    raw.segment(Tcp {
        sequence,
        acknowledged,
        flags: SYN | ACK,
        ..Tcp::default()
    });
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const BLIND: Script = |bench| {
    let mut raw = Raw::open(bench, 80, FIRST, Tcp::default());
    // Whoever did not see the answer cannot say anything.
    raw.acknowledged = raw.acknowledged.wrapping_add(100_000);
    raw.send(0, REQUEST);
    raw.quiet()
};

const BEFORE_ACCEPTED: Script = |bench| {
    let mut raw = Raw::start(bench, 80, FIRST, Tcp::default());
    // As if the answer were here already.
    raw.send(0, DENIED);
    raw.quiet()
};

const BEYOND_WINDOW: Script = |bench| {
    let mut raw = Raw::connected(bench, 80);
    raw.send(10_000_000, DENIED);
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const WRAPS: Script = |bench| {
    let mut raw = Raw::open(bench, 80, u32::MAX - 7, Tcp::default());
    raw.send(0, b"");
    raw.send(0, DENIED);
    raw.verdict(1)
};

const LAST_NUMBER: Script = |bench| {
    let mut raw = Raw::open(bench, 80, 0, Tcp::default());
    raw.send(0, b"");
    raw.send(0, REQUEST);
    raw.verdict(1)
};

const WRONG_SUM: Script = |bench| {
    let raw = Raw::connected(bench, 80);
    let segment = Tcp {
        from: raw.from,
        to: 80,
        sequence: raw.first,
        acknowledged: raw.acknowledged,
        flags: ACK | PSH,
        content: REQUEST,
        ..Tcp::default()
    };
    // As every driver with offloads sends it.
    let mut frame = segment.frame(*raw.to.ip());
    frame[50] ^= 0xff;
    raw.bench.guest.send_frame(&frame);
    raw.verdict(1)
};

/// Options of a SYN that stacks have tripped over: the connection works none the less.
const fn options(which: u8) -> Script {
    match which {
        0 => |bench| with_options(bench, &[2, 4, 0, 0]),
        1 => |bench| with_options(bench, &[2, 4, 0, 1]),
        2 => |bench| with_options(bench, &[2, 4, 0xff, 0xff]),
        3 => |bench| with_options(bench, &[3, 3, 0xff, 0]),
        4 => |bench| with_options(bench, &[4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0]),
        5 => |bench| with_options(bench, &[34, 4, 1, 2]),
        _ => |bench| with_options(bench, &[30, 4, 0, 0x81]),
    }
}

fn with_options(bench: &mut Bench, options: &[u8]) -> Verdict {
    let syn = Tcp {
        options,
        ..Tcp::default()
    };
    let mut raw = Raw::open(bench, 80, FIRST, syn);
    raw.send(0, b"");
    raw.send(0, REQUEST);
    raw.verdict(1)
}

/// Segments of no connection, to a server that was never asked for.
fn strays() -> Vec<Technique> {
    let server = Ipv4Addr::new(93, 184, 215, 14);
    let segment = |flags: u8, options: &[u8], content: &[u8]| {
        let segment = Tcp {
            from: 1234,
            to: 443,
            sequence: 5,
            acknowledged: 6,
            flags,
            options,
            content,
            ..Tcp::default()
        };
        segment.frame(server)
    };
    let sack = [5, 10, 0, 0, 0, 9, 0, 0, 0, 5, 1, 1];
    [
        ("N03", "ACK", segment(ACK, &[], b""), Verdict::Reset),
        (
            "N03",
            "ACK with content",
            segment(ACK | PSH, &[], b"data"),
            Verdict::Reset,
        ),
        ("N03", "FIN", segment(FIN | ACK, &[], b""), Verdict::Reset),
        (
            "N03",
            "SYN and ACK",
            segment(SYN | ACK, &[], b""),
            Verdict::Reset,
        ),
        (
            "N03",
            "SYN and FIN",
            segment(SYN | FIN, &[], b""),
            Verdict::Silence,
        ),
        (
            "N03",
            "SYN and RST",
            segment(SYN | RST, &[], b""),
            Verdict::Silence,
        ),
        ("N03", "RST", segment(RST, &[], b""), Verdict::Silence),
        (
            "N03",
            "RST with content",
            segment(RST | ACK, &[], b"data"),
            Verdict::Silence,
        ),
        ("N03", "no flag", segment(0, &[], b"data"), Verdict::Reset),
        (
            "N03",
            "all flags but one",
            segment(!RST, &[], b""),
            Verdict::Silence,
        ),
        (
            "N03",
            "a hole that ends before it begins",
            segment(ACK, &sack, b""),
            Verdict::Reset,
        ),
        (
            "N01",
            "an option of no length",
            segment(ACK, &[2, 0, 0, 0], b""),
            Verdict::Silence,
        ),
        (
            "N01",
            "an option beyond the header",
            segment(ACK, &[1, 1, 2, 40], b""),
            Verdict::Silence,
        ),
        (
            "N01",
            "an option of one byte",
            segment(ACK, &[2, 1, 0, 0], b""),
            Verdict::Silence,
        ),
    ]
    .map(|(row, name, frame, verdict)| {
        Technique::new(
            row,
            format!("TCP of no connection: {name}"),
            Attack::Frame(frame),
            verdict,
        )
    })
    .into()
}

fn scripts() -> Vec<Technique> {
    let ok = || Verdict::Status(vec![200]);
    let denied = || Verdict::Status(vec![403]);
    let scripts: [(&str, &str, Script, Verdict); 23] = [
        (
            "N03",
            "data in a SYN, which is not taken",
            DATA_IN_SYN,
            ok(),
        ),
        (
            "N03",
            "a retransmission that says something else",
            OVERLAP_LATER,
            Verdict::Status(vec![400]),
        ),
        (
            "N03",
            "an overlap with what came before its turn",
            OVERLAP_EARLIER,
            Verdict::Status(vec![400]),
        ),
        (
            "N03",
            "an overlap within the host",
            OVERLAP_HOST,
            Verdict::Status(vec![421]),
        ),
        ("N03", "an urgent byte within the path", URGENT, denied()),
        (
            "N03",
            "an urgent pointer beyond the segment",
            URGENT_NOTHING,
            ok(),
        ),
        ("N03", "segments backwards", BACKWARDS, denied()),
        ("N03", "a reset from far away", FAR_RESET, ok()),
        ("N03", "a SYN within a connection", SYN_WITHIN, ok()),
        ("N03", "both sides open", SIMULTANEOUS, ok()),
        ("N09", "a guessed acknowledgement", BLIND, Verdict::Reset),
        (
            "N03",
            "data before the connection is accepted",
            BEFORE_ACCEPTED,
            Verdict::Reset,
        ),
        ("N03", "data beyond the window", BEYOND_WINDOW, ok()),
        ("N01", "numbers that wrap", WRAPS, denied()),
        ("N01", "the last number first", LAST_NUMBER, ok()),
        ("N01", "a wrong sum, which crossed no wire", WRONG_SUM, ok()),
        ("N01", "segments of no bytes", options(0), ok()),
        ("N01", "segments of one byte", options(1), ok()),
        ("N01", "segments of 65535 bytes", options(2), ok()),
        ("N01", "a window scaled by 255", options(3), ok()),
        (
            "N01",
            "timestamps and selective acknowledgements",
            options(4),
            ok(),
        ),
        ("N01", "a cookie of TCP Fast Open", options(5), ok()),
        ("N01", "several paths", options(6), ok()),
    ];
    scripts
        .into_iter()
        .map(|(row, name, script, verdict)| {
            Technique::new(row, format!("TCP: {name}"), Attack::Script(script), verdict)
        })
        .collect()
}

pub(crate) fn techniques(_: &Bench) -> Vec<Technique> {
    let mut all = scripts();
    all.extend(strays());
    for (row, name, port) in [
        ("D06", "DNS over TLS", 853),
        ("P11", "SSH", 22),
        ("P11", "HTTP", 80),
        ("P11", "Docker", 2375),
        ("P11", "the port of the forbidden server's TLS", 443),
        ("P11", "the last", 65535),
    ] {
        let attack = Attack::Connect(SocketAddrV4::new(GATEWAY, port));
        all.push(Technique::new(
            row,
            format!("the gateway's port: {name}"),
            attack,
            Verdict::Reset,
        ));
    }
    for (name, port) in [
        ("a.host", 22),
        ("a.host", 8080),
        ("a.host", 853),
        ("a.host", 1),
        ("rebind.example", 443),
        ("rebind.example", 80),
        ("x.w.example", 80),
        ("x.w.example", 22),
    ] {
        let attack = Attack::Name(name, port);
        let text = format!("a port that is not allowed: {name}:{port}");
        all.push(Technique::new("D02", text, attack, Verdict::Reset));
    }
    all
}

in_every_state!(techniques);

/// Row N09: sequence numbers that come out of nothing that a guest sees.
#[test]
fn first_numbers_differ_in_all_their_bits() {
    const SAMPLES: usize = 256;
    let mut bench = Bench::in_state(State::Fresh);
    let mut seen: Vec<u32> = (0..SAMPLES)
        .map(|_| {
            let mut raw = Raw::open(&mut bench, 7, FIRST, Tcp::default());
            let number = raw.acknowledged;
            raw.send_with(0, b"", RST, 0);
            raw.bench.guest.keep_frames(false);
            number
        })
        .collect();
    for bit in 0..32 {
        let set = seen.iter().filter(|number| *number >> bit & 1 == 1).count();
        // Six and more standard deviations from the middle.
        assert!((80..=176).contains(&set), "bit {bit}: {set} of {SAMPLES}");
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), SAMPLES);
}
