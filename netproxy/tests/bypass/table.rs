//! A technique, and how one is tried.

use std::net::{IpAddr, SocketAddrV4};

use netproxy::DroppedFrame;
use netproxy::testkit::{Connection, End};

use crate::bench::{Bench, State, Told};
use crate::craft;
use crate::server::TLS_GREETING;

/// One way past the policy, or what must go on working.
pub(crate) struct Technique {
    pub(crate) name: String,
    /// Its row in the catalogue of attacks.
    pub(crate) row: &'static str,
    pub(crate) attack: Attack,
    pub(crate) expected: Verdict,
}

/// What the guest does.
pub(crate) enum Attack {
    /// Sends a frame.
    Frame(Vec<u8>),
    /// Sends bytes over its link that need be no record of a frame.
    Record(Vec<u8>),
    /// Asks the resolver this.
    Query(Vec<u8>),
    /// Asks it over TCP.
    QueryOverTcp(Vec<u8>),
    /// Connects.
    Connect(SocketAddrV4),
    /// Connects to a name that is allowed, and has these addresses.
    Answers(Vec<IpAddr>),
    /// Connects to a port of a name that has an address.
    Name(&'static str, u16),
    /// By hand.
    Script(fn(&mut Bench) -> Verdict),
    /// Connects to a port of `a.host`, which is allowed, and says this, each piece in a segment of its own.
    Say(u16, Vec<Vec<u8>>),
    /// The same in a tunnel of the proxy's.
    Tunnel(u16, Vec<Vec<u8>>),
    /// Says this to the proxy.
    Proxy(Vec<u8>),
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The frame goes nowhere, for this reason.
    Dropped(DroppedFrame),
    /// Nothing is answered, and nothing is told.
    Silence,
    /// The gateway itself answers, with so many frames.
    Answered(usize),
    /// A DNS answer with this code and so many records.
    Code(u8, u16),
    /// No such name.
    NoName,
    /// The connection is reset; so much of it was answered, and nothing was carried.
    Reset,
    /// It was dialled, and nobody was there.
    Dialled,
    /// Requests got these answers; those with 200 reached the server, each as one, the others did not.
    Status(Vec<u16>),
    /// All of it was carried, and came back.
    Carried,
}

impl Technique {
    pub(crate) fn new(
        row: &'static str,
        name: impl Into<String>,
        attack: Attack,
        expected: Verdict,
    ) -> Self {
        Self {
            name: name.into(),
            row,
            attack,
            expected,
        }
    }
}

/// Tries all of a family's techniques in one state, on one bench, between two rounds of what is allowed.
pub(crate) fn run(state: State, techniques: impl FnOnce(&Bench) -> Vec<Technique>) {
    let mut bench = Bench::in_state(state);
    bench.allowed_works();
    let techniques = techniques(&bench);
    let mut failures = Vec::new();
    for technique in &techniques {
        let before = bench.counts();
        let seen = attempt(&mut bench, technique);
        if seen != technique.expected {
            failures.push(format!(
                "{} {}: {seen:?}, not {:?}",
                technique.row, technique.name, technique.expected
            ));
        }
        if let Some(leak) = before.leak(&bench.counts(), technique) {
            failures.push(format!("{} {}: {leak}", technique.row, technique.name));
        }
    }
    // What is slow to get through counts too.
    std::thread::sleep(std::time::Duration::from_millis(50));
    failures.extend(bench.forbidden_reached());
    bench.allowed_works();
    println!("{} techniques, {state:?}", techniques.len());
    assert!(failures.is_empty(), "{state:?}:\n{}", failures.join("\n"));
}

fn attempt(bench: &mut Bench, technique: &Technique) -> Verdict {
    bench.forget_told();
    match &technique.attack {
        Attack::Frame(frame) => frame_verdict(bench, |bench| bench.guest.send_frame(frame)),
        Attack::Record(record) => frame_verdict(bench, |bench| {
            bench.guest.send_raw(record);
        }),
        Attack::Query(query) => query_verdict(bench, query),
        Attack::QueryOverTcp(query) => query_over_tcp_verdict(bench, query),
        Attack::Connect(to) => connect_verdict(bench, *to),
        Attack::Answers(answers) => {
            bench.sinks.resolver.answer(answers);
            let to = bench.address_of("rebind.example");
            let port = bench.sinks.forbidden.port();
            connect_verdict(bench, SocketAddrV4::new(to, port))
        }
        Attack::Name(name, port) => {
            let to = bench.address_of(name);
            connect_verdict(bench, SocketAddrV4::new(to, *port))
        }
        Attack::Script(script) => script(bench),
        Attack::Say(port, pieces) => {
            let to = SocketAddrV4::new(bench.address_of("a.host"), *port);
            let connection = bench.guest.connect(to);
            say_verdict(bench, connection, *port, pieces, technique)
        }
        Attack::Tunnel(port, pieces) => {
            let connection = bench.tunnel("a.host", *port);
            say_verdict(bench, connection, *port, pieces, technique)
        }
        Attack::Proxy(bytes) => {
            let connection = bench.connect_to_proxy();
            say_verdict(bench, connection, 0, std::slice::from_ref(bytes), technique)
        }
    }
}

fn frame_verdict(bench: &mut Bench, send: impl FnOnce(&mut Bench)) -> Verdict {
    let replies = bench.exchange(send);
    let dropped = bench.told().into_iter().find_map(|told| match told {
        Told::Dropped(why) => Some(why),
        _ => None,
    });
    match (dropped, replies.len()) {
        (Some(why), 0) => Verdict::Dropped(why),
        (None, 0) => Verdict::Silence,
        (None, 1) if craft::is_reset(&replies[0]) => Verdict::Reset,
        (_, count) => Verdict::Answered(count),
    }
}

fn query_verdict(bench: &mut Bench, query: &[u8]) -> Verdict {
    const PORT: u16 = 21_000;
    let frame = craft::to_resolver(PORT, query);
    let replies = bench.exchange(|bench| bench.guest.send_frame(&frame));
    let answer = replies
        .iter()
        .find_map(|frame| craft::answer_to(frame, PORT));
    answer.map_or(Verdict::Silence, |answer| answer_verdict(&answer))
}

fn query_over_tcp_verdict(bench: &mut Bench, query: &[u8]) -> Verdict {
    let gateway = bench.guest.network().gateway;
    let connection = bench.guest.connect(SocketAddrV4::new(gateway, 53));
    assert!(bench.guest.is_connected(connection), "the resolver");
    let len = u16::try_from(query.len()).unwrap().to_be_bytes();
    bench.guest.send(connection, &[&len, query].concat());
    bench.guest.finish(connection);
    let (bytes, end) = bench.guest.receive_all(connection);
    assert_eq!(end, Some(End::Finished));
    bytes.get(2..).map_or(Verdict::Silence, answer_verdict)
}

fn answer_verdict(answer: &[u8]) -> Verdict {
    match (answer[3] & 15, u16::from_be_bytes([answer[6], answer[7]])) {
        (3, 0) => Verdict::NoName,
        (code, records) => Verdict::Code(code, records),
    }
}

/// By a SYN of its own: a guest's stack would not send one everywhere.
fn connect_verdict(bench: &mut Bench, to: SocketAddrV4) -> Verdict {
    let from = bench.next_port();
    let syn = craft::Tcp {
        from,
        to: to.port(),
        sequence: 1_000_000,
        flags: craft::SYN,
        ..craft::Tcp::default()
    };
    bench.guest.turn();
    bench.guest.keep_frames(true);
    bench.guest.send_frame(&syn.frame(*to.ip()));
    let answer = bench.guest.until(|guest| {
        let mut frames = guest.frames().into_iter();
        frames.find(|frame| craft::is_segment_to(frame, from))
    });
    bench.guest.keep_frames(false);
    match answer {
        Some(frame) if craft::is_reset(&frame) => bench.wait_told_denied(),
        Some(_) => Verdict::Answered(1),
        None => Verdict::Silence,
    }
}

fn say_verdict(
    bench: &mut Bench,
    connection: Connection,
    port: u16,
    pieces: &[Vec<u8>],
    technique: &Technique,
) -> Verdict {
    let answers = match &technique.expected {
        Verdict::Status(all) => all.len(),
        _ => 0,
    };
    for piece in pieces {
        // It may be refused before the last of it.
        if !bench.guest.send(connection, piece) {
            break;
        }
        bench.guest.turn();
    }
    // Only then does the guest end its side: a server may take that for the end of all.
    let mut bytes = Vec::new();
    while craft::statuses(&bytes).len() < answers {
        let more = bench.guest.receive(connection, 1);
        if more.is_empty() {
            break;
        }
        bytes.extend(more);
    }
    bench.guest.finish(connection);
    let (rest, end) = bench.guest.receive_all(connection);
    bytes.extend(rest);
    assert_ne!(end, None, "no end within the time, behind {bytes:?}");
    if bytes.is_empty() {
        return match end {
            Some(End::Finished) => Verdict::Status(Vec::new()),
            _ => Verdict::Reset,
        };
    }
    let heard = match port {
        443 => bytes.strip_prefix(TLS_GREETING).unwrap_or_default(),
        _ => &bytes,
    };
    if heard == pieces.concat() {
        return Verdict::Carried;
    }
    Verdict::Status(craft::statuses(&bytes))
}

/// What was reached, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) forbidden: (usize, usize),
    /// Bytes that servers got for which the policy has rules.
    pub(crate) carried: usize,
    pub(crate) requests: usize,
    pub(crate) queries: usize,
}

impl Counts {
    /// What was reached since, beyond what the verdict lets through.
    fn leak(&self, now: &Self, technique: &Technique) -> Option<String> {
        if now.forbidden != self.forbidden {
            return Some(format!(
                "forbidden: {:?} {:?}",
                self.forbidden, now.forbidden
            ));
        }
        let queries = match technique.attack {
            Attack::Answers(_) => 1,
            _ => 0,
        };
        if now.queries - self.queries != queries {
            return Some(format!("{} queries", now.queries - self.queries));
        }
        let requests = match &technique.expected {
            Verdict::Carried => return None,
            Verdict::Status(all) => all.iter().filter(|status| **status == 200).count(),
            _ => 0,
        };
        let seen = now.requests - self.requests;
        if seen != requests {
            return Some(format!("{seen} requests, not {requests}"));
        }
        // What broke off within its body has begun to be passed on.
        let is_broken = matches!(&technique.expected, Verdict::Status(all) if all == &[502]);
        let carried = now.carried - self.carried;
        (requests == 0 && !is_broken && carried > 0).then(|| format!("{carried} bytes"))
    }
}

/// A test for each state, of the same techniques.
macro_rules! in_every_state {
    ($techniques:path) => {
        #[test]
        fn fresh() {
            crate::table::run(crate::bench::State::Fresh, $techniques);
        }

        #[test]
        fn after_a_new_policy() {
            crate::table::run(crate::bench::State::Reloaded, $techniques);
        }

        #[test]
        fn after_the_driver_started_again() {
            crate::table::run(crate::bench::State::DriverRestarted, $techniques);
        }

        #[test]
        fn after_the_worker_started_again() {
            crate::table::run(crate::bench::State::WorkerRestarted, $techniques);
        }
    };
}
pub(crate) use in_every_state;

/// Every table there is. The catalogue's rows are checked here, and that no two techniques have one name.
#[test]
fn the_tables_hold_what_they_promise() {
    let bench = Bench::in_state(State::Fresh);
    let families = [
        crate::addresses::techniques(&bench),
        crate::dns::techniques(&bench),
        crate::frames::techniques(&bench),
        crate::http::techniques(&bench),
        crate::link::techniques(&bench),
        crate::tcp::techniques(&bench),
        crate::proxy::techniques(&bench),
        crate::tls::techniques(&bench),
    ];
    let all: Vec<Technique> = families.into_iter().flatten().collect();
    let mut names: Vec<&str> = all
        .iter()
        .map(|technique| technique.name.as_str())
        .collect();
    names.sort_unstable();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
    for technique in &all {
        let known = matches!(
            technique.row.as_bytes(),
            [
                b'N' | b'D' | b'P' | b'H' | b'T' | b'V',
                b'0'..=b'1',
                b'0'..=b'9'
            ]
        );
        assert!(known, "{}: {}", technique.name, technique.row);
    }
    println!("{} techniques", all.len());
    assert!(all.len() >= 200, "{}", all.len());
}
