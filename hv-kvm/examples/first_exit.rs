//! Measures the way from nothing to a guest's first exit: open `/dev/kvm`, make a VM with one vCPU and 4 MiB,
//! enter it, see its first port write. Prints the median and the best of some rounds.

#![expect(clippy::print_stdout, reason = "a program for people")]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use std::time::Instant;

    use hv_core::arch::x86_64::asm::{Program, Width};
    use hv_core::conformance::{BareGuest, Probe, port};
    use hv_kvm::KvmHypervisor;

    const ROUNDS: usize = 31;
    let mut program = Program::new();
    program.out(port::DONE, Width::W1, port::POWER_OFF).spin();
    let guest = BareGuest::new(&program);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut machine = guest
            .build(&KvmHypervisor::new()?)
            .map_err(|failure| format!("{failure:?}"))?;
        let kick = machine.kick().map_err(|failure| format!("{failure:?}"))?;
        let probe = Probe::default();
        probe.on_done(move |_| kick.kick());
        let mut vcpu = machine
            .bind_first()
            .map_err(|failure| format!("{failure:?}"))?;
        vcpu.run(&probe)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    let (best, median) = (at(0), at(ROUNDS / 2));
    println!("open /dev/kvm to first exit: median {median:?}, best {best:?} of {ROUNDS}");
    Ok(())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("only on x86-64 Linux");
}
