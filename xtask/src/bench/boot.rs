//! Boots, beside QEMU's `microvm`.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    probe::{self, Probe},
    report::{Beside, Report, Row, Target},
    samples::Samples,
};
use crate::{
    guest::{self, Which},
    nested::Clock,
};

const PEER: &str = "qemu-system-x86_64 -M microvm, interleaved";

/// For all boots of one kernel in one clock.
const LIMIT: Duration = Duration::from_secs(1200);

/// Measures boots of both kernels and starts of a bare-metal guest.
pub(super) fn measure(report: &mut Report) {
    match Probe::build() {
        Ok(probe) => {
            report.add(own_kernel(&probe));
            report.add(stock_kernel(&probe));
            report.add(first_instruction(&probe));
        }
        Err(error) => report.add(Err(error)),
    }
}

/// The same boots in both clocks.
struct Both {
    icount: Samples,
    wall: Samples,
}

impl Both {
    /// `cases` makes the cases for a number of rounds.
    fn take(probe: &Probe, rounds: [u32; 2], cases: impl Fn(u32) -> Value) -> Result<Self> {
        let run = |rounds, clock| {
            let job = json!({ "boot": { "cases": cases(rounds) } });
            probe.run_nested(&job, clock, LIMIT)
        };
        let [icount, wall] = rounds;
        Ok(Self {
            icount: run(icount, Clock::Instructions)?,
            wall: run(wall, Clock::Wall)?,
        })
    }

    /// A row of one of the case's figures beside the peer's.
    fn beside_peer(&self, what: &str, name: &str, limit: f64) -> Result<Row> {
        let ours = format!("{name} ours");
        let peer = format!("{name} peer");
        let wall = Beside {
            ours: self.wall.median(&ours)?,
            peer: Some(self.wall.median(&peer)?),
        };
        let row = Row::new(
            what,
            self.icount.median(&ours)?,
            "s",
            Target::TimesPeer(limit),
        );
        Ok(row
            .against(self.icount.median(&peer)?, PEER)
            .wall(Some(wall)))
    }
}

fn own_kernel(probe: &Probe) -> Result<Vec<Row>> {
    let guest = probe::guest(&guest::assets(Which::Own)?, false);
    let both = Both::take(probe, [7, 5], |rounds| {
        json!([
            { "name": "own", "guest": guest, "memory_mib": 256, "rounds": rounds, "peer": true },
            { "name": "large", "guest": guest, "memory_mib": 2048, "rounds": rounds, "peer": false },
        ])
    })?;
    let wall = Beside {
        ours: both.wall.median("large line ours")?,
        peer: Some(both.wall.median("own line ours")?),
    };
    let small = both.icount.median("own line ours")?;
    let large = both.icount.median("large line ours")?;
    let large = Row::new(
        "spawn to the first line, own kernel, 2 GiB of guest memory",
        large,
        "s",
        Target::TimesPeer(1.3),
    );
    Ok(vec![
        both.beside_peer("spawn to the first line, own kernel", "own line", 0.48)?,
        both.beside_peer("spawn to all processes gone, own kernel", "own gone", 0.50)?,
        large
            .against(small, "our own with 256 MiB, interleaved")
            .wall(Some(wall)),
    ])
}

fn stock_kernel(probe: &Probe) -> Result<Vec<Row>> {
    let guest = probe::guest(&guest::assets(Which::Stock)?, false);
    let both = Both::take(
        probe,
        [3, 3],
        |rounds| json!([{ "name": "stock", "guest": guest, "memory_mib": 256, "rounds": rounds, "peer": true }]),
    )?;
    let what = "spawn to the first line, stock kernel";
    Ok(vec![both.beside_peer(what, "stock line", 0.60)?])
}

fn first_instruction(probe: &Probe) -> Result<Vec<Row>> {
    let job = json!({ "bare": { "memory_mib": 256, "rounds": 51 } });
    let samples = probe.run_native(&job)?;
    let row = Row::new(
        "spawn to the guest's first instruction, bare-metal guest, median of 51",
        samples.median("first instruction")? * 1000.0,
        "ms",
        Target::AtMost(10.0),
    );
    Ok(vec![row.mode("wall, this machine's own KVM")])
}
