//! The tests.

use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::bench::{Bench, Outcome};
use crate::outside::LATE;
use crate::runner::{self, Test, Verdict};
use crate::world::{Cable, World};

type Case = fn(&mut World) -> Result<()>;

const CASES: &[(&str, Case)] = &[
    ("name_servers_that_lie", name_servers_that_lie),
    ("a_dead_name_server", a_dead_name_server),
    (
        "answers_that_break_or_never_end",
        answers_that_break_or_never_end,
    ),
    ("a_small_mtu", a_small_mtu),
    ("another_interface", another_interface),
    ("a_published_port_in_use", a_published_port_in_use),
];

/// Those that take a minute or more: `--include-ignored` runs them, too.
const SLOW: &[(&str, Case)] = &[
    ("answers_of_thousands", answers_of_thousands),
    ("servers_that_refuse_or_hang", servers_that_refuse_or_hang),
    ("half_of_all_is_lost", half_of_all_is_lost),
    ("another_worker", another_worker),
];

/// What is allowed works again within this.
const SOON: Duration = Duration::from_secs(5);

pub(crate) fn run() -> ExitCode {
    let world = match World::new() {
        Ok(world) => RefCell::new(world),
        Err(error) => {
            let why = format!("no world: {error:#}");
            let run = Box::new(|| Verdict::Failed(why));
            return runner::run([Test { name: "world", run }]);
        }
    };
    let world = &world;
    let runs_slow = std::env::args().any(|argument| argument == "--include-ignored");
    let test = |&(name, case): &(&'static str, Case), runs: bool| Test {
        name,
        run: Box::new(move || match runs {
            true => case(&mut world.borrow_mut()).into(),
            false => Verdict::Skipped("slow: cargo xtask campaign egress runs it".into()),
        }),
    };
    let quick = CASES.iter().map(|case| test(case, true));
    runner::run(quick.chain(SLOW.iter().map(|case| test(case, runs_slow))))
}

const NAME_SERVERS: &str = "this host's name servers do not answer for the name";

/// What is told of names by which nobody is found.
const LIES: &[(&str, &str)] = &[
    ("other-id", NAME_SERVERS),
    ("other-question", NAME_SERVERS),
    ("no-answer-bit", NAME_SERVERS),
    ("short", NAME_SERVERS),
    ("more-records", NAME_SERVERS),
    ("truncated", NAME_SERVERS),
    ("loop", "the name has no address"),
    ("pointer", NAME_SERVERS),
    ("noise", NAME_SERVERS),
    ("nothing", "the name has no address"),
    ("fails", NAME_SERVERS),
    ("dead", NAME_SERVERS),
    ("private", "10.1.2.3 may not be dialled"),
    ("loopback", "127.0.0.1 may not be dialled"),
];

fn name_servers_that_lie(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    lies(&mut bench)?;
    Ok(())
}

/// All of them at once, beside an answer that is only slow.
fn lies(bench: &mut Bench) -> Result<()> {
    let (before, _) = bench.memory()?;
    let begin = Instant::now();
    let slow = bench.connect("slow")?;
    let mut connections = Vec::new();
    for (label, _) in LIES {
        connections.push(bench.connect(label)?);
    }
    // Nobody else waits for them.
    bench.recovers(Duration::ZERO)?;
    let outcome = bench.outcome(slow, Duration::from_secs(10));
    let slow = begin.elapsed();
    ensure!(
        outcome == Outcome::Stands && slow > Duration::from_secs(2),
        "slow: {outcome:?} {slow:?}"
    );
    for ((label, expected), connection) in LIES.iter().zip(connections) {
        let outcome = bench.outcome(connection, Duration::from_secs(20));
        ensure!(outcome == Outcome::Refused, "{label}: {outcome:?}");
        let told = bench.told(label)?;
        ensure!(told.contains(expected), "{told}");
    }
    let took = begin.elapsed();
    bench.recovers(Duration::ZERO)?;
    bench.note(
        &format!(
            "{} lies refused in {took:.1?}, slow took {slow:.1?}",
            LIES.len()
        ),
        before,
    )
}

fn a_dead_name_server(world: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    world.silence_name_server(true)?;
    let begin = Instant::now();
    let connection = bench.connect("never-asked")?;
    let outcome = bench.outcome(connection, Duration::from_secs(40));
    let took = begin.elapsed();
    let told = bench.told("never-asked")?;
    ensure!(told.contains(NAME_SERVERS), "{told}");
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    world.silence_name_server(false)?;
    let connection = bench.connect("other")?;
    let begin = Instant::now();
    let outcome = bench.outcome(connection, Duration::from_secs(20));
    ensure!(outcome == Outcome::Stands, "{outcome:?}");
    let again = begin.elapsed();
    bench.note(
        &format!("refused after {took:.1?}, told {told:?}; back in {again:.1?}"),
        before,
    )
}

/// Names of a wildcard whose answers are as long as they can be.
const LONG_ANSWERS: usize = 500;
/// As many connections as may be opening.
const AT_ONCE: usize = 250;

fn answers_of_thousands(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    let begin = Instant::now();
    for first in (0..LONG_ANSWERS).step_by(AT_ONCE) {
        let names = (first..first + AT_ONCE).map(|n| format!("many.x{n}"));
        let connections = names.map(|name| bench.connect(&name));
        let connections: Vec<_> = connections.collect::<Result<_>>()?;
        for connection in connections {
            let outcome = bench.outcome(connection, Duration::from_secs(20));
            ensure!(outcome == Outcome::Refused, "{outcome:?}");
        }
    }
    let took = begin.elapsed();
    let told = bench.told("many.x7")?;
    ensure!(told.contains("10.0.0.1 may not be dialled"), "{told}");
    bench.recovers(SOON)?;
    bench.note(
        &format!("{LONG_ANSWERS} answers of 4000 addresses in {took:.1?}"),
        before,
    )
}

fn servers_that_refuse_or_hang(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    let begin = Instant::now();
    let late = bench.ask("late", "")?;
    let unreachable = bench.connect("unreachable")?;
    let refuses = bench.connect("refuses")?;
    let outcome = bench.outcome(refuses, SOON);
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    let told = bench.told("refuses")?;
    ensure!(
        told.ends_with("the server refuses the connection"),
        "{told}"
    );
    let mute = bench.ask("mute", "")?;
    let said = bench.guest.receive(mute, 1);
    ensure!(said.is_empty(), "{said:?}");
    bench.guest.abort(mute);
    bench.recovers(Duration::ZERO)?;
    let outcome = bench.outcome(unreachable, Duration::from_secs(40));
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    let told = bench.told("unreachable")?;
    ensure!(told.ends_with("nobody answered"), "{told}");
    let took = begin.elapsed();
    while begin.elapsed() < LATE {
        bench.recovers(Duration::ZERO)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let (answer, end) = bench.guest.receive_all(late);
    ensure!(answer.ends_with(b"late"), "{answer:?} {end:?}");
    bench.note(
        &format!("one that never answers refused after {took:.1?}, told {told:?}"),
        before,
    )
}

/// So much of what has no end is taken.
const ENDLESS: usize = 4 << 20;

/// Answers, and how the guest's begins.
const ANSWERS: &[(&str, &str)] = &[
    ("resets-at-once", "HTTP/1.1 502 "),
    ("headers", "HTTP/1.1 502 "),
    ("header", "HTTP/1.1 502 "),
    ("babbles", "HTTP/1.1 502 "),
];

fn answers_that_break_or_never_end(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    breaking_answers(&mut bench)
}

fn breaking_answers(bench: &mut Bench) -> Result<()> {
    let (before, _) = bench.memory()?;
    // Interim answers and a body without end, which nobody takes while the rest goes on.
    let interim = bench.ask("interim", "")?;
    let body = bench.ask("body", "")?;
    for (label, expected) in ANSWERS {
        let connection = bench.ask(label, "")?;
        let answer = bench.guest.receive(connection, 200);
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with(expected), "{label}: {answer:.200}");
        ensure!(answer.contains("cofferdam: "), "{label}: {answer:.200}");
        bench.guest.abort(connection);
    }
    let connection = bench.ask("resets", "")?;
    let (answer, end) = bench.guest.receive_all(connection);
    // The guest must not take it for whole.
    ensure!(
        answer.starts_with(b"HTTP/1.1 200") && answer.len() < 2000 && end.is_some(),
        "{} bytes, {end:?}",
        answer.len()
    );
    let begin = Instant::now();
    for _ in 0..20 {
        bench.recovers(Duration::ZERO)?;
    }
    let beside = begin.elapsed() / 20;
    let (begin, mut taken) = (Instant::now(), 0);
    while taken < ENDLESS && begin.elapsed() < Duration::from_secs(60) {
        taken += bench.guest.receive(body, ENDLESS - taken).len();
    }
    ensure!(taken >= ENDLESS, "{taken} bytes of what has no end");
    bench.guest.abort(body);
    bench.guest.abort(interim);
    bench.rests().context("of what the guest has given up")?;
    bench.recovers(Duration::ZERO)?;
    bench.note(
        &format!("beside two answers without end a request takes {beside:.1?}"),
        before,
    )
}

fn a_small_mtu(world: &mut World) -> Result<()> {
    world.lay(Cable {
        mtu: 576,
        ..Cable::default()
    })?;
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    let begin = Instant::now();
    bench.get(4 << 20)?;
    let took = begin.elapsed();
    world.lay(Cable::default())?;
    bench.recovers(SOON)?;
    bench.note(&format!("4 MiB in {took:.1?}"), before)
}

fn half_of_all_is_lost(world: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    world.lay(Cable {
        loses: true,
        ..Cable::default()
    })?;
    let begin = Instant::now();
    let (mut came, mut tried) = (0, 0);
    while came < 3 && begin.elapsed() < Duration::from_secs(200) {
        came += u32::from(bench.get(10_000).is_ok());
        tried += 1;
    }
    let took = begin.elapsed();
    ensure!(came > 0, "nothing came of {tried}");
    // Otherwise nothing was lost.
    ensure!(took > Duration::from_millis(300), "{took:?}");
    world.lay(Cable::default())?;
    let back = bench.recovers(SOON)?;
    bench.note(
        &format!("{came} of {tried} came in {took:.1?}; back in {back:.1?}"),
        before,
    )
}

/// Another network of the host's.
const MOVED: Ipv4Addr = Ipv4Addr::new(45, 80, 7, 0);

fn another_interface(world: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let (before, _) = bench.memory()?;
    let id = bench.network.worker_id();
    let held = bench.ask("mute", "")?;
    world.cut();
    let begin = Instant::now();
    let connection = bench.connect("gone")?;
    let outcome = bench.outcome(connection, Duration::from_secs(40));
    let took = begin.elapsed();
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    let told = bench.told("gone")?;
    ensure!(told.contains(NAME_SERVERS), "{told}");
    let cable = Cable {
        network: MOVED,
        ..Cable::default()
    };
    world.lay(cable)?;
    let back = bench.recovers(SOON)?;
    bench.guest.abort(held);
    // Its new address is one of the host's from then on.
    let own = bench.connect("moved")?;
    let outcome = bench.outcome(own, SOON);
    ensure!(outcome == Outcome::Refused, "{outcome:?}");
    let own = bench.told("moved")?;
    ensure!(own.contains("45.80.7.2 may not be dialled"), "{own}");
    ensure!(bench.network.worker_id() == id, "another worker");
    world.lay(Cable::default())?;
    bench.recovers(SOON)?;
    bench.note(
        &format!(
            "without: refused after {took:.1?}, told {told:?}; with another back in {back:.1?}"
        ),
        before,
    )
}

fn a_published_port_in_use(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let refused = bench.wait_for(bench.network.publish(address, 8080));
    let why = refused.err().context("it is published")?.to_string();
    ensure!(
        why.contains(&address.to_string()) && why.contains("choose another port"),
        "{why}"
    );
    bench.recovers(Duration::ZERO)?;
    drop(taken);
    let published = bench.wait_for(bench.network.publish(address, 8080))?;
    carries(&mut bench, published)?;
    bench.replace_worker(Signal::KILL)?;
    bench.recovers(Duration::ZERO)?;
    carries(&mut bench, published)
}

/// A published port leads to the guest.
fn carries(bench: &mut Bench, published: std::net::SocketAddr) -> Result<()> {
    let server = bench.guest.listen(8080);
    let mut stream = TcpStream::connect(published)?;
    ensure!(bench.guest.is_connected(server), "not connected");
    stream.write_all(b"to the guest")?;
    let came = bench.guest.receive(server, 12);
    ensure!(came == b"to the guest", "{came:?}");
    ensure!(bench.guest.send(server, b"back"), "not sent");
    let mut back = [0; 4];
    stream.set_read_timeout(Some(SOON))?;
    stream.read_exact(&mut back)?;
    bench.guest.abort(server);
    ensure!(&back == b"back", "{back:?}");
    Ok(())
}

/// The same by a worker that was started again, after one that was told to end and after a crash amid what goes on.
fn another_worker(_: &mut World) -> Result<()> {
    let mut bench = Bench::new()?;
    for signal in [Signal::TERM, Signal::KILL] {
        let body = bench.ask("body", "")?;
        bench.connect("dead")?;
        bench.guest.receive(body, 1 << 20);
        bench.replace_worker(signal)?;
        bench.recovers(Duration::ZERO)?;
        lies(&mut bench)?;
        breaking_answers(&mut bench)?;
    }
    Ok(())
}
