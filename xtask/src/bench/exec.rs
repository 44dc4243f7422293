//! The round trip of a command.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{
    probe::{self, Probe},
    report::{Beside, Row, Target},
};
use crate::{
    guest::{self, Which},
    nested::Clock,
};

const LIMIT: Duration = Duration::from_secs(900);
const PEER: &str = "fork, exec and wait in the guest itself, interleaved";

/// Runs `/bin/true` from the host and in the guest, in turn.
pub(super) fn rows() -> Result<Vec<Row>> {
    let probe = Probe::build()?;
    let guest = probe::guest(&guest::assets(Which::Own)?, true);
    let job = json!({ "exec": {
        "guest": guest,
        "memory_mib": 256,
        "rounds": 31,
        "fork_exec_loop": probe.fork_exec_loop(),
    } });
    let icount = probe.run_nested(&job, Clock::Instructions, LIMIT)?;
    let wall = probe.run_nested(&job, Clock::Wall, LIMIT)?;
    let wall = Beside {
        ours: wall.median("exec ours")? * 1000.0,
        peer: Some(wall.median("exec peer")? * 1000.0),
    };
    let ours = icount.median("exec ours")? * 1000.0;
    let peer = icount.median("exec peer")? * 1000.0;
    let what = "round trip of /bin/true in a running sandbox";
    let row = |target| Row::new(what, ours, "ms", target).against(peer, PEER);
    Ok(vec![
        row(Target::AtMost(10.0)).wall(Some(wall)),
        row(Target::TimesPeer(3.0)).wall(Some(wall)),
    ])
}
