//! The test world: a network namespace for the host, one for what is outside, and the cable between them.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::outside::{NAME_SERVER, UNREACHABLE};

/// Says which half of the world this program is to be.
pub(crate) const VARIABLE: &str = "COFFERDAM_TEST_WORLD";
const RELAY: &str = include_str!("relay.py");

/// A way to the outside.
#[derive(Clone, Copy)]
pub(crate) struct Cable {
    /// The network that the host is in: it is the second there, the way out is by the first.
    pub(crate) network: Ipv4Addr,
    pub(crate) mtu: u16,
    /// Whether half of what is sent is lost.
    pub(crate) loses: bool,
}

impl Default for Cable {
    fn default() -> Self {
        Self {
            network: Ipv4Addr::new(45, 80, 0, 0),
            mtu: 1500,
            loses: false,
        }
    }
}

impl Cable {
    pub(crate) fn host(&self) -> Ipv4Addr {
        (u32::from(self.network) + 2).into()
    }

    fn gateway(&self) -> Ipv4Addr {
        (u32::from(self.network) + 1).into()
    }
}

/// The host's half.
pub(crate) struct World {
    outside: Child,
    said: BufReader<ChildStdout>,
    relay: Option<Child>,
    _settings: tempfile::NamedTempFile,
}

impl World {
    /// Within namespaces that are this program's own.
    pub(crate) fn new() -> Result<Self> {
        let settings = tempfile::NamedTempFile::new()?;
        std::fs::write(settings.path(), format!("nameserver {NAME_SERVER}\n"))?;
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(settings.path());
        done(mount.arg("/etc/resolv.conf"))?;
        ip("link set lo up")?;
        let mut outside = Command::new("unshare")
            .arg("--net")
            .arg(std::env::current_exe()?)
            .env(VARIABLE, "outside")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = outside.stdout.take().context("no output")?;
        let mut world = Self {
            outside,
            said: BufReader::new(said),
            relay: None,
            _settings: settings,
        };
        ensure!(world.hears("is there")?, "the outside is not there");
        world.out("link set lo up")?;
        for local in ["93.184.216.0/24", &format!("{NAME_SERVER}/32")] {
            world.out(&format!("route add local {local} dev lo"))?;
        }
        world.out(&format!("route add blackhole {UNREACHABLE}/32 table local"))?;
        let stdin = world.outside.stdin.as_mut().context("no input")?;
        std::io::Write::write_all(stdin, b"\n")?;
        ensure!(world.hears("serves")?, "the outside does not serve");
        world.lay(Cable::default())?;
        Ok(world)
    }

    fn hears(&mut self, what: &str) -> Result<bool> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim() == what)
    }

    /// Lays another cable instead of the one that there is.
    pub(crate) fn lay(&mut self, cable: Cable) -> Result<()> {
        self.cut();
        let id = self.outside.id();
        let peer = if cable.loses { "mid0" } else { "down0" };
        let near = format!("link add up0 type veth peer name {peer}");
        if cable.loses {
            ip(&near)?;
            ip(&format!(
                "link add mid1 type veth peer name down0 netns {id}"
            ))?;
            for end in ["mid0", "mid1"] {
                ip(&format!("link set {end} addrgenmode none up"))?;
            }
            let mut relay = Command::new("python3")
                .args(["-c", RELAY, "mid0", "mid1"])
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = relay.stdout.take().context("no output")?;
            self.relay = Some(relay);
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            ensure!(line == "ready\n", "no relay");
        } else {
            ip(&format!("{near} netns {id}"))?;
        }
        let (mtu, host, gateway) = (cable.mtu, cable.host(), cable.gateway());
        // One segment a frame, so that what is lost is a segment.
        // And no IPv6, which such a small one has no room for.
        for change in ["addrgenmode none", &format!("mtu {mtu} gso_max_segs 1 up")] {
            ip(&format!("link set up0 {change}"))?;
            self.out(&format!("link set down0 {change}"))?;
        }
        self.out(&format!("address add {gateway}/30 dev down0"))?;
        ip(&format!("address add {host}/30 dev up0"))?;
        ip(&format!("route add default via {gateway}"))
    }

    /// Takes the host's interface away.
    pub(crate) fn cut(&mut self) {
        if let Some(mut relay) = self.relay.take() {
            drop(relay.kill());
            drop(relay.wait());
        }
        for end in ["up0", "mid1"] {
            // There may be none.
            drop(ip(&format!("link delete {end}")));
        }
    }

    /// Whether the name server answers nothing at all.
    pub(crate) fn silence_name_server(&self, is_silent: bool) -> Result<()> {
        let (from, to) = ("local", "blackhole");
        let (from, to) = if is_silent { (from, to) } else { (to, from) };
        let route = |kind: &str| match kind {
            "local" => format!("local {NAME_SERVER}/32 dev lo"),
            _ => format!("blackhole {NAME_SERVER}/32 table local"),
        };
        self.out(&format!("route delete {}", route(from)))?;
        self.out(&format!("route add {}", route(to)))
    }

    /// Does it with the network outside.
    fn out(&self, words: &str) -> Result<()> {
        let id = self.outside.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &id, "ip"]);
        done(command.args(words.split(' ')))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cut();
        drop(self.outside.kill());
        drop(self.outside.wait());
    }
}

fn ip(words: &str) -> Result<()> {
    done(Command::new("ip").args(words.split(' ')))
}

fn done(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
