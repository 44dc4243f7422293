//! A whole virtual machine from `hv-core`, a backend and `devices` alone: a bare-metal guest of 21
//! bytes prints a line on a serial port and powers itself off.
//!
//! It needs `/dev/kvm`, and no kernel and no image.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

#[cfg(target_os = "linux")]
mod machine;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    println!("{:?}", machine::run()?);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("there is no hypervisor backend for this system yet");
}
