//! A guest without a machine, at the wire of a network as a sandbox has it: a worker process within its walls, which is followed and replaced.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use netproxy::gateway::Network;
use netproxy::testkit::{Connection, End, Guest};
use rustix::process::{Pid, Signal, kill_process};
use sandbox::testkit::BareNetwork;
use sandbox::{NetworkPolicy, Sandbox};
use tokio::runtime::Runtime;

use crate::outside;

const DOMAIN: &str = "testworld.net";
const POLICY: &str = "
[[allow]]
host = \"*.testworld.net\"
scheme = \"http\"
";
/// Most memory that a worker ever has, in KiB.
const LARGEST: u64 = 128 << 10;

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an attempt to connect came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Stands,
    Refused,
    /// Neither, in time.
    Waits,
}

pub(crate) struct Bench {
    runtime: Runtime,
    pub(crate) network: BareNetwork,
    pub(crate) guest: Guest,
}

impl Bench {
    /// A network that has carried something.
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let policy = NetworkPolicy::new().sandbox("test", POLICY);
        let config = Sandbox::builder();
        let network = runtime.block_on(BareNetwork::start(&policy, &config))?;
        let guest = Guest::new(network.wire()?, Network::default())?;
        let mut bench = Self {
            runtime,
            network,
            guest,
        };
        bench.recovers(Duration::ZERO)?;
        Ok(bench)
    }

    pub(crate) fn wait_for<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Begins a connection to the server of this name.
    pub(crate) fn connect(&mut self, label: &str) -> Result<Connection> {
        let name = format!("{label}.{DOMAIN}");
        let address = self.guest.resolve(&name);
        let address = address.with_context(|| format!("{name} does not resolve"))?;
        Ok(self.guest.connect(SocketAddrV4::new(address, 80)))
    }

    pub(crate) fn outcome(&mut self, connection: Connection, limit: Duration) -> Outcome {
        let end = Instant::now() + limit;
        loop {
            if self.guest.is_connected(connection) {
                return Outcome::Stands;
            }
            if self.guest.receive_all(connection).1 == Some(End::Reset) {
                return Outcome::Refused;
            }
            if Instant::now() > end {
                return Outcome::Waits;
            }
        }
    }

    /// Connects and asks for a path.
    pub(crate) fn ask(&mut self, label: &str, path: &str) -> Result<Connection> {
        let connection = self.connect(label)?;
        let outcome = self.outcome(connection, Duration::from_secs(40));
        ensure!(outcome == Outcome::Stands, "{label}: {outcome:?}");
        let request =
            format!("GET /{path} HTTP/1.1\r\nHost: {label}.{DOMAIN}\r\nConnection: close\r\n\r\n");
        ensure!(self.guest.send(connection, request.as_bytes()), "not sent");
        Ok(connection)
    }

    /// The body that the good server sends, which must be whole.
    pub(crate) fn get(&mut self, len: usize) -> Result<()> {
        let connection = self.ask("good", &len.to_string())?;
        let expected = outside::content(len);
        let (mut all, mut end) = (Vec::new(), None);
        let begin = Instant::now();
        while end.is_none() {
            let (more, ended) = self.guest.receive_all(connection);
            all.extend(more);
            end = ended;
            ensure!(
                begin.elapsed() < PATIENCE,
                "{} bytes of {len} came",
                all.len()
            );
        }
        let at = all.windows(4).position(|four| four == b"\r\n\r\n");
        let body = all.get(at.context("no head")? + 4..).unwrap_or_default();
        self.guest.abort(connection);
        ensure!(body == expected, "{} bytes of {len}", body.len());
        Ok(())
    }

    /// Waits until what is allowed works again by the same worker; how long that took.
    pub(crate) fn recovers(&mut self, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        loop {
            match self.get(7) {
                Ok(()) => return Ok(begin.elapsed()),
                Err(error) if begin.elapsed() > limit => bail!("does not recover: {error:#}"),
                Err(_) => {}
            }
        }
    }

    /// Waits for a line about this name, and gives what it says.
    pub(crate) fn told(&self, label: &str) -> Result<String> {
        let begin = format!("{label}.{DOMAIN}");
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let lines = self.network.denied();
            let mut lines = lines.iter().map(ToString::to_string);
            if let Some(line) = lines.find(|line| line.starts_with(&begin)) {
                return Ok(line);
            }
            ensure!(Instant::now() < end, "nothing is told of {label}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the worker has nothing to do, as it should when the guest has given up.
    pub(crate) fn rests(&mut self) -> Result<()> {
        let id = self.network.worker_id();
        // In ticks, of which a second has a hundred: fields 14 and 15 (proc(5)).
        let used = || -> Result<u64> {
            let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
            let (_, rest) = text.rsplit_once(')').context("no name")?;
            let fields = rest.split_whitespace().skip(11).take(2);
            Ok(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum())
        };
        let mut most = 0;
        for _ in 0..5 {
            let before = used()?;
            // Its segments go out.
            self.guest.turn();
            std::thread::sleep(Duration::from_secs(1));
            most = used()? - before;
            if most < 10 {
                return Ok(());
            }
        }
        bail!("it is busy for {most} % of its time")
    }

    /// What the worker's memory is, in KiB: what is its own now (PSS), and the most of it that there has been (RSS).
    pub(crate) fn memory(&self) -> Result<(u64, u64)> {
        let id = self.network.worker_id();
        let figure = |file: &str, name: &str| -> Result<u64> {
            let text = std::fs::read_to_string(format!("/proc/{id}/{file}"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let figure = line.and_then(|line| line.split_whitespace().next());
            Ok(figure.context("no figure")?.parse()?)
        };
        Ok((figure("smaps_rollup", "Pss:")?, figure("status", "VmHWM:")?))
    }

    /// Prints what became of it, with the worker's memory, which must be bounded.
    pub(crate) fn note(&self, what: &str, before: u64) -> Result<()> {
        let (now, most) = self.memory()?;
        println!("    {what}; PSS {before} -> {now} KiB, peak RSS {most} KiB");
        ensure!(most < LARGEST, "{most} KiB");
        Ok(())
    }

    /// Ends the worker by a signal, and starts another.
    pub(crate) fn replace_worker(&mut self, signal: Signal) -> Result<()> {
        let id = self.network.worker_id();
        let pid = Pid::from_raw(i32::try_from(id)?).context("no process")?;
        kill_process(pid, signal)?;
        let why = self.wait_for(self.network.ended());
        ensure!(
            why.contains(&format!("signal: {}", signal.as_raw())),
            "{why}"
        );
        // The link is down.
        ensure!(
            self.guest
                .until(|guest| (!guest.turn()).then_some(()))
                .is_some(),
            "the link is up"
        );
        self.wait_for(self.network.restart())?;
        ensure!(self.network.worker_id() != id, "it is the same");
        self.guest = Guest::new(self.network.wire()?, Network::default())?;
        Ok(())
    }
}
