//! The guest's network beside passt and slirp4netns, without a machine: the guest is a network namespace with a TAP device.
//!
//! All of it happens in namespaces without a way out; `examples/egress_load` says how. The peers have their best settings (an MTU of 65 520); ours has
//! the 1500 of a sandbox, and segments of up to 64 KiB. The time is this machine's; each figure is the median of interleaved rounds.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{
    probe::build_release,
    report::{Row, Target},
    samples::median,
};
use crate::{
    host::{self, Need},
    progress::stage,
};

const NEEDS: &[Need] = &[
    Need::new("passt", "passt"),
    Need::new("slirp4netns", "slirp4netns"),
    Need::new("ip", "iproute2"),
    Need::new("nsenter", "util-linux"),
];

const ROUNDS: usize = 5;
const PEERS: [&str; 2] = ["passt", "slirp4netns"];

/// Figures of the load that have a peer: their name, what they are, and how much faster than the peer they are to be.
const AGAINST: [(&str, &str, f64); 6] = [
    ("up 1", "256 MiB from the guest, 1 flow", 1.2),
    ("up 16", "256 MiB from the guest, 16 flows", 1.2),
    ("down 1", "256 MiB to the guest, 1 flow", 1.2),
    ("down 16", "256 MiB to the guest, 16 flows", 1.2),
    ("connections", "3200 connections by 16 threads", 1.5),
    ("dns", "10 000 DNS answers, 16 at a time", 1.5),
];

/// What `egress_load measure` prints.
#[derive(Debug, Deserialize)]
struct Measured {
    guest: BTreeMap<String, f64>,
    direct: BTreeMap<String, f64>,
    at_rest: f64,
    idle: Option<f64>,
}

/// All rounds of one network.
struct Rounds(Vec<Measured>);

impl Rounds {
    fn median(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Result<f64> {
        let mut values: Vec<f64> = self.0.iter().filter_map(figure).collect();
        ensure!(values.len() == self.0.len(), "a figure is missing");
        median(&mut values).context("there was no round")
    }

    fn guest(&self, what: &str) -> Result<f64> {
        self.median(|measured| measured.guest.get(what).copied())
    }

    /// The same of a peer, from the rounds in which it could do it.
    fn peers(&self, what: &str) -> Option<f64> {
        let done = self
            .0
            .iter()
            .filter_map(|measured| measured.guest.get(what));
        let mut values: Vec<f64> = done.copied().collect();
        if values.len() < self.0.len() {
            let failed = self.0.len() - values.len();
            eprintln!("xtask: a peer failed at `{what}` in {failed} of {ROUNDS} rounds");
        }
        median(&mut values)
    }
}

/// Measures all.
pub(super) fn rows() -> Result<Vec<Row>> {
    ensure!(
        host::is_root() && Path::new("/dev/net/tun").exists(),
        "network namespaces and TAP devices take root and /dev/net/tun"
    );
    host::ensure(NEEDS)?;
    let program = build_release("egress_load")?.join("egress_load");
    let mut ours = Rounds(Vec::new());
    let mut peers = PEERS.map(|peer| (peer, Rounds(Vec::new())));
    for round in 1..=ROUNDS {
        stage(&format!("round {round} of {ROUNDS}"), || {
            ours.0.push(measure(&program, "ours")?);
            for (peer, rounds) in &mut peers {
                rounds.0.push(measure(&program, peer)?);
            }
            Ok(())
        })?;
    }
    let mut rows = Vec::new();
    for (name, what, times) in AGAINST {
        let mut best: Option<(f64, &'static str)> = None;
        for (peer, rounds) in &peers {
            let Some(figure) = rounds.peers(name) else {
                continue;
            };
            if best.is_none_or(|(fastest, _)| figure < fastest) {
                best = Some((figure, *peer));
            }
        }
        let (peer, whose) = best.context("there is no peer")?;
        let row = Row::new(what, ours.guest(name)?, "s", Target::TimesPeer(1.0 / times));
        rows.push(row.against(peer, whose));
    }
    for (name, what, limit) in [("p50", "median", 150.0), ("p99", "99th of 100", 1000.0)] {
        let added =
            ours.median(|measured| Some(measured.guest.get(name)? - measured.direct.get(name)?))?;
        let what = format!("first byte of a connection, beyond loopback's, {what}");
        rows.push(Row::new(what, added, "us", Target::AtMost(limit)));
    }
    let rest = ours.median(|measured| Some(measured.at_rest / 1024.0))?;
    let idle = ours.median(|measured| Some(measured.idle? / 1024.0))?;
    rows.push(Row::new("memory at rest", rest, "MiB", Target::AtMost(8.0)));
    let what = "memory with 1000 idle flows";
    rows.push(Row::new(what, idle, "MiB", Target::AtMost(24.0)));
    Ok(rows)
}

fn measure(program: &Path, network: &str) -> Result<Measured> {
    let output = Command::new("timeout")
        .args(["120", "unshare", "--net", "--mount"])
        .arg(program)
        .args(["measure", network])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{network}: {}", said.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("the figures of {network}"))
}
