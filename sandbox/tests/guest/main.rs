//! The public API against a real guest.
//!
//! Run with `cargo xtask test`, or by hand with `COFFERDAM_GUEST` naming the folder that
//! `cargo xtask guest` makes. Where no hypervisor runs a Linux kernel, or a guest's files are not
//! there, the tests concerned say `SKIP` with the reason. Most share one guest, because a boot in
//! an emulated host takes seconds.

#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod ends;
#[cfg(target_os = "linux")]
mod facts;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod fixture;
#[cfg(target_os = "linux")]
mod isolation;
#[cfg(target_os = "linux")]
mod kernels;
#[cfg(target_os = "linux")]
mod mounts;
#[cfg(target_os = "linux")]
mod network;
#[cfg(target_os = "linux")]
mod runner;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod workspace;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    // This program is its own vmm worker.
    sandbox::worker::init();
    fixture::run(&[
        kernels::CASES,
        commands::CASES,
        streams::CASES,
        files::CASES,
        workspace::CASES,
        mounts::CASES,
        isolation::CASES,
        network::CASES,
        facts::CASES,
        ends::CASES,
    ])
}

#[cfg(not(target_os = "linux"))]
fn main() {}
