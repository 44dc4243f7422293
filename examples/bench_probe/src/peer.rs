//! The peer: QEMU's `microvm` machine with KVM, which boots the same kernel and initrd.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::boot::{Boot, Case, FIRST_LINE};
use crate::console::Watch;

/// What is on for the guest to power off by ACPI and to have the timers that it asks for.
const MACHINE: &str = "microvm,accel=kvm,acpi=on,rtc=on,pit=on,pic=on,isa-serial=on";

/// What the measurement needs. What our plan adds on top to save the guest work is ours, as its own choices are QEMU's.
const WORDS: &str = "console=ttyS0 quiet panic=-1 cofferdam.root=none cofferdam.bench=poweroff";

/// Boots the case's guest under QEMU, to its end.
pub(crate) fn boot(case: &Case) -> Result<Boot> {
    let spawned = Instant::now();
    let mut qemu = start(case).context("cannot start QEMU")?;
    let console = qemu.stdout.take().context("QEMU has no output")?;
    let watch = Watch::start(console, FIRST_LINE);
    let status = qemu.wait()?;
    let gone = spawned.elapsed();
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(Boot {
        first_line: watch.finish()? - spawned,
        gone,
    })
}

fn start(case: &Case) -> Result<Child> {
    let words = WORDS.split_whitespace().map(str::to_owned);
    let words: Vec<String> = words.chain(case.guest.kernel_args.clone()).collect();
    let child = Command::new("qemu-system-x86_64")
        // Without paravirtual ends of interrupts, as ours has to do in the emulated host (`hv_kvm`'s quirks).
        .args(["-M", MACHINE, "-cpu", "host,kvm-pv-eoi=off", "-smp", "1"])
        .args(["-m", &case.memory_mib.to_string()])
        .args(["-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(&case.guest.kernel)
        .arg("-initrd")
        .arg(&case.guest.initrd)
        .args(["-append", &words.join(" ")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    Ok(child)
}
