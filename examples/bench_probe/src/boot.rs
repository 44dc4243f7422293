//! Boots of a guest that says its first line and powers off, under our VMM and under the peer.

use std::env::temp_dir;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sandbox::{EndReason, Error, Sandbox};
use serde::Deserialize;

use crate::console::Log;
use crate::job::{Guest, Samples};
use crate::peer;

/// What the guest program says first.
pub(crate) const FIRST_LINE: &str = "cofferdam: init";

/// Boots in several rounds.
#[derive(Debug, Deserialize)]
pub(crate) struct Boots {
    cases: Vec<Case>,
}

/// A guest to boot.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    /// The first word of the samples' names.
    name: String,
    pub(crate) guest: Guest,
    pub(crate) memory_mib: u64,
    /// How often.
    rounds: usize,
    /// Whether the peer boots it as well.
    peer: bool,
}

/// When what was seen, since the spawn.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) first_line: Duration,
    /// The VMM's last process has ended and was waited for.
    pub(crate) gone: Duration,
}

/// Boots all cases in turn, so that what disturbs one disturbs all.
pub(crate) async fn measure(mut boots: Boots, samples: &mut Samples) -> Result<()> {
    for case in &mut boots.cases {
        let folder = temp_dir().join(format!("bench-{}-{}", case.name, std::process::id()));
        std::fs::create_dir(&folder)?;
        case.guest = case.guest.copied_to(&folder)?;
        // Nobody is measured with cold files.
        boot(case).await?;
        if case.peer {
            peer::boot(case)?;
        }
    }
    let rounds = boots.cases.iter().map(|case| case.rounds).max();
    for round in 0..rounds.unwrap_or(0) {
        for case in boots.cases.iter().filter(|case| round < case.rounds) {
            note(samples, case, "ours", &boot(case).await?);
            if case.peer {
                note(samples, case, "peer", &peer::boot(case)?);
            }
        }
    }
    Ok(())
}

fn note(samples: &mut Samples, case: &Case, who: &str, boot: &Boot) {
    let name = &case.name;
    samples.note(format!("{name} line {who}"), boot.first_line.as_secs_f64());
    samples.note(format!("{name} gone {who}"), boot.gone.as_secs_f64());
}

async fn boot(case: &Case) -> Result<Boot> {
    let log = Log::create(&temp_dir(), FIRST_LINE)?;
    let builder = case.guest.builder(case.memory_mib);
    let builder = builder
        .kernel_arg("cofferdam.bench=poweroff")
        .console_log(log.path());
    let spawned = Instant::now();
    let started = builder.start().await;
    let gone = spawned.elapsed();
    let line = log.finish();
    power_off(started)?;
    Ok(Boot {
        first_line: line? - spawned,
        gone,
    })
}

/// The only end that a measurement may have.
pub(crate) fn power_off(started: sandbox::Result<Sandbox>) -> Result<()> {
    match started {
        Err(Error::Ended(EndReason::PoweredOff)) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => bail!("the guest did not power off"),
    }
}
