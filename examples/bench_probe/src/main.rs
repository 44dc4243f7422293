//! Takes the measurements of `cargo xtask bench`, as an ordinary program that embeds the sandbox.
//!
//! It is started in the emulated host, or natively, with one argument: a `Job` as JSON. What it
//! measures goes to `samples.json` in the folder that `NESTED_OUT` names, one figure a sample and
//! nothing computed: medians, ratios and targets are xtask's business.

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
mod boot;
#[cfg(target_os = "linux")]
mod census;
#[cfg(target_os = "linux")]
mod console;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(target_os = "linux")]
mod running;
#[cfg(target_os = "linux")]
mod share;
#[cfg(target_os = "linux")]
mod share_peer;
#[cfg(target_os = "linux")]
mod smaps;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    sandbox::worker::init();
    job::run_named_by_argument()
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("the measurements are taken on Linux")
}
