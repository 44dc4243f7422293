//! Sets up what is measured: the servers, a network, a guest.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::client::Figures;
use crate::tap::DEVICE;
use crate::{Network, servers};

const PATIENCE: Duration = Duration::from_secs(10);
/// What the peers' own documentation gives for the best throughput.
const PEERS_MTU: &str = "65520";

/// What was measured.
#[derive(Serialize)]
struct Measured {
    /// In the guest.
    guest: Figures,
    /// The same load on loopback.
    direct: Figures,
    /// Kibibytes of the network's process that are its own (PSS): before the load, and with connections that say nothing.
    at_rest: u64,
    idle: Option<u64>,
}

/// Connections that are held for that.
const IDLE: usize = 1000;

/// Measures `network`, and prints the figures as JSON. In a network and a mount namespace of its own.
pub(crate) fn run(network: Network) -> Result<()> {
    let place = tempfile::tempdir()?;
    // passt gives up being root.
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777))?;
    prepare(place.path())?;
    servers::start().context("this is no namespace of its own")?;
    let guest = Guest::new()?;
    let egress = start(network, &guest, &place)?;
    let at_rest = proportional(egress.0.id())?;
    let (servers, resolver) = match network {
        Network::Ours => ("names", "100.64.0.1:53"),
        Network::Passt => ("198.51.100.1", "198.51.100.1:53"),
        Network::Slirp4netns => ("10.0.2.2", "10.0.2.3:53"),
    };
    let load = |command: &mut Command, arguments: &[&str]| -> Result<Figures> {
        let command = command.args(["load", "--servers"]).args(arguments);
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{command:?}: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    // The peers do not take so many.
    let idle = match network {
        Network::Ours => Some(idle(&guest, &egress, servers, resolver)?),
        _ => None,
    };
    let this = std::env::current_exe()?;
    let measured = Measured {
        direct: load(&mut Command::new(&this), &["127.0.0.1"])?,
        guest: load(&mut guest.program(), &[servers, "--resolver", resolver])?,
        at_rest,
        idle,
    };
    let measured = serde_json::to_string(&measured)?;
    Ok(writeln!(std::io::stdout(), "{measured}")?)
}

/// What the network's process takes with connections that say nothing.
fn idle(guest: &Guest, egress: &Running, servers: &str, resolver: &str) -> Result<u64> {
    let mut holder = guest.program();
    holder.args(["load", "--servers", servers, "--resolver", resolver]);
    holder.args(["--idle", &IDLE.to_string()]);
    let holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Running(holder.spawn()?);
    let mut line = String::new();
    let output = holder.0.stdout.take().context("no output")?;
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.trim() == IDLE.to_string(), "idle connections: {line}");
    proportional(egress.0.id())
}

/// A host with a network that leads nowhere.
fn prepare(place: &Path) -> Result<()> {
    let resolver = place.join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\n")?;
    let resolver = resolver.to_str().context("a path that is no text")?;
    for words in [
        "ip link set lo up",
        "ip tuntap add outside mode tap",
        "ip address add 198.51.100.2/24 dev outside",
        "ip link set outside up",
        "ip route add default via 198.51.100.1",
        &format!("mount --bind {resolver} /etc/resolv.conf"),
    ] {
        done(split(words))?;
    }
    Ok(())
}

/// A network namespace with nothing in it.
struct Guest(Running);

impl Guest {
    fn new() -> Result<Self> {
        let mut command = Command::new("unshare");
        let holder = command.args(["--net", "sleep", "infinity"]).spawn()?;
        let guest = Self(Running(holder));
        let own = fs::read_link("/proc/self/ns/net")?;
        let theirs = format!("/proc/{}/ns/net", guest.0.0.id());
        until("the guest's namespace", || {
            fs::read_link(&theirs).is_ok_and(|theirs| theirs != own)
        })?;
        guest.run("ip link set lo up")?;
        Ok(guest)
    }

    fn within(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.0.0.id().to_string()]);
        command
    }

    /// This program, within.
    fn program(&self) -> Command {
        let mut command = self.within();
        command.arg(std::env::current_exe().unwrap_or_default());
        command
    }

    fn run(&self, words: &str) -> Result<()> {
        let mut command = self.within();
        command.args(words.split(' '));
        done(command)
    }
}

/// Starts the network's process and the guest's network card.
fn start(network: Network, guest: &Guest, place: &TempDir) -> Result<Running> {
    let socket = place.path().join("socket");
    let mut command = match network {
        Network::Ours => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("worker").arg(&socket);
            command.args(["sink.host=7001", "source.host=7002", "byte.host=7003"]);
            command
        }
        Network::Passt => {
            let mut command = Command::new("passt");
            command.args(["--foreground", "--quiet", "--mtu", PEERS_MTU, "--socket"]);
            command.arg(&socket);
            command
        }
        Network::Slirp4netns => {
            let mut command = Command::new("slirp4netns");
            command.args(["--configure", "--mtu", PEERS_MTU]);
            command.args([&guest.0.0.id().to_string(), DEVICE]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            command
        }
    };
    let egress = Running(command.spawn().with_context(|| format!("{command:?}"))?);
    if network == Network::Slirp4netns {
        until("slirp4netns", || guest.run("ip route get 10.0.2.2").is_ok())?;
        return Ok(egress);
    }
    until("the egress", || socket.exists())?;
    let mut card = guest.program();
    card.arg("tap").arg(&socket);
    card.arg(if network == Network::Ours {
        "ours"
    } else {
        "passt"
    });
    // It ends with the egress.
    let card = card.spawn()?;
    drop(card);
    until("the network card", || {
        guest.run(&format!("ip link show {DEVICE}")).is_ok()
    })?;
    let (address, mtu, gateway) = match network {
        Network::Ours => ("100.64.0.2/30", "1500", "100.64.0.1"),
        _ => ("198.51.100.2/24", PEERS_MTU, "198.51.100.1"),
    };
    guest.run(&format!(
        "ip link set {DEVICE} address 02:cf:00:00:00:02 mtu {mtu}"
    ))?;
    guest.run(&format!("ip address add {address} dev {DEVICE}"))?;
    guest.run(&format!("ip link set {DEVICE} up"))?;
    guest.run(&format!("ip route add default via {gateway}"))?;
    Ok(egress)
}

/// A process that ends with this handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It fails when the process has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn split(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

fn done(mut command: Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn until(what: &str, see: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !see() {
        ensure!(begin.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The part of a process's memory that is its own, in kibibytes.
fn proportional(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.context("no Pss")?.parse().context("no number")
}
