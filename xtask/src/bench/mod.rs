//! `cargo xtask bench NAME`: takes the measurements that have a target, prints them as a table and
//! writes them to `target/bench/NAME.json`.
//!
//! Ratios are taken in the emulated host by its deterministic time (*icount*), with the peer in the
//! same run; wall time, which depends on whatever else this machine does, is printed beside them. A
//! missed target is a result; a measurement that cannot be taken has no row, and fails the command.

mod boot;
mod cycle;
mod egress;
mod exec;
mod memory;
mod probe;
mod report;
mod samples;
mod share;
mod share_guest;
mod size;

use anyhow::Result;

pub(crate) use self::probe::build_release;
use self::report::Report;
pub(crate) use self::share::fetch_project;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Bench {
    /// From the start to the guest's first line and to its end, beside QEMU's microvm.
    Boot,
    /// What a sandbox takes of the host's memory.
    Memory,
    /// The round trip of a command.
    Exec,
    /// Starts and stops, and what they leave behind.
    Cycle,
    /// The sizes of the programs.
    Size,
    /// The share, beside libfuse's passthrough_ll.
    Share,
    /// The share in a guest, beside virtiofsd.
    ShareGuest,
    /// The guest's network, beside passt and slirp4netns.
    Egress,
}

/// Measures, prints the table and writes the file.
pub(crate) fn run(bench: Bench) -> Result<()> {
    let mut report = match bench {
        Bench::Boot => Report::new("boot", "icount"),
        Bench::Memory => Report::new("memory", "icount"),
        Bench::Exec => Report::new("exec", "icount"),
        Bench::Cycle => Report::new("cycle", "wall"),
        Bench::Size => Report::new("size", "release build"),
        Bench::Share => Report::new("share", "wall"),
        Bench::ShareGuest => Report::new("share-guest", "icount"),
        Bench::Egress => Report::new("egress", "wall"),
    };
    match bench {
        Bench::Boot => boot::measure(&mut report),
        Bench::Memory => report.add(memory::rows()),
        Bench::Exec => report.add(exec::rows()),
        Bench::Cycle => report.add(cycle::rows()),
        Bench::Size => report.add(size::rows()),
        Bench::Share => report.add(share::rows()),
        Bench::ShareGuest => report.add(share_guest::rows()),
        Bench::Egress => report.add(egress::rows()),
    }
    report.finish()
}
